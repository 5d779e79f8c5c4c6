"""The random numbers of training: functions of (seed, step), whatever was drawn before.

Nothing has to be stored for a resumed run to draw what the interrupted one would have drawn, and
several processes draw together what one process draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from . import require

__all__ = ["Draws", "batch_indices", "seeded", "share"]

# The streams of one seed: they share no numbers.
_ORDER, _DRAWS, _DROPOUT = 0, 1, 2


class Draws:
    """The random numbers of one step: drawn for the global batch, this process's rows returned.

    A function of (seed, step) and of the order of the calls, on every machine and for any number of
    processes. Results are float32 or int64 of shape [rows, *tail].
    """

    def __init__(
        self,
        seed: int,
        step: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        require.seed(seed)
        require.whole("batch", batch)
        self._rng = np.random.default_rng((seed, _DRAWS, step))
        self._batch, self._device = batch, device
        self._rows = share(batch, rank, ranks)

    def normal(self, *tail: int) -> Tensor:
        return self._own(self._rng.standard_normal((self._batch, *tail), dtype=np.float32))

    def uniform(self, *tail: int) -> Tensor:
        """In [0, 1)."""
        return self._own(self._rng.random((self._batch, *tail), dtype=np.float32))

    def integers(self, high: int, *tail: int) -> Tensor:
        """0, …, high − 1."""
        return self._own(self._rng.integers(high, size=(self._batch, *tail)))

    def _own(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[self._rows]).to(self._device)


def batch_indices(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Which images step `step` sees: int64[batch], running through a fresh permutation each epoch.

    A batch may straddle two epochs: none is cut short.
    """
    require.whole("n", n)
    require.whole("batch", batch)
    place = step * batch + np.arange(batch)
    epochs = range(place[0] // n, place[-1] // n + 1)
    orders = [np.random.default_rng((seed, _ORDER, epoch)).permutation(n) for epoch in epochs]
    return np.concatenate(orders)[place - epochs[0] * n]


def share(batch: int, rank: int, ranks: int) -> slice:
    """This process's rows of a global batch; ValueError where it cannot be shared evenly."""
    if batch % ranks:
        raise ValueError(
            f"a batch of {batch} images cannot be shared by {ranks} processes evenly: "
            f"give a --batch that {ranks} divides"
        )
    return slice(rank * batch // ranks, (rank + 1) * batch // ranks)


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    """Seed torch's global generators (dropout reads them) inside; outside they are untouched."""
    seed = int(np.random.SeedSequence((_DROPOUT, *key)).generate_state(1)[0])
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
