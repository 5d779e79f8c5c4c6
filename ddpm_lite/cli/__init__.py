"""The command line: `ddpm-lite train | sample | evaluate | info`.

Exit codes: 0 done, 1 a run that went wrong (a diverging loss, figures that do not reproduce, a
fault of this program), 2 something given was wrong, 130 Ctrl-C. An error is one line.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from . import evaluate, info, sample, train
from .common import Answer

COMMANDS = (train, sample, evaluate, info)


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
        command.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        if not argv:
            parser().print_help(sys.stderr)
            return 2
        args = parser().parse_args(argv)
        args.typed = shlex.join(["ddpm-lite", *argv])  # a checkpoint says how it was made
        answer: Answer = args.run(args)
        if answer.data:
            said = json.dumps(answer.data, indent=2, sort_keys=True) if args.json else answer.text
            print(said, flush=True)
        return answer.code
    except KeyboardInterrupt:
        kept = "; what was saved goes on with --resume" if argv[:1] == ["train"] else ""
        return _failed(f"interrupted{kept}", 130, debug)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        return _failed(_line(error), 2, debug)
    except FloatingPointError as error:
        return _failed(_line(error), 1, debug)
    except Exception as error:
        return _failed(f"{type(error).__name__}: {_line(error)} (--debug shows where)", 1, debug)


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"ddpm-lite: {message}", file=sys.stderr)
    return code


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__
