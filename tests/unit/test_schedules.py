"""Schedules: closed forms, conventions, grids, an independent oracle, and bad input."""

import math

import numpy as np
import pytest
import torch

from ddpm_lite.schedules import (
    SCHEDULES,
    Cosine,
    Discrete,
    Flow,
    Karras,
    LinearBeta,
    Schedule,
    Sigmoid,
    from_spec,
    log_snr_grid,
    on_path,
    shifted,
    zero_terminal_snr,
)

ALL = [
    LinearBeta(),
    LinearBeta(100, 1e-4, 0.05),
    Cosine(),
    Sigmoid(),
    Discrete([0.1, 0.2, 0.3]),
    Flow(),
    Flow(0.98),
    Karras(),
    shifted(Cosine(), 0.5),
    shifted(Flow(), 1 / 3),
    zero_terminal_snr(LinearBeta()),
]
ids = [f"{s.spec['class']}-{i}" for i, s in enumerate(ALL)]
TIE = {"vp": lambda a, s: a**2 + s**2, "flow": lambda a, s: a + s, "ve": lambda a, s: a}


@pytest.mark.parametrize("schedule", ALL, ids=ids)
def test_levels_lie_on_their_path_and_get_noisier(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 257, dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    torch.testing.assert_close(
        TIE[schedule.path](alpha, sigma), torch.ones_like(t), rtol=0, atol=1e-12
    )
    assert (schedule.log_snr(t).diff() < 0).all()
    torch.testing.assert_close(schedule.snr(t)[1:], schedule.log_snr(t).exp()[1:])


@pytest.mark.parametrize("schedule", ALL, ids=ids)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_grid_shape_order_and_end(schedule: Schedule, n: int) -> None:
    grid = schedule.grid(n)
    assert grid.shape == (n + 1, 2) and grid.dtype == torch.float64
    assert grid[-1].tolist() == [1.0, 0.0]
    assert (torch.atan2(grid[:, 1], grid[:, 0]).diff() < 0).all()
    torch.testing.assert_close(grid[0], torch.stack(schedule(1.0)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", ALL, ids=ids)
def test_spec_round_trip(schedule: Schedule) -> None:
    again = from_spec(schedule.spec)
    assert again.spec == schedule.spec
    assert torch.equal(again.grid(3), schedule.grid(3))


@pytest.mark.parametrize(
    "schedule", [s for s in ALL if isinstance(s, Discrete)], ids=lambda s: s.spec["class"]
)
def test_discrete_table_matches_the_product_of_one_minus_beta(schedule: Discrete) -> None:
    bar = np.cumprod(1 - schedule.betas.numpy().astype(np.longdouble))
    np.testing.assert_allclose(schedule.alpha_bar.numpy(), bar.astype(float), rtol=1e-11)
    k = torch.arange(schedule.steps + 1, dtype=torch.float64)
    alpha, sigma = schedule(k / schedule.steps)
    np.testing.assert_allclose(alpha[1:].numpy() ** 2, bar.astype(float), rtol=1e-9, atol=1e-30)
    np.testing.assert_allclose(sigma[1:].numpy() ** 2, (1 - bar).astype(float), rtol=1e-12)
    assert torch.equal(schedule.grid(schedule.steps), schedule.table.flip(0))


def test_first_sigma_keeps_its_digits() -> None:
    # 1 - ᾱ_1 = β_1 exactly; computed as 1 - cumprod it would lose four digits in float32
    schedule = LinearBeta()
    assert schedule.table[1, 1].item() ** 2 == pytest.approx(1e-4, rel=1e-14)


def test_known_numbers() -> None:
    assert LinearBeta().alpha_bar[-1].item() == pytest.approx(4.04e-5, rel=5e-3)
    report = LinearBeta(100, 1e-4, 0.05)
    assert report.alpha_bar[-1].item() == pytest.approx(0.0782, abs=1e-4)
    assert Cosine().alpha_bar[-1].item() == pytest.approx(2.4e-9, rel=0.05)
    assert Cosine().betas.max().item() == 0.999
    assert Sigmoid().betas.max().item() <= 0.999
    middle = Cosine()(0.5)[0].item() ** 2
    expected = (
        math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    )
    assert middle == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "ours", "arguments"),
    [
        ("linear", LinearBeta(), {"beta_start": 1e-4, "beta_end": 0.02}),
        ("squaredcos_cap_v2", Cosine(), {}),
    ],
)
def test_alpha_bar_equals_diffusers(name: str, ours: Discrete, arguments: dict) -> None:
    from ddpm_lite.data import import_torchvision

    import_torchvision()
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule=name, **arguments)
    np.testing.assert_allclose(
        ours.alpha_bar.numpy(), theirs.alphas_cumprod.double().numpy(), rtol=2e-4, atol=1e-9
    )


def test_zero_terminal_snr_equals_diffusers_and_keeps_the_first_level() -> None:
    from ddpm_lite.data import import_torchvision

    import_torchvision()
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    base = LinearBeta()
    ours = zero_terminal_snr(base)
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(base.betas), 0)
    torch.testing.assert_close(ours.alpha_bar, theirs, rtol=1e-9, atol=1e-15)
    assert ours.grid(10)[0].tolist() == [0.0, 1.0]
    assert ours.alpha_bar[0].item() == pytest.approx(base.alpha_bar[0].item(), rel=1e-12)


def test_discrete_grid_visits_rounded_entries() -> None:
    schedule = LinearBeta(1000)
    for n in (7, 62, 999):
        k = [math.floor(1000 * (n - i) / n + 0.5) for i in range(n + 1)]
        assert torch.equal(schedule.grid(n), schedule.table[k])


def test_training_draws_entries_one_to_T_uniformly() -> None:
    schedule = Discrete([0.1, 0.2, 0.3, 0.4])
    u = (torch.arange(4000) + 0.5) / 4000
    alpha, _ = schedule.draw(u)
    values, counts = alpha.unique(return_counts=True)
    assert torch.equal(values, schedule.table[1:, 0].flip(0)) and (counts == 1000).all()
    assert schedule.draw(torch.tensor([1 - 2**-24]))[0] == schedule.table[4, 0]
    assert torch.equal(Flow().draw(u)[1], u.double())


def test_shift_adds_to_log_snr_and_keeps_the_path() -> None:
    for base in (Cosine(), Flow(0.99), Karras()):
        t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
        for factor in (0.25, 3.0):
            moved = shifted(base, factor)
            assert moved.path == base.path
            torch.testing.assert_close(
                moved.log_snr(t), base.log_snr(t) + 2 * math.log(factor), rtol=1e-9, atol=1e-9
            )


def test_stable_diffusion_3_shift() -> None:
    s, t = 3.0, torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shifted(Flow(), 1 / s)(t)[1], s * t / (1 + (s - 1) * t))


def test_karras_levels() -> None:
    grid = Karras(0.002, 80.0, 7.0).grid(5)
    i = torch.arange(5, dtype=torch.float64)
    edm = (80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7  # eq. 5
    torch.testing.assert_close(grid[:5, 1], edm)
    assert Karras()(0.0)[1].item() == pytest.approx(0.002)


def test_log_snr_grid_is_uniform_on_every_path() -> None:
    for path in ("vp", "flow", "ve"):
        grid = log_snr_grid(8, 8.0, -8.0, path)
        log_snr = 2 * (grid[:, 0].log() - grid[:, 1].log())
        torch.testing.assert_close(log_snr, torch.linspace(-8, 8, 9, dtype=torch.float64))
        torch.testing.assert_close(TIE[path](*grid.unbind(1)), torch.ones(9, dtype=torch.float64))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at most 1000"):
        LinearBeta().grid(1001)
    for schedule in (LinearBeta(), Flow(), Karras()):
        with pytest.raises(ValueError, match="at least 1"):
            schedule.grid(0)
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            schedule(1.5)
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            schedule(float("nan"))
    with pytest.raises(ValueError, match="beta"):
        Discrete([0.1, 1.2])
    with pytest.raises(ValueError, match="non-empty"):
        Discrete([])
    with pytest.raises(ValueError, match="path"):
        on_path(torch.ones(1), torch.ones(1), "vq")
    with pytest.raises(ValueError, match="factor"):
        shifted(Flow(), 0.0)
    with pytest.raises(ValueError, match="discrete"):
        zero_terminal_snr(Flow())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="t_max"):
        Flow(0.0)
    with pytest.raises(ValueError, match="sigma_min"):
        Karras(1.0, 0.5)
    with pytest.raises(ValueError, match=", ".join(sorted(SCHEDULES))):
        from_spec({"class": "cosine"})
    for rho in (0.0, -7.0):
        with pytest.raises(ValueError, match="rho"):
            Karras(rho=rho)
