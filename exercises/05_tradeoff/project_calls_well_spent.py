"""# Project of Part III: calls well spent

Chapter 5 compared two families and four samplers at their ordinary settings. Each has knobs that
the chapter left alone. Take **one** knob, or one pair of rivals, fix a budget, and find out what
turning it buys on the 8×8 digits, and what it costs. The models are trained already (three seeds of
each family: `digits-unet`, `digits-unet-s1`, `digits-unet-s2`, and `digits-gated` likewise), so
that all your time goes into asking and measuring. "Within ±0.3 of one another, and I would have
seen a difference of 0.5" is a full answer.

Pick one of these, or a question of your own of the same size.

- *Fresh noise*: `ddim` takes an `eta` between 0 (DDIM) and 1 (DDPM). Which is best at 5 calls, and
  at 50? The chapter saw a hint and no finding. Can you settle it?
- *Where to look*: ten calls, spaced evenly in time, in $\\log(\\alpha/\\sigma)$, or crowded at one
  end. What does a good grid have in common for DDIM and for 2M?
- *Guidance against temperature*: both trade variety for typicality, one in each family. At equal
  recall, which has the higher precision? What does guidance cost, in each of the three units?
- *A hybrid*: the first half of the calls with one sampler, the rest with another. Is anything
  better than its two parts?
- *An honest deadline*: 50 milliseconds for a batch of 16 on **your** machine. Which family and how
  many steps? Does the answer change at batch 1, and does it at all follow from counting calls?

**Before any sampling** write down what you expect, with a number, and which result would prove you
wrong. It is not held against you if it does.

Hand in a notebook of its own (not the one of the exercises), of at most twenty cells, that runs from
top to bottom in fifteen minutes on two CPU cores, and in it at most two pages of text: question; prediction; what was kept equal (calls,
arithmetic or seconds: say which, and what the other two did meanwhile); Fréchet distance at a stated
and equal n, with its floor, and one measure of another kind beside it; intervals over sampling seeds
*and* over the three trained models; one curve with both axes labelled; the first samples of a stated
seed, not picked ones; what you cannot conclude. Whatever you choose along the way, choose by
comparing with the validation images; the test images are looked at once, at the end.

The heart of it is one function: draw with a setting, from a model and a seed, and return the
features of what was drawn. Write it first. The package has its parts:

- `checkpoint.pretrained(model)` loads a network, and `pretrained("digits-ruler")` the small
  classifier whose inner layer gives the features;
- `schedules.from_spec(spec).grid(10)` gives the levels of ten steps, where `spec` is
  `net.info["schedule"]`;
- `samplers.ddim(net, noise, grid, eta=…, fresh=…)` walks along them, and `samplers.last(…).x` is where
  it ends, floats in [-1, 1]; `diffusion.clipped(net)` keeps what the network expects in that range;
- `to_levels(images, net.info["levels"])` makes whole numbers of them, and
  `metrics.features(ruler, levels)` the features, `[n, 16]`.

There are 100 validation images and 397 test images, and a distance depends on n. So choose with
n = 100, against the validation images; draw 397 for the one look at the test images at the end, and
compare no number of the one kind with one of the other.

A machine does not mark this; people do, by the table below.
"""

from torch import Tensor


def drawn(setting: float, model: str, seed: int, n: int = 397) -> Tensor:
    """Features of n images, [n, 16]: drawn at a setting of your knob, by a model, from a seed."""
    ### BEGIN SOLUTION
    # One possible project: how much fresh noise, at ten calls? The setting is eta. All settings
    # share the first noise of a seed, so that their differences are those of the knob.
    import torch

    from ddpm_lite import metrics, samplers, to_levels
    from ddpm_lite.checkpoint import pretrained
    from ddpm_lite.diffusion import clipped
    from ddpm_lite.schedules import from_spec

    unet, ruler = pretrained(model), pretrained("digits-ruler")
    grid = from_spec(unet.info["schedule"]).grid(10)
    generator = torch.Generator().manual_seed(seed)

    def unit(_: int = 0) -> Tensor:
        return torch.randn(n, *unet.info["shape"], generator=generator)

    chain = samplers.ddim(clipped(unet), unit(), grid, fresh=unit, eta=setting)
    images = samplers.last(chain).x.clamp(-1, 1)
    return metrics.features(ruler, to_levels(images, unet.info["levels"]))
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from ddpm_lite.grading.spec import Exercise

EXERCISE = Exercise(
    difficulty=4,
    minutes=480,
    answer="drawn",
    rubric=[
        (
            "A question that a measurement can settle; a prediction, with a number, made before",
            2,
        ),
        (
            "One thing differs; which of calls, arithmetic and seconds is kept equal is stated, "
            "and counted or timed rather than assumed",
            4,
        ),
        (
            "Distances at one n, with n, feature space, reference and floor stated; a second "
            "measure of another kind beside them",
            4,
        ),
        ("Intervals over sampling seeds and over the three trained models, paired by seed", 4),
        ("Chosen on the validation images; test images used once", 2),
        ("A curve, with axes, units, intervals and one message that the caption states", 3),
        ("The conclusion says what the numbers carry and what they do not; surprises are owned", 4),
        (
            "The notebook runs from top to bottom in its time; seeds stated; samples not picked",
            2,
        ),
        ("Two pages that a fellow student understands", 2),
    ],
)
### END HIDDEN TESTS
