"""How good a model is: bits per dimension, and the distance of its samples from real images.

Both families pass the same way: likelihood on the test split (exact for an autoregressive model, a
bound for a diffusion model), and samples, quantised as real images are, against the same test
images in the features of the same net. Everything is a function of the seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import metrics, require, samplers
from .data import Images, to_levels
from .diffusion import Denoiser, Label, choose_first, elbo
from .ruler import Ruler
from .schedules import from_spec

__all__ = ["EvalConfig", "evaluate", "generate", "likelihood", "quality"]

BATCH = 500


@dataclass(frozen=True)
class EvalConfig:
    """What the figures depend on, beside model and images.

    Attributes:
        images: use at most so many images for the likelihood; None: all.
        levels: length of a diffusion chain for the bound; None: T, or 1000 if continuous.
        first: the level at which that chain stops; None: chosen on the training split.
        first_images: how many training images choose it.
        n: number of generated images; 0: no samples are judged.
        sampler, steps: of a diffusion model. temperature: of an autoregressive one.
        labels: tell the model a class for each sample, all classes in turn (the likelihood is never
            told one). guidance: the weight of this label, of a diffusion model; None: 1.
        bootstraps: how many redrawn sets make an interval.
        seed: of the bound's noise, the samples and the bootstrap.
    """

    images: int | None = None
    levels: int | None = None
    first: int | None = None
    first_images: int = 200
    n: int = 2000
    sampler: str = "dpmpp_2m"
    steps: int = 20
    temperature: float = 1.0
    labels: bool = False
    guidance: float | None = None
    bootstraps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("first_images", 1), ("n", 0), ("bootstraps", 1), ("steps", 1)):
            require.whole(name, getattr(self, name), low)
        if self.n == 1:
            raise ValueError("n must be 0 (no samples) or at least 2: one image has no spread")
        for name in ("images", "levels", "first"):
            if getattr(self, name) is not None:
                require.whole(name, getattr(self, name))
        require.choice("sampler", self.sampler, samplers.SAMPLERS)
        require.real("temperature", self.temperature, 0, open_low=True)
        if self.guidance is not None:
            require.real("guidance", self.guidance)
            if not self.labels:
                raise ValueError("guidance needs labels to guide towards: set labels=True")
        require.flag("labels", self.labels)
        require.seed(self.seed)


def evaluate(
    model: nn.Module,
    test: Images,
    train: Images,
    ruler: metrics.FeatureNet | None = None,
    config: EvalConfig | None = None,
) -> dict[str, Any]:
    """All figures of a model that `pretrained` gave: {"likelihood", "quality", "config"}.

    `train` chooses where a diffusion chain stops and gives the floor of the sample figures; `test`
    is what both are measured on. Without a `ruler`, or with config.n = 0, "quality" is None.

    Raises ValueError, before anything is computed, for images that do not fit the model or the
    ruler, and for more steps or levels than the schedule has.
    """
    config = config or EvalConfig()
    _check(model, [test, train], ruler, config)
    found = {
        "likelihood": likelihood(model, test, train, config),
        "quality": None,
        "config": dataclasses.asdict(config),
    }
    if ruler is not None and config.n:
        fake = generate(model, config.n, config)
        found["quality"] = quality(ruler, fake, test, train, config)
    return found


def _check(
    model: nn.Module, splits: list[Images], ruler: metrics.FeatureNet | None, config: EvalConfig
) -> None:
    if not all(len(images) for images in splits):
        raise ValueError("a model is measured on test images and on training images: one is empty")
    if isinstance(model, Denoiser):
        samplers.check_info(model, "levels", "schedule", "shape")
        schedule = from_spec(model.info["schedule"])
        for steps in (config.levels or 1, config.steps if config.n else 1):
            schedule.grid(steps)  # or it says how many it has
        has: tuple[Any, Any] = (tuple(model.info["shape"]), model.info["levels"])
    elif hasattr(model, "bits_per_dim"):
        has = (model.shape, model.levels)
    else:
        raise ValueError(f"a {type(model).__name__} is neither autoregressive nor a Denoiser")
    if config.labels:
        _classes(model)
    for images in splits:
        if (images.shape, images.levels) != has:
            raise ValueError(
                f"{images.name} has images {images.shape} of {images.levels} levels, the model "
                f"is for {has[0]} of {has[1]}"
            )
    if ruler is not None and config.n:
        metrics.features(ruler, splits[0].x[:1])


def likelihood(model: nn.Module, test: Images, train: Images, config: EvalConfig) -> dict[str, Any]:
    """Mean bits/dim over test images with its standard error: exact, or a bound with its terms."""
    test = test[: config.images]
    parts: list[Tensor] = []
    found: dict[str, Any] = {"kind": "exact", "unit": "bits/dim", "n": len(test)}
    if isinstance(model, Denoiser):
        schedule = from_spec(model.info["schedule"])
        length = config.levels or schedule.steps or 1000
        grid = schedule.grid(length)
        first = config.first or choose_first(model, train[: config.first_images], grid, config.seed)
        for start in range(0, len(test), BATCH):
            x = test.x[start : start + BATCH].to(_device(model))
            bound = elbo(model, x, grid, test.levels, first, seed=_seed(config.seed, start))
            parts.append(torch.stack(bound, 1))  # [B, 3]
        terms = torch.cat(parts)
        found |= {"kind": "bound", "first": first, "levels": length}
        names = ("prior", "diffusion", "reconstruction")
        found["terms"] = dict(zip(names, terms.mean(0).tolist(), strict=True))
        bits = terms.sum(1)
    else:
        with torch.no_grad():
            size = test.x[0].numel() * test.levels  # logits of one image
            for x in test.x.to(_device(model)).split(max(1, min(BATCH, 2**26 // size))):
                parts.append(model.bits_per_dim(x).double().cpu())  # type: ignore[operator]
        bits = torch.cat(parts)
    found["value"] = bits.mean().item()
    found["standard_error"] = bits.std().item() / math.sqrt(len(bits)) if len(bits) > 1 else None
    return found


def generate(
    model: nn.Module, n: int, config: EvalConfig, label: int | None = None,
    guidance: float | None = None,
) -> Tensor:  # fmt: skip
    """n images as uint8[n, C, H, W], made in batches; the first batch uses `config.seed` itself.

    `label` tells one class for all, `config.labels` all in turn; `guidance` weighs it.
    """
    require.whole("n", n)
    guidance = config.guidance if guidance is None else guidance
    if isinstance(model, Denoiser):
        samplers.check_info(model, "levels", "schedule", "shape")
    elif guidance is not None:
        raise ValueError("guidance is for diffusion models: leave it out, or lower the temperature")
    parts: list[Tensor] = []
    for start in range(0, n, BATCH):
        size, seed = min(BATCH, n - start), _seed(config.seed, start)
        y: Label = label
        if label is None and config.labels:
            y = torch.arange(start, start + size) % _classes(model)
        if isinstance(model, Denoiser):
            x = samplers.sample(model, size, config.sampler, config.steps, y, guidance, seed)
            parts.append(to_levels(x, model.info["levels"]).cpu())
        else:
            x = model.sample(  # type: ignore[operator]
                size, label=y, temperature=config.temperature, seed=seed
            )
            parts.append(x.to(torch.uint8).cpu())
    return torch.cat(parts)


def quality(
    ruler: metrics.FeatureNet, fake: Tensor, test: Images, train: Images, config: EvalConfig
) -> dict[str, Any]:
    """Fréchet and kernel distance of generated uint8[n, C, H, W] from the test images.

    Each with a bootstrap interval, and with its floor: what as many training images as there are
    (at most n) get in place of the generated ones. Then the share that the ruler's classifier reads
    with a probability above 0.9, with a normal interval; its "floor" is the test images' share.
    """
    features = partial(metrics.features, ruler)
    made, real, floor = features(fake), features(test.x), features(train.x[: len(fake)])
    found: dict[str, Any] = {"n": len(fake), "reference_n": len(real), "floor_n": len(floor)}
    found |= {"features": real.shape[1], "reference": f"{test.name} test"}
    every = real[:: max(1, len(real) // len(fake))]  # unbiased at any n, and costs n²
    both: list[tuple[str, Callable[..., float], Tensor]]
    both = [("frechet", metrics.frechet, real), ("kernel", metrics.kernel_distance, every)]
    for name, distance, to in both:
        value, *ends = metrics.bootstrap(distance, made, to, n=config.bootstraps, seed=config.seed)
        found[name] = {"value": value, "interval": ends, "floor": distance(floor, to)}
    if not isinstance(ruler, Ruler):  # features alone: it classifies nothing
        return found
    share = _confident(ruler, fake)
    error = 1.96 * math.sqrt(share * (1 - share) / len(fake))
    found["confident"] = {
        "value": share,
        "interval": [max(0.0, share - error), min(1.0, share + error)],
        "floor": _confident(ruler, test.x),
    }
    return found


@torch.no_grad()
def _confident(ruler: nn.Module, x: Tensor) -> float:
    """The share of images that the classifier reads with a probability above 0.9."""
    batches = x.to(_device(ruler)).split(BATCH)
    sure = [ruler(part).softmax(1).amax(1) > 0.9 for part in batches]
    return float(torch.cat(sure).double().mean())


def _classes(model: nn.Module) -> int:
    """How many classes the model can be told."""
    found = getattr(model.net if isinstance(model, Denoiser) else model, "classes", None)
    if not isinstance(found, int):
        raise ValueError("this model was trained without classes: leave labels out")
    return found


def _seed(seed: int, start: int) -> int:
    """A seed for the batch that begins at image `start`: no two batches share their noise."""
    return seed if start == 0 else int(np.random.SeedSequence((seed, start)).generate_state(1)[0])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
