"""The sandboxed side of a conversation: load a submission's code, run cases, send outcomes.

Student code runs in this process. It may break everything here; the grader believes nothing but
the numbers that come out, and knows alone what they should be.
"""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Sequence

import torch

from ..checks.told import raised
from .choose import chosen, left_out
from .execute import MISSING, Outcome, perform
from .source import namespace
from .values import read_steps, write_outcome
from .wire import Closed, receive, send

__all__ = ["serve"]


def serve(read: int, write: int) -> None:
    """Answer requests until the other end closes: first a submission to load, then cases."""
    header, _ = receive(read)
    left = sorted({number for number, _ in left_out(header["cells"], header["answer"])})
    broken, module = load(header["cells"], header["answer"])
    given = namespace(header["given"], "given")
    send(write, {"broken": broken[:16], "left_out": left[:16]})
    while True:
        try:
            request, arrays = receive(read)
        except Closed:
            return
        steps = read_steps(request["steps"], arrays.__getitem__)
        torch.manual_seed(0)
        said: list[str] = []  # the error's text, for a lecturer who asks

        def hear(error: BaseException, said: list[str] = said) -> None:
            if header.get("explain"):
                said += raised(error, module.__dict__, given)

        try:
            outcome = perform(module.__dict__.get(header["answer"], MISSING), given, steps, hear)
        except BaseException:  # KeyboardInterrupt and the like, raised by the submission
            outcome = Outcome(stopped="KeyboardInterrupt")
        sent: list[torch.Tensor] = []

        def put(tensor: torch.Tensor, sent: list[torch.Tensor] = sent) -> int:
            sent.append(tensor)
            return len(sent) - 1

        more = {"raised": said} if said else {}
        send(write, {"outcome": write_outcome(outcome, put), **more}, sent)


def load(cells: Sequence[str], answer: str) -> tuple[list[int], types.ModuleType]:
    """Run what `chosen` takes of the cells, each statement by itself.

    Returns the numbers of the cells that do not parse, and the module.
    """
    statements, broken = chosen(cells, answer)
    module = types.ModuleType("submission")
    sys.modules["submission"] = module  # dataclasses and the like look their module up
    for node in statements:
        try:
            exec(compile(ast.Module([node], []), "<notebook>", "exec"), module.__dict__)
        except BaseException:  # SystemExit too
            continue
    return broken, module
