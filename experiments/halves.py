"""Does the bottom of a generated digit match its top? Two classifiers that see half a digit each.

    python experiments/halves.py          # both parts, some four minutes of one core
    python experiments/halves.py families # one: families, reach

One reads rows 0 to 3, the other rows 4 to 7; the rate at which they disagree is measured for real
test digits, for samples of both families (committed nets, three training seeds each, all without
labels) and for digits pasted together. ``reach`` trains small PixelCNNs, without labels too, that
differ only in how many rows up they can see. Writes ``ddpm_lite/results/halves.json``.

Written down before the run:

- Each reader is the mean of three nets, trained on the ruler split, which no generator saw. Its
  confidence is calibrated (one temperature a half) on the training split, which no reader saw.
- Readers err, and some real halves are ambiguous: real digits are the floor, never zero.
- A bad half is read at random and disagrees without being mismatched. So the rate is also taken
  among images of which both halves are read with more than 90 % confidence. If the two rates point
  different ways, that is the finding. Where a half is bad, top or bottom, is recorded as well.
- The measure must see what it is for: tops with bottoms of another class must disagree nearly
  always. It cannot see more than the class: tops with bottoms of other digits of the same class
  are recorded to show it.
- A difference below ``MARGIN`` settles nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from _parts import run_parts
from torch import Tensor

from ddpm_lite import metrics, samplers
from ddpm_lite.ar import ARModel, GatedPixelCNN
from ddpm_lite.checkpoint import pretrained
from ddpm_lite.data import Images, load, to_levels
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.fit import averaged, fit
from ddpm_lite.metrics import Interval
from ddpm_lite.record import record
from ddpm_lite.ruler import Ruler, fit_ruler
from ddpm_lite.train import TrainConfig, TrainState, ar_loss

SEEDS, N, SURE, MARGIN = (0, 1, 2), 2000, 0.9, 0.03
HALVES = {"top": slice(0, 4), "bottom": slice(4, 8)}
REACHES, STEPS = (1, 2, 3, 7), 300
DISAGREE, BOTH, TOP, BOTTOM = range(4)  # columns of `judged`


def half(images: Images, where: str) -> Images:
    return replace(images, x=images.x[:, :, HALVES[where]])


@cache
def readers(where: str) -> tuple[list[Ruler], float]:
    """Three nets that read one half, and the temperature of their mean."""
    seen, held = half(load("digits", "ruler"), where), half(load("digits"), where)
    nets = [fit_ruler(seen, smoothing=0, seed=seed) for seed in SEEDS]
    log_p = _log_mean(nets, held.x)
    temperatures = torch.linspace(0.5, 4, 71).tolist()
    paid = [torch.nn.functional.cross_entropy(log_p / t, held.y).item() for t in temperatures]
    return nets, temperatures[paid.index(min(paid))]


@torch.no_grad()
def _log_mean(nets: list[Ruler], x: Tensor) -> Tensor:
    return torch.stack([net(x).softmax(1) for net in nets]).mean(0).log()


def read(x: Tensor, where: str) -> Tensor:
    """Class probabilities [N,10] of one half of images [N,1,8,8]."""
    nets, temperature = readers(where)
    return (_log_mean(nets, x[:, :, HALVES[where]]) / temperature).softmax(1)


def judged(x: Tensor) -> Tensor:
    """[N,4]: do the halves disagree; are both, is the top, is the bottom read with confidence."""
    (p, a), (q, b) = (read(x, where).max(1) for where in HALVES)
    return torch.stack([a != b, (p > SURE) & (q > SURE), p > SURE, q > SURE], 1).double()


def rate(rows: Tensor) -> float:
    """How often the halves disagree."""
    return rows[:, DISAGREE].mean().item()


def sure_rate(rows: Tensor) -> float:
    """How often they disagree where both are read with confidence."""
    return (rows[:, DISAGREE] * rows[:, BOTH]).sum().item() / max(1.0, rows[:, BOTH].sum().item())


def apart(a: Interval, b: Interval) -> Interval:
    """a - b for independent a and b: Newcombe's square-and-add interval (1998, method 10)."""
    low = ((a.value - a.low) ** 2 + (b.high - b.value) ** 2) ** 0.5
    high = ((a.high - a.value) ** 2 + (b.value - b.low) ** 2) ** 0.5
    return Interval(a.value - b.value, a.value - b.value - low, a.value - b.value + high)


def by_row(x: Tensor) -> Tensor:
    """Fréchet distance [8] of each row of pixels from real rows, over these rows' variance."""
    real, x = load("digits", "test").x[:, 0].double(), x[:, 0].double()
    spread = real.var(0).sum(1)
    found = [metrics.frechet(x[:, r], real[:, r]) / float(spread[r]) for r in range(8)]
    return torch.tensor(found)


def downhill(x: Tensor) -> float:
    """By how much the lower rows are further off than the upper ones."""
    rows = by_row(x)
    return (rows[4:].mean() - rows[:4].mean()).item()


def report(name: str, sets: list[Tensor]) -> tuple[Interval, Interval]:
    """Record every figure of the images of one source, a set for each training seed."""
    groups = [judged(x) for x in sets]
    n = len(groups[0])
    both = metrics.nested_bootstrap(rate, groups, n=1000)
    sure = metrics.nested_bootstrap(sure_rate, groups, n=1000)
    read_as = torch.stack([rows.mean(0) for rows in groups]).mean(0)
    record(f"halves/disagree_{name}", both[0], "", both[1:], n, seeds=[rate(g) for g in groups])
    more = {"share": read_as[BOTH], "top": read_as[TOP], "bottom": read_as[BOTTOM]}
    record(f"halves/sure_{name}", sure[0], "", sure[1:], n, **more)
    if n > len(load("digits", "test")):  # else the rows are partly the test digits' own
        value, *ends = metrics.nested_bootstrap(downhill, [x.double() for x in sets], n=100)
        rows = torch.stack([by_row(x) for x in sets]).mean(0)
        record(f"halves/downhill_{name}", value, "", ends, n, rows=rows)
    return both, sure


def pasted(same: bool) -> Tensor:
    """Tops of test digits with bottoms of others, of the same class or of another."""
    test, rng = load("digits", "test"), torch.Generator().manual_seed(0)
    fits = (test.y[:, None] == test.y) == same
    fits.fill_diagonal_(False)
    other = torch.multinomial(fits.double(), 1, generator=rng)[:, 0]
    return torch.cat([test.x[:, :, HALVES["top"]], test.x[other][:, :, HALVES["bottom"]]], 2)


def families() -> None:
    """Real digits, pasted ones, both families, and real tops that the PixelCNN completes."""
    test = load("digits", "test")
    for where in HALVES:
        p = read(test.x, where)
        confident = p.amax(1) > SURE
        record(
            f"halves/accuracy_{where}",
            (p.argmax(1) == test.y).double().mean(),
            n=len(test),
            sure=(p.argmax(1) == test.y)[confident].double().mean(),
            share=confident.double().mean(),
            temperature=readers(where)[1],
        )
    real = report("real", [test.x])
    report("real_train", [load("digits").x])  # unseen by the readers, seen by the generators
    other, _ = report("pasted_other", [pasted(same=False)])
    report("pasted_same", [pasted(same=True)])
    made: dict[str, list[Tensor]] = {"gated": [], "unet": [], "completed": []}
    above = torch.zeros(1, 8, 8, dtype=torch.bool)
    above[:, HALVES["top"]] = True
    for seed in SEEDS:
        suffix = f"-s{seed}" if seed else ""
        ar, unet = (pretrained(f"digits-{family}{suffix}") for family in ("gated", "unet"))
        assert isinstance(ar, ARModel) and isinstance(unet, Denoiser)
        made["gated"].append(ar.sample(N, seed=seed).byte())
        made["unet"].append(to_levels(samplers.sample(unet, N, "dpmpp_2m", 20, seed=seed), 17))
        known = above, test.x.long()
        made["completed"].append(ar.sample(len(test), known=known, seed=seed).byte())
    found = {name: report(name, sets) for name, sets in made.items()}
    pairs = {f"{name}_real": (pair, real) for name, pair in found.items()}
    pairs["gated_unet"] = found["gated"], found["unet"]
    for name, (one, two) in pairs.items():
        for kind, a, b in zip(("disagree", "sure"), one, two, strict=True):
            value, *ends = apart(a, b)
            settled = ends[0] > MARGIN or ends[1] < -MARGIN
            record(f"halves/{kind}_{name}", value, "", ends, settled=settled, margin=MARGIN)
    for name in ("gated", "unet"):  # as if so many were pasted together from two classes
        as_if = (found[name][0].value - real[0].value) / (other.value - real[0].value)
        record(f"halves/as_if_pasted_{name}", as_if)


def limited(reach: int, seed: int) -> GatedPixelCNN:
    """Always the same net; the taps that would see further up than `reach` rows stay zero.

    It is told where each pixel is: a net of short reach would not know how far down it has got.
    """
    torch.manual_seed(seed)
    model = GatedPixelCNN((1, 8, 8), 17, width=16, layers=5, dropout=0.1, positions=True)
    left = reach
    for i, layer in enumerate(model.layers):
        weight: Tensor = layer.vertical.weight  # type: ignore[assignment, union-attr]
        own = int(i > 0)  # from the second layer on, the last row of taps climbs no further
        climbs = min(left, weight.shape[2] - own)
        left -= climbs
        open_ = torch.zeros_like(weight)
        open_[:, :, weight.shape[2] - own - climbs :] = 1
        weight.data *= open_
        weight.register_hook(lambda gradient, open_=open_: gradient * open_)
    return model


@torch.no_grad()
def sees(model: ARModel) -> int:
    """How many rows up a change of a pixel still reaches the logits of the last row."""
    blank = torch.zeros(8, 1, 8, 8, dtype=torch.long)
    for row in range(7):  # the eighth image stays blank
        blank[row, :, row] = 16
    last = model.logits(blank)[:, :, 7]
    return max(7 - row for row in range(7) if not torch.equal(last[row], last[7]))


def reach() -> None:
    """Small PixelCNNs of equal size and different view: bits, halves, rows."""
    test, table = load("digits", "test"), {}
    for rows in REACHES:
        sets, bits = [], []
        for seed in SEEDS:
            config = TrainConfig(STEPS, 32, lr=5e-3, warmup=20, ema=0.98, seed=seed)
            model = limited(rows, seed)
            state = TrainState(model, config)
            list(fit(model, load("digits"), ar_loss, config, state, every=STEPS, progress=False))
            net = averaged(model, state.ema)
            assert isinstance(net, ARModel) and sees(net) == rows
            with torch.no_grad():
                bits.append(net.bits_per_dim(test.x.long()).mean().item())
            sets.append(net.sample(N, seed=seed).byte())
        found = report(f"reach_{rows}", sets)
        table[rows] = {"bits": sum(bits) / len(bits), "disagree": found[0], "sure": found[1]}
    size = sum(p.numel() for p in limited(1, 0).parameters())
    record("halves/reach", table, n=N, seeds=len(SEEDS), parameters=size, steps=STEPS)


PARTS = {"families": families, "reach": reach}

if __name__ == "__main__":
    run_parts(PARTS)
