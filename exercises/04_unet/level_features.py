"""# Tell the network how noisy it is

The U-Net gets the noise level as one number, the log-SNR. Fed in as it is, one number moves a
layer's outputs along a straight line, and neighbouring levels can hardly be told apart while
distant ones are. Sines and cosines of it at many speeds give both: slow ones say roughly where, fast
ones say exactly where.

For a level $\\lambda$ and an even `width` $= 2h$, $h \\ge 2$, take the $h$ angular frequencies that
run from `fastest` to `slowest`, **both included**, each the same multiple of the one before:

$$
\\omega_0 = \\text{fastest}, \\quad \\dots, \\quad \\omega_{h-1} = \\text{slowest},
\\qquad \\omega_{j+1} / \\omega_j \\text{ the same for all } j .
$$

The features are first all $\\sin(\\omega_j \\lambda)$, then all $\\cos(\\omega_j \\lambda)$.

`log_snr` is float32 `[B]`. At the ends of a schedule, where there is no noise or no signal, it is
$+\\infty$ or $-\\infty$, and the features must still be numbers: levels beyond ±20 count as ±20.
Return float `[B, width]`.
"""

import torch
from torch import Tensor


def level_features(log_snr: Tensor, width: int, fastest: float, slowest: float) -> Tensor:
    """Noise levels [B] -> [B, width], sines and then cosines."""
    ### BEGIN SOLUTION
    half = width // 2
    share = torch.arange(half) / (half - 1)  # 0 … 1
    frequency = fastest * (slowest / fastest) ** share  # [h]
    angle = log_snr.clamp(-20, 20)[:, None] * frequency  # [B,h]
    return torch.cat([angle.sin(), angle.cos()], 1)
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def inner(rng: Random) -> Iterator[Step]:
    for half in (3, rng.whole(4, 7)):
        speeds = rng.number(1, 4), rng.number(0.005, 0.05)
        yield call(rng.uniform(-9, 9, rng.whole(3, 6)), 2 * half, *speeds)


def narrow(rng: Random) -> Iterator[Step]:
    """The two ends alone: each must be exactly what was asked for."""
    yield call(rng.uniform(-9, 9, rng.whole(2, 5)), 4, rng.number(1, 4), rng.number(0.01, 0.1))


def ends(rng: Random) -> Iterator[Step]:
    levels = rng.uniform(-9, 9, 5)
    levels[0], levels[1], levels[2] = torch.inf, -torch.inf, rng.number(25, 40)
    yield call(levels, 2 * rng.whole(2, 5), rng.number(1, 4), rng.number(0.005, 0.05))


EXERCISE = Exercise(
    difficulty=1,
    minutes=12,
    checks=[
        Check("features of ordinary levels", inner, points=2, tolerance=1e-4, hint="frequencies"),
        Check("two frequencies: the ends", narrow, points=1, tolerance=1e-4, hint="fence"),
        Check("levels without noise, without signal", ends, points=1, tolerance=1e-4, hint="ends"),
    ],
    hints={
        "fence": "the slowest frequency is not reached: h frequencies have h - 1 steps between "
        "them",
        "linear": "the frequencies are evenly spaced: a constant ratio is asked for, not a "
        "constant difference",
        "periods": "fastest and slowest are frequencies, by which the level is multiplied; "
        "dividing would make them periods",
        "cycles": "these are angular frequencies: no factor 2π",
        "order": "first all sines, then all cosines",
        "interleaved": "sines and cosines alternate: join the two halves instead",
        "whole": "a log-SNR is no whole number: rounded, a thousand levels become forty",
        "reversed": "the frequencies begin with the fastest",
        "angle": "the level is limited to ±20, not the angle: with the frequency 4 an angle may "
        "reach 80",
        "ends": "the sine of infinity is no number: limit the level to ±20 first",
        "frequencies": "the ratio of neighbours is (slowest/fastest) to the power 1/(h - 1)",
    },
    mutants=[
        Mutant("fence", "(half - 1)", "half"),
        Mutant(
            "linear",
            "fastest * (slowest / fastest) ** share",
            "fastest + (slowest - fastest) * share",
        ),
        Mutant("periods", "[:, None] * frequency", "[:, None] / frequency"),
        Mutant("cycles", "[:, None] * frequency", "[:, None] * frequency * 2 * torch.pi"),
        Mutant("order", "[angle.sin(), angle.cos()], 1)", "[angle.cos(), angle.sin()], 1)"),
        Mutant(
            "interleaved",
            "torch.cat([angle.sin(), angle.cos()], 1)",
            "torch.stack([angle.sin(), angle.cos()], 2).flatten(1)",
        ),
        Mutant("whole", "log_snr.clamp(-20, 20)", "log_snr.clamp(-20, 20).long()"),
        Mutant("reversed", "** share  # [h]", "** share.flip(0)"),
        Mutant(
            "angle",
            "log_snr.clamp(-20, 20)[:, None] * frequency",
            "(log_snr[:, None] * frequency).clamp(-20, 20)",
        ),
        Mutant("ends", "log_snr.clamp(-20, 20)", "log_snr"),
    ],
    rights=[
        """
import math

import torch

def level_features(log_snr, width, fastest, slowest):
    ends = math.log(fastest), math.log(slowest)
    frequency = torch.linspace(*ends, width // 2, dtype=torch.float64).exp()
    level = torch.where(log_snr.abs() > 20, 20 * log_snr.sign(), log_snr)
    phase = torch.tensor([0.0, math.pi / 2], dtype=torch.float64)
    angle = level[:, None, None] * frequency + phase[:, None]  # cos is sin, a quarter turn on
    return angle.sin().flatten(1).float()
""",
        """
import math

import torch

def level_features(log_snr, width, fastest, slowest):
    half = width // 2
    ratio = (slowest / fastest) ** (1 / (half - 1))
    rows = []
    for level in log_snr.tolist():
        level = min(20.0, max(-20.0, level))
        angles = [level * fastest * ratio**j for j in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows)
""",
    ],
    vary={"level_features": ["level_features", "embed_level", "noise_features"]},
    answer="level_features",
)
### END HIDDEN TESTS
