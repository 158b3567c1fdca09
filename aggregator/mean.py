"""Federated averaging, streamed: w = Σ n_k w_k / Σ n_k (McMahan et al. 2017, algorithm 1).

The output is a pure function of the cohort and the global model, to the bit: float64 accumulators, whole numbers n_k as
weights, clients in sorted order, one divide at the end, one rounding to the global model's dtype. Memory is
`workers` × (one stripe and its buffers), whatever the model's size and the number of clients.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exchange import tensors
from exchange.blocks import Piece, WeightFile, read_all, stripes

STRIPE_ELEMENTS = 2**20  # 8 MiB of accumulators: large enough for few requests, small enough for a small function
_BLOCK = 2**15  # elements folded at a time: 256 KiB of accumulators, which stay in a core's second-level cache

Member = tuple[WeightFile, int]  # an update and its num_examples


@dataclass(frozen=True)
class Change:
    """How far a round moved the model, over all floating tensors.

    Attributes:
        moved: ‖new − old‖₂.
        old: ‖old‖₂.
    """

    moved: float
    old: float

    @property
    def relative(self) -> float | None:
        """‖new − old‖ / ‖old‖ to six digits; None where the old model is all zeros."""
        return float(f"{self.moved / self.old:.6g}") if self.old > 0 else None


@dataclass(frozen=True)
class _Stripe:
    data: bytes
    moved_square: float = 0.0
    old_square: float = 0.0


def average(model: WeightFile, members: Sequence[Member], out: Callable[[bytes], object], workers: int = 1) -> Change:
    """Write the data section of the next global model: the tensors of `model`, as the weighted mean of `members`.

    Args:
        model: the round's global model; its integer tensors are kept as they are.
        members: (update, num_examples), sorted by client; none at all keeps the whole model.
        out: takes the bytes, in the order that `model_header` announces.
        workers: threads, each with a stripe of its own.

    Raises:
        StoreError: a member or the model can no longer be read at its version.
    """
    moved_square = old_square = 0.0
    for stripe in _in_order(_jobs(model, members), workers):
        out(stripe.data)
        moved_square += stripe.moved_square
        old_square += stripe.old_square
    return Change(sqrt(moved_square), sqrt(old_square))


def model_header(model: WeightFile, metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file with the tensors of `model` and other metadata."""
    return tensors.encode_header(_shapes(model), metadata)


def _shapes(model: WeightFile) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in model.layout.tensors.values()}


def _jobs(model: WeightFile, members: Sequence[Member]) -> Iterator[Callable[[], _Stripe]]:
    ordered = [model.layout.tensors[name] for name in tensors.file_order(_shapes(model))]
    for (dtype, floating), group in groupby(ordered, key=lambda tensor: (tensor.dtype, tensor.floating)):
        for pieces in stripes(list(group), STRIPE_ELEMENTS):
            yield (
                partial(_mean, model, members, pieces, dtype) if floating and members else partial(_keep, model, pieces)
            )


def _in_order(jobs: Iterator[Callable[[], _Stripe]], workers: int) -> Iterator[_Stripe]:
    if workers == 1:
        yield from (job() for job in jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[_Stripe]] = deque()
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _mean(model: WeightFile, members: Sequence[Member], pieces: list[Piece], dtype: str) -> _Stripe:
    total = np.zeros(sum(piece.count for piece in pieces))
    scratch = np.empty(_BLOCK)
    for member, num_examples in members:
        start = 0
        for values in member.read(pieces):
            _fold(values, num_examples, total[start : start + len(values)], scratch)
            start += len(values)
    total /= sum(num_examples for _, num_examples in members)
    data = tensors.encode(dtype, total).tobytes()
    old = read_all(model, pieces)
    return _Stripe(data, _square(tensors.decode(dtype, data) - old), _square(old))


def _fold(values: NDArray[Any], weight: int, total: NDArray[np.float64], scratch: NDArray[np.float64]) -> None:
    for begin in range(0, len(values), _BLOCK):
        block = values[begin : begin + _BLOCK]
        weighted = np.multiply(block, float(weight), out=scratch[: len(block)], dtype=np.float64)
        total[begin : begin + len(block)] += weighted


def _keep(model: WeightFile, pieces: list[Piece]) -> _Stripe:
    return _Stripe(b"".join(data for _, data in model.read_raw(pieces)))


def _square(values: NDArray[np.float64]) -> float:
    return float(np.sum(values * values))
