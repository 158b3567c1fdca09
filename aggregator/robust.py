"""Rules that bear with clients who may send anything: each element's median or trimmed mean over the updates.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (ICML
2018), definitions 1 and 2. All updates count the same: a weight would be a lever. An element's values are sorted, which
is exact; what is computed from them is computed in float64, in ascending order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.stripes import Rule, Values, Workspace
from exchange.blocks import Piece, WeightFile

GATHERED = 2**21  # values held at a time, of all updates together: 8 MiB of float32
_BLOCK = 2**17  # values sorted at a time: 512 KiB of float32, which stay in a core's second-level cache

Matrix = NDArray[np.floating[Any]]  # a row an update, or, once sorted, a row a rank


def median_of(members: Sequence[WeightFile]) -> Rule:
    """Return the coordinate-wise median as a rule; of an even number, half of the two in the middle each."""
    return _sorted_rule(members, _median)


def trimmed_mean_of(members: Sequence[WeightFile], byzantine: int) -> Rule:
    """Return the coordinate-wise mean without the `byzantine` least and the `byzantine` greatest values, as a rule."""
    return _sorted_rule(members, partial(_trimmed_mean, byzantine=byzantine))


def stripe_elements(members: int) -> int:
    """Return how many elements of every update are held at a time, so that memory does not grow with the updates."""
    return max(1, GATHERED // members)


def gather(members: Sequence[WeightFile], pieces: Sequence[Piece]) -> Matrix:
    """Return the elements of `pieces`, a row an update; float32, or float64 if any is."""
    dtypes = {member.layout.tensors[piece.name].dtype for member in members for piece in pieces}
    rows = np.empty((len(members), sum(piece.count for piece in pieces)), "f8" if "F64" in dtypes else "f4")
    for row, member in zip(rows, members, strict=True):
        start = 0
        for values in member.read(pieces):
            row[start : start + len(values)] = values
            start += len(values)
    return rows


def _sorted_rule(members: Sequence[WeightFile], reduce: Callable[[Matrix], Values]) -> Rule:
    return Rule(partial(_sorted, members, reduce), stripe_elements(len(members)))


def _sorted(
    members: Sequence[WeightFile], reduce: Callable[[Matrix], Values], pieces: Sequence[Piece], work: Workspace
) -> Values:
    rows = gather(members, pieces)
    found = work.values[: rows.shape[1]]
    width = _BLOCK // len(members) | 1  # odd: columns a power of two apart would share few places in the cache
    for begin in range(0, rows.shape[1], width):
        block = rows[:, begin : begin + width].copy()
        block.sort(axis=0)
        found[begin : begin + width] = reduce(block)
    found += 0.0  # −0 and 0 sort as equals: which of them came to lie where is nobody's business
    return found


def _median(block: Matrix) -> Values:
    low, high = (block[place].astype(np.float64) for place in ((len(block) - 1) // 2, len(block) // 2))
    middle: Values = low / 2 + high / 2  # not half of their sum, which may overflow
    return middle


def _trimmed_mean(block: Matrix, byzantine: int) -> Values:
    kept = block[byzantine : len(block) - byzantine].astype(np.float64)
    total = np.zeros(block.shape[1])
    for row in kept:  # NumPy's own sum may add up in another order, depending on the width
        total += row
    total /= len(kept)
    return total
