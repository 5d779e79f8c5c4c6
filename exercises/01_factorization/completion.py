"""# Mend a completion

Some pixels of an image are given and the others are missing. What is the probability of each way to
fill them in, $p(\\text{missing} \\mid \\text{given})$?

The images are small enough to try every filling. The program below keeps the given pixels fixed,
asks an autoregressive model for all conditionals, and multiplies those of the missing pixels. Its
answers are positive and add up to 1. With the *upper* part of an image given they are right. With
the *lower* part given, they are the same whatever was given there.

Find out why, and mend it. A filling of probability $10^{-300}$ is no reason for a division of 0 by
0: the answer must also be finite where the given pixels are very unlikely under the model.

`model(x)` takes int64 `[N, D]` and returns logits `[N, D, levels]`; those at place $i$ depend on
`x[:, :i]` only. `x` is int64 `[D]`, and what stands in it at the missing places means nothing.
`known` is bool `[D]`, True where a pixel is given; at least one is missing. Return a float tensor
of shape `[levels ** m]` for the $m$ missing pixels, one probability for each row of
`fillings(levels, m)`.

*Before you run the check*: two coins that always agree, and the second is given. What does the
program say of the first?
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def fillings(levels: int, m: int) -> Tensor:
    """Every filling of m pixels, int64[levels^m, m]; the last pixel changes fastest."""
    return torch.cartesian_prod(*[torch.arange(levels)] * m).view(-1, m)


def ties(x: Tensor, levels: int = 2, strength: float = 1.0) -> Tensor:
    """A toy model: every value pulls at all later ones. int64[N,D] -> logits [N,D,levels]."""
    place = torch.arange(x.shape[1])
    pull = torch.cos(1.7 * place[:, None] - 0.6 * place).tril(-1)  # [D,D], later × earlier
    field = 2 * (x - (levels - 1) / 2) @ pull.T + torch.sin(2.0 * place)  # [N,D]
    return strength * field[..., None] * torch.arange(levels)


def three_levels(x: Tensor) -> Tensor:
    """The same with three levels."""
    return ties(x, 3)


def stubborn(x: Tensor) -> Tensor:
    """The same, but nearly always sure of itself."""
    return ties(x, 2, 100.0)


def completions(model: Callable[[Tensor], Tensor], x: Tensor, known: Tensor, levels: int) -> Tensor:
    """p(missing | given) for all fillings of the missing pixels, [levels^m]."""
    missing = (~known).nonzero()[:, 0]  # [m]
    every = fillings(levels, len(missing))  # [N,m]
    images = x.repeat(len(every), 1)  # [N,D]
    images[:, missing] = every
    ### BEGIN SOLUTION
    log_p = F.log_softmax(model(images), -1)  # [N,D,levels]
    own = log_p.gather(-1, images[..., None])[..., 0]  # [N,D]
    joint = own.sum(1)  # given pixels too: how well does this filling explain them?
    return joint.softmax(0)  # divided by p(given), in logarithms
    ### STARTER
    # log_p = F.log_softmax(model(images), -1)  # [N,D,levels]
    # own = log_p.gather(-1, images[..., None])[..., 0]  # [N,D]
    # return own[:, missing].sum(1).exp()
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Ref, Step, call


def scattered(rng: Random, size: int, missing: int) -> Tensor:
    """Some places given; never the first one, so that there is something to infer backwards."""
    known = torch.ones(size, dtype=torch.bool)
    known[0] = False
    known[1 + rng.uniform(0, 1, size - 2).argsort()[: missing - 1]] = False
    return known


def anywhere(rng: Random) -> Iterator[Step]:
    for name, levels in (("ties", 2), ("ties", 2), ("three_levels", 3)):
        size = rng.whole(5, 8)
        x = rng.integers(0, levels, size)
        yield call(Ref(name), x, scattered(rng, size, rng.whole(2, 4)), levels)


def lower(rng: Random) -> Iterator[Step]:
    """The lower part is given; and once the upper one, where the program was right."""
    for _ in range(2):
        size = rng.whole(5, 8)
        x = rng.integers(0, 2, size)
        yield call(Ref("ties"), x, torch.arange(size) >= rng.whole(2, 4), 2)
    size = rng.whole(5, 8)
    yield call(Ref("ties"), rng.integers(0, 2, size), torch.arange(size) < rng.whole(2, 4), 2)


def unlikely(rng: Random) -> Iterator[Step]:
    """Given pixels that no filling explains: all joint probabilities are 0 in float32."""
    for size, missing in ((6, 2), (7, 2)):
        known = torch.arange(size) >= missing
        known[missing] = rng.whole(0, 2) == 1
        images = fillings(2, size)  # [2^size,size]
        own = F.log_softmax(stubborn(images), -1).gather(-1, images[..., None])[..., 0]
        given = images[:, known] @ (
            2 ** torch.arange(int(known.sum()))
        )  # a number for each pattern
        best = torch.full((len(images),), -torch.inf).scatter_reduce(0, given, own.sum(1), "amax")
        hopeless = [i for i in range(len(best)) if -torch.inf < best[i] < -120]
        misled = [i for i in hopeless if _differ(own[given == i], known)]
        x = images[given == misled[rng.whole(0, len(misled))]][0]
        yield call(Ref("stubborn"), x, known, 2)


def _differ(own: Tensor, known: Tensor) -> bool:
    """Whether the broken program answers otherwise than the right one."""
    return bool(own.sum(1).argmax() != own[:, ~known].sum(1).argmax())


EXERCISE = Exercise(
    difficulty=3,
    minutes=25,
    checks=[
        Check("the lower part given, and the upper", lower, points=2, hint="bayes"),
        Check("given pixels anywhere, three levels too", anywhere, points=1, hint="bayes"),
        Check(
            "finite where the given pixels are very unlikely",
            unlikely,
            points=1,
            tolerance=1e-3,
            hint="stable",
        ),
    ],
    hints={
        "ignored": "a missing pixel that comes before a given one never hears of it: how "
        "probable is the "
        "given pixel after this filling? That factor is left out",
        "joint": "this is p(missing and given): divide by the sum over all fillings, which is "
        "p(given)",
        "given_only": "this weighs fillings by how well they explain the given pixels, and "
        "forgets how "
        "probable the fillings are themselves",
        "junk": "the model was asked about x itself: at the missing places that is junk; ask it "
        "about "
        "each filled image",
        "before": "a given pixel counts for what it says about missing ones before it: those after "
        "the first missing pixel matter, not those in front",
        "mean": "this is the mean of the logarithms, which is a temperature: the chain rule "
        "wants their sum",
        "stable": "the probabilities became 0 before they were divided: normalise the logarithms "
        "(softmax, or take away their logsumexp)",
        "raw": "logits are no log-probabilities: normalise each pixel's over the levels",
        "bayes": "p(missing | given) = p(image) / p(given): all factors of the chain, then the "
        "sum over fillings",
    },
    mutants=[
        Mutant("ignored", "joint.softmax(0)", "own[:, missing].sum(1).exp()"),
        Mutant("joint", "joint.softmax(0)", "joint.exp()"),
        Mutant("given_only", "joint = own.sum(1)", "joint = own[:, known].sum(1)"),
        Mutant("junk", "model(images)", "model(x[None]).expand(len(images), -1, -1)"),
        Mutant(
            "before",
            "joint = own.sum(1)",
            "joint = own[:, ~known | (torch.arange(len(x)) < missing[-1])].sum(1)",
        ),
        Mutant("mean", "own.sum(1)", "own.mean(1)"),
        Mutant("stable", "joint.softmax(0)", "joint.exp() / joint.exp().sum()"),
        Mutant("raw", "F.log_softmax(model(images), -1)", "model(images)"),
    ],
    rights=[
        """
import torch

def completions(model, x, known, levels):
    missing = torch.arange(len(x))[~known]
    count = levels ** len(missing)
    images = x.expand(count, -1).clone()
    for column, place in enumerate(missing.flip(0)):
        images[:, place] = torch.arange(count) // levels**column % levels
    losses = torch.nn.functional.cross_entropy(
        model(images).movedim(-1, 1), images, reduction="none"
    ).sum(1)
    return torch.exp(-losses - torch.logsumexp(-losses, 0))
""",
        """
import itertools

import torch

def completions(model, x, known, levels):
    missing = [i for i, given in enumerate(known.tolist()) if not given]
    scores = []
    for values in itertools.product(range(levels), repeat=len(missing)):
        image = x.clone()
        image[missing] = torch.tensor(values)
        logits = model(image[None])[0].double()
        score = 0.0
        for i in range(missing[0], len(x)):  # what comes before all missing pixels cancels
            score += float(logits[i, image[i]] - logits[i].logsumexp(0))
        scores.append(score)
    p = torch.tensor(scores, dtype=torch.float64)
    p = (p - p.max()).exp()
    return (p / p.sum()).float()
""",
    ],
    answer="completions",
)
### END HIDDEN TESTS
