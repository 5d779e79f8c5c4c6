"""# What it costs, and what fits

A service has to deliver a batch of images before a deadline. On the desk lies a list of ways to
make them, from both families, each with its measured Fréchet distance. Which one? The chapter's
three units have to be kept apart: waiting, arithmetic, seconds.

`rows` is a list of dicts, one for each way:

- `"sampler"`: `"naive"` or `"cached"` (autoregression), `"ddpm"`, `"ddim"`, `"heun"` or
  `"dpmpp_2m"`;
- `"steps"`, int: pixels of the image for autoregression, steps of the grid for diffusion. Grids end
  without noise, $\\sigma = 0$;
- `"macs"`, float: million multiply-accumulates of **one full pass** of its network over **one**
  image;
- `"overhead"`, float: seconds that a call takes before any arithmetic;
- `"distance"`, `"upper"`, floats: its Fréchet distance, and the upper end of its interval.

**Part 1: the bill.** For each way

1. its *waits*: network calls that must follow one another for a batch. The cached sampler calls as
   often as the naive one, but all its calls of an image together compute one full pass;
2. its *arithmetic*: million MACs per image, all calls together;
3. its *seconds* for the whole batch. A call takes its overhead, and then its million MACs, for all
   that is in the call, divided by `rate` (million MACs per second).

All ways are guided with the same `weight` $w$: $\\hat\\varepsilon_\\varnothing +
w\\,(\\hat\\varepsilon_y - \\hat\\varepsilon_\\varnothing)$, and the same sum on logits for
autoregression. Both answers come from one call with twice the images. A careful program does not
ask for what it will multiply by zero: look at $w = 0$ and at $w = 1$.

**Part 2: the choice.** A way *fits* if its seconds are at most `deadline`. Of those that fit, take
the one with the lowest distance. A way that fits and whose distance is at most that one's `upper`
is as good as it, as far as anybody can tell. Choose among all these, the best included, the one
with the fewest seconds, and return its index in `rows`, an int; −1 if nothing fits.

`batch` is the number of images. Return the tuple (bill, index), the bill a float64 tensor `[N, 3]`
with the columns in the order above. No ties come up.

*Predict*: 64 waits or 20, which is slower? Which number in a row would you have to know?
"""

import torch
from torch import Tensor


def plan(
    rows: list[dict[str, str | int | float]],
    batch: int,
    weight: float,
    rate: float,
    deadline: float,
) -> tuple[Tensor, int]:
    """(waits, million MACs per image, seconds per batch) of each way [N, 3]; the chosen way."""
    ### BEGIN SOLUTION
    halves = 1 if weight in (0, 1) else 2
    bill = torch.zeros(len(rows), 3, dtype=torch.float64)
    for i, row in enumerate(rows):
        steps = int(row["steps"])
        waits = 2 * steps - 1 if row["sampler"] == "heun" else steps
        macs = halves * float(row["macs"])  # of a call, for each image asked for
        if row["sampler"] == "cached":
            macs = macs / steps
        seconds = waits * (float(row["overhead"]) + batch * macs / rate)
        bill[i] = torch.tensor([waits, waits * macs, seconds])
    seconds = bill[:, 2].tolist()
    distance = [float(row["distance"]) for row in rows]
    fit = [i for i in range(len(rows)) if seconds[i] <= deadline]
    if not fit:
        return bill, -1
    best = min(fit, key=lambda i: distance[i])
    level = [i for i in fit if distance[i] <= float(rows[best]["upper"])]
    return bill, min(level, key=lambda i: seconds[i])
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call

AR, NOISE = ("naive", "cached"), ("ddpm", "ddim", "heun", "dpmpp_2m")
Row = dict[str, str | int | float]


def way(rng: Random, sampler: str, place: int) -> Row:
    """A way to make images; the later its place the larger its distance, intervals apart."""
    return {
        "sampler": sampler,
        "steps": rng.whole(30, 90) if sampler in AR else rng.whole(5, 40),
        "macs": rng.number(2, 9),
        "overhead": rng.number(0.001, 0.004),
        "distance": 2.0 + place + rng.number(0, 0.3),
        "upper": 2.4 + place + rng.number(0, 0.3),
    }


def bill(rng: Random, samplers: tuple[str, ...], weight: float) -> Step:
    """Everything fits, nothing is level: the choice is the first."""
    rows = [way(rng, sampler, place) for place, sampler in enumerate(samplers)]
    return call(rows, rng.whole(2, 20), weight, rng.number(2_000, 9_000), 1e6)


def diffusion(rng: Random) -> Iterator[Step]:
    yield bill(rng, NOISE, 1.0)
    yield bill(rng, ("heun", "ddim"), 0.0)


def autoregression(rng: Random) -> Iterator[Step]:
    yield bill(rng, AR, 1.0)
    yield bill(rng, ("cached", "dpmpp_2m", "naive"), 0.0)


def guidance(rng: Random) -> Iterator[Step]:
    for weight in (rng.number(1.5, 4), rng.number(0.2, 0.8)):
        yield bill(rng, ("heun", "cached", "ddpm"), weight)


def offered(rng: Random, weight: float) -> Step:
    """A deadline at 1 (scaled), and one of everything that can be mistaken for the right one."""
    # sampler, steps, seconds of the batch, arithmetic's share of them, distance, upper
    table = [
        ("ddpm", 50, 0.90, 0.6, 2.0, 3.0),  # the best that fits, and slow
        ("ddim", 30, 0.30, 0.6, 2.5, 3.5),  # the right one: level and fastest
        ("heun", 5, 0.60, 0.7, 2.4, 2.9),  # level, fewest waits
        ("cached", 64, 0.50, 0.1, 2.8, 3.7),  # level, least arithmetic
        ("dpmpp_2m", 20, 0.20, 0.7, 3.4, 4.5),  # level only with the best that does not fit
        ("ddim", 8, 0.10, 0.7, 4.0, 4.6),  # the fastest
        ("naive", 64, 1.40, 0.8, 1.0, 3.7),  # the best of all: does not fit
        ("heun", 40, 1.20, 0.8, 1.5, 1.9),  # does not fit, if both halves are counted
    ]
    batch, rate, rows = rng.whole(4, 30), rng.number(2_000, 9_000), []
    scale = rng.number(0.5, 2)
    halves = 1 if weight in (0, 1) else 2
    for sampler, steps, about, share, distance, upper in table:
        seconds = scale * about * rng.number(0.97, 1.03)
        waits = 2 * steps - 1 if sampler == "heun" else steps
        passes = 1 if sampler == "cached" else waits
        rows.append(
            {
                "sampler": sampler,
                "steps": steps,
                "macs": seconds * share * rate / (batch * passes * halves),
                "overhead": seconds * (1 - share) / waits,
                "distance": distance + rng.number(-0.04, 0.04),
                "upper": upper + rng.number(-0.04, 0.04),
            }
        )
    order = sorted(range(len(rows)), key=lambda _: rng.number(0, 1))
    return call([rows[i] for i in order], batch, weight, rate, scale)


def choices(rng: Random) -> Iterator[Step]:
    yield offered(rng, 1.0)


def guided_choices(rng: Random) -> Iterator[Step]:
    yield offered(rng, rng.number(2, 4))
    yield offered(rng, 0.0)


def nothing(rng: Random) -> Iterator[Step]:
    """A deadline that nobody meets; and one that a single way meets."""
    rows = [
        way(rng, sampler, place)
        for place, sampler in enumerate(("ddim", "naive", "heun", "cached"))
    ]
    yield call(rows, rng.whole(2, 20), 2.0, rng.number(2_000, 9_000), 1e-3)
    rows = [*rows[:2], rows[2] | {"steps": 1, "overhead": 1e-4, "macs": 0.01}, *rows[3:]]
    yield call(rows, rng.whole(2, 20), 2.0, rng.number(2_000, 9_000), 1e-3)


EXERCISE = Exercise(
    difficulty=3,
    minutes=40,
    checks=[
        Check("the bill of the diffusion samplers", diffusion, tolerance=1e-6, hint="bill"),
        Check("the bill of autoregression", autoregression, tolerance=1e-6, hint="bill"),
        Check("the bill with guidance", guidance, tolerance=1e-6, hint="guided"),
        Check("the choice", choices, tolerance=1e-6, hint="choice"),
        Check("the choice, guided", guided_choices, tolerance=1e-6, hint="choice", public=False),
        Check("nothing fits, or a single way", nothing, tolerance=1e-6, hint="none"),
    ],
    hints={
        "heun": "Heun asks twice a step, but not in the last: where no noise is left there is "
        "nothing to look at",
        "heun_steps": "Heun asks the network at both ends of a step: its steps are not its calls",
        "waits": "guidance doubles the images in a call, not the calls: both answers come at once",
        "single": "guidance has its price: each call computes two answers for each image",
        "needless": "at w = 1 and w = 0 one of the two answers is multiplied by zero: it need not "
        "be computed",
        "between": "between w = 0 and w = 1 both answers still count: only the two ends are cheap",
        "cache": "a cached pixel computes its own share: all its calls together are one full pass",
        "no_wait": "the cache saves arithmetic and no waiting: each pixel still waits for the last",
        "one_pass": "without a cache every pixel costs a full pass over the image",
        "queue": "a batch goes through a call together: it multiplies the arithmetic, not the "
        "waits or the overhead",
        "per_image": "the second column is per image: the batch does not belong in it",
        "alone": "the seconds are for the whole batch: its arithmetic counts for each image",
        "late": "the choice is late: only ways that fit the deadline may be chosen",
        "greedy": "a difference within the interval cannot be told apart: do not pay seconds for it",
        "hasty": "the fastest way is not asked for, if it is distinguishably worse",
        "calls": "steps are not cost: of the ways that are level, the fewest seconds decide, not "
        "the waits",
        "work": "arithmetic is not time: of the ways that are level, the fewest seconds decide",
        "unfit_best": "the yardstick must be the best of those that fit, not the best of all",
        "nothing": "if nothing fits the answer is −1, not the least bad way",
        "bill": "waits × (overhead + batch × MACs of a call per image / rate); see what a call of "
        "each sampler computes",
        "guided": "twice the images in each call, unless w is 0 or 1",
        "choice": "fits; the lowest distance of those; all that fit and lie below its upper end; "
        "the fewest seconds of these",
        "none": "−1 if nothing fits; else what fits, even where it is a bad one",
    },
    mutants=[
        Mutant("heun", "2 * steps - 1 if", "2 * steps if"),
        Mutant("heun_steps", "2 * steps - 1 if", "steps if"),
        Mutant(
            "waits",
            source="""
import torch

def plan(rows, batch, weight, rate, deadline):
    halves = 1 if weight in (0, 1) else 2
    bill = []
    for row in rows:
        waits = 2 * row["steps"] - 1 if row["sampler"] == "heun" else row["steps"]
        macs = row["macs"] / (row["steps"] if row["sampler"] == "cached" else 1)
        waits = waits * halves
        bill.append([waits, waits * macs, waits * (row["overhead"] + batch * macs / rate)])
    fit = [i for i, b in enumerate(bill) if b[2] <= deadline]
    choice = -1
    if fit:
        best = min(fit, key=lambda i: rows[i]["distance"])
        level = [i for i in fit if rows[i]["distance"] <= rows[best]["upper"]]
        choice = min(level, key=lambda i: bill[i][2])
    return torch.tensor(bill, dtype=torch.float64), choice
""",
        ),
        Mutant("single", "halves = 1 if weight in (0, 1) else 2", "halves = 1"),
        Mutant("needless", "halves = 1 if weight in (0, 1) else 2", "halves = 2"),
        Mutant("needless", "halves = 1 if weight in (0, 1)", "halves = 1 if weight == 0"),
        Mutant("needless", "halves = 1 if weight in (0, 1)", "halves = 1 if weight == 1"),
        Mutant("between", "halves = 1 if weight in (0, 1)", "halves = 1 if weight <= 1"),
        Mutant("cache", "macs = macs / steps", "macs = macs"),
        Mutant("no_wait", "macs = macs / steps", "waits = 1"),
        Mutant(
            "one_pass", 'if row["sampler"] == "cached"', 'if row["sampler"] in ("naive", "cached")'
        ),
        Mutant(
            "queue",
            'waits * (float(row["overhead"]) + batch * macs / rate)',
            'waits * batch * (float(row["overhead"]) + macs / rate)',
        ),
        Mutant(
            "per_image", "[waits, waits * macs, seconds]", "[waits, batch * waits * macs, seconds]"
        ),
        Mutant("alone", "batch * macs / rate", "macs / rate"),
        Mutant("late", "if seconds[i] <= deadline", "if deadline > 0"),
        Mutant("greedy", "return bill, min(level, key=lambda i: seconds[i])", "return bill, best"),
        Mutant(
            "hasty", "min(level, key=lambda i: seconds[i])", "min(fit, key=lambda i: seconds[i])"
        ),
        Mutant(
            "calls",
            "min(level, key=lambda i: seconds[i])",
            "min(level, key=lambda i: bill[i, 0].item())",
        ),
        Mutant(
            "work",
            "min(level, key=lambda i: seconds[i])",
            "min(level, key=lambda i: bill[i, 1].item())",
        ),
        Mutant(
            "unfit_best",
            'level = [i for i in fit if distance[i] <= float(rows[best]["upper"])]',
            "best = distance.index(min(distance))\n"
            '    level = [i for i in fit if distance[i] <= float(rows[best]["upper"])] or [-1]',
        ),
        Mutant("nothing", "return bill, -1", "return bill, seconds.index(min(seconds))"),
    ],
    rights=[
        """
import numpy as np
import torch

CALLS = {"heun": lambda n: 2 * n - 1}

def plan(rows, batch, weight, rate, deadline):
    column = lambda name: np.array([row[name] for row in rows], dtype=np.float64)
    waits = np.array([CALLS.get(r["sampler"], float)(r["steps"]) for r in rows], dtype=np.float64)
    passes = np.where([r["sampler"] == "cached" for r in rows], 1.0, waits)
    work = passes * column("macs") * (1 + (weight != 0) * (weight != 1))
    seconds = waits * column("overhead") + work * batch / rate
    bill = torch.from_numpy(np.stack([waits, work, seconds], 1))
    distance = np.where(seconds <= deadline, column("distance"), np.inf)
    if np.isinf(distance).all():
        return bill, -1
    limit = column("upper")[distance.argmin()]
    return bill, int(np.where(distance <= limit, seconds, np.inf).argmin())
""",
        """
import torch

def plan(rows, batch, weight, rate, deadline):
    images = batch if weight == 1 or weight == 0 else 2 * batch
    bill, known = [], []
    for index, row in enumerate(rows):
        n, kind = row["steps"], row["sampler"]
        calls, shares = n, n
        if kind == "heun":
            calls = shares = n + (n - 1)
        elif kind == "cached":
            shares = 1
        total = shares * row["macs"] * images
        time = calls * row["overhead"] + total / rate
        bill.append((float(calls), total / batch, time))
        if not time > deadline:
            known.append((row["distance"], row["upper"], time, index))
    known.sort()
    choice = -1
    if known:
        choice = min((time, i) for d, _, time, i in known if d <= known[0][1])[1]
    return torch.tensor(bill, dtype=torch.float64), choice
""",
    ],
    answer="plan",
    vary={"plan": ["plan", "choose", "bill_and_choice"]},
)
### END HIDDEN TESTS
