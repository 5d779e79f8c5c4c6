"""# Project of Part I: one choice, measured fairly

Chapters 1 and 2 made choices: rows or columns, one stack or two, a softmax or bells, a class or
none, 3 layers or 6. Take **one**, and find out what it is worth on the 8×8 digits. The answer is a
number with an interval, and a sentence that the number supports. "No difference that I could see,
and I would have seen one of 0.02 bits/dim" is a full answer.

Pick one of these, or a question of your own of the same size.

- *Order*: does a digit cost less read by columns, from the middle outwards, or backwards?
- *Blind spot*: `PixelCNN` against `GatedPixelCNN` at equal parameters, or at equal arithmetic. On
  which pixels is the difference paid?
- *Head*: softmax against mixture of logistics when there are 100 training images, and when there
  are 1,000.
- *Class*: how many bits does knowing the digit's class save? Compare with the entropy of the class
  itself: what is the most that it can save?
- *Several pixels at once*: two neighbouring pixels from one step, drawn independently. What does
  the shortcut cost, and does the price agree with chapter 1's total correlation?

**Before any training** write down what you expect, with a number, and which result would prove you
wrong. It is not held against you if it does.

Hand in a notebook of its own (not the one of the exercises), of at most twenty cells, that runs from
top to bottom in ten minutes on two CPU cores, and in it at most two pages of text: question; prediction; what was kept equal and how
(training images, steps, parameters, arithmetic: not all can be, say which you chose and why); a
proof by gradients that no model compared peeks; held-out bits/dim with an interval over images
*and* over at least three training seeds, paired where images are shared; one figure that shows
where the difference comes from (per pixel, per class, per level, along training); the first samples
of a stated seed, not picked ones; what you cannot conclude. The test images are looked at once, at
the end: choose everything else on the validation images.

The heart of it is one function: train with a choice and a seed, and return what each test image
costs. Write it first. A machine does not mark this; people do, by the table below.
"""

from torch import Tensor


def measure(choice: str, seed: int) -> Tensor:
    """Train once; return the bits/dim of every test image, [397]."""
    ### BEGIN SOLUTION
    # One possible project: rows against columns. An image turned over its diagonal and read by
    # rows is the image read by columns, so that network, budget and code stay the same.
    from dataclasses import replace

    import torch

    from ddpm_lite import ar, data
    from ddpm_lite.fit import averaged, fit
    from ddpm_lite.train import TrainConfig, TrainState, ar_loss

    train, valid, test = (data.load("digits", split) for split in ("train", "valid", "test"))
    if choice == "columns":
        train, valid, test = (replace(part, x=part.x.mT) for part in (train, valid, test))
    elif choice != "rows":
        raise ValueError(f"choice must be 'rows' or 'columns', not {choice!r}")
    torch.manual_seed(seed)
    model = ar.GatedPixelCNN(train.shape, train.levels, width=24, layers=3, dropout=0.1)
    config = TrainConfig(steps=300, batch=32, lr=5e-3, decay="none", ema=0.95, seed=seed)
    state = TrainState(model, config)
    for _ in fit(model, train, ar_loss, config, state, valid=valid, every=25, progress=False):
        pass  # the state keeps the averaged weights that did best on the validation images
    with torch.no_grad():
        return averaged(model, state.weights()).bits_per_dim(test.x.long())
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from ddpm_lite.grading.spec import Exercise

EXERCISE = Exercise(
    difficulty=4,
    minutes=480,
    answer="measure",
    rubric=[
        (
            "A question that a measurement can settle; a prediction, with a number, made before",
            2,
        ),
        (
            "One thing differs; what is kept equal is stated, checked in the notebook and defended",
            4,
        ),
        ("Causality of every model compared is proved by gradients, not asserted", 2),
        ("Held-out bits/dim with intervals over images and over three training seeds, paired", 4),
        ("Test images used once; everything chosen on the validation images", 2),
        ("A figure that shows where the difference arises, with axes, units and one message", 3),
        ("The conclusion says what the numbers carry and what they do not; surprises are owned", 4),
        (
            "The notebook runs from top to bottom in its time; seeds stated; samples not picked",
            2,
        ),
        ("Two pages that a fellow student understands", 2),
    ],
)
### END HIDDEN TESTS
