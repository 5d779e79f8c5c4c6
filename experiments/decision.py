"""When is what decided? The fork test: stop a chain, let it go on 16 times with fresh noise.

    python experiments/decision.py             # every set of images there is, a few minutes
    python experiments/decision.py photographs # one: digits, photographs, cifar10

Writes ``ddpm_lite/results/decision.json``. What all forks of a chain share had been decided where
they part; what differs was not. The variance between forks is taken by radial frequency and set in
relation to that between the ends of different chains: 1 where nothing is decided, 0 where all is.
A band's decision time is the step (of 1,000) where that share falls to one half. Beside it stands
the step where the band's signal equals its noise.

Digits come from the trained network. Photographs (scikit-learn's two, in patches) and CIFAR-10
(16 x 16, where $DDPM_LITE_DATA has it; the committed run used a JPEG copy) come from two exact
denoisers: that of a Gaussian with their covariance, which knows no image, and (``_kept``) that of
the patches themselves, which recognises one long before its details are to be seen and then settles
all bands at once. The control (``_white``) is the Gaussian with equal power, so equal signal-to-
noise ratio, at all frequencies.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from _parts import run_parts
from torch import Tensor

from ddpm_lite import data
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.diffusion import Denoise, clipped
from ddpm_lite.exact import GaussianMixture, KernelDenoiser
from ddpm_lite.record import record
from ddpm_lite.samplers import ddpm, last
from ddpm_lite.schedules import LinearBeta, log_snr_grid

STEPS, CHAINS, FORKS, PATCHES = 100, 24, 16, 4000
PLACES = range(4, 100, 5)  # states where chains fork
SCHEDULE = LinearBeta()
# Steps of equal size in log-SNR: on the schedule's own, the last ones are too coarse for what is
# decided there. Ends at clean images.
GRID = torch.cat([log_snr_grid(STEPS - 1, 9.0, -10.0), torch.tensor([[1.0, 0.0]]).double()])


def bands(x: Tensor) -> Tensor:
    """Power of images [..., H, W] by radial frequency 0, 1, …, W/2 (rounded): [..., W/2 + 1]."""
    side = x.shape[-1]
    power = torch.fft.fft2(x.double(), norm="ortho").abs().square()
    f = torch.fft.fftfreq(side) * side
    radius = torch.hypot(f[:, None], f).round().long()
    masks = torch.stack([(radius == r).double() for r in range(side // 2 + 1)])  # [R, H, W]
    return torch.einsum("...hw,rhw->...r", power, masks) / masks.sum((1, 2))


def undecided(denoise: Denoise, shape: tuple[int, ...]) -> Tensor:
    """Variance between forks over that between all chains' ends, [places, bands]."""
    torch.manual_seed(0)
    states = [s.x for s in ddpm(denoise, torch.randn(CHAINS, *shape), GRID)]
    shares: list[Tensor] = []
    for i in PLACES:
        start = states[i].repeat_interleave(FORKS, 0) / GRID[i, 1].item()
        ends = last(ddpm(denoise, start, GRID[i:])).x.double()
        if not shares:  # forked from almost pure noise: what the chains make, as a whole
            everything = bands(ends - ends.mean(0)).mean((0, 1))  # [R]
        apart = ends.view(CHAINS, FORKS, *shape)
        apart = (apart - apart.mean(1, keepdim=True)) * (FORKS / (FORKS - 1)) ** 0.5
        shares.append(bands(apart).mean((0, 1, 2)) / everything)
    return torch.stack(shares)


def steps() -> list[float]:
    """The step of 1,000 of DDPM's schedule that has the level of each place."""
    there = 2 * (GRID[:, 0] / GRID[:, 1]).log()
    k = np.arange(1, 1001)
    log_snr = SCHEDULE.log_snr(torch.from_numpy(k / 1000)).numpy()
    return [float(np.interp(there[i].item(), log_snr[::-1], k[::-1])) for i in PLACES]


def half(shares: Tensor) -> list[float]:
    """The step of 1,000 at which each band's share falls to one half, by linear interpolation."""
    t = np.array(steps())
    return [
        float(np.interp(0.5, s[::-1], t[::-1])) for s in np.minimum.accumulate(shares.T.numpy(), 1)
    ]


def drowned(whole: Tensor) -> list[float]:
    """The step of 1,000 at which a band has as much signal as noise."""
    power = bands(whole - whole.mean(0)).mean((0, 1))
    snr = SCHEDULE.alpha_bar / (1 - SCHEDULE.alpha_bar)  # falls with the step
    return [float((snr * p > 1).sum()) for p in power]


def spearman(values: list[float]) -> float:
    """Rank correlation of a band's value with its frequency."""
    from scipy.stats import spearmanr

    return float(spearmanr(range(len(values)), values).statistic)


def tell(name: str, denoise: Denoise, whole: Tensor) -> list[float]:
    """Measure one set of images and write it down; the bands' decision times."""
    shares = undecided(denoise, tuple(whole.shape[1:]))
    times, signal = half(shares), drowned(whole)
    about = {"n": CHAINS, "forks": FORKS}
    record(f"decision/{name}_shares", {"steps": steps(), "bands": shares.T.tolist()}, **about)  # type: ignore[arg-type]
    record(f"decision/{name}_times", times, "step of 1,000", snr_1=signal, **about)  # type: ignore[arg-type]
    record(f"decision/{name}_ratio", times[0] / times[-1], "lowest / highest band", **about)  # type: ignore[arg-type]
    record(f"decision/{name}_order", spearman(times), "Spearman, with frequency", **about)  # type: ignore[arg-type]
    return times


def grey_patches(name: str, side: int = 16) -> Tensor:
    """PATCHES grey patches in [-1, 1] of photographs or CIFAR-10, [N, 1, side, side]."""
    if name == "cifar10":
        x = data.to_unit(data.load("cifar10", "train", size=side).x[:PATCHES], 256)
        return x.mean(1, keepdim=True)
    from sklearn.datasets import load_sample_images

    rng, patches = np.random.default_rng(0), []
    for photo in load_sample_images().images:
        grey = torch.from_numpy(photo.copy()).float().mean(2) / 127.5 - 1
        small = torch.nn.functional.avg_pool2d(grey[None, None], 4)[0, 0]  # a patch shows something
        for _ in range(PATCHES // 2):
            i, j = (rng.integers(s - side + 1) for s in small.shape)
            patches.append(small[None, i : i + side, j : j + side])
    return torch.stack(patches)


def gaussian(x: Tensor) -> GaussianMixture:
    """The Gaussian with the mean and covariance of images."""
    flat = x.double().flatten(1)
    return GaussianMixture(flat.mean(0)[None], flat.T.cov()[None])


def exact(name: str) -> Callable[[], None]:
    """The fork test on patches with their exact denoiser, and the control."""

    def run() -> None:
        x = grey_patches(name)
        tell(name, gaussian(x), x)
        tell(f"{name}_kept", KernelDenoiser(x, dtype=torch.float32), x)
        # the same patches with every frequency at the same power: noise drowns all at once
        spectrum = torch.fft.fft2(x - x.mean(0), norm="ortho")
        flat = spectrum / spectrum.abs().square().mean(0, keepdim=True).sqrt()
        white = torch.fft.ifft2(flat, norm="ortho").real * x.std()
        tell(f"{name}_white", gaussian(white), white)

    return run


def digits() -> None:
    """The fork test on a trained network."""
    whole = data.to_unit(data.load("digits", "train").x, 17)
    model = pretrained("digits-unet")
    tell("digits", clipped(model), whole)


PARTS = {"digits": digits, "photographs": exact("photographs"), "cifar10": exact("cifar10")}

if __name__ == "__main__":
    run_parts(PARTS, [p for p in PARTS if p != "cifar10" or "DDPM_LITE_DATA" in os.environ])
