"""Multi-Krum: the updates that have the nearest neighbours (Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning
with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, sections 3 and 4).

Of n updates, f of which may be anything, each is scored by the sum of its squared distances to its n − f − 2 nearest
others, and the m with the lowest scores are averaged. Whoever computes that must choose the same m, to the bit, on any
machine; but a matrix product, which makes it fast, adds up in an order of its own. So distances are taken between
differences from the global model rounded to whole numbers of at most `_LARGEST`, in blocks so short that every sum
stays below 2⁵³: float64 holds all of them exactly, and the order does not matter.
"""

from collections.abc import Sequence
from functools import partial
from math import frexp
from statistics import median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.robust import gather, stripe_elements
from aggregator.stripes import Values, in_order, in_turn
from exchange.blocks import Piece, WeightFile, read_all, stripes

_BITS = 18  # of a rounded difference, without its sign
_LARGEST = float(2**_BITS)
_LONGEST = 2**16  # elements in one product: 2³⁶ each at most, 2⁵² together
_BLOCK = 2**19  # values in one product, of all updates together: 4 MiB of float64
_ROOM = 2  # bits above the cohort's median norm, which bounds each honest element; what is larger is cut off there
_EXPONENTS = 500  # within ±: float64 holds 2 to such powers, and their products with any weight of a sound model

Whole = NDArray[np.object_]  # Python's whole numbers, which do not overflow


def nearest(
    model: WeightFile,
    members: Sequence[WeightFile],
    norms: Sequence[float],
    byzantine: int,
    select: int,
    workers: int = 1,
) -> list[int]:
    """Return the places in `members` of the `select` updates with the lowest scores, in ascending order.

    Args:
        model: the round's global model.
        norms: each member's L2 distance from `model`, as recorded; their median says how finely to round.
        byzantine: f; there must be at least 2f + 3 members.
    """
    scale = 2.0 ** max(-_EXPONENTS, min(_BITS - _ROOM - frexp(median_low(norms))[1], _EXPONENTS))
    products = _products(model, members, scale, workers)
    squares = np.diagonal(products)
    distances = squares[:, None] + squares[None, :] - 2 * products
    others = len(members) - byzantine - 2
    scores = [sum(sorted(row[:place] + row[place + 1 :])[:others]) for place, row in enumerate(distances.tolist())]
    return sorted(sorted(range(len(members)), key=lambda place: (scores[place], place))[:select])


def _products(model: WeightFile, members: Sequence[WeightFile], scale: float, workers: int) -> Whole:
    """Return the products of all rounded differences with each other: members × members, exact."""
    total: Whole = np.zeros((len(members), len(members)), dtype=object)
    floating = [tensor for tensor in in_order(model) if tensor.floating]
    jobs = (
        partial(_stripe_products, model, members, scale, pieces)
        for pieces in stripes(floating, stripe_elements(len(members)))
    )
    for products in in_turn(jobs, workers):
        total += products.astype(object)
    return total


def _stripe_products(
    model: WeightFile, members: Sequence[WeightFile], scale: float, pieces: Sequence[Piece]
) -> NDArray[np.int64]:
    rows, old = gather(members, pieces), read_all(model, pieces)
    total = np.zeros((len(members), len(members)), np.int64)
    width = max(1, min(_LONGEST, _BLOCK // len(members)))
    room = np.empty((len(members), min(width, len(old))))
    for begin in range(0, len(old), width):
        part = slice(begin, begin + width)
        rounded = _rounded(rows[:, part], old[part], scale, room)
        total += (rounded @ rounded.T).astype(np.int64)
    return total


def _rounded(rows: NDArray[Any], old: Values, scale: float, room: Values) -> Values:
    differences: Values = room[:, : len(old)]
    differences[:] = rows
    with np.errstate(over="ignore"):  # an infinity is cut off like anything else that is too large
        differences -= old
        differences *= scale
    np.clip(differences, -_LARGEST, _LARGEST, out=differences)
    return np.rint(differences, out=differences)
