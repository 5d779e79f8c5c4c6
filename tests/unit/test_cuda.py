"""The same answers on another device: on a GPU where there is one, on a pretended one everywhere.

The pretended device (far.py) finds tensors, indices and generators that were left on the CPU. What
only a GPU can show (its rounding, its generators, autocast) is tested there alone: `make gpu`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ar_models import BUILD, build, images
from far import FAR, away
from torch import Tensor, nn

from ddpm_lite import checkpoint, metrics, samplers
from ddpm_lite.cli import main
from ddpm_lite.data import Images, to_unit
from ddpm_lite.diffusion import Denoiser, clipped, elbo, loss
from ddpm_lite.evaluate import EvalConfig, evaluate
from ddpm_lite.fit import fit
from ddpm_lite.guidance import guided
from ddpm_lite.ruler import Ruler, fit_ruler
from ddpm_lite.schedules import Cosine, Flow
from ddpm_lite.train import TrainConfig, TrainState, loss_for, train
from ddpm_lite.unet import UNet

HERE = torch.device("cpu")
THERE = torch.cuda.is_available()
NEEDED = os.environ.get("DDPM_LITE_NEEDS_CUDA")  # `make gpu`: a skip would be a lie
SKIP = "NOT TESTED ON A GPU: there is no CUDA device here; where there is one, run `make gpu`"


def gpu() -> torch.device:
    """Skips the test that asks, in one place, so that pytest tells it in one line."""
    if not THERE:
        pytest.fail("no CUDA device") if NEEDED else pytest.skip(SKIP)
    return torch.device("cuda")


@pytest.fixture(params=["pretended", "cuda"] if THERE else ["pretended"])
def where(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    if request.param == "cuda":
        yield gpu()
    else:
        with away():
            yield FAR


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """A GPU's convolutions round float32 to TF32 unless they are told not to."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def close(there: Tensor, here: Tensor, where: torch.device, tolerance: float) -> None:
    assert there.device.type == where.type and here.device == HERE
    torch.testing.assert_close(there.cpu(), here, atol=tolerance, rtol=tolerance)


def denoiser(classes: int | None = 3, predicts: str = "v") -> Denoiser:
    torch.manual_seed(0)
    net = UNet(1, 8, mults=(1, 2), blocks=1, attention=(False, True), classes=classes)
    for p in net.parameters():  # its last layers begin at zero, and would hide everything
        nn.init.normal_(p, std=0.1)
    model = Denoiser(net, predicts).eval()
    model.info = {"shape": [1, 4, 4], "levels": 4, "schedule": {"class": "Cosine", "steps": 20}}
    return model


PIXELS = torch.randint(4, (24, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
IMAGES = Images(PIXELS, torch.arange(24) % 3, 4, "made up")


# -- the pretended device itself -----------------------------------------------------------------


def test_the_pretended_device_complains_as_a_gpu_does() -> None:
    here = torch.arange(3.0)
    with away():
        there = here.to(FAR)
        for mistake in (
            lambda: here + there,
            lambda: there @ torch.eye(3),
            lambda: torch.cat([here, there]),
            lambda: torch.where(there > 1, there, here),
            lambda: here[torch.tensor([1], device=FAR)],
            lambda: nn.Linear(3, 1)(there),
            lambda: torch.rand(2, generator=torch.Generator(), device=FAR),
        ):
            with pytest.raises(RuntimeError):
                mistake()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        # and allows what a GPU allows
        assert there[torch.tensor([2])].item() == 2 and (there * torch.tensor(2.0)).sum() == 6
        assert torch.equal((there + there).cpu(), 2 * here) and there.tolist() == [0, 1, 2]
        w = torch.ones(3, device=FAR, requires_grad=True)
        (w * there).sum().backward()
        assert w.grad is not None and torch.equal(w.grad.cpu(), here)


# -- autoregressive models -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BUILD))
def test_autoregressive_models(name: str, where: torch.device) -> None:
    extra = {} if name.startswith(("linear", "made")) else {"classes": 3}
    model, label = build(name, (1, 4, 4), 4, **extra), 1 if extra else None
    x, n = images(model, 3), 3
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    known = (mask, x)
    here = model.logits(x, label), model.log_prob(x, label), model.log_weight(x, mask, label)

    def draw() -> list[Tensor]:
        ways = [(k, c) for k in (None, known) for c in (True, False)]
        return [model.sample(n, label, known=k, cached=c) for k, c in ways]

    drawn = draw()
    model.to(where)
    there = (
        model.logits(x.to(where), label),
        model.log_prob(x, label),  # a batch may come from the CPU
        model.log_weight(x.to(where), mask, label),
    )
    for a, b in zip(there, here, strict=True):
        close(a, b, where, 1e-9)
    again = draw()
    for a, b in zip(again, drawn, strict=True):  # in float64 the same uniforms draw the same images
        assert a.device.type == where.type and torch.equal(a.cpu(), b)
    assert torch.equal(again[0].cpu(), again[1].cpu())  # cached = naive


def test_steps_by_hand_with_values_and_uniforms_from_either_device(where: torch.device) -> None:
    model = build("gated", (3, 2, 2), 4).to(where)
    x = images(model, 2)
    cache = model.begin(2)
    logits = []
    for i in range(model.D):
        logits.append(model.step(cache, i))
        cache.put(i, x.flatten(1)[:, int(model.order[i])])  # values from the CPU
    whole = model.logits(x).flatten(1, 3)[:, model.order]
    difference = (torch.stack(logits, 1) - whole).abs().max()
    assert difference.device.type == where.type and difference.item() < 1e-9
    u = torch.rand(2, model.D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.sample(2, u=u).cpu(), model.sample(2, u=u.to(where)).cpu())


# -- diffusion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
def test_denoisers(predicts: str, where: torch.device) -> None:
    model = denoiser(predicts=predicts)
    x, labels = to_unit(PIXELS[:4], 4), torch.tensor([0, 2, -1, 1])
    levels = [(0.6, 0.8), tuple(Flow()(torch.linspace(0.1, 0.9, 4)))]

    def everything(device: torch.device) -> list[Tensor]:
        found = []
        for alpha, sigma in levels:
            moved = [v.to(device) if isinstance(v, Tensor) else v for v in (alpha, sigma)]
            for pair in ([alpha, sigma], moved):  # levels may come from the CPU, as of a grid
                for label in (None, 1, labels, labels.to(device)):
                    found += model(x.to(device), *pair, label)
            y = guided(model, 2.0)(x.to(device), *moved, 1)
            found += [*y, *clipped(model)(x.to(device), *moved, 1)]
            noise = x.flip(0).to(device)
            found.append(loss(model, x.to(device), *moved, noise, labels.to(device)))
        return found

    with torch.no_grad():
        here = everything(HERE)
        model.to(where)
        for a, b in zip(everything(where), here, strict=True):
            close(a, b, where, 1e-3)


@pytest.mark.parametrize("sampler", sorted(samplers.SAMPLERS))
@pytest.mark.parametrize("guidance", [None, 2.0])
def test_samplers(sampler: str, guidance: float | None, where: torch.device) -> None:
    model = denoiser()

    def draw() -> Tensor:
        return samplers.sample(model, 3, sampler, 6, label=1, guidance=guidance)

    here = draw()
    model.to(where)
    close(draw(), here, where, 1e-3)  # the noise is the same one


def test_bounds(where: torch.device) -> None:
    model, grid = denoiser(), Cosine(8).grid(8)
    with torch.no_grad():
        here = elbo(model, PIXELS[:4], grid, 4)
        model.to(where)
        there = elbo(model, PIXELS[:4].to(where), grid, 4)
    for a, b in zip(there, here, strict=True):
        assert a.device == HERE  # figures come home
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


# -- training, checkpoints, figures ----------------------------------------------------------------

CONFIG = TrainConfig(steps=5, batch=6, warmup=1, lr=1e-3)


def trainable(kind: str) -> nn.Module:
    if kind == "diffusion":
        return denoiser()
    return build("gated", (1, 4, 4), 4, torch.float32, classes=3)


def steps_of(model: nn.Module, state: TrainState) -> list[tuple[float, float]]:
    loss_fn = loss_for(model, 4, CONFIG, Cosine(20) if isinstance(model, Denoiser) else None)
    return [(s.loss, s.grad_norm) for s in train(model, IMAGES, loss_fn, state.config, state)]


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_training_and_resuming_on_another_device(
    kind: str, where: torch.device, tmp_path: Path
) -> None:
    here, there = trainable(kind), trainable(kind).to(where)
    state_here, state_there = TrainState(here, CONFIG), TrainState(there, CONFIG)
    seen = steps_of(here, state_here), steps_of(there, state_there)
    tolerance = 1e-12 if where == FAR else 1e-3
    for a, b in zip(*seen, strict=True):
        assert a == pytest.approx(b, rel=tolerance)
    path = tmp_path / "there.safetensors"
    checkpoint.save(path, there, state_there, schedule=Cosine(20), data=IMAGES)

    longer = dataclasses.replace(CONFIG, steps=8)
    ends = []
    for device in (HERE, where):  # saved there, resumed on either
        model, state, _ = checkpoint.load(path, device)
        assert state is not None
        tables = [state.ema, *state.optimizer.state_dict()["state"].values()]
        for table in tables:
            assert all(v.device.type == device.type or k == "step" for k, v in table.items())
        state.config = longer
        ends.append([v for pair in steps_of(model, state) for v in pair])
        assert len(ends[-1]) == 6
        assert next(checkpoint.pretrained(path, device).parameters()).device.type == device.type
    assert ends[0] == pytest.approx(ends[1], rel=tolerance)


@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_fitting_and_the_figures(kind: str, where: torch.device, tmp_path: Path) -> None:
    config = EvalConfig(images=4, n=6, steps=3, bootstraps=3, first_images=4)
    found = []
    for device in (HERE, where):
        model = trainable(kind).to(device)
        loss_fn = loss_for(model, 4, CONFIG, Cosine(20) if isinstance(model, Denoiser) else None)
        state = TrainState(model, CONFIG)
        looks = fit(model, IMAGES, loss_fn, CONFIG, state, valid=IMAGES[:6], every=3)
        path = tmp_path / f"{device.type}.safetensors"
        seen = [check.valid for check in looks]
        checkpoint.save(path, model, state, schedule=Cosine(20), data=IMAGES)
        torch.manual_seed(1)
        ruler = Ruler((1, 4, 4), 4, width=4, features=2, classes=3).eval().to(device)
        figures = evaluate(checkpoint.pretrained(path, device), IMAGES, IMAGES, ruler, config)
        quality = figures["quality"]["frechet"]["value"]
        found.append([*seen, figures["likelihood"]["value"], quality])
    tolerance = 1e-9 if where == FAR else 0.05  # a pixel may round to another level
    assert found[0] == pytest.approx(found[1], rel=tolerance)


def test_rulers(where: torch.device) -> None:
    net = fit_ruler(IMAGES, width=4, features=3, classes=3, steps=3, device=where)
    assert next(net.parameters()).device.type == where.type
    features = metrics.features(net, IMAGES.x)  # images from the CPU
    assert features.device == HERE and features.shape == (24, 3)


# -- what only a GPU can show ----------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"bf16": True, "channels_last": True}])
@pytest.mark.parametrize("kind", ["autoregressive", "diffusion"])
def test_a_run_on_a_gpu_is_resumed(kind: str, options: dict[str, bool], tmp_path: Path) -> None:
    cuda = gpu()
    config = dataclasses.replace(CONFIG, **options)
    model = trainable(kind).to(cuda)
    state, path = TrainState(model, config), tmp_path / "a.safetensors"
    loss_fn = loss_for(model, 4, config, Cosine(20) if kind == "diffusion" else None)
    losses = []
    for step in train(model, IMAGES, loss_fn, config, state):
        losses.append(step.loss)
        if step.step == 2:
            checkpoint.save(path, model, state)
    other, resumed, _ = checkpoint.load(path, cuda)
    assert resumed is not None
    again = [s.loss for s in train(other, IMAGES, loss_fn, config, resumed)]
    assert again == pytest.approx(losses[2:], rel=1e-3)


def test_training_leaves_the_callers_cuda_generator_alone() -> None:
    cuda = gpu()
    torch.manual_seed(5)
    expected = torch.rand(3, device=cuda)
    torch.manual_seed(5)
    model = trainable("diffusion").to(cuda)
    torch.manual_seed(5)
    steps_of(model, TrainState(model, CONFIG))
    assert torch.equal(torch.rand(3, device=cuda), expected)


def test_every_command_on_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu()
    size = {
        "gated": ["width=4", "layers=2", "classes=10"],
        "unet": ["width=8", "mults=1,", "blocks=1", "attention=False,", "classes=10"],
    }
    ruler = str(tmp_path / "ruler.safetensors")
    argv = ["train", "ruler", "--device", "cuda", "--out", ruler, "--set", "steps=3", "width=4"]
    assert main(argv) == 0
    for kind, arguments in size.items():
        out = str(tmp_path / f"{kind}.safetensors")
        argv = ["train", kind, "--steps", "4", "--batch", "8", "--every", "2", "--warmup", "1"]
        assert main([*argv, "--device", "cuda", "--out", out, "--set", *arguments]) == 0
        for device in ("cuda", "cpu"):  # a checkpoint of a GPU is one for everybody
            argv = ["sample", "--model", out, "--n", "4", "--label", "1", "--device", device]
            assert main([*argv, "--out", str(tmp_path / "a.png")]) == 0
        bits = []
        for device in ("cuda", "cpu"):
            argv = ["evaluate", "--model", out, "--ruler", ruler, "--images", "8", "--n", "24"]
            capsys.readouterr()
            argv += ["--bootstraps", "3", "--device", device, "--json"]
            if kind == "unet":
                argv += ["--steps", "3", "--levels", "20", "--first", "1"]
            assert main(argv) == 0
            bits.append(json.loads(capsys.readouterr().out)["likelihood"]["value"])
        assert bits[0] == pytest.approx(bits[1], abs=0.01)
