"""Exposure bias in diffusion: do states that a chain made itself look like noised data?

    python experiments/exposure.py          # both parts, some five minutes of one core
    python experiments/exposure.py variance # one part: variance, error

Writes ``ddpm_lite/results/exposure.json``. ``variance`` follows the summed variance of a trained
network's own x_t against that of q(x_t): with and without clipping, and with the cure of dividing
eps. Two perfect denoisers take the same steps from the same noise: that of the list of digits,
which ends on its images whatever the steps lose, and that of a Gaussian with the digits'
covariance, which shows what they do lose. Along the probability flow, where the steps lose next to
nothing, the network's own share is left. ``error`` needs the truth: on a mixture in the plane the
exact E[eps | x_t] is known, so that a small network's error on states of its own chain can be set
against its error on true x_t, and on states of the exact denoiser's chain. (Against a drawn noise
it could not: a state that the chain made has no true noise.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from _parts import run_parts
from torch import Tensor, nn

from ddpm_lite import metrics
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import load, to_unit
from ddpm_lite.diffusion import (
    Denoise,
    Denoiser,
    Label,
    Level,
    Prediction,
    clipped,
    diffuse,
    like,
)
from ddpm_lite.exact import GaussianMixture, KernelDenoiser
from ddpm_lite.record import record
from ddpm_lite.samplers import State, ddpm, heun
from ddpm_lite.schedules import Cosine, from_spec

SEEDS = (0, 1, 2)
STEPS, N = 100, 500
FLOW_STEPS = 50  # of Heun: as many calls as STEPS, less one
LOOKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)  # of the chain, the last one just before the end
CURE = 1.005  # eps is divided by it (Ning et al. 2024)
PLANE = GaussianMixture([[-0.6, 0.2], [0.5, -0.3], [0.2, 0.7]], [0.01, 0.03, 0.02], [0.3, 0.5, 0.2])
PLANE_STEPS, PLANE_N, PLANE_SEEDS = 50, 4000, 5


def cured(denoise: Denoise, by: float = CURE) -> Denoise:
    """eps divided by ``by`` before x0 is taken from it, as in Ning et al. 2024, section 4."""

    def less(x: Tensor, alpha: Level, sigma: Level, label: Label = None) -> Prediction:
        eps = denoise(x, alpha, sigma, label).eps / by
        return Prediction((x - like(sigma, x).to(x) * eps) / like(alpha, x).to(x), eps)

    return less


class Chain(NamedTuple):
    """What is followed: how a network becomes a denoiser, and the steps it takes."""

    wrap: Callable[[Denoiser], Denoise]
    sampler: Callable[..., Iterator[State]] = ddpm
    steps: int = STEPS


def variance() -> None:
    """Summed variance of a chain's own states over that of noised digits, minus 1."""
    real = torch.cat([to_unit(load("digits", s).x, 17) for s in ("train", "valid", "test")])
    spread = real.double().flatten(1)
    listed = KernelDenoiser(real, dtype=torch.float32)
    gaussian = GaussianMixture(spread.mean(0)[None], spread.T.cov()[None])
    chains = {
        "plain": Chain(lambda model: model),
        "clipped": Chain(clipped),
        "cured": Chain(cured),
        "exact": Chain(lambda model: listed),
        "gaussian": Chain(lambda model: gaussian),
        "flow": Chain(lambda model: model, heun, FLOW_STEPS),
        "flow_gaussian": Chain(lambda model: gaussian, heun, FLOW_STEPS),
    }
    gaps = {name: [_gap(chain, seed, spread) for seed in SEEDS] for name, chain in chains.items()}
    for one, other in (("plain", "gaussian"), ("flow", "flow_gaussian")):  # from the same noise
        gaps[f"{one}_own"] = [a - b for a, b in zip(gaps[one], gaps[other], strict=True)]
    for name, gap in gaps.items():  # a group [N, looks] for each seed
        table: dict[str, object] = {}
        for j, look in enumerate(LOOKS):
            column = [g[:, j] for g in gap]
            value, *ends = metrics.nested_bootstrap(lambda a: a.mean().item(), column)
            table[str(round(100 - 100 * look))] = {"value": value, "interval": ends}
        about = {"unit": "own / true - 1", "n": N, "seeds": len(SEEDS)}
        record(f"exposure/variance_{name}", table, **about)  # type: ignore[arg-type]
        record(f"exposure/variance_{name}_end", value, "own / true - 1", ends, N)


def _gap(chain: Chain, seed: int, spread: Tensor) -> Tensor:
    """[N, looks]: each state's share of the chain's variance over the true variance, minus 1."""
    model = pretrained("digits-unet" + (f"-s{seed}" if seed else ""))
    grid, g = from_spec(model.info["schedule"]).grid(chain.steps), torch.Generator()
    g.manual_seed(seed)
    unit = lambda i=0: torch.randn(N, 1, 8, 8, generator=g)  # noqa: E731
    looks, columns = [round(q * chain.steps - 0.01) for q in LOOKS], []
    for state in chain.sampler(chain.wrap(model), unit(), grid, fresh=unit):
        if state.i in looks:
            alpha, sigma = grid[state.i].tolist()
            truth = alpha**2 * spread.var(0).sum() + sigma**2 * spread.shape[1]
            x = state.x.double().flatten(1)
            columns.append((x - x.mean(0)).square().sum(1) * N / (N - 1) / truth - 1)
    return torch.stack(columns, 1)


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
    rows: dict[str, list[list[float]]] = {"own": [], "exact": [], "true": []}

    def wrong(model: Denoise, x: Tensor, alpha: float, sigma: float) -> float:
        apart = model(x, alpha, sigma).eps - PLANE.denoise(x, alpha, sigma).eps
        return apart.square().sum((1, 2, 3)).mean().item()

    for seed in range(PLANE_SEEDS):
        with torch.enable_grad():
            model = trained(seed)
        x0 = PLANE.sample(PLANE_N, seed=seed).float().view(-1, 1, 1, 2)
        torch.manual_seed(seed)
        true = {i: diffuse(x0, grid[i, 0], grid[i, 1], torch.randn_like(x0)) for i in looks}
        states = {"true": true}
        for name, denoise in (("own", model), ("exact", PLANE.denoise)):  # the same random numbers
            torch.manual_seed(100 + seed)
            chain = ddpm(denoise, torch.randn(PLANE_N, 1, 1, 2), grid)
            states[name] = {state.i: state.x for state in chain if state.i in looks}
        for name, row in rows.items():
            row.append([wrong(model, states[name][i], *grid[i].tolist()) for i in looks])
    table = {name: torch.tensor(row) for name, row in rows.items()}  # [seeds, looks]
    left = [str(PLANE_STEPS - i) for i in looks]
    for name in ("own", "exact"):
        ratio = table[name] / table["true"]
        pairs = zip(left, ratio.T, strict=True)
        found = {k: {"ratio": r.mean().item(), "seeds": r.tolist()} for k, r in pairs}
        record(f"exposure/error_{name}", found, "of the error on true states", n=PLANE_N)
    for k, values in zip(left, (table["own"] / table["exact"]).T, strict=True):
        value, *ends = metrics.bootstrap(lambda a: a.mean().item(), values[:, None])
        record(f"exposure/error_{k}_left", value, "own / exact chain's", ends, PLANE_N)


PARTS = {"error": error, "variance": variance}

if __name__ == "__main__":
    run_parts(PARTS)
