"""Training: what a run depends on, and nothing else."""

import dataclasses
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddpm_lite import checkpoint
from ddpm_lite.ar.dense import Marginal
from ddpm_lite.ar.gated import GatedPixelCNN
from ddpm_lite.data import Images
from ddpm_lite.diffusion import Denoiser
from ddpm_lite.draws import Draws, batch_indices, seeded
from ddpm_lite.fit import averaged, fit, validation_loss
from ddpm_lite.schedules import Cosine, Flow, Schedule
from ddpm_lite.train import TrainConfig, TrainState, ar_loss, diffusion_loss, loss_for, train
from ddpm_lite.unet import UNet

CONFIG = TrainConfig(steps=9, batch=8, lr=1e-2, warmup=2, ema=0.9)
IMAGES = Images(
    torch.from_numpy(np.random.default_rng(0).integers(0, 4, (21, 1, 4, 4), dtype=np.uint8)),
    torch.arange(21) % 3,
    levels=4,
    name="made up",
)


def gated(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return GatedPixelCNN((1, 4, 4), 4, width=4, layers=2, classes=3, dropout=dropout)


def denoiser(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    net = UNet(1, 8, mults=(1,), blocks=1, attention=(False,), classes=3, dropout=dropout)
    return Denoiser(net, "v")


MODELS = {"gated": gated, "denoiser": denoiser}


def loss_of(model: nn.Module) -> object:
    return loss_for(model, 4, CONFIG, Cosine(50) if isinstance(model, Denoiser) else None)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- resuming ------------------------------------------------------------------------------------


FAST = dataclasses.replace(CONFIG, bf16=True, channels_last=True)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("config", [CONFIG, FAST], ids=["plain", "bf16, channels-last"])
@pytest.mark.parametrize("stop", [1, 4])  # in the first epoch and in the second, both midway
def test_resuming_is_bit_exact(kind: str, config: TrainConfig, stop: int, tmp_path: Path) -> None:
    """In channels-last layout the optimiser's moments are not contiguous: files must not care."""
    model = MODELS[kind]()
    state, losses = TrainState(model, config), []
    for step in train(model, IMAGES, loss_of(model), config, state):
        losses.append(step.loss)
        if step.step == stop:
            checkpoint.save(tmp_path / "a.safetensors", model, state)
            torch.rand(7)  # whoever draws between steps must not matter

    torch.manual_seed(99)
    other, resumed, _ = checkpoint.load(tmp_path / "a.safetensors")
    assert resumed is not None and resumed.step == stop
    again = list(train(other, IMAGES, loss_of(other), resumed.config, resumed))

    assert [s.step for s in again] == list(range(stop + 1, CONFIG.steps + 1))
    assert [s.loss for s in again] == losses[stop:]
    assert same(model.state_dict(), other.state_dict())
    assert same(state.ema, resumed.ema)
    moments = [s.optimizer.state_dict()["state"] for s in (state, resumed)]
    assert all(same(moments[0][i], moments[1][i]) for i in moments[0])


def test_dropout_matters_to_the_test_above() -> None:
    """Planted error: without seeding by step, a resumed run draws other dropout masks."""
    model = gated()
    batch = IMAGES.x[:8], IMAGES.y[:8]
    losses = []
    for key in [(0, 3, 0), (0, 3, 0), (0, 4, 0), (0, 3, 1)]:
        with seeded(torch.device("cpu"), *key):
            losses.append(ar_loss(model.train(), *batch, Draws(0, 3, 8)).item())
    assert losses[0] == losses[1] and len(set(losses)) == 3


def test_training_leaves_the_callers_generator_alone() -> None:
    model = gated()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(train(model, IMAGES, loss_of(model), CONFIG, TrainState(model, CONFIG)))
    assert torch.equal(torch.rand(3), expected)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_train import *
model = gated()
state = TrainState(model, CONFIG)
for step in train(model, IMAGES, loss_of(model), CONFIG, state):
    checkpoint.save(sys.argv[2], model, state)
    time.sleep(0.05)  # so that the kill falls somewhere inside
"""


def test_resuming_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "killed.safetensors"
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)])
    try:
        deadline = time.monotonic() + 300
        while not path.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()

    other, resumed, _ = checkpoint.load(path)  # intact, whenever the kill came
    assert resumed is not None and 0 < resumed.step <= CONFIG.steps
    list(train(other, IMAGES, loss_of(other), CONFIG, resumed))
    model = gated()
    state = TrainState(model, CONFIG)
    list(train(model, IMAGES, loss_of(model), CONFIG, state))
    assert same(model.state_dict(), other.state_dict()) and same(state.ema, resumed.ema)


# -- several processes ---------------------------------------------------------------------------

# A low rate: Adam divides by the gradient's size, which makes much of rounding where that is small.
GENTLE = TrainConfig(steps=9, batch=8, lr=1e-3, warmup=2, ema=0.9)

RANK = """
import sys
sys.path.insert(0, sys.argv[1])
from test_train import *
dist.init_process_group("gloo")
torch.save({kind: trained(kind) for kind in MODELS}, f"{sys.argv[2]}/{dist.get_rank()}")
dist.destroy_process_group()
"""


def trained(kind: str) -> list:
    model = MODELS[kind](dropout=0.0)
    state = TrainState(model, GENTLE)
    steps = list(train(model, IMAGES, loss_of(model), GENTLE, state))
    seen = [(s.loss, s.grad_norm) for s in steps]
    return [seen, model.state_dict(), state.ema]


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo: DDP UNTESTED")
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    arguments = [sys.executable, "-c", RANK, str(Path(__file__).parent), str(tmp_path)]
    runs = [subprocess.Popen(arguments, env={**env, "RANK": str(rank)}) for rank in (0, 1)]
    try:
        assert [run.wait(300) for run in runs] == [0, 0]
    finally:
        for run in runs:
            run.kill()

    both = [torch.load(tmp_path / rank, weights_only=True) for rank in "01"]
    for kind in MODELS:
        alone, first, second = trained(kind), both[0][kind], both[1][kind]
        assert first[0] == second[0]
        np.testing.assert_allclose(first[0], alone[0], rtol=5e-5)  # Adam would hide a wrong scale
        for table in (1, 2):  # weights, averaged weights
            assert same(first[table], second[table])
            for name, value in alone[table].items():
                # a bias before a norm has no gradient: rounding moves it, by up to the rate a step
                torch.testing.assert_close(first[table][name], value, atol=2e-4, rtol=0)


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="batch of 9 images cannot be shared by 2"):
        Draws(0, 0, 9, rank=0, ranks=2)


# -- random numbers ------------------------------------------------------------------------------


def test_ranks_draw_together_what_one_process_draws() -> None:
    def all_of(draws: Draws) -> list[Tensor]:
        return [draws.normal(2, 3), draws.uniform(), draws.integers(5, 4)]

    whole = all_of(Draws(3, 7, 6))
    halves = [all_of(Draws(3, 7, 6, rank, 2)) for rank in (0, 1)]
    for one, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(one, torch.cat(parts))


def test_draws_are_a_function_of_seed_and_step() -> None:
    assert torch.equal(Draws(0, 1, 4).normal(5), Draws(0, 1, 4).normal(5))
    for other in [(1, 1), (0, 2), (1, 0)]:
        assert not torch.equal(Draws(0, 1, 4).normal(5), Draws(*other, 4).normal(5))
    u, k, z = Draws(0, 0, 4000).uniform(), Draws(0, 0, 4000).integers(3), Draws(0, 0, 4000).normal()
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.02
    assert sorted(set(k.tolist())) == [0, 1, 2] and k.dtype == torch.int64
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05 and z.dtype == torch.float32


def test_every_epoch_is_a_permutation_whatever_the_batch() -> None:
    n, batch = 21, 8
    seen = np.concatenate([batch_indices(n, batch, 0, step) for step in range(21)])
    epochs = seen.reshape(8, n)
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8  # each epoch in another order
    huge = batch_indices(3, 10, 0, 0)  # a batch larger than the data set
    assert np.bincount(huge).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])
    assert not np.array_equal(batch_indices(n, 8, 0, 0), batch_indices(n, 8, 1, 0))


# -- optimisation --------------------------------------------------------------------------------


class Toy(nn.Module):
    """One weight, one float buffer, one integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[1.0]]))
        self.register_buffer("moving", torch.tensor(1.0))
        self.register_buffer("count", torch.tensor(0))
        self.spec = {"class": "Toy"}


def test_ema_averages_floats_and_copies_integers() -> None:
    model = Toy()
    state = TrainState(model, TrainConfig(ema=0.5))
    expected, value = 1.0, 1.0
    for step in range(12):
        value += step
        with torch.no_grad():
            model.w.fill_(value)
            model.moving.fill_(value)
            model.count += 10
        decay = min(0.5, (1 + step) / (10 + step))  # 0.1, 0.18, …: early weights are forgotten
        expected = decay * expected + (1 - decay) * value
        state.advance(model)
    assert state.ema["w"].item() == pytest.approx(expected, rel=1e-6)
    assert state.ema["moving"].item() == pytest.approx(expected, rel=1e-6)
    assert state.ema["count"].dtype == torch.int64 and state.ema["count"].item() == 120
    assert state.step == 12 and model.w.item() == value


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    config = TrainConfig(steps=1000, lr=2.0, warmup=100)
    rates = [config.lr_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == pytest.approx(2.0, rel=0.03)
    assert rates[99] > rates[98] and rates[500] == pytest.approx(1.0) and rates[-1] < 1e-4
    assert TrainConfig(steps=1000, lr=2.0, decay="none").lr_at(999) == 2.0


def test_the_rate_reaches_the_optimiser() -> None:
    model = gated()
    state = TrainState(model, CONFIG)
    for step in train(model, IMAGES, loss_of(model), CONFIG, state):
        assert {g["lr"] for g in state.optimizer.param_groups} == {CONFIG.lr_at(step.step - 1)}


def test_gradients_are_clipped_and_their_norm_is_reported_unclipped() -> None:
    model, config = gated(), TrainConfig(steps=1, batch=8, clip=0.01)
    (step,) = train(model, IMAGES, ar_loss, config, TrainState(model, config))
    clipped = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert step.grad_norm > 0.1 and clipped == pytest.approx(0.01, rel=1e-3)


def test_only_matrices_decay() -> None:
    model = gated()
    matrices, vectors = TrainState(model, TrainConfig(weight_decay=0.3)).optimizer.param_groups
    assert matrices["weight_decay"] == 0.3 and vectors["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in matrices["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_a_diverging_loss_stops_before_it_spoils_anything() -> None:
    model = gated()
    state = TrainState(model, CONFIG)

    def loss_fn(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return ar_loss(model, x, y, draws) * (math.nan if state.step == 2 else 1.0)

    before: dict[str, Tensor] = {}
    with pytest.raises(FloatingPointError, match="in step 3: lower the lr"):
        for _ in train(model, IMAGES, loss_fn, CONFIG, state):
            before = {k: v.clone() for k, v in model.state_dict().items()}
    assert state.step == 2 and same(before, model.state_dict())


def test_training_learns_a_marginal() -> None:
    """The best independent model of constant images says so with certainty."""
    images = Images(torch.full((16, 1, 2, 2), 3, dtype=torch.uint8), torch.zeros(16).long(), 5, "c")
    model, config = Marginal((1, 2, 2), 5), TrainConfig(steps=100, batch=16, lr=0.3, warmup=1)
    losses = [s.loss for s in train(model, images, ar_loss, config, TrainState(model, config))]
    assert losses[0] == pytest.approx(math.log2(5), abs=0.3) and losses[-1] < 0.02


def test_training_mode_survives_a_consumer_who_evaluates() -> None:
    model = gated()
    for _ in train(model, IMAGES, loss_of(model), CONFIG, TrainState(model, CONFIG)):
        assert model.training
        model.eval()


def test_bf16_and_channels_last_train() -> None:
    model, config = denoiser(), TrainConfig(steps=2, batch=8, bf16=True, channels_last=True)
    steps = list(train(model, IMAGES, loss_of(model), config, TrainState(model, config)))
    assert all(math.isfinite(s.loss) for s in steps)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("batch", 0),
        ("warmup", -1),
        ("seed", -1),
        ("decay", "linear"),
        ("lr", 0.0),
        ("lr", math.nan),
        ("clip", -1.0),
        ("ema", 1.0),
        ("label_drop", 1.5),
        ("weight_decay", -0.1),
    ],
)
def test_bad_configurations(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{field: value})


def test_no_images() -> None:
    model = gated()
    with pytest.raises(ValueError, match="no images"):
        next(train(model, IMAGES[:0], ar_loss, CONFIG, TrainState(model, CONFIG)))


# -- losses --------------------------------------------------------------------------------------


def test_ar_loss_is_in_bits_per_dimension() -> None:
    model = gated().eval()
    value = ar_loss(model, IMAGES.x, IMAGES.y, Draws(0, 0, 21))
    torch.testing.assert_close(value, model.bits_per_dim(IMAGES.x, IMAGES.y).mean())


class Spy(Denoiser):
    """Notes the labels and levels that its loss asked for."""

    def raw(self, x, alpha, sigma, label=None):
        self.asked = alpha, sigma, label
        return super().raw(x, alpha, sigma, label)


@pytest.mark.parametrize("schedule", [Cosine(4), Flow()])
def test_diffusion_loss_never_trains_at_the_data(schedule: Schedule) -> None:
    spy = Spy(denoiser().net, "v")
    x, y = IMAGES.x[:1].repeat(500, 1, 1, 1), torch.zeros(500).long()
    diffusion_loss(schedule, 4, label_drop=0.3)(spy, x, y, Draws(0, 0, 500))
    alpha, sigma, label = spy.asked
    assert 100 < int((label == -1).sum()) < 200 and set(label.tolist()) == {-1, 0}
    if isinstance(schedule, Cosine):  # levels 1 … 4, each about as often
        levels = [(alpha - a).abs().lt(1e-12).sum().item() for a in schedule.grid(4)[:, 0]]
        assert levels[-1] == 0 and all(90 < count < 160 for count in levels[:-1])
    else:
        assert sigma.mean() == pytest.approx(0.5, abs=0.05)


def test_diffusion_loss_weights_images() -> None:
    model, x, y = denoiser().eval(), IMAGES.x[:8], IMAGES.y[:8]
    plain = diffusion_loss(Cosine(50), 4)(model, x, y, Draws(0, 0, 8))
    doubled = diffusion_loss(Cosine(50), 4, weight=lambda a, s: 2 * torch.ones_like(a))
    torch.testing.assert_close(doubled(model, x, y, Draws(0, 0, 8)).float(), 2 * plain)


def test_a_denoiser_needs_a_schedule() -> None:
    with pytest.raises(ValueError, match="schedule"):
        loss_for(denoiser(), 4, CONFIG)


# -- fit -----------------------------------------------------------------------------------------


def test_fit_keeps_the_best_averaged_weights_and_stops() -> None:
    model, config = gated(dropout=0.0), TrainConfig(steps=400, batch=8, lr=2e-2, warmup=2, ema=0.5)
    state = TrainState(model, config)
    checks = list(fit(model, IMAGES[:8], ar_loss, config, state, valid=IMAGES[8:], every=5,
                      patience=20, progress=False))  # fmt: skip
    best = min(checks, key=lambda c: c.valid)
    assert state.best_step == best.step and state.best_loss == best.valid
    assert checks[-1].step == best.step + 20 < 400  # noise overfits at once
    assert checks[-1].valid > best.valid and checks[-1].loss < checks[0].loss
    kept = averaged(model, state.weights())
    assert validation_loss(kept, IMAGES[8:], ar_loss) == best.valid
    assert not kept.training and model.training  # the model itself is as training left it
    rest = fit(model, IMAGES[:8], ar_loss, config, state, valid=IMAGES[8:], every=5, patience=20)
    assert list(rest) == []


def test_fit_is_the_same_run_when_resumed_between_looks(tmp_path: Path) -> None:
    def run(model: nn.Module, state: TrainState, path: Path | None = None) -> list:
        checks = []
        for check in fit(model, IMAGES, loss_of(model), CONFIG, state, valid=IMAGES[:6], every=3,
                         repeats=2, progress=False):  # fmt: skip
            checks.append(check)
            if path is not None and check.step == 3:
                checkpoint.save(path, model, state)
        return checks

    model, path = denoiser(), tmp_path / "f.safetensors"
    state = TrainState(model, CONFIG)
    whole = run(model, state, path)
    other, resumed, _ = checkpoint.load(path)
    assert resumed is not None
    assert run(other, resumed) == whole[1:]
    assert same(state.weights(), resumed.weights()) and state.best_step == resumed.best_step


def test_the_state_of_another_model_of_the_same_shapes_is_refused() -> None:
    model, other = gated(), gated()
    with pytest.raises(ValueError, match="belongs to another model"):
        next(train(model, IMAGES, ar_loss, CONFIG, TrainState(other, CONFIG)))


def test_a_validation_loss_that_is_no_number_ends_the_run() -> None:
    model = gated()
    state = TrainState(model, CONFIG)

    def loss(net: nn.Module, x: Tensor, y: Tensor | None, draws: Draws) -> Tensor:
        found = ar_loss(net, x, y, draws)
        return found if net.training else found * torch.nan

    with pytest.raises(FloatingPointError, match="validation loss is nan at step 3: lower lr"):
        list(fit(model, IMAGES, loss, CONFIG, state, valid=IMAGES, every=3))
    assert state.best is None
