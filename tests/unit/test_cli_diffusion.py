"""The command line's options for diffusion models: the loss's weight, the flow's likelihood."""

import json
from pathlib import Path

import pytest
import torch

from ddpm_lite import checkpoint
from ddpm_lite.cli import main
from ddpm_lite.data import load
from ddpm_lite.diffusion import ode_bits
from ddpm_lite.schedules import from_spec

UNET = ["train", "unet", "--steps", "3", "--batch", "8", "--every", "3", "--valid-images", "10",
        "--set", "width=8", "mults=1,", "blocks=1", "attention=False,"]  # fmt: skip


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name in ("uniform", "min-snr", "elbo"):
        found[name] = folder / f"{name}.safetensors"
        assert main([*UNET, "--weight", name, "--out", str(found[name])]) == 0
    return found


def test_a_weight_is_stored_and_makes_a_difference(weighted: dict[str, Path]) -> None:
    models = {name: checkpoint.pretrained(path) for name, path in weighted.items()}
    assert {m.info["config"]["weight"] for m in models.values()} == set(weighted)
    ends = [torch.cat([p.flatten() for p in m.parameters()]) for m in models.values()]
    assert not torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_a_weight_for_a_model_without_levels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", "marginal", "--steps", "2", "--out", str(tmp_path / "a.safetensors")]
    assert main([*command, "--weight", "elbo"]) == 2
    assert "has none" in capsys.readouterr().err
    assert main([*command, "--weight", "snr"]) == 2
    assert "elbo, min-snr, uniform" in capsys.readouterr().err


def test_evaluate_by_the_probability_flow(
    weighted: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    path = str(weighted["uniform"])
    command = ["evaluate", "--model", path, "--n", "0", "--images", "4", "--first", "20"]
    capsys.readouterr()
    assert main([*command, "--ode", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["ode"]
    model, test = checkpoint.pretrained(path), load("digits", "test")
    grid = from_spec(model.info["schedule"]).grid(1000)
    again = ode_bits(model, test.x[:2], grid, 17, 20, seed=0)  # type: ignore[arg-type]
    assert found["value"] == pytest.approx(again.bits.mean().item(), abs=1e-4)
    assert found["n"] == 2 and found["calls"] > 10 and "dequantisation" in found["kind"]
    assert main([*command, "--ode", "1"]) == 2
    assert "two or more images" in capsys.readouterr().err
