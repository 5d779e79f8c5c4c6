"""A device that does not exist, to find what a GPU would complain of on a machine that has none.

Inside `away()` tensors sent to the device "meta" keep their numbers, on the CPU, but say that they
are elsewhere: an operation that mixes them with tensors that stayed here fails, as it does between
a GPU and the CPU, with the same exceptions (a single number may come from here; a copy may cross).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("meta")  # the one device that autograd serves without a driver
MAKERS = (torch.tensor, torch.as_tensor)


class Far(Tensor):
    """A tensor elsewhere; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        place = {"storage_offset": near.storage_offset(), "dtype": near.dtype, "device": FAR}
        far: Far = Tensor._make_wrapper_subclass(cls, near.shape, strides=near.stride(), **place)
        return far

    def __init__(self, near: Tensor) -> None:
        self.near = near

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Far({self.near!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = str(func).removeprefix("aten.")
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    far = [t for t in tensors if isinstance(t, Far)]
    assert all(isinstance(t, Far) or t.device != FAR for t in tensors), f"{name}: made unseen"
    crosses = name.startswith(("copy_.", "_to_copy.", "index.", "index_put"))  # indices may be here
    if far and not crosses and any(t.ndim for t in tensors if not isinstance(t, Far)):
        shapes = [("there" if isinstance(t, Far) else "here", *t.shape) for t in tensors]
        raise RuntimeError(f"{name}: tensors on two devices, {shapes}")
    if name.startswith("index.") and tensors[0] not in far and any(t.ndim for t in far):
        raise RuntimeError(f"{name}: a tensor that is here, indexed from there")
    if any(isinstance(v, torch.Generator) for v in kwargs.values()) and kwargs.get("device") == FAR:
        raise RuntimeError(f"{name}: a generator that is here draws there")
    there = bool(far) and not name.startswith("_local_scalar_dense")
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == FAR
        kwargs = kwargs | {"device": torch.device("cpu")}
    owners = {id(t.near): t for t in far}
    args, kwargs = tree_map(lambda t: t.near if isinstance(t, Far) else t, (args, kwargs))
    out = func(*args, **kwargs)

    def told(t: Any) -> Any:
        if not isinstance(t, Tensor) or isinstance(t, Far):
            return t
        if id(t) in owners:  # written in place
            return owners[id(t)]
        return Far(t) if there else t

    return tree_map(told, out)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What PyTorch answers before it dispatches."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist and isinstance(args[0], Far):
            return args[0].near.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Far):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
            return func(args[0], index, *args[2:])
        if func is Tensor.new_tensor and isinstance(args[0], Far):
            return args[0].near.new_tensor(*args[1:], **kwargs).to(FAR)
        if func in MAKERS and kwargs.get("device") is not None:
            if torch.device(kwargs.pop("device")) == FAR:
                return func(*args, **kwargs).to(FAR)
            return func(*args, **kwargs).cpu()
        if func is Tensor.numpy and isinstance(args[0], Far):
            raise TypeError("can't convert a tensor from elsewhere to numpy: use Tensor.cpu()")
        return func(*args, **kwargs)


@contextmanager
def away() -> Iterator[torch.device]:
    """The device, for as long as the context lasts."""
    real = torch.autocast

    def autocast(kind: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if kind == FAR.type else real(kind, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, _Dispatch(), _Functions():
        patch.setattr(torch, "autocast", autocast)
        yield FAR
