"""Exposure bias in diffusion: do states that a chain made itself look like noised data?

    python experiments/exposure.py          # both parts, a few minutes of one core
    python experiments/exposure.py variance # one part: variance, error

Writes ``ddpm_lite/results/exposure.json``. ``variance`` follows the summed variance of a trained
network's own x_t against that of q(x_t): with and without clipping, with the cure of scaling eps
down, and with the exact denoiser in the network's place, which shows what the steps alone lose.
``error`` needs the truth: on a mixture in the plane the exact E[eps | x_t] is known, so that a
small network's error on states of its own chain can be set against its error on true x_t. (Against
a drawn noise it could not: a state that the chain made has no true noise.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_lite import metrics
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load, to_unit
from ddpm_lite.diffusion import Denoise, Denoiser, Label, Level, Prediction, clipped, diffuse
from ddpm_lite.exact import GaussianMixture, KernelDenoiser
from ddpm_lite.record import record
from ddpm_lite.samplers import ddpm
from ddpm_lite.schedules import Cosine, from_spec

HERE = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
STEPS, N = 100, 500
LOOKS = (10, 30, 50, 70, 90, 95, 99)  # states of the chain, the last one just before the end
CURE = 1.005  # eps is divided by it (Ning et al. 2024)
PLANE = GaussianMixture([[-0.6, 0.2], [0.5, -0.3], [0.2, 0.7]], [0.01, 0.03, 0.02], [0.3, 0.5, 0.2])
PLANE_STEPS, PLANE_N, PLANE_SEEDS = 50, 4000, 5


def damped(denoise: Denoise, by: float = CURE) -> Denoise:
    """eps divided by ``by``, as Ning et al. 2024 do; x0 stays what was expected."""

    def less(x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        x0, eps = denoise(x, alpha, sigma, label)
        return Prediction(x0, eps / by)

    return less


def variance() -> None:
    """Summed variance of a chain's own states over that of noised test images, minus 1."""
    grid = from_spec(pretrained("digits-unet").info["schedule"]).grid(STEPS)
    real = torch.cat([load("digits", s).x for s in ("train", "valid", "test")])
    spread = to_unit(real, 17).double().flatten(1)
    # what the steps themselves lose: the same chain with the exact denoiser of the same images
    exact = KernelDenoiser(to_unit(real, 17), dtype=torch.float32)
    denoisers: dict[str, Callable[[Denoiser], Denoise]] = {
        "plain": lambda model: model,
        "clipped": clipped,
        "cured": damped,
        "exact": lambda model: exact,
    }
    for name, wrap in denoisers.items():
        squares: dict[int, list[Tensor]] = {i: [] for i in LOOKS}  # a group for each seed
        for seed in SEEDS:
            model = pretrained("digits-unet" + (f"-s{seed}" if seed else ""))
            assert isinstance(model, Denoiser)
            g = torch.Generator().manual_seed(seed)
            unit = lambda i=0, g=g: torch.randn(N, 1, 8, 8, generator=g)  # noqa: E731
            for state in ddpm(wrap(model), unit(), grid, fresh=unit):
                if state.i in LOOKS:
                    x = state.x.double().flatten(1)
                    squares[state.i].append((x - x.mean(0)).square().sum(1) * N / (N - 1))
        table = {}
        for i in LOOKS:
            alpha, sigma = grid[i].tolist()
            truth = alpha**2 * spread.var(0).sum().item() + sigma**2 * spread.shape[1]
            gap = [s / truth - 1 for s in squares[i]]
            value, *ends = metrics.nested_bootstrap(lambda a: a.mean().item(), gap)
            table[str(STEPS - i)] = {"value": value, "interval": ends}
        record(f"exposure/variance_{name}", table, "own / true - 1", n=N, seeds=len(SEEDS))
        record(
            f"exposure/variance_{name}_end", value, "own / true - 1", ends, N
        )  # of the last look


class Net(nn.Module):
    """A small network for images of two numbers."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )
        self.spec = {"class": "Net", "width": width}

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        return self.body(torch.cat([x.flatten(1), log_snr[:, None] / 8], 1)).view_as(x)


def trained(seed: int, steps: int = 2000, batch: int = 512) -> Denoiser:
    """A network that has learned the mixture in the plane, not perfectly."""
    torch.manual_seed(seed)
    model, schedule = Denoiser(Net(), "v", 0.6), Cosine()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    data = PLANE.sample(steps * batch, seed=1000 + seed).float().view(steps, batch, 1, 1, 2)
    for x0 in data:
        alpha, sigma = schedule.draw(torch.rand(batch))
        noise = torch.randn_like(x0)
        x = diffuse(x0, alpha, sigma, noise)
        wrong = model.raw(x, alpha, sigma) - model.target(x0, alpha, sigma, noise)
        optimizer.zero_grad()
        wrong.square().mean().backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def error() -> None:
    """Squared error of a network's eps against the exact one: on own states over on true ones."""
    grid = Cosine().grid(PLANE_STEPS)
    looks = [round(q * PLANE_STEPS) for q in (0.2, 0.4, 0.6, 0.8, 0.9, 0.98)]
    own: dict[int, list[float]] = {i: [] for i in looks}
    true: dict[int, list[float]] = {i: [] for i in looks}

    def wrong(model: Denoise, x: Tensor, alpha: float, sigma: float) -> float:
        apart = model(x, alpha, sigma).eps - PLANE.denoise(x, alpha, sigma).eps
        return apart.square().sum((1, 2, 3)).mean().item()

    for seed in range(PLANE_SEEDS):
        with torch.enable_grad():
            model = trained(seed)
        torch.manual_seed(seed)
        for state in ddpm(model, torch.randn(PLANE_N, 1, 1, 2), grid):
            if state.i in looks:
                alpha, sigma = grid[state.i].tolist()
                x0 = PLANE.sample(PLANE_N, seed=seed).float().view(-1, 1, 1, 2)
                own[state.i].append(wrong(model, state.x, alpha, sigma))
                x = diffuse(x0, alpha, sigma, torch.randn_like(x0))
                true[state.i].append(wrong(model, x, alpha, sigma))
    table = {}
    for i in looks:
        ratio = torch.tensor(own[i]) / torch.tensor(true[i])
        table[str(PLANE_STEPS - i)] = {
            "own": sum(own[i]) / len(own[i]),
            "true": sum(true[i]) / len(true[i]),
            "ratio": ratio.mean().item(),
            "seeds": ratio.tolist(),
        }
    record("exposure/error", table, "squared error of eps", n=PLANE_N, seeds=PLANE_SEEDS)
    for name, i in (("start", looks[0]), ("end", looks[-1])):
        ratio = torch.tensor(own[i]) / torch.tensor(true[i])
        value, *ends = metrics.bootstrap(lambda a: a.mean().item(), ratio[:, None])
        record(f"exposure/error_{name}", value, "own / true", ends, PLANE_N, seeds=ratio.tolist())


PARTS = {"error": error, "variance": variance}

if __name__ == "__main__":
    os.environ["DDPM_LITE_RESULTS"] = str(HERE / "ddpm_lite" / "results")
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        raise SystemExit(f"unknown part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    for part in wanted:
        PARTS[part]()
