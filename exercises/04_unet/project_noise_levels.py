"""# Project of Part II: noise levels for data of your own

Chapters 3 and 4 say that schedule, target and weight are one question: how much effort does each
noise level get? The usual answers were found on photographs of 32 × 32 pixels. Take a **data set
that this course does not use**, and find out which noise levels it wants.

It may be small and strange, as long as you know something about it beforehand: spectrograms of
birds, maps, sprites, handwritten letters, textures with a flat spectrum, an instrument's readings
laid out in rows, patterns that you draw by a program, so that their distribution is known. A few
hundred images of 16 × 16 are enough, and whole numbers of few levels make the bound sharp. State
where the data come from and what their licence allows.

**Look before you train.** Chapter 3's tools need no network: the power of each frequency, the
variance of the strongest directions, the error of the exact denoiser of the training images at each
noise level. From these alone predict, with numbers: at which log-SNR must the chain begin, so that
nothing of the strongest direction is left? Where may it end? Between which two levels is most of
the image decided? Which of linear, cosine and flow comes nearest to that?

Then compare three choices of training levels: a standard one, one of your own made from the
predictions, and one that you expect to be *bad*, saying how it will fail. The network, its target,
the number of images seen and the seeds are the same for all.

They are **judged by a ruler that does not depend on the choice**: the bound in bits per dimension of
held-out images, summed over one fixed grid of log-SNR, the same for all. Show the terms of the sum,
too, level by level: a schedule that wins in one place has lost in another. Then draw samples from
all three at the same number of network evaluations, and measure them by something that the bound
does not see: a Fréchet distance with its floor, the spread of the brightness, a rule that your data
obey. Do the two rulers agree?

Hand in a notebook of its own (not the one of the exercises), of at most twenty cells, that runs from
top to bottom in ten minutes on two CPU cores, and in it at most two pages of text: data; what was measured before training; predictions;
what was kept equal; the bound with intervals over images *and* over at least three training seeds,
paired; the terms per level; the second ruler; the first samples of a stated seed, not picked ones;
what you cannot conclude. The test images are looked at once, at the end.

The heart of it is one function: train with a choice of levels and a seed, and return what the
bound says of each test image. The example uses the course's digits, so that you have something to
compare your own with. A machine does not mark this; people do, by the table below.
"""

from torch import Tensor


def measure(choice: str, seed: int) -> Tensor:
    """Train on one choice of levels; return the bound of every test image, bits/dim, [N]."""
    ### BEGIN SOLUTION
    # One possible project in short: does it matter on digits which levels a network is trained on,
    # if all are judged on the same ones?
    import torch

    from ddpm_lite import data, diffusion, schedules
    from ddpm_lite.fit import averaged, fit
    from ddpm_lite.losses import diffusion_loss
    from ddpm_lite.train import TrainConfig, TrainState
    from ddpm_lite.unet import UNet

    choices = {
        "cosine": schedules.Cosine(),
        "report": schedules.LinearBeta(100, 1e-4, 0.05),  # stops with 28 % of the amplitude left
        "less noise": schedules.shifted(schedules.Cosine(), 4.0),
    }
    if choice not in choices:
        raise ValueError(f"choice must be one of {', '.join(choices)}, not {choice!r}")
    train, test = data.load("digits", "train"), data.load("digits", "test")
    torch.manual_seed(seed)
    net = UNet(1, width=16, mults=(1, 1), blocks=1, attention=(False, True))
    model = diffusion.Denoiser(net, predicts="v", sigma_data=0.8)
    config = TrainConfig(steps=300, batch=32, lr=3e-3, warmup=20, decay="none", ema=0.98, seed=seed)
    loss_fn, state = diffusion_loss(choices[choice], train.levels), TrainState(model, config)
    for _ in fit(model, train, loss_fn, config, state, every=config.steps, progress=False):
        pass
    ruler = schedules.log_snr_grid(60, hi=7.0, lo=-9.0)  # one for all: every step weighs alike
    judged = averaged(model, state.weights()).eval()
    return diffusion.elbo(judged, test.x, ruler, test.levels, first=1).total
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from ddpm_lite.grading.spec import Exercise

EXERCISE = Exercise(
    difficulty=4,
    minutes=480,
    answer="measure",
    rubric=[
        ("Data that are new to the course, described, with their source and licence", 2),
        ("Measured before training: spectrum or variances, and the exact denoiser's error", 4),
        ("Predictions with numbers, made before, for start, end and the levels in between", 3),
        ("Only the training levels differ; what is kept equal is checked in the notebook", 3),
        ("The bound on one fixed grid, with intervals over images and three seeds, paired", 4),
        ("The terms per noise level in a figure, with axes, units and one message", 3),
        ("A second ruler that the bound does not see, with its floor; do both agree?", 3),
        ("Test images used once; samples are the first of a stated seed", 2),
        ("The conclusion says what the numbers carry and what they do not; surprises are owned", 4),
        ("Runs from top to bottom in its time; two pages that a fellow student understands", 2),
    ],
)
### END HIDDEN TESTS
