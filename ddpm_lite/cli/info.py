"""`ddpm-lite info`: which checkpoints there are, and what one of them says of itself."""

from __future__ import annotations

import argparse
from typing import Any

from .common import Answer

HELP = "list the checkpoints that come with the package, or show one"
EXAMPLE = "ddpm-lite info digits-unet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="name or file of a checkpoint")


def run(args: argparse.Namespace) -> Answer:
    from .. import checkpoint

    if args.model is not None:
        found = checkpoint.read_info(args.model)
        return Answer(found, "\n".join(f"{k}: {_short(v)}" for k, v in sorted(found.items())))
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


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
