"""Whole chains where the truth is known: the bound term by term, marginals, memorising."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lite import metrics
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load, to_levels, to_unit
from ddpm_lite.diffusion import Denoise, Denoiser, Prediction, elbo_by_level
from ddpm_lite.exact import GaussianMixture, KernelDenoiser, Table
from ddpm_lite.samplers import ddim, ddpm, dpmpp_2m, heun, last, sample
from ddpm_lite.schedules import Cosine, Flow, LinearBeta, log_snr_grid

ONE = GaussianMixture([[-0.7], [0.1], [0.8]], torch.tensor([0.02, 0.05, 0.03]), [0.3, 0.3, 0.4])
TWO = GaussianMixture(
    [[-0.6, 0.2], [0.5, -0.3]],
    torch.tensor([[[0.05, 0.03], [0.03, 0.06]], [[0.04, 0.0], [0.0, 0.1]]]),
    [0.4, 0.6],
)

# -- the bound on the exact mixtures, term by term -----------------------------------------------


def quadrature(mixture: GaussianMixture, level: tuple[float, float], m: int) -> tuple[float, float]:
    """(mmse, I(x0; x_t) in nats) at a level, by a sum over a grid of x_t with all its mass."""
    alpha, sigma = level
    dim, reach = mixture.means.shape[1], 2.5 * alpha + 6 * sigma
    axis = torch.linspace(-reach, reach, m, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * dim).view(-1, 1, 1, dim)
    log_p = mixture.log_prob(x, alpha, sigma)
    p = log_p.exp() * (axis[1] - axis[0]) ** dim
    assert abs(p.sum().item() - 1) < 1e-6
    x0 = mixture.denoise(x, alpha, sigma).x0.flatten(1)
    second = mixture.weights @ (mixture.means.square().sum(1) + mixture._spread.sum(1))
    noise_entropy = 0.5 * dim * math.log(2 * math.pi * math.e * sigma**2)
    return (second - p @ x0.square().sum(1)).item(), -(p @ log_p).item() - noise_entropy


@pytest.mark.parametrize(("mixture", "m"), [(ONE, 601), (TWO, 121)], ids=["1-D", "2-D"])
def test_every_term_of_the_bound_costs_at_least_the_information_it_gains(
    mixture: GaussianMixture, m: int
) -> None:
    """½ (SNR(k-1) - SNR(k)) mmse(k) >= I(x0; x_{k-1}) - I(x0; x_k), and the excess falls as 1/n.

    The terms sum to an upper bound on the information, that is to a lower one on log p.
    """
    excess = []
    for n in (16, 32, 64):
        rows = [(a, s) for a, s in log_snr_grid(n, 5.0, -7.0).tolist()]
        found = [quadrature(mixture, row, m) for row in rows]
        over = []
        for (row, below), (here, there) in zip(pairwise(rows), pairwise(found), strict=True):
            step = (below[0] / below[1]) ** 2 - (row[0] / row[1]) ** 2
            over.append(0.5 * step * here[0] - (there[1] - here[1]))
        assert min(over) > -1e-8  # rounding of the quadrature, where nothing is known yet
        excess.append(sum(over))
    assert all(a / b == pytest.approx(2, rel=0.15) for a, b in pairwise(excess)), excess


def test_the_terms_of_elbo_are_those_terms() -> None:
    """What the package adds up, on a pixel of 5 levels: each term within its Monte Carlo error."""
    table, copies, n = Table([4.0, 1.0, 2.0, 1.0, 2.0], (1, 1, 1), 5), 3000, 6
    grid = log_snr_grid(n, 4.0, -6.0)
    x, weights = table.images().repeat(copies, 1, 1, 1), table.p.repeat(copies) * 5
    found = elbo_by_level(table.denoiser(), x, grid, 5, every_stop=False).diffusion  # [5·copies, 5]
    values = to_unit(table.images(), 5, torch.float64).flatten()
    wide = GaussianMixture(values[:, None], 0.0, table.p)
    rows = [(a, s) for a, s in grid.tolist()]
    for k in range(2, n + 1):
        row, below = rows[n - k], rows[n - k + 1]
        step = (below[0] / below[1]) ** 2 - (row[0] / row[1]) ** 2
        (mmse, gained), (_, above) = quadrature(wide, row, 1001), quadrature(wide, below, 1001)
        term = weights * found[:, k - 2] * math.log(2)
        error = term.std().item() / math.sqrt(len(term))
        assert term.mean().item() == pytest.approx(0.5 * step * mmse, abs=5 * error)
        assert 0.5 * step * mmse >= above - gained


# -- chains with and without noise have the same marginals ---------------------------------------


def cdf(x: Tensor, alpha: float, sigma: float) -> Tensor:
    parts = zip(ONE.weights, ONE.means[:, 0], (0.02, 0.05, 0.03), strict=True)
    terms = [w * torch.special.ndtr((x - alpha * m) / (alpha**2 * v + sigma**2) ** 0.5)
             for w, m, v in parts]  # fmt: skip
    return torch.stack(terms).sum(0)


@pytest.mark.parametrize(
    "schedule", [LinearBeta(), Cosine(), Flow()], ids=["linear", "cosine", "flow"]
)
def test_sde_and_ode_pass_through_the_same_distributions(schedule: Any) -> None:
    n, steps = 3000, 150
    grid = schedule.grid(steps)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 1, 1, 1, generator=g, dtype=torch.float64)
    torch.manual_seed(1)
    chains = {f.__name__: list(f(ONE, noise, grid)) for f in (ddpm, heun)}
    for name, states in chains.items():
        for i in (steps // 3, 2 * steps // 3, 9 * steps // 10, steps):
            x = states[i].x.flatten().sort().values
            rank = (torch.arange(n, dtype=torch.float64) + 0.5) / n
            apart = (cdf(x, *grid[i].tolist()) - rank).abs().max().item()
            assert apart < 0.035, (name, i, apart)  # Kolmogorov-Smirnov: 1.9 / √n
    # the paths are not the same: noise makes a chain forget where it came from
    middle, end = steps // 2, -1
    kept = {}
    for name, states in chains.items():
        pair = (
            torch.stack([states[middle].x.flatten(), states[end].x.flatten()]).argsort(1).argsort(1)
        )
        kept[name] = torch.corrcoef(pair.double())[0, 1].item()
    assert kept["heun"] > 0.9999 and kept["ddpm"] < 0.97, kept


def test_wrong_noise_spoils_the_marginals() -> None:
    """A chain with half of the posterior's noise is too narrow: the test above can tell."""
    grid = LinearBeta().grid(150)
    noise = torch.randn(3000, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(1)
    half = last(ddpm(ONE, noise, grid, fresh=lambda i: 0.5 * torch.randn_like(noise))).x.flatten()
    rank = (torch.arange(3000, dtype=torch.float64) + 0.5) / 3000
    assert (cdf(half.sort().values, 1.0, 0.0) - rank).abs().max() > 0.07


# -- one network along every path ----------------------------------------------------------------


class Net(nn.Module):
    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.tanh(x) * torch.sigmoid(log_snr / 3)[:, None, None, None]


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
def test_a_denoiser_does_not_know_which_path_it_is_on(predicts: str) -> None:
    model = Denoiser(Net(), predicts, 0.5)
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    for factor in (0.2, 3.0):  # the same image and noise, on a path of another scale
        a, b = model(x, 0.6, 0.8), model(factor * x, factor * 0.6, factor * 0.8)
        torch.testing.assert_close(a.x0, b.x0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(a.eps, b.eps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [ddim, heun, dpmpp_2m])
def test_every_path_leads_to_the_same_images(sampler: Any) -> None:
    model = Denoiser(Net(), "v", 0.5)
    noise = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    ends = [last(sampler(model, noise, log_snr_grid(400, 8.0, -8.0, p))).x / s
            for p, s in zip(("vp", "flow", "ve"), scales(), strict=True)]  # fmt: skip
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0.02)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=0.02)


def scales() -> list[float]:
    """Alpha of the last level on each path: x/alpha is the same image."""
    return [log_snr_grid(1, 8.0, -8.0, path)[-1, 0].item() for path in ("vp", "flow", "ve")]


# -- what one step touches (C78) -------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "calls"), [(ddim, 1), (ddpm, 1), (dpmpp_2m, 1), (heun, 2)])
def test_a_step_changes_every_pixel_in_one_call(sampler: Any, calls: int) -> None:
    unet, asked = pretrained("digits-unet"), list[int]()
    unet.net.register_forward_hook(lambda *_: asked.append(1))
    noise = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    states = sampler(unet, noise, Cosine().grid(10))
    before = next(states).x
    for state in states:
        assert len(asked) == (calls if state.i < 10 else 1)  # Heun's last step is DDIM's
        assert (state.x != before).all()
        before = state.x
        asked.clear()


def test_a_step_of_autoregression_writes_one_pixel() -> None:
    before = torch.zeros(4, 1, 8, 8)
    for rank, state in enumerate(pretrained("digits-gated").sample_steps(4, seed=0)):
        written = (before != state.x).any(0).flatten().nonzero().flatten().tolist()
        assert written in ([], [rank])  # none where all four draw the level that was there, 0
        before = state.x.clone()
    assert rank == 63


# -- a perfect network memorises (Carlini et al. 2023 saw real ones do it) -------------------------


def test_the_exact_denoiser_gives_training_images_back_and_the_network_does_not() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    data = to_unit(train.x[:200], train.levels)
    noise = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact: Denoise = KernelDenoiser(data)
    copies = last(heun(exact, noise, Cosine().grid(60))).x
    distance, index = metrics.nearest(to_levels(copies, 17), train.x[:200])
    assert distance.median() == 0 and (distance < 0.2).double().mean() > 0.9
    assert len(index.unique()) > 15  # many images, not one
    made = to_levels(sample(pretrained("digits-unet"), 40, steps=10, seed=0), 17)
    near, _ = metrics.nearest(made, train.x)
    unseen, _ = metrics.nearest(test.x[:100], train.x)
    assert near.min() > 0.5
    assert near.mean() > 0.8 * unseen.mean()


def test_nearest() -> None:
    reference = torch.tensor([[0, 0], [3, 4], [6, 8]]).byte().view(3, 1, 1, 2)
    x = torch.tensor([[3, 4], [0, 1], [9, 9]]).byte().view(3, 1, 1, 2)
    distance, index = metrics.nearest(x, reference, block=2)
    assert index.tolist() == [1, 0, 2]
    expected = torch.tensor([0.0, 0.5, 5.0]).double().sqrt()
    torch.testing.assert_close(distance, expected)
    with pytest.raises(ValueError, match="one shape"):
        metrics.nearest(torch.zeros(2, 3), torch.zeros(2, 4))


# -- what x - eps does, with a perfect network (C49) ----------------------------------------------


def test_subtracting_the_noise_fails_even_with_the_exact_denoiser() -> None:
    grid = LinearBeta(100, 1e-4, 0.2).grid(100)
    noise = torch.randn(500, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    right = last(ddpm(ONE, noise, grid)).x
    x = noise.clone()
    for alpha, sigma in grid[:-1].tolist():
        found: Prediction = ONE.denoise(x, alpha, sigma)
        x = x - found.eps
    truth = ONE.sample(4000).std()
    assert abs(right.std() / truth - 1) < 0.1
    assert x.std() / truth < 0.5 or x.std() / truth > 2
