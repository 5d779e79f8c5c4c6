"""# The training loss

All of training is this one number. For each image a noise level has been drawn, and noise; the
network sees

$$
x = \\alpha x_0 + \\sigma \\varepsilon ,
$$

and is told the log-SNR, $\\log(\\alpha^2/\\sigma^2)$. Its answer is compared **as it comes out** with
its target, here $v = \\alpha \\varepsilon - \\sigma x_0$. The squared error is averaged over the
values of an image. That gives one number per image, and each is multiplied by the image's weight,
by which a training run says how much a noise level counts. The mean of the $B$ products is the
loss. (So doubling all weights doubles the loss.) Without weights all count as 1.

To solve the answer for $\\hat x_0$ first and compare that with $x_0$ is not the same: chapter 4 says by
which factor it changes each level's share.

`net(theta, x, log_snr)` is the network with its parameters `theta`, float `[P]`: it takes `x`
`[B, C, H, W]` and `log_snr` `[B]` and returns `[B, C, H, W]`. `x0` and `noise` are float32
`[B, C, H, W]`. `alpha` and `sigma` are float32 `[B]`, the level of each image. `weight` is float32
`[B]` or None. Return a float tensor without axes, which can be differentiated in `theta`.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def toy(theta: Tensor, x: Tensor, log_snr: Tensor) -> Tensor:
    """Stands in for a U-Net; three parameters."""
    level = torch.tanh(log_snr / 4).view(-1, 1, 1, 1)
    return theta[0] * torch.tanh(x * (1 + level)) + theta[1] * x.roll(1, -1) + theta[2] * level


def training_loss(
    net: Callable[..., Tensor],
    theta: Tensor,
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    noise: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of weight · mean squared error of the raw answer, a scalar."""
    ### BEGIN SOLUTION
    a, s = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    x = a * x0 + s * noise
    target = a * noise - s * x0
    error = net(theta, x, 2 * (alpha / sigma).log()) - target
    per_image = error.square().flatten(1).mean(1)  # [B]
    if weight is not None:
        per_image = weight * per_image
    return per_image.mean()
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator
from typing import Any

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call, gradient


def batch(rng: Random, size: int, width: int, channels: int, weighted: bool) -> tuple[Any, ...]:
    """Arguments of a call: every image at a level of its own."""
    shape = (size, channels, 2, width)
    angle = rng.uniform(0.2, 1.4, size)
    noise, x0 = rng.normal(*shape), rng.uniform(-1, 1, *shape)
    args = (Ref("toy"), rng.normal(3), x0, angle.cos(), angle.sin(), noise)
    return (*args, rng.uniform(0.2, 3, size)) if weighted else args


def plain(rng: Random) -> Iterator[Step]:
    """First as many images as columns; then not."""
    yield call(*batch(rng, 3, 3, 1, False))
    yield call(*batch(rng, rng.whole(4, 6), 3, 3, False))


def weights(rng: Random) -> Iterator[Step]:
    for channels in (1, 3):
        yield call(*batch(rng, rng.whole(2, 5), 3, channels, True))


def slopes(rng: Random) -> Iterator[Step]:
    """What the optimiser gets."""
    yield gradient(*batch(rng, rng.whole(2, 5), 2, 1, False), wrt=1)
    yield gradient(*batch(rng, rng.whole(2, 5), 2, 1, True), wrt=1)


def straight(rng: Random) -> Iterator[Step]:
    """Levels of the straight path: alpha + sigma = 1."""
    args = batch(rng, rng.whole(2, 5), 3, 1, True)
    sigma = rng.uniform(0.1, 0.9, len(args[3]))
    yield call(*args[:3], 1 - sigma, sigma, *args[5:])


EXERCISE = Exercise(
    difficulty=2,
    minutes=25,
    checks=[
        Check("the loss of a batch", plain, points=2, hint="loss"),
        Check("a weight for each image", weights, points=1, hint="weight"),
        Check("levels with alpha + sigma = 1", straight, points=1, hint="loss"),
        Check("its gradient in the parameters", slopes, points=1, tolerance=1e-4, hint="gradient"),
    ],
    hints={
        "clean": "the network was shown the clean image: it sees alpha·x0 + sigma·noise",
        "level": "the network is told the log-SNR, log(alpha²/sigma²), not sigma",
        "log": "the log-SNR is the logarithm of alpha²/sigma²: twice that of alpha/sigma",
        "noise": "the target here is v, not the noise",
        "sign": "v is alpha·noise - sigma·x0: look at the sign and at which factor belongs to which",
        "solved": "the answer was solved for x0 before it was compared: that multiplies each "
        "level's error by sigma²; compare raw answer and target",
        "sum": "average over an image's values: a sum makes the loss grow with the image",
        "outer": "weights [B] times errors [B,1] give a table [B,B]: every weight met every "
        "image; both need the shape [B]",
        "normalised": "divide by the number of images, not by the sum of the weights: doubled "
        "weights double the loss",
        "inside": "the weight multiplies the squared error: it stands outside the square",
        "axis": "the levels were laid along the columns of the images: give them shape [B,1,1,1]",
        "one_level": "all images got the level of the first one",
        "cut": "the gradient does not arrive at theta: no no_grad, detach or item on the way",
        "weight": "the error of each image, [B], times its weight, [B]; then the mean",
        "gradient": "nothing between theta and the loss may be detached or rounded",
        "loss": "x and v from x0 and noise; mean square over C, H, W; then over the batch",
    },
    mutants=[
        Mutant("clean", "net(theta, x, ", "net(theta, x0, "),
        Mutant("level", "2 * (alpha / sigma).log()", "sigma"),
        Mutant("log", "2 * (alpha / sigma).log()", "(alpha / sigma).log()"),
        Mutant("noise", "a * noise - s * x0", "noise"),
        Mutant("sign", "a * noise - s * x0", "s * x0 - a * noise"),
        Mutant("sign", "a * noise - s * x0", "a * noise + s * x0"),
        Mutant("sign", "a * noise - s * x0", "s * noise - a * x0"),
        Mutant(
            "solved",
            "error = net(theta, x, 2 * (alpha / sigma).log()) - target",
            "error = a * x - s * net(theta, x, 2 * (alpha / sigma).log()) - x0",
        ),
        Mutant("sum", ".flatten(1).mean(1)", ".flatten(1).sum(1)"),
        Mutant("outer", ".flatten(1).mean(1)", ".flatten(1).mean(1, keepdim=True)"),
        Mutant("normalised", "weight * per_image", "weight / weight.mean() * per_image"),
        Mutant("inside", "weight * per_image", "weight**2 * per_image"),
        Mutant("axis", "alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)", "alpha, sigma"),
        Mutant(
            "one_level",
            "a, s = ",
            "alpha, sigma = alpha[:1].expand_as(alpha), sigma[:1].expand_as(sigma)\n    a, s = ",
        ),
        Mutant("cut", "return per_image.mean()", "return per_image.mean().detach()"),
    ],
    rights=[
        """
import torch

def training_loss(net, theta, x0, alpha, sigma, noise, weight=None):
    mix = lambda p, q: torch.einsum("b,bchw->bchw", p, noise) + torch.einsum("b,bchw->bchw", q, x0)
    log_snr = alpha.square().log() - sigma.square().log()
    answer = net(theta, mix(sigma, alpha), log_snr)
    squares = torch.nn.functional.mse_loss(answer, mix(alpha, -sigma), reduction="none")
    if weight is None:
        return squares.mean()  # all images are of one size
    return (weight[:, None, None, None] * squares).mean()
""",
        """
import torch

def training_loss(net, theta, x0, alpha, sigma, noise, weight=None):
    weights = [1.0] * len(x0) if weight is None else weight
    total = 0.0
    for i in range(len(x0)):
        a, s = alpha[i], sigma[i]
        x = (a * x0[i] + s * noise[i])[None]
        answer = net(theta, x, torch.log(a**2 / s**2)[None])[0]
        gap = (answer - a * noise[i] + s * x0[i]).flatten()
        total = total + weights[i] * (gap @ gap) / gap.numel()
    return total / len(x0)
""",
    ],
    vary={"training_loss": ["training_loss", "denoising_loss", "batch_loss"]},
    answer="training_loss",
)
### END HIDDEN TESTS
