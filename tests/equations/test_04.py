"""The numbered equations of chapter 4, each checked, and each check shown to catch a wrong one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ddpm_lite import data, samplers
from ddpm_lite.diffusion import TARGETS, Denoiser, clipped, diffuse
from ddpm_lite.draws import Draws
from ddpm_lite.exact import GaussianMixture, KernelDenoiser
from ddpm_lite.guidance import guided
from ddpm_lite.schedules import Cosine, Flow, LinearBeta
from ddpm_lite.train import TrainConfig, TrainState, diffusion_loss


def only_right(check: Callable, right: Callable, *wrong: Callable) -> None:
    """`check` passes for the equation and fails for each planted error."""
    check(right)
    for planted in wrong:
        with pytest.raises(AssertionError):
            check(planted)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_eq_regression() -> None:
    """Risk of any f = irreducible part + squared distance of f from the posterior mean."""
    images = torch.tensor([-1.0, -0.2, 0.4, 1.0], dtype=torch.float64)
    exact = KernelDenoiser(images.view(4, 1, 1, 1))
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)  # quadrature in x_t
    alpha, sigma = 0.6, 0.8
    joint = torch.exp(-0.5 * ((x[:, None] - alpha * images) / sigma) ** 2) / 4
    joint = joint / (sigma * (2 * torch.pi) ** 0.5) * (x[1] - x[0])  # p(x_t, x_0) as weights
    mean = exact(x.view(-1, 1, 1, 1), alpha, sigma).x0.flatten()
    f = torch.sin(2 * x) - 0.3  # any guess, a bad one here

    def risk(guess: Tensor) -> Tensor:
        return (joint * (images - guess[:, None]) ** 2).sum()

    def check(split: Callable[[Tensor, Tensor], Tensor]) -> None:
        torch.testing.assert_close(risk(f), split(risk(mean), joint.sum(1) * (mean - f) ** 2))

    only_right(
        check,
        lambda least, gap: least + gap.sum(),
        lambda least, gap: least - gap.sum(),
        lambda least, gap: least + 2 * gap.sum(),
    )


def test_eq_two_images() -> None:
    two = KernelDenoiser(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)

    def check(mean: Callable[[Tensor, float, float], Tensor]) -> None:
        for alpha, sigma in ((0.98, 0.2), (0.6, 0.8), (0.1, 0.99)):
            expected = two(x.view(-1, 1, 1, 1), alpha, sigma).x0.flatten()
            torch.testing.assert_close(mean(x, alpha, sigma), expected)

    only_right(
        check,
        lambda x, a, s: torch.tanh(a * x / s**2),
        lambda x, a, s: torch.tanh(2 * a * x / s**2),
        lambda x, a, s: torch.tanh(-a * x / s**2),
        lambda x, a, s: torch.tanh(a * x / s),
    )


def test_eq_kernel_denoiser() -> None:
    """Against the mixture of very narrow Gaussians, another route to the same posterior mean."""
    images = normal(7, 1, 2, 2).clamp(-1, 1)
    mixture = GaussianMixture(images, 1e-10)
    x = normal(20, 1, 2, 2, seed=1)

    def check(logit: Callable[[Tensor, float], Tensor]) -> None:
        for alpha, sigma in ((0.8, 0.6), (0.3, 0.95)):
            squares = (x[:, None] - alpha * images).square().flatten(2).sum(2)  # [20, 7]
            weights = logit(squares, sigma).softmax(1)
            expected = mixture(x, alpha, sigma).x0
            mean = (weights @ images.flatten(1)).view_as(x)
            torch.testing.assert_close(mean, expected, rtol=0, atol=1e-6)

    only_right(
        check,
        lambda squares, sigma: -squares / (2 * sigma**2),
        lambda squares, sigma: squares / (2 * sigma**2),
        lambda squares, sigma: -squares / sigma**2,
    )


class Answer(nn.Module):
    """A network with one answer, whatever it is asked."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.y = y

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        return self.y


def test_eq_four_targets() -> None:
    """The solve gives what `Denoiser` gives, for any answer of the network and all four targets."""
    x, y = normal(5, 1, 2, 2), normal(5, 1, 2, 2, seed=1)
    a, s = (v.view(-1, 1, 1, 1) for v in Cosine()(torch.linspace(0.05, 0.95, 5)))

    def check(solve: Callable[..., tuple[Tensor, Tensor]]) -> None:
        for name, target in TARGETS.items():
            p, q = target(a, s)
            x0, eps = solve(p, q, a, s)
            found = Denoiser(Answer(y), name)(x, a.flatten(), s.flatten())
            torch.testing.assert_close(x0, found.x0, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(eps, found.eps, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(a * x0 + s * eps, x, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(p * eps + q * x0, y, rtol=1e-9, atol=1e-9)

    only_right(
        check,
        lambda p, q, a, s: (
            (p * x - s * y) / (a * p - s * q),
            (a * y - q * x) / (a * p - s * q),
        ),
        lambda p, q, a, s: (
            (p * x - s * y) / (a * p + s * q),
            (a * y - q * x) / (a * p + s * q),
        ),
        lambda p, q, a, s: (
            (p * x + s * y) / (a * p - s * q),
            (a * y - q * x) / (a * p - s * q),
        ),
    )


def test_eq_one_loss() -> None:
    """Any guess of x0: the errors of eps and v are its error times SNR and SNR + 1."""
    a, s = (v.view(-1, 1, 1, 1) for v in Cosine()(torch.linspace(0.05, 0.95, 6)))
    x0, eps, guess = normal(6, 1, 4, 4), normal(6, 1, 4, 4, seed=1), normal(6, 1, 4, 4, seed=2)
    x = diffuse(x0, a.flatten(), s.flatten(), eps)
    eps_hat = (x - a * guess) / s

    def squared(error: Tensor) -> Tensor:
        return error.square().sum((1, 2, 3))

    def check(factors: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        snr = (a / s).square().flatten()
        for_eps, for_v = factors(snr)
        error = squared(guess - x0)
        torch.testing.assert_close(squared(eps_hat - eps), for_eps * error)
        v_error = (a * eps_hat - s * guess) - (a * eps - s * x0)
        torch.testing.assert_close(squared(v_error), for_v * error)

    only_right(
        check,
        lambda snr: (snr, snr + 1),
        lambda snr: (snr.sqrt(), snr + 1),
        lambda snr: (snr, snr),
        lambda snr: (1 / snr, snr + 1),
    )


def test_eq_one_loss__flow() -> None:
    """On the straight path the flow target's error is that of x0 over sigma, squared."""
    a, s = (v.view(-1, 1, 1, 1) for v in Flow()(torch.linspace(0.1, 0.9, 5)))
    x0, eps, guess = normal(5, 1, 2, 2), normal(5, 1, 2, 2, seed=1), normal(5, 1, 2, 2, seed=2)
    x = a * x0 + s * eps
    error = ((x - a * guess) / s - guess) - (eps - x0)
    torch.testing.assert_close(error.square(), (guess - x0).square() / s**2)


def test_training_asks_for_the_whole_noise() -> None:
    """The loss is the mean squared difference from the noise between x_0 and x_t, not one step's.

    One level an image, drawn at random; the increment of a single step of the chain would be a
    target with another loss.
    """
    levels: list[Tensor] = []

    class Guess(nn.Module):
        spec: dict = {}  # noqa: RUF012

        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
            levels.append(log_snr)
            return 0.3 * x + 0.1

    digits, chain = data.load()[:32], LinearBeta(100, 1e-3, 0.2)
    model = Denoiser(Guess(), "eps")
    found = diffusion_loss(chain, 17)(model, digits.x, digits.y, Draws(0, 0, 32)).double()

    x0, again = data.to_unit(digits.x, 17), Draws(0, 0, 32)
    alpha, sigma = chain.draw(again.uniform())
    eps = again.normal(1, 8, 8)
    x = diffuse(x0, alpha, sigma, eps)
    c = (alpha**2 + sigma**2).sqrt().view(-1, 1, 1, 1)
    answer = 0.3 * x / c + 0.1
    assert len(levels[0].unique()) > 20  # of 32 images: each has a level of its own

    def check(target: Tensor) -> None:
        torch.testing.assert_close((answer - target).square().mean(), found, rtol=1e-5, atol=0)

    k = (chain.alpha_bar[:, None] - alpha**2).abs().argmin(0)
    increment = chain.betas[k].sqrt().view(-1, 1, 1, 1) * eps
    check(eps)
    for wrong in (increment, x0, -eps):
        with pytest.raises(AssertionError):
            check(wrong)


def test_eq_weights() -> None:
    """A weighted mean over uniform levels is a mean over levels drawn in proportion to weights."""
    alpha, sigma = Cosine(50).table[1:].unbind(1)
    w = (alpha / sigma).square().clamp(max=5.0)
    loss = torch.linspace(0.2, 3.0, 50, dtype=torch.float64).sin().square()  # one number a level
    drawn = torch.multinomial(w, 200_000, True, generator=torch.Generator().manual_seed(0))
    uniform = torch.randint(50, (200_000,), generator=torch.Generator().manual_seed(1))

    def check(right_side: Callable[[Tensor], Tensor]) -> None:
        exact = (w * loss).mean()
        torch.testing.assert_close((w * loss)[uniform].mean(), exact, rtol=0.02, atol=0)  # 5 sigma
        torch.testing.assert_close(right_side(loss[drawn].mean()), exact, rtol=0.02, atol=0)

    only_right(check, lambda m: w.mean() * m, lambda m: m, lambda m: w.sum() * m)


def test_eq_ema() -> None:
    """The running average is the weighted sum; `TrainState.advance` computes it."""
    net = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        net.weight.zero_()
    state = TrainState(net, TrainConfig(ema=0.5))
    state.step = 10**6  # past the warm-up of the decay
    path = normal(6, 1, 3)
    for theta in path:
        with torch.no_grad():
            net.weight.copy_(theta)
        state.advance(net)
    start = torch.zeros(1, 3, dtype=torch.float64)

    def check(power: Callable[[int, int], int]) -> None:
        total = 0.5 ** len(path) * start
        for j, theta in enumerate(path, 1):
            total = total + (1 - 0.5) * 0.5 ** power(len(path), j) * theta
        torch.testing.assert_close(state.ema["weight"], total)

    only_right(check, lambda n, j: n - j, lambda n, j: n - j + 1, lambda n, j: j)


def test_eq_ddpm_step() -> None:
    """One step of the package's sampler between neighbouring levels, with the same fresh noise."""
    chain = LinearBeta(100, 1e-3, 0.2)
    exact = KernelDenoiser(data.to_unit(data.load().x[:50], 17, torch.float64))
    x, z = normal(3, 1, 8, 8), normal(3, 1, 8, 8, seed=1)
    grid = chain.grid(100)

    def check(step: Callable[..., Tensor]) -> None:
        for k in (100, 60, 10, 1):
            b, bar = chain.betas[k - 1], chain.alpha_bar[k - 1]
            below = chain.alpha_bar[k - 2] if k > 1 else torch.tensor(1.0, dtype=torch.float64)
            alpha, sigma = grid[100 - k].tolist()
            eps = exact(x, alpha, sigma).eps
            ours = step(x, eps, z, b, bar, below)
            two = samplers.ddpm(exact, x / sigma, grid[100 - k : 102 - k], fresh=lambda i: z)
            torch.testing.assert_close(ours, samplers.last(two).x, rtol=1e-8, atol=1e-8)

    def right(x: Tensor, eps: Tensor, z: Tensor, b: Tensor, bar: Tensor, below: Tensor) -> Tensor:
        mean = (x - b / (1 - bar).sqrt() * eps) / (1 - b).sqrt()
        return mean + (b * (1 - below) / (1 - bar)).sqrt() * z

    only_right(
        check,
        right,
        lambda x, eps, z, b, bar, below: right(x, -eps, z, b, bar, below),
        lambda x, eps, z, b, bar, below: right(x, eps, z, b, bar, below) * (1 - b).sqrt(),
        lambda x, eps, z, b, bar, below: right(x, eps, z, b, bar, 0 * below),  # β for β̃
        lambda x, eps, z, b, bar, below: x - eps,  # as a popular text has it
    )


def test_eq_ddpm_step__mean_of_the_posterior() -> None:
    """The mean of q(x_{k-1} | x_k, x_0) by Bayes' rule on a grid of values, one pixel."""
    chain = LinearBeta(20, 1e-2, 0.3)
    k, x0, x = 12, 0.3, -0.4
    b, below, bar = chain.betas[k - 1], chain.alpha_bar[k - 2], chain.alpha_bar[k - 1]
    u = torch.linspace(-8, 8, 20_001, dtype=torch.float64)  # candidates for x_{k-1}
    log_p = -0.5 * (u - below.sqrt() * x0) ** 2 / (1 - below)
    log_p = log_p - 0.5 * (x - (1 - b).sqrt() * u) ** 2 / b
    p = log_p.softmax(0)
    mean, variance = (p * u).sum(), (p * u**2).sum() - (p * u).sum() ** 2
    eps = (x - bar.sqrt() * x0) / (1 - bar).sqrt()
    torch.testing.assert_close(mean, (x - b / (1 - bar).sqrt() * eps) / (1 - b).sqrt())
    torch.testing.assert_close(variance, b * (1 - below) / (1 - bar))


def test_eq_clip() -> None:
    """Clipping never takes a guess further from an image in range; `clipped` is that clip."""
    x0 = normal(500, 1, 4, 4).clamp(-1, 1)
    guess = x0 + 0.5 * normal(500, 1, 4, 4, seed=1)
    x = 0.6 * x0 + 0.8 * normal(500, 1, 4, 4, seed=2)
    cut = clipped(Denoiser(Answer(guess), "x0"))(x, 0.6, 0.8).x0
    torch.testing.assert_close(cut, guess.clamp(-1, 1))

    def check(clip: Callable[[Tensor], Tensor]) -> None:
        before, after = ((g - x0).square().sum((1, 2, 3)) for g in (guess, clip(guess)))
        assert (after <= before).all() and (after < before).any()

    only_right(check, lambda g: g.clamp(-1, 1), lambda g: g.clamp(-1, 0), lambda g: g)


def test_eq_missing_variance() -> None:
    """A calibrated guess, here the mean given a coarse view of x_t, lacks what it errs."""
    images = torch.tensor([-1.0, -0.2, 0.4, 1.0], dtype=torch.float64)
    x = torch.linspace(-6, 6, 6000, dtype=torch.float64)
    alpha, sigma = 0.6, 0.8
    joint = torch.exp(-0.5 * ((x[:, None] - alpha * images) / sigma) ** 2)
    joint = joint / joint.sum()  # p(x_t, x_0)
    seen = joint.view(12, 500, 4).sum(1)  # what a network knows that sees twelve bins of x_t
    guess = (seen @ images) / seen.sum(1)
    assert (guess.diff() > 0.01).any()

    def check(left: Callable[[Tensor, Tensor, Tensor], Tensor], guess: Tensor = guess) -> None:
        p = seen.sum(1)
        variance = (p * guess**2).sum() - (p * guess).sum() ** 2
        error = (seen * (images - guess[:, None]) ** 2).sum()
        whole = images.square().mean() - images.mean() ** 2
        torch.testing.assert_close(variance, left(whole, error, p))

    only_right(
        check,
        lambda whole, error, p: whole - error,
        lambda whole, error, p: whole + error,
        lambda whole, error, p: whole - 2 * error,
        lambda whole, error, p: whole,
    )
    with pytest.raises(AssertionError):  # not calibrated: too sure of itself
        check(lambda whole, error, p: whole - error, 1.3 * guess)


def test_eq_guidance() -> None:
    """Guided eps is -sigma times the gradient of log p_t(x) + w log p_t(y | x), by autograd."""
    kinds = GaussianMixture([[-0.6, 0.2], [0.5, -0.3], [0.2, 0.7]], [0.1, 0.3, 0.2], [1, 2, 1])
    x = normal(9, 1, 1, 2).requires_grad_()
    w, y, alpha, sigma = 3.0, 1, 0.7, 0.6
    found = guided(kinds, w)(x.detach(), alpha, sigma, y).eps
    log_p, log_p_y = (kinds.log_prob(x, alpha, sigma, label=label) for label in (None, y))

    def check(log_target: Callable[[Tensor, Tensor], Tensor]) -> None:
        # Bayes' rule: log p(y | x) = log p(x | y) - log p(x) + const
        target = log_target(log_p, log_p_y - log_p).sum()
        (slope,) = torch.autograd.grad(target, x, retain_graph=True)
        torch.testing.assert_close(found, -sigma * slope)

    only_right(
        check,
        lambda log_p, log_given: log_p + w * log_given,
        lambda log_p, log_given: log_p + (w - 1) * log_given,
        lambda log_p, log_given: w * log_given,
        lambda log_p, log_given: log_p - w * log_given,
    )
