"""# Four targets, one pair of equations

A network may be trained to answer with the noise, with the image, or with a mixture of the two.
Whoever samples should not have to know. Write the function that turns any answer $y$ into both
$\\hat x_0$ and $\\hat\\varepsilon$. Each target is a line $y = p\\,\\varepsilon + q\\,x_0$,

| `predicts` | $p$ | $q$ |
|:--|:--|:--|
| `"eps"` | 1 | 0 |
| `"x0"` | 0 | 1 |
| `"v"` | $\\alpha$ | $-\\sigma$ |
| `"flow"` | 1 | $-1$ |

and the noisy image is a second one, $x = \\alpha x_0 + \\sigma \\varepsilon$: two equations, two
unknowns. They hold on **every** path, so use nothing like $\\alpha^2 + \\sigma^2 = 1$ or
$\\alpha + \\sigma = 1$.

`y` and `x` are float32 `[B, C, H, W]`; `alpha` and `sigma` are float32 `[B]`, one level per image,
never negative, never both 0. Return a tensor `[2, B, C, H, W]`: first $\\hat x_0$, then
$\\hat\\varepsilon$.

At the ends of a schedule one of the two numbers is 0. Where $\\alpha = 0$ (then `predicts` is not
`"eps"`) the equations are still fine. Where $\\sigma = 0$ there is no noise: the answer there is
$\\hat x_0 = x/\\alpha$ and $\\hat\\varepsilon = 0$, **whatever the network says**. Images with and
without noise come in one batch. Guidance and likelihoods differentiate through this function, and so
the gradient in `y` must be finite, too. (`torch.where` picks values well. What does the branch that
was not picked do to the gradient?)
"""

import torch
from torch import Tensor


def both(y: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, predicts: str) -> Tensor:
    """A network's answer y to x at levels alpha, sigma [B] -> (x0, eps), [2,B,C,H,W]."""
    ### BEGIN SOLUTION
    a, s = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    one, zero = torch.ones_like(a), torch.zeros_like(a)
    p, q = {"eps": (one, zero), "x0": (zero, one), "v": (a, -s), "flow": (one, -one)}[predicts]
    clean = s == 0
    det = torch.where(clean, one, a * p - s * q)  # safe before anything is divided by it
    sure = x / torch.where(clean, a, one)
    x0 = torch.where(clean, sure, (p * x - s * y) / det)
    eps = torch.where(clean, zero, (a * y - q * x) / det)
    return torch.stack([x0, eps])
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call, gradient

TARGETS = ("eps", "x0", "v", "flow")


def images(rng: Random, size: int, width: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    shape = (size, channels, 1, width)
    return rng.normal(*shape), 2 * rng.normal(*shape)


def circle(rng: Random, size: int) -> tuple[Tensor, Tensor]:
    angle = rng.uniform(0.3, 1.2, size)
    return angle.cos(), angle.sin()


def line(rng: Random, size: int) -> tuple[Tensor, Tensor]:
    sigma = rng.uniform(0.2, 0.9, size)
    return 1 - sigma, sigma


def plain(rng: Random) -> Iterator[Step]:
    """Noise and image as targets; once with as many images as columns."""
    for predicts, size, width in (("eps", 3, 3), ("x0", 2, 3)):
        yield call(*images(rng, size, width, rng.whole(2, 4)), *circle(rng, size), predicts)


def mixed(rng: Random) -> Iterator[Step]:
    """v and flow, each where it was invented."""
    size = rng.whole(2, 4)
    yield call(*images(rng, size, 3), *circle(rng, size), "v")
    size = rng.whole(2, 4)
    yield call(*images(rng, size, 2), *line(rng, size), "flow")


def any_path(rng: Random) -> Iterator[Step]:
    """v on the straight path, flow on the circle, both with alpha = 1; and levels without signal."""
    yield call(*images(rng, 2, 3), *line(rng, 2), "v")
    yield call(*images(rng, 3, 2), *circle(rng, 3), "flow")
    for predicts in ("v", "flow"):
        yield call(*images(rng, 2, 2), torch.ones(2), rng.uniform(0.5, 3, 2), predicts)
    for predicts in ("x0", "v", "flow"):
        alpha, sigma = circle(rng, 2)
        alpha[1], sigma[1] = 0, 1
        yield call(*images(rng, 2, 2), alpha, sigma, predicts)


def some_clean(rng: Random, path: str) -> tuple[Tensor, Tensor]:
    alpha, sigma = circle(rng, 3) if path == "circle" else line(rng, 3)
    at = rng.whole(0, 3)
    alpha[at], sigma[at] = rng.number(0.5, 2), 0
    return alpha, sigma


def clean(rng: Random) -> Iterator[Step]:
    """One image of three has no noise."""
    for predicts in TARGETS:
        path = "line" if predicts == "flow" else "circle"
        yield call(*images(rng, 3, 2), *some_clean(rng, path), predicts)


def slopes(rng: Random) -> Iterator[Step]:
    for predicts in TARGETS:
        y, x = images(rng, 3, 2)
        path = "line" if predicts == "flow" else "circle"
        along = rng.normal(2, *x.shape)
        yield gradient(y, x, *some_clean(rng, path), predicts, along=along)


EXERCISE = Exercise(
    difficulty=3,
    minutes=40,
    checks=[
        Check("eps and x0", plain, points=1, tolerance=1e-4, hint="solve"),
        Check("v and flow", mixed, points=1, tolerance=1e-4, hint="solve"),
        Check("on any path, and without signal", any_path, points=1, tolerance=1e-4, hint="path"),
        Check("without noise", clean, points=1, tolerance=1e-4, hint="clean"),
        Check("gradients are finite", slopes, points=1, tolerance=1e-4, hint="branch"),
    ],
    hints={
        "unscaled": "x - sigma·eps is alpha·x0: divide it by alpha",
        "v_sign": "v is alpha·eps - sigma·x0: a sign is the other way round",
        "flow_sign": "the flow's target is eps - x0, from the image to the noise",
        "v_path": "alpha² + sigma² = 1 was used for v: divide by the determinant, which is "
        "alpha² + sigma²",
        "flow_path": "alpha + sigma = 1 was used for flow: divide by the determinant, which is "
        "alpha + sigma",
        "exchanged": "first x0, then eps",
        "axis": "the levels were laid along the columns of the images: give them shape [B,1,1,1]",
        "clip": "nothing is clipped here: x0 and eps must make up x",
        "noise_left": "an image without noise has eps = 0, whatever the network says",
        "said": "an image without noise is x/alpha, whatever the network says",
        "all_clean": "one image without noise does not make the batch clean: decide image by image",
        "nan": "where sigma is 0 an x0-network has no equation for eps: make the divisor safe there",
        "branch": "torch.where multiplies the branch not picked by 0, and 0 times infinity is "
        "NaN: make the divisor safe before dividing, not the result after",
        "clean": "where sigma is 0: x/alpha and 0",
        "path": "take the determinant alpha·p - sigma·q as it is",
        "solve": "x0 = (p·x - sigma·y)/det, eps = (alpha·y - q·x)/det, det = alpha·p - sigma·q",
    },
    mutants=[
        Mutant(
            "unscaled",
            "a * p - s * q)",
            'torch.ones_like(a) if predicts == "eps" else a * p - s * q)',
        ),
        Mutant("v_sign", '"v": (a, -s)', '"v": (a, s)'),
        Mutant("v_sign", '"v": (a, -s)', '"v": (-a, s)'),
        Mutant("flow_sign", "(one, -one)", "(-one, one)"),
        Mutant("v_path", "a * p - s * q)", 'one if predicts == "v" else a * p - s * q)'),
        Mutant("flow_path", "a * p - s * q)", 'one if predicts == "flow" else a * p - s * q)'),
        Mutant("exchanged", "[x0, eps]", "[eps, x0]"),
        Mutant("axis", "alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)", "alpha, sigma"),
        Mutant("clip", "torch.stack([x0, eps])", "torch.stack([x0.clamp(-1, 1), eps])"),
        Mutant(
            "noise_left", "torch.where(clean, zero, (a * y - q * x) / det)", "(a * y - q * x) / det"
        ),
        Mutant("said", "sure = x / torch.where(clean, a, one)", "sure = y"),
        Mutant("all_clean", "clean = s == 0", "clean = (s == 0).any().expand_as(s)"),
        Mutant(
            "nan",
            source="""
import torch

def both(y, x, alpha, sigma, predicts):
    a, s = alpha[:, None, None, None], sigma[:, None, None, None]
    if predicts == "eps":
        return torch.stack([(x - s * y) / a, y])
    if predicts == "x0":
        return torch.stack([y, (x - a * y) / s])
    if predicts == "v":
        norm = a**2 + s**2
        return torch.stack([(a * x - s * y) / norm, (s * x + a * y) / norm])
    return torch.stack([(x - s * y) / (a + s), (x + a * y) / (a + s)])
""",
        ),
        Mutant("branch", "torch.where(clean, one, a * p - s * q)", "a * p - s * q"),
    ],
    rights=[
        """
import torch

def both(y, x, alpha, sigma, predicts):
    x0, eps = [], []
    for i in range(len(x)):
        a, s = alpha[i].item(), sigma[i].item()
        if s == 0:
            x0.append(x[i] / a)
            eps.append(torch.zeros_like(x[i]))
            continue
        p, q = {"eps": (1, 0), "x0": (0, 1), "v": (a, -s), "flow": (1, -1)}[predicts]
        system = torch.tensor([[a, s], [q, p]], dtype=torch.float64)  # (x, y) = system (x0, eps)
        sides = torch.stack([x[i], y[i]]).double().flatten(1)
        found = torch.linalg.solve(system, sides).float()
        x0.append(found[0].view_as(x[i]))
        eps.append(found[1].view_as(x[i]))
    return torch.stack([torch.stack(x0), torch.stack(eps)])
""",
        """
import torch

def both(y, x, alpha, sigma, predicts):
    a, s = alpha[:, None, None, None].double(), sigma[:, None, None, None].double()
    noisy = (s > 0).double()
    safe = s + (1 - noisy)  # 1 where there is no noise; what comes of it is multiplied by 0
    eps_from = {
        "eps": lambda: y,
        "x0": lambda: (x - a * y) / safe,
        "v": lambda: (a * y + s * x) / (a**2 + s**2),
        "flow": lambda: (a * y + x) / (a + s),
    }
    eps = noisy * eps_from[predicts]()
    image = {
        "eps": lambda: (x - s * eps) / a,
        "x0": lambda: noisy * y + (1 - noisy) * x / (noisy + (1 - noisy) * a),
        "v": lambda: (a * x - s * y) / (a**2 + s**2),
        "flow": lambda: (x - s * y) / (a + s),
    }
    return torch.stack([image[predicts](), eps]).float()
""",
    ],
    vary={"both": ["both", "image_and_noise", "solve_pair"]},
    answer="both",
)
### END HIDDEN TESTS
