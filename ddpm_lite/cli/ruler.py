"""`ddpm-lite train ruler`: the feature net of the metrics."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Set
from pathlib import Path
from typing import Any

from . import ranks
from .common import Answer, device

MEANT = {"data", "device", "download", "kind", "out", "root", "seed", "set", "size"}
MEANT |= {"command", "debug", "default", "json", "run", "typed"}  # what every command has


def train_ruler(args: argparse.Namespace, out: Path, arguments: dict[str, Any]) -> Answer:
    """Train one on the ruler split, which no generator sees."""
    import torch

    from .. import checkpoint, data
    from ..ruler import fit_ruler

    if ranks.count() > 1:
        raise ValueError("a ruler is trained by one process: start it without torchrun")
    if out.exists():
        raise ValueError(f"{out} is there already: a ruler is not resumed, give another --out")
    known = inspect.signature(fit_ruler).parameters.keys() - {"images", "seed", "device"}
    _refuse_others(args, known)
    if unknown := arguments.keys() - known:
        raise ValueError(f"--set {min(unknown)}: a ruler takes {', '.join(sorted(known))}")
    where = device(args.device)
    images, test = (
        data.load(args.data, split, args.root, args.download, args.size)
        for split in ("ruler", "test")
    )
    net = fit_ruler(images, seed=args.seed, device=where, **arguments)
    with torch.no_grad():
        read = torch.cat([net(x.to(where)).argmax(1).cpu() for x in test.x.split(1000)])
    accuracy = float((read == test.y).double().mean())
    found = {"accuracy": accuracy, "n": len(test)}
    checkpoint.save(out, net, data=images, seed=args.seed, command=args.typed, metrics=found)
    text = f"{out}: accuracy {accuracy:.3f} on the test split"
    return Answer({"out": str(out), "accuracy": accuracy}, text)


def _refuse_others(args: argparse.Namespace, known: Set[str]) -> None:
    """ValueError for an option of `train` that was given and would be passed over in silence."""
    for name, value in vars(args).items():
        if name not in MEANT and value != args.default(name):
            advice = f"try --set {name}=..." if name in known else "leave it out"
            raise ValueError(f"--{name.replace('_', '-')} is not for a ruler: {advice}")
