"""Federated averaging, streamed: w = Σ n_k w_k / Σ n_k (McMahan et al. 2017, algorithm 1).

A pure function of the cohort, to the bit: float64 accumulators, whole numbers n_k as weights, clients in sorted order,
one divide at the end.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from aggregator.stripes import BLOCK, Rule, Values, Workspace
from exchange.blocks import Piece, WeightFile

STRIPE_ELEMENTS = 2**19  # 4 MiB of accumulators: large for few requests, small for a cache that others use as well

Member = tuple[WeightFile, int]  # an update and its weight, a whole number


def mean_of(members: Sequence[Member]) -> Rule:
    """Return the weighted mean of `members`, sorted by client, as a rule."""
    return Rule(partial(_mean, members), STRIPE_ELEMENTS)


def _mean(members: Sequence[Member], pieces: Sequence[Piece], work: Workspace) -> Values:
    total = work.values[: sum(piece.count for piece in pieces)]
    for place, (member, weight) in enumerate(members):
        start = 0
        for values in member.read(pieces, work.incoming):
            _fold(values, weight, total[start : start + len(values)], None if place == 0 else work.block)
            start += len(values)
    total /= sum(weight for _, weight in members)
    return total


def _fold(values: NDArray[Any], weight: int, total: Values, room: Values | None) -> None:
    """Add to `total`, or begin it where there is no room for the products."""
    for begin in range(0, len(values), BLOCK):
        block = values[begin : begin + BLOCK]
        part = total[begin : begin + len(block)]
        weighted = part if room is None else room[: len(block)]
        weighted[:] = block  # first widened, then multiplied: NumPy's way of both at once takes longer
        weighted *= weight
        part += 0.0 if room is None else weighted  # the sum begins at +0, which makes one of a −0
