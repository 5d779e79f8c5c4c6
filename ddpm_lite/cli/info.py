"""`ddpm-lite info`: which checkpoints there are, and what one of them says of itself."""

from __future__ import annotations

import argparse
from typing import Any

from .common import Answer, stated
from .evaluate import bits, quality

HELP = "list the checkpoints that come with the package, or show one"
EXAMPLE = "ddpm-lite info digits-unet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="name or file of a checkpoint")


def run(args: argparse.Namespace) -> Answer:
    from .. import checkpoint

    if args.model is not None:
        found = checkpoint.read_info(args.model)
        with stated(args.model):
            return Answer(found, "\n".join(_summary(args.model, found)))
    table = {name: checkpoint.read_info(name) for name in checkpoint.names()}
    lines = [
        f"{name:24} {_kind(found):14} {found['parameters']:>10,} parameters  {_bits(found)}"
        for name, found in table.items()
    ]
    head = "name, network, size, and test figure (-s1, -s2: further training seeds)"
    return Answer({"checkpoints": table}, "\n".join([head, *lines]))


def _kind(found: dict[str, Any]) -> str:
    spec = found["spec"]
    return str(spec.get("net", spec)["class"])


def _bits(found: dict[str, Any]) -> str:
    figures = (found.get("metrics") or {}).get("likelihood")
    if figures:
        return f"{figures['value']:.3f} bits/dim ({figures['kind']})"
    accuracy = (found.get("metrics") or {}).get("test_accuracy")
    return f"{accuracy:.1%} accuracy; its features judge samples" if accuracy else ""


def _summary(name: str, found: dict[str, Any]) -> list[str]:
    """What a reader asks of a checkpoint, in a dozen lines; --json has everything."""
    from ..provenance import runs

    spec, config = dict(found["spec"]), found.get("config") or {}
    net = dict(spec.pop("net", spec))
    lines = [("network", f"{net.pop('class')}, {found['parameters']:,} parameters")]
    lines += [
        ("", _listed({k: v for k, v in net.items() if k not in ("class", "shape", "levels")}))
    ]
    if "predicts" in spec:
        schedule = dict(found.get("schedule") or {})
        named = f"{schedule.pop('class', 'none stated')} ({_listed(schedule)})"
        lines += [("diffusion", f"predicts {spec['predicts']}; schedule {named}")]
    if "shape" in found and "levels" in found:
        data, shape = found.get("data") or {}, "×".join(map(str, found["shape"]))
        note = f"; {data['note']}" if data.get("note") else ""
        about = f"{data.get('name', 'unknown')}, {shape}, {found['levels']} levels{note}"
        lines += [("images", f"{about} (hash {str(data.get('hash'))[:12]})")]
    if "step" in found:
        took = f" in {found['seconds']:,.0f} s" if "seconds" in found else ""
        of = f" of {config['batch']} images" if "batch" in config else ""
        lines += [("training", f"{found['step']:,} steps{of}{took}, seed {found.get('seed')}")]
    lines += [("", _begun(run)) for run in runs(found)[1:]]
    if found.get("best_step"):
        lines += [("", f"kept the averaged weights of step {found['best_step']:,}")]
    if found.get("command"):
        lines += [("command", found["command"])]
    figures = dict(found.get("metrics") or {})
    if likelihood := figures.pop("likelihood", None):
        lines += [("test", bits(likelihood))]
    if judged := figures.pop("quality", None):
        lines += [("", line) for line in quality(judged)]
    figures.pop("config", None)
    lines += [("test", _listed(figures))] if figures else []
    lines += [("made with", _listed(found.get("versions") or {}))]
    if "hardware" in found:
        lines += [("", str(found["hardware"]))]
    return [name, *(f"  {key:10} {text}" for key, text in lines), "  --json shows everything"]


def _begun(run: dict[str, Any]) -> str:
    took = f"{run['step']:,} steps in {run['seconds']:,.0f} s, seed {run['seed']}"
    return f"begun with the weights of another run: {took}"


def _listed(table: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list) and len(value) > 8:
            return f"({len(value)} numbers)"
        if isinstance(value, list):
            return "(" + ", ".join(map(text, value)) + ")"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{k} {text(v)}" for k, v in sorted(table.items()) if v is not None)
