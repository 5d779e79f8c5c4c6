"""# A table of Fréchet distances that cannot be true

Images are compared by their features, as two Gaussians: with means $m_a, m_b$ and covariances
$A, B$ (divisor $n - 1$) the squared Fréchet distance is

$$
|m_a - m_b|^2 + \\operatorname{tr} A + \\operatorname{tr} B - 2 \\operatorname{tr}(AB)^{1/2} .
$$

The root is the matrix's, not the numbers'. $AB$ is not symmetric, but its eigenvalues
$\\lambda_i \\ge 0$ are real, and $\\operatorname{tr}(AB)^{1/2} = \\sum_i \\sqrt{\\lambda_i}$.

`scores(reference, sets)` makes the table of a paper: one number per set of features, its squared
distance from the reference. The program below is meant to do that. It runs, and three things are
odd.

1. The distance from a to b is not the distance from b to a, though the formula is symmetric.
2. Add 1,000 to every feature of every set, and the distances change.
3. In a table with sets of many sizes, 25 **real** digits are further from the reference than 400
   that a middling network drew.

Each has a cause of its own. Find all three, and mend them. The first two are faults of arithmetic.
The third is none: even with a perfect `distance` it stays, each number of that table is right, and
the table says something false. Keep as many images as a fair table allows, of each set the first
ones (their order is random). The reference is the same for everybody and stays whole.

Your program must also bear sets with fewer images than features. Their covariances have
eigenvalues 0, which rounding may put just below.

`reference` is float32 `[R, F]`, `sets` a list of $S \\ge 1$ float32 tensors `[N_i, F]`, all with two
rows or more. Return float64 `[S]`; the arguments stay as they are. The functions `moments` and
`distance` are yours to change or to drop. Torch and NumPy have all that is
needed.

*Predict first*: two sets of 25 and of 400 images, both drawn from the reference's own law. What
does a perfect program say about each?
"""

import torch
from torch import Tensor


### BEGIN SOLUTION
def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [F] and covariance [F, F] of features [n, F]."""
    mean = x.double().mean(0)
    off = x.double() - mean  # first centred, then squared: no large numbers to cancel
    return mean, off.T @ off / (len(x) - 1)


def root(cov: Tensor) -> Tensor:
    """The symmetric root of a covariance, singular ones included."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Fréchet distance of features [n, F] and [m, F]."""
    (mean_a, A), (mean_b, B) = moments(a), moments(b)
    # with P = A^(1/2) B^(1/2), AB has the eigenvalues of P Pᵀ: squares of P's singular values
    roots = torch.linalg.svdvals(root(A) @ root(B))
    return (mean_a - mean_b).square().sum() + A.trace() + B.trace() - 2 * roots.sum()


def scores(reference: Tensor, sets: list[Tensor]) -> Tensor:
    """Squared Fréchet distance of each set [N_i, F] from the reference [R, F]: [S]."""
    n = min(len(x) for x in sets)  # the bias is about 1/n: the same n, the same bias
    return torch.stack([distance(x[:n], reference) for x in sets])


### STARTER
# def moments(x: Tensor) -> tuple[Tensor, Tensor]:
#     """Mean [F] and covariance [F, F] of features [n, F]."""
#     n = len(x)
#     mean = x.mean(0)
#     cov = (x.T @ x - n * torch.outer(mean, mean)) / (n - 1)
#     return mean.double(), cov.double()
#
#
# def distance(a: Tensor, b: Tensor) -> Tensor:
#     """Squared Fréchet distance of features [n, F] and [m, F]."""
#     (mean_a, A), (mean_b, B) = moments(a), moments(b)
#     roots = torch.linalg.eigh(A @ B).eigenvalues.clamp(min=0).sqrt()
#     return (mean_a - mean_b).square().sum() + A.trace() + B.trace() - 2 * roots.sum()
#
#
# def scores(reference: Tensor, sets: list[Tensor]) -> Tensor:
#     """Squared Fréchet distance of each set [N_i, F] from the reference [R, F]: [S]."""
#     return torch.stack([distance(x, reference) for x in sets])
### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def features(rng: Random, n: int, mix: Tensor) -> Tensor:
    """n features that depend on one another, of one law for one mix."""
    return rng.normal(n, len(mix)) @ mix


def mixing(rng: Random, width: int) -> Tensor:
    """Distinctly different spreads, and correlations."""
    return torch.diag(rng.uniform(0.5, 2.5, width)) + 0.7 * rng.normal(width, width)


def equal(rng: Random) -> Iterator[Step]:
    """One set and a reference of its size, both ways round."""
    width, n = rng.whole(3, 5), rng.whole(8, 12)
    a = features(rng, n, mixing(rng, width)) + rng.normal(width)
    b = features(rng, n, mixing(rng, width))
    yield call(a, [b])
    yield call(b, [a])


def few(rng: Random) -> Iterator[Step]:
    """No more images than features: covariances without full rank."""
    for width in (5, 7):
        for _ in range(2):
            n = rng.whole(3, 5)
            a, b = (features(rng, n, mixing(rng, width)) for _ in range(2))
            yield call(a, [b])
    yield call(a, [a + 1])


def far(rng: Random) -> Iterator[Step]:
    """Features far from zero, as behind a rectifier with a large bias."""
    for offset in (1_000.0, 3_000.0):
        width, n = rng.whole(2, 4), rng.whole(8, 12)
        a, b = (features(rng, n, mixing(rng, width)) + offset for _ in range(2))
        yield call(a, [b])


def table(rng: Random) -> Iterator[Step]:
    """Sets of several sizes, the reference larger than all, or smaller than all."""
    for rows in (rng.whole(16, 20), rng.whole(4, 6)):
        width = rng.whole(2, 4)
        law = mixing(rng, width)
        sizes = (rng.whole(12, 15), rng.whole(7, 9), rng.whole(9, 12))
        yield call(features(rng, rows, law), [features(rng, n, law) for n in sizes])


EXERCISE = Exercise(
    difficulty=4,
    minutes=55,
    checks=[
        Check("the same from a to b as from b to a", equal, tolerance=1e-4, hint="symmetric"),
        Check("fewer images than features", few, tolerance=1e-4, hint="singular"),
        Check("features far from zero", far, tolerance=1e-3, hint="cancel"),
        Check("a fair table for sets of several sizes", table, points=2, tolerance=1e-4, hint="n"),
    ],
    hints={
        "n": "few images alone make a distance large, as 1/n: compare all sets of the table at one "
        "and the same n",
        "pairs": "n must be the same for all sets of the table, not just equal within each pair",
        "reference": "the reference is the same for all sets: cutting it gives away what is known",
        "symmetric": "eigh takes the lower half of its matrix and believes the upper to be its "
        "mirror: AB has none, give it symmetric matrices only",
        "elements": "the root of a matrix is not the matrix of the roots: take roots of eigenvalues",
        "trace": "the sum of the eigenvalues' roots is asked for, not the root of their sum",
        "spreads": "the features depend on one another: spreads alone do not make a covariance",
        "divisor": "the covariance is divided by n − 1",
        "squared": "the squared distance is asked for, its first term too: see which squares and "
        "roots the formula has",
        "twice": "the trace of the root counts twice, as 2ab in (a − b)²",
        "ridge": "something small was added to the covariances: an eigenvalue of 0 may stay, if "
        "rounding below 0 is cut off",
        "singular": "a covariance of few images has eigenvalues 0, and rounding makes some of them "
        "negative: clamp at 0 before the root, and compute in float64",
        "cancel": "x² − mean² of large numbers loses in float32 all that matters: subtract the "
        "mean first, in float64",
    },
    mutants=[
        Mutant("n", "distance(x[:n], reference)", "distance(x, reference)"),
        Mutant(
            "pairs",
            "distance(x[:n], reference)",
            "distance(x[: min(len(x), len(reference))], reference[: min(len(x), len(reference))])",
        ),
        Mutant("reference", "distance(x[:n], reference)", "distance(x[:n], reference[:n])"),
        Mutant(
            "symmetric",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "torch.linalg.eigh(A @ B).eigenvalues.clamp(min=0).sqrt()",
        ),
        Mutant(
            "symmetric",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "torch.linalg.eigh(A @ B).eigenvalues.sqrt()",
        ),
        Mutant(
            "symmetric",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "torch.linalg.eigh((A @ B + B @ A) / 2).eigenvalues.clamp(min=0).sqrt()",
        ),
        Mutant(
            "elements",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "(A @ B).diagonal().clamp(min=0).sqrt()",
        ),
        Mutant(
            "trace",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "(A @ B).trace().clamp(min=0).sqrt()",
        ),
        Mutant(
            "spreads",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "(A.diagonal() * B.diagonal()).sqrt()",
        ),
        Mutant(
            "singular",
            "torch.linalg.svdvals(root(A) @ root(B))",
            "torch.linalg.eigvals(A @ B).real.sqrt()",
        ),
        Mutant("divisor", "/ (len(x) - 1)", "/ len(x)"),
        Mutant("squared", "(mean_a - mean_b).square().sum()", "(mean_a - mean_b).norm()"),
        Mutant(
            "squared",
            "torch.stack([distance(x[:n], reference) for x in sets])",
            "torch.stack([distance(x[:n], reference) for x in sets]).clamp(min=0).sqrt()",
        ),
        Mutant("twice", "- 2 * roots.sum()", "- roots.sum()"),
        Mutant(
            "ridge",
            "return mean, off.T @ off / (len(x) - 1)",
            "return mean, off.T @ off / (len(x) - 1) + 0.01 * torch.eye(len(mean))",
        ),
        Mutant(
            "cancel",
            "    mean = x.double().mean(0)\n",
            "    mean, n = x.mean(0), len(x)\n"
            "    cov = (x.T @ x - n * torch.outer(mean, mean)) / (n - 1)\n"
            "    return mean.double(), cov.double()\n",
        ),
    ],
    rights=[
        """
import torch

def scores(reference, sets):
    n = min(map(len, sets))
    real = reference.double()
    v = (real - real.mean(0)) / (len(real) - 1) ** 0.5
    answer = []
    for some in sets:
        fake = some[:n].double()
        u = (fake - fake.mean(0)) / (n - 1) ** 0.5
        # A = uᵀu and B = vᵀv: the roots of AB's eigenvalues are the singular values of u vᵀ
        overlap = torch.linalg.matrix_norm(u @ v.T, ord="nuc")
        gap = torch.sum((fake.mean(0) - real.mean(0)) ** 2)
        answer.append(gap + u.square().sum() + v.square().sum() - 2 * overlap)
    return torch.stack(answer)
""",
        """
import numpy as np
import torch

def scores(reference, sets):
    b = reference.numpy().astype(np.float64)
    B = np.cov(b, rowvar=False)
    n = sorted(s.shape[0] for s in sets)[0]
    out = np.zeros(len(sets))
    for i, s in enumerate(sets):
        a = s.numpy()[:n].astype(np.float64)
        A = np.cov(a, rowvar=False)
        roots = np.sqrt(np.linalg.eigvals(A @ B).astype(complex)).real.sum()
        out[i] = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A + B) - 2 * roots
    return torch.from_numpy(out)
""",
    ],
    answer="scores",
    vary={"scores": ["scores", "frechet_table", "distances"]},
)
### END HIDDEN TESTS
