"""Chapter 1's comparisons with several training seeds: order, block size, own context, blur.

    python experiments/factorization.py          # all parts, about two minutes of one core
    python experiments/factorization.py blocks   # one part: orders, context, blur, vae, blocks

Writes ``ddpm_lite/results/factorization.json``. The models are the chapter's own, MADE half as wide
and LinearAR, on its digits; every interval is over training seeds and test images at once.
"""

from __future__ import annotations

import math
from functools import cache, partial

import torch
import torch.nn.functional as F
from _parts import run_parts
from torch import Tensor, nn

from ddpm_lite import data
from ddpm_lite.ar import MADE, ARModel, LinearAR, Marginal
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.fit import averaged, fit
from ddpm_lite.metrics import Interval, frechet, nested_bootstrap
from ddpm_lite.record import record
from ddpm_lite.train import TrainConfig, TrainState, ar_loss

SEEDS = (0, 1, 2)
TRAIN, VALID, TEST = (data.load("digits", split) for split in ("train", "valid", "test"))
X = TEST.x.long()  # [397,1,8,8]
COUNTED = Marginal(TEST.shape, TEST.levels).fit(TRAIN.x)
PLACES = torch.arange(64).view(8, 8)
UPPER = (PLACES < 32)[None]  # bool [1,8,8]


@torch.enable_grad()
def trained(model: MADE | LinearAR, steps: int, lr: float, decay: float, seed: int) -> ARModel:
    """From the counts, 250 steps or so; the averaged weights that did best on `valid`."""
    with torch.no_grad():
        model.out.bias.copy_(COUNTED.table[model.order].flatten())
    config = TrainConfig(steps=steps, lr=lr, warmup=20, weight_decay=decay, ema=0.98, seed=seed)
    state = TrainState(model, config)
    for _ in fit(model, TRAIN, ar_loss, config, state, valid=VALID, every=50, progress=False):
        pass
    best = averaged(model, state.weights())
    assert isinstance(best, ARModel)
    return best


@cache
def made(name: str, seed: int) -> ARModel:
    torch.manual_seed(seed)
    model = MADE(TEST.shape, TEST.levels, 256, 1, ORDERS[name], dropout=0.25)
    return trained(model, 250, 2e-2, 0.9, seed)


def mean(values: Tensor) -> float:
    return float(values.mean())


def root_mean(squares: Tensor) -> float:
    return math.sqrt(mean(squares))


def ratio(pair: Tensor) -> float:
    return mean(pair[:, 0]) / mean(pair[:, 1])


def stacked(groups: list[Tensor]) -> Interval:
    return nested_bootstrap(mean, groups, n=1000)


# -- the order ------------------------------------------------------------------------------------


def coarse_to_fine() -> list[int]:
    """Every fourth pixel of every fourth row, then every second, then the rest: 4, 16, 64."""
    level = torch.full((8, 8), 2)
    level[::2, ::2] = 1
    level[::4, ::4] = 0
    return torch.argsort(level.flatten(), stable=True).tolist()


def shuffled(seed: int) -> list[int]:
    return torch.randperm(64, generator=torch.Generator().manual_seed(seed)).tolist()


ORDERS = {
    "raster": list(range(64)),
    "reversed": list(range(63, -1, -1)),
    "columns": PLACES.T.flatten().tolist(),
    "coarse": coarse_to_fine(),
    "shuffled": shuffled(0),
    "shuffled_2": shuffled(1),
    "shuffled_3": shuffled(2),
}


@torch.no_grad()
def orders() -> None:
    """Held-out bits of each order less those of raster, in % of raster's."""
    raster = [made("raster", s).bits_per_dim(X).double() for s in SEEDS]
    value, *ends = stacked(raster)
    record("factorization/bits_raster", value, "bits/dim", ends, len(X), seeds=len(SEEDS))
    table = {}
    for name in ORDERS:
        bits = [made(name, s).bits_per_dim(X).double() for s in SEEDS]
        ahead = [100 * (b - r) / r.mean() for b, r in zip(bits, raster, strict=True)]
        value, *ends = stacked(ahead)
        table[name] = {"value": value, "interval": ends, "seeds": [mean(a) for a in ahead]}
        record(f"factorization/order_{name}", value, "% of raster's bits", ends, len(X))
    record("factorization/orders", table, "% of raster's bits", n=len(X), seeds=len(SEEDS))


# -- several pixels at once -----------------------------------------------------------------------


def in_runs(order: list[int], k: int) -> list[list[int]]:
    """The order cut into sets of k."""
    return [order[a : a + k] for a in range(0, 64, k)]


def lattice(rows: int, columns: int) -> list[list[int]]:
    """Sets of rows × columns pixels, as far apart as the image allows."""
    a, b = 8 // rows, 8 // columns
    return [PLACES[r::a, c::b].flatten().tolist() for r in range(a) for c in range(b)]


RASTER = list(range(64))
SETS = {f"row_{k}": in_runs(RASTER, k) for k in (1, 2, 4, 8, 16, 32, 64)} | {
    "spread_4": lattice(2, 2),
    "spread_8": lattice(2, 4),
    "eighth_8": lattice(8, 1),  # "every 8th pixel" of the sequence: a whole column
}


def in_blocks(blocks: list[list[int]], at_once: bool, seed: int) -> Tensor:
    """Held-out bits per image [397] of LinearAR, the blocks' pixels each given earlier blocks."""
    torch.manual_seed(seed)
    order = [i for block in blocks for i in block]
    model = LinearAR(TEST.shape, TEST.levels, order=order)
    if at_once:
        start = torch.tensor([sum(map(len, blocks[:b])) for b, s in enumerate(blocks) for _ in s])
        seen = start[:, None] > torch.arange(64)  # [64,64]: by rank, the block's pixels excluded
        model.out.mask.copy_(seen.repeat_interleave(TEST.levels, 0))
    return trained(model, 200, 5e-2, 0.3, seed).bits_per_dim(X).double() * 64


@torch.no_grad()
def blocks() -> None:
    """What drawing a set of pixels at once costs, against the same order one pixel at a time."""
    table = {}
    single: dict[tuple[int, ...], list[Tensor]] = {}
    for name, sets in SETS.items():
        order = tuple(i for s in sets for i in s)
        if order not in single:
            single[order] = [in_blocks(sets, False, s) for s in SEEDS]
        bits = [in_blocks(sets, True, s) for s in SEEDS] if len(sets) < 64 else single[order]
        paid = [b - s for b, s in zip(bits, single[order], strict=True)]
        value, *ends = stacked(paid)
        total, *total_ends = stacked(bits)
        table[name] = {
            "steps": len(sets), "value": value, "interval": ends,
            "total": total, "total_interval": total_ends,
        }  # fmt: skip
        record(f"factorization/price_{name}", value, "bits/image", ends, len(X))
    record("factorization/blocks", table, "bits/image", n=len(X), seeds=len(SEEDS))


# -- true context and one's own -------------------------------------------------------------------


@torch.no_grad()
def context() -> None:
    """Row r of completions whose first k rows were given, against row r of real digits.

    Fréchet distance of the 8 pixels of a row, over that of the test images' own: at k = r only the
    row itself is the model's, at k = 0 all that stands above it too. The reference is of neither
    split: the given rows come from the test images, and would favour these.
    """
    reference = torch.cat([data.load("digits", "ruler").x, VALID.x])[: len(X)]  # [397,1,8,8]
    them, real = reference.double().flatten(1), X.double().flatten(1)  # [397,64]

    def apart(x: Tensor, r: int) -> float:
        row = slice(8 * r, 8 * r + 8)
        return frechet(x[:, row], them[:, row]) / frechet(real[:, row], them[:, row])

    def drawn_after(k: int, seed: int) -> Tensor:
        known = ((k > PLACES // 8)[None], X)
        return made("raster", seed).sample(len(X), known=known, seed=100 + seed).double().flatten(1)

    drawn = {k: [drawn_after(k, s) for s in SEEDS] for k in range(8)}

    def gap(pair: Tensor, r: int) -> float:
        return apart(pair[:, 0], r) - apart(pair[:, 1], r)

    table = {}
    for r in range(1, 8):
        for k in range(r + 1):
            value, *ends = nested_bootstrap(partial(apart, r=r), drawn[k], n=200)
            table[f"{r}/{k}"] = {"value": value, "interval": ends}
    record("factorization/context", table, "times real against real", n=len(X), seeds=len(SEEDS))
    for r in (4, 7):  # the same row after own and after true context; paired by seed and image
        pairs = [torch.stack([a, b], 1) for a, b in zip(drawn[0], drawn[r], strict=True)]
        value, *ends = nested_bootstrap(partial(gap, r=r), pairs, n=500)
        record(f"factorization/context_gap_{r}", value, "own less true", ends, len(X))
    halves(drawn)


def halves(drawn: dict[int, list[Tensor]]) -> None:
    """How often a classifier of the upper half and one of the lower name different digits."""
    from sklearn.linear_model import LogisticRegression

    ruler = data.load("digits", "ruler")
    pixels, labels = ruler.x.flatten(1).numpy() / 16, ruler.y.numpy()
    judges = [
        LogisticRegression(max_iter=2000).fit(part, labels)
        for part in (pixels[:, :32], pixels[:, 32:])
    ]

    def differ(x: Tensor) -> Tensor:
        top, bottom = (
            judge.predict(part.numpy() / 16)
            for judge, part in zip(judges, (x[:, :32], x[:, 32:]), strict=True)
        )
        return torch.from_numpy(top != bottom).double()

    gated = [pretrained(f"digits-gated{s}") for s in ("", "-s1", "-s2")]
    sets = {
        "real": [X.double().flatten(1)],
        "upper_given": drawn[4],
        "own": drawn[0],
        "gated": [m.sample(len(X), seed=100).double().flatten(1) for m in gated],
    }
    for name, groups in sets.items():
        value, *ends = stacked([differ(x) for x in groups])
        record(f"factorization/differ_{name}", value, "share", ends, len(X), seeds=len(groups))


# -- blur against draw ----------------------------------------------------------------------------


@torch.enable_grad()
def regressed(seed: int) -> Tensor:
    """Lower halves by squared error from the upper ones, levels as floats [397,32]."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 32))
    upper, lower = data.to_unit(TRAIN.x, 17).flatten(1).split(32, 1)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.1)
    for _ in range(300):
        rows = torch.randint(len(upper), (128,))
        loss = F.mse_loss(net(upper[rows]), lower[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    guess = net.eval()(data.to_unit(X, 17).flatten(1)[:, :32]).detach()
    return data.to_levels(guess.view(-1, 1, 4, 8), 17).double().flatten(1)


@torch.enable_grad()
def latent_completions(seed: int, z_size: int = 8, draws: int = 10) -> Tensor:
    """Lower halves decoded from z ~ N(0, 1) and the upper half, levels [draws,397,32].

    A Gaussian decoder with one learned variance, shown by its mean, as VAEs usually are.
    """
    torch.manual_seed(seed)
    encode = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 2 * z_size))
    decode = nn.Sequential(nn.Linear(32 + z_size, 128), nn.ReLU(), nn.Linear(128, 32))
    log_var = nn.Parameter(torch.tensor(-1.0))
    upper, lower = data.to_unit(TRAIN.x, 17).flatten(1).split(32, 1)
    parameters = [*encode.parameters(), *decode.parameters(), log_var]
    optimizer = torch.optim.AdamW(parameters, 3e-3, weight_decay=0.1)
    for _ in range(1500):
        rows = torch.randint(len(upper), (128,))
        mu, log_s2 = encode(torch.cat([upper[rows], lower[rows]], 1)).split(z_size, 1)
        z = mu + (log_s2 / 2).exp() * torch.randn_like(mu)
        square = (decode(torch.cat([upper[rows], z], 1)) - lower[rows]).square().sum(1)
        fit_term = square / (2 * log_var.exp()) + 16 * log_var  # 32 pixels, half of each
        divergence = (mu.square() + log_s2.exp() - 1 - log_s2).sum(1) / 2
        optimizer.zero_grad()
        (fit_term + divergence).mean().backward()
        optimizer.step()
    given = data.to_unit(X, 17).flatten(1)[:, :32]
    found = []
    for _ in range(draws):
        guess = decode(torch.cat([given, torch.randn(len(X), z_size)], 1)).detach()
        found.append(data.to_levels(guess.view(-1, 1, 4, 8), 17).double().flatten(1))
    return torch.stack(found)


@torch.no_grad()
def by_mean(model: ARModel) -> Tensor:
    """Lower halves, each pixel the rounded mean of its distribution, [397,32]."""
    walk, flat, levels = model.begin(len(X)), X.flatten(1), torch.arange(17.0)
    for i in range(64):
        p = model.step(walk, i).softmax(-1)
        walk.put(i, flat[:, i] if i < 32 else (p @ levels).round().long())
    return walk.x.double().flatten(1)[:, 32:]


def power(lower: Tensor) -> Tensor:
    """Energy above a quarter cycle per pixel of lower halves [N,32] -> [N]."""
    spectrum = torch.fft.fft2(lower.view(-1, 4, 8)).abs().square()
    high = torch.fft.fftfreq(4)[:, None] ** 2 + torch.fft.fftfreq(8) ** 2 > 0.25**2
    return spectrum[:, high].sum(1)


@torch.no_grad()
def blur() -> None:
    """Fine detail, error, best of ten and spread of completed lower halves."""
    ways = {"regress": [regressed(s)[None] for s in SEEDS]}
    ways["means"] = [by_mean(made("raster", s))[None] for s in SEEDS]
    ways["draw"] = [
        torch.stack([
            made("raster", s).sample(len(X), known=(UPPER, X), seed=10 * s + j).double()
            .flatten(1)[:, 32:]
            for j in range(10)
        ])
        for s in SEEDS
    ]  # fmt: skip
    looked_at(ways)


@torch.no_grad()
def latent() -> None:
    """The same for a conditional VAE: squared error per pixel, but eight latent numbers to draw."""
    looked_at({"vae": [latent_completions(s) for s in SEEDS]})


def looked_at(ways: dict[str, list[Tensor]]) -> None:
    truth = X.double().flatten(1)[:, 32:]
    real = power(truth)
    for name, groups in ways.items():  # each group [draws,397,32], in levels
        pairs = [torch.stack([power(g[0]), real], 1) for g in groups]
        value, *ends = nested_bootstrap(ratio, pairs, n=500)
        record(f"factorization/detail_{name}", value, "of real", ends, len(X))
        error = [(g - truth).square().mean(-1) / 64 for g in groups]  # [draws,397], unit squared
        squares = {
            "rmse": [e[0] for e in error],
            "best": [e.amin(0) for e in error],
            "spread": [g.var(0, correction=0).mean(-1) / 64 for g in groups],
        }
        for key, values in squares.items():
            value, *ends = nested_bootstrap(root_mean, values, n=500)
            record(f"factorization/{key}_{name}", value, "of [-1, 1]", ends, len(X))


PARTS = {
    "orders": orders, "context": context, "blur": blur, "vae": latent, "blocks": blocks,
}  # fmt: skip

if __name__ == "__main__":
    run_parts(PARTS)
