"""The command line: `ddpm-lite train | sample | evaluate | compress | decompress | grade | …`.

Exit codes: 0 done, 1 a run that went wrong (a diverging loss, figures that do not reproduce, a
fault of this program), 2 something given was wrong, 130 Ctrl-C. An error is one line.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__
from . import compress, decompress, evaluate, grade, info, release, sample, train
from .common import Answer
from .interrupt import listening
from .ranks import PeerEnded, Told, check, count, rank

COMMANDS = (train, sample, evaluate, compress, decompress, grade, release, info)


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an exception like any other, and prints one line."""

    def error(self, message: str) -> NoReturn:
        if message.endswith(": KIND"):
            message += ", which comes before --set"
        raise ValueError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    top = Parser(
        prog="ddpm-lite",
        description="Train, sample and evaluate autoregressive and diffusion models of images.",
        epilog="Example: ddpm-lite sample --model digits-unet --n 16 --out grid.png",
    )
    top.add_argument("--version", action="version", version=f"ddpm-lite {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"Example: {module.EXAMPLE}",
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add_argument("--debug", action="store_true", help="show an error's traceback")
        command.set_defaults(run=module.run, default=command.get_default)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    with listening(last=argv is None) as heard:
        try:
            return _run(given)
        except SystemExit:  # --help and --version
            raise
        except Told as told:
            return told.code
        except BaseException as error:
            heard.enough()
            code, message = _mistake(error)
            if heard or isinstance(error, KeyboardInterrupt):
                resumes = given[:1] == ["train"] and "ruler" not in given  # a ruler never does
                kept = "; what was saved goes on with --resume" if resumes else ""
                code, message = 130, f"interrupted{kept}"
                if rank():
                    return code  # the first process tells it
            return _failed(message, code, "--debug" in given)


def _run(argv: list[str]) -> int:
    if not argv:
        parser().print_help(sys.stderr)
        return 2
    check()
    args = _parsed(argv)
    args.typed = shlex.join(["ddpm-lite", *argv])  # a checkpoint says how it was made
    answer: Answer = args.run(args)
    said = _json(answer.data) if args.json else answer.text
    try:
        if answer.data:
            print(said, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again
        if not isinstance(error, BrokenPipeError):  # else the reader has seen enough
            raise OSError(error.errno, error.strerror, "standard output") from error
    return answer.code


def _mistake(error: BaseException) -> tuple[int, str]:
    """The exit code and the line for whatever ended a command."""
    if _no_memory(error) or _no_memory(error.__cause__):
        return 2, f"out of memory ({_line(error):.90}): ask for fewer images or a smaller model"
    if isinstance(error, ValueError | OSError | ImportError):
        return 2, _line(error)
    if isinstance(error, FloatingPointError | PeerEnded):
        return 1, _line(error)
    return 1, f"{type(error).__name__}: {_line(error)} (--debug shows where)"


def _no_memory(error: BaseException | None) -> bool:
    """Whether it says so. torch has no class for that, except on a GPU: its words must do."""
    words = r"(can.t|not|unable to|tried to) allocate|out of memory"
    torchs = isinstance(error, RuntimeError) and re.search(words, str(error), re.IGNORECASE)
    return bool(torchs) or isinstance(error, MemoryError)


def _json(data: dict[str, Any]) -> str:
    """NaN and infinity as null: JSON has no word for them, and most readers refuse Python's."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(data), indent=2, sort_keys=True, allow_nan=False)


def _parsed(argv: list[str]) -> argparse.Namespace:
    try:
        args = parser().parse_args(argv)
        if count() > 1 and args.command != "train":
            raise ValueError(f"{args.command} runs in one process: start it without torchrun")
    except ValueError as error:
        if rank():  # all processes have the same command line
            raise Told(2) from error
        raise
    return args


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    who = f"process {rank()}: " if rank() else ""
    print(f"ddpm-lite: {who}{message}", file=sys.stderr)
    return code


WHAT_TO_DO = {
    errno.EACCES: "choose a place that you may write to",
    errno.EDQUOT: "make room, or write elsewhere",
    errno.EFBIG: "write elsewhere",
    errno.ENOENT: "look at the path",
    errno.ENOSPC: "make room, or write elsewhere",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
}


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        advice = WHAT_TO_DO.get(error.errno or 0)
        return f"{error.filename}: {error.strerror}" + (f": {advice}" if advice else "")
    return " ".join(str(error).split()) or type(error).__name__
