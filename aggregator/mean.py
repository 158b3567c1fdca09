"""Federated averaging, streamed: w = Σ n_k w_k / Σ n_k (McMahan et al. 2017, algorithm 1).

A pure function of the cohort, to the bit: float64 accumulators, whole numbers n_k as weights, clients in sorted order,
one divide at the end.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.stripes import Rule, Values
from exchange.blocks import Piece, WeightFile

STRIPE_ELEMENTS = 2**20  # 8 MiB of accumulators: large enough for few requests, small enough for a small function
_BLOCK = 2**15  # elements folded at a time: 256 KiB of accumulators, which stay in a core's second-level cache

Member = tuple[WeightFile, int]  # an update and its weight, a whole number


def mean_of(members: Sequence[Member]) -> Rule:
    """Return the weighted mean of `members`, sorted by client, as a rule."""
    return Rule(partial(_mean, members), STRIPE_ELEMENTS)


def _mean(members: Sequence[Member], pieces: Sequence[Piece], _: Values) -> Values:
    total = np.zeros(sum(piece.count for piece in pieces))
    scratch = np.empty(_BLOCK)
    for member, weight in members:
        start = 0
        for values in member.read(pieces):
            _fold(values, weight, total[start : start + len(values)], scratch)
            start += len(values)
    total /= sum(weight for _, weight in members)
    return total


def _fold(values: NDArray[Any], weight: int, total: Values, scratch: Values) -> None:
    for begin in range(0, len(values), _BLOCK):
        block = values[begin : begin + _BLOCK]
        weighted = np.multiply(block, float(weight), out=scratch[: len(block)], dtype=np.float64)
        total[begin : begin + len(block)] += weighted
