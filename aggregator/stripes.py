"""The next global model's data, a stripe at a time: memory is that of the stripes at work, whatever the model's size.

How the values of a stripe come about is the strategy's affair (a `Rule`); here they are asked for, rounded once to the
global model's dtype, and written in the order that its header announces. The bytes depend on no stripe and no thread,
since no rule lets one element depend on another.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import inf, sqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from exchange import tensors
from exchange.blocks import Piece, WeightFile, read_all, stripes

_KEPT_ELEMENTS = 2**20  # of integer tensors, copied at a time: at most 8 MiB

BLOCK = 2**16  # elements worked on at a time: 512 KiB of float64, which stay in a core's second-level cache

Values = NDArray[np.float64]
Out = Callable[[bytes | memoryview], object]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Rule:
    """How a stripe of the next model is made.

    Attributes:
        combine: (pieces, workspace) → what the updates make of them, 1-D, in order; it may lie in the workspace.
        elements: of a stripe, at most.
        step: (pieces, old, combined) → the new values, and the bytes of the optimizer's state; None takes `combined`.
    """

    combine: Callable[[Sequence[Piece], "Workspace"], Values]
    elements: int
    step: Callable[[Sequence[Piece], Values, Values], tuple[Values, bytes]] | None = None


class Workspace:
    """Memory for one stripe after another: the first touch of fresh memory costs more than all that is done with it.

    Attributes:
        values: room for a stripe in float64.
        incoming: room for a stripe as it is read, in any dtype.
        block, other_block: room for `BLOCK` elements in float64, each.
    """

    def __init__(self, elements: int) -> None:
        self.values = np.empty(elements)
        self.incoming = np.empty(elements).data.cast("B")
        self.block, self.other_block = np.empty(BLOCK), np.empty(BLOCK)


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
        """‖new − old‖ / ‖old‖ to six digits; None where the old model is all zeros, or one of the three is infinite."""
        ratio = self.moved / self.old if 0 < self.old < inf else inf
        return float(f"{ratio:.6g}") if ratio < inf else None


@dataclass(frozen=True)
class _Stripe:
    data: bytes | memoryview
    state: bytes = b""
    moved_square: float = 0.0
    old_square: float = 0.0


def discard(_: bytes | memoryview) -> None:
    """Take bytes that nobody asked for."""


def write_data(model: WeightFile, rule: Rule | None, out: Out, workers: int = 1, state_out: Out = discard) -> Change:
    """Write the data section of the next global model, and that of the optimizer's state.

    Args:
        model: the round's global model; its integer tensors are kept as they are.
        rule: None keeps the whole model.
        out, state_out: take the bytes, in the order that the headers announce.
        workers: threads, each with a stripe of its own.

    Raises:
        StoreError: an update, the model or the state can no longer be read at its version.
    """
    moved_square = old_square = 0.0
    for stripe in in_turn(_jobs(model, rule, workers), workers):
        out(stripe.data)
        state_out(stripe.state)
        moved_square += stripe.moved_square
        old_square += stripe.old_square
    return Change(sqrt(moved_square), sqrt(old_square))


def model_header(model: WeightFile, metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file with the tensors of `model` and other metadata."""
    return tensors.encode_header(_shapes(model), metadata)


def in_order(model: WeightFile) -> list[tensors.Tensor]:
    """Return the tensors of `model` in the order in which they are written."""
    return [model.layout.tensors[name] for name in tensors.file_order(_shapes(model))]


def _shapes(model: WeightFile) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in model.layout.tensors.values()}


def _jobs(model: WeightFile, rule: Rule | None, workers: int) -> Iterator[Callable[[], _Stripe]]:
    idle = [Workspace(rule.elements) for _ in range(workers)] if rule is not None else []
    for (dtype, floating), group in groupby(in_order(model), key=lambda tensor: (tensor.dtype, tensor.floating)):
        if floating and rule is not None:
            for pieces in stripes(list(group), rule.elements):
                yield partial(_make, model, rule, pieces, dtype, idle)
        else:
            for pieces in stripes(list(group), _KEPT_ELEMENTS):
                yield partial(_keep, model, pieces)


def in_turn(jobs: Iterator[Callable[[], _T]], workers: int) -> Iterator[_T]:
    """Yield what the jobs return, in order; at most `workers` of them run at a time, and one more result waits."""
    if workers == 1:
        yield from (job() for job in jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[_T]] = deque()
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _make(model: WeightFile, rule: Rule, pieces: list[Piece], dtype: str, idle: list[Workspace]) -> _Stripe:
    work, state = idle.pop(), b""  # there is one for each worker
    try:
        new = rule.combine(pieces, work)
        before: Iterable[NDArray[Any]] = model.read(pieces, work.incoming)  # read only as it is gone through
        if rule.step is not None:
            before = [read_all(model, pieces)]
            new, state = rule.step(pieces, before[0], new)
        data = tensors.encode(dtype, new)
        moved, old = _change(before, dtype, data, work)
        return _Stripe(data.data.cast("B"), state, moved, old)
    finally:
        idle.append(work)


def _keep(model: WeightFile, pieces: list[Piece]) -> _Stripe:
    return _Stripe(b"".join(data for _, data in model.read_raw(pieces)))


def _change(olds: Iterable[NDArray[Any]], dtype: str, data: NDArray[Any], work: Workspace) -> tuple[float, float]:
    """Return ‖new − old‖² and ‖old‖², where `data` holds the new elements as they are written."""
    moved = old = 0.0
    start = 0
    for values in olds:
        for begin in range(0, len(values), BLOCK):
            block = values[begin : begin + BLOCK]
            before, difference = work.block[: len(block)], work.other_block[: len(block)]
            before[:] = block
            difference[:] = tensors.decode(dtype, data[start : start + len(block)].data)
            difference -= before
            moved += _square(difference)
            old += _square(before)
            start += len(block)
    return moved, old


def _square(values: Values) -> float:
    """Return the sum of squares of `values`, which are overwritten."""
    with np.errstate(over="ignore"):
        return float(np.sum(np.multiply(values, values, out=values)))
