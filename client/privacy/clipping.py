"""Bounding what one client can say: the L2 norm of its whole update."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.privacy.checks import positive

# The norm, the quotient and the product round; together by less than 2⁻⁴⁵ of the norm (NumPy sums in pairs). Aiming so
# much lower makes "at most the clip norm" hold for the float64 values themselves, not only on paper.
_AIM = 1 - 2.0**-40


class Clipped(NamedTuple):
    """An update whose L2 norm over all tensors is at most the clip norm.

    Attributes:
        tensors: float64 arrays, named and shaped as they came.
        norm: the L2 norm before clipping: private. 0 where the update was not finite.
        finite: whether every value was finite: private, for the client's own log only.
    """

    tensors: dict[str, NDArray[np.float64]]
    norm: float
    finite: bool


def clip_l2(difference: Mapping[str, NDArray[Any]], clip_norm: float) -> Clipped:
    """Return u·min(1, C/‖u‖₂), where u is all of `difference` in float64 and C is `clip_norm`.

    ‖u‖ = 0 stays 0. An update with a value that is not finite becomes 0, in every tensor: an exception would tell the
    parent about the data, and NaN would pass every later bound.

    Raises:
        ValueError: `clip_norm` is not a finite number above 0.
    """
    target = positive("clip_norm", clip_norm) * _AIM
    arrays = {name: np.array(tensor, dtype=np.float64) for name, tensor in difference.items()}
    peak = _peak(arrays)
    if not math.isfinite(peak):
        return Clipped({name: np.zeros_like(array) for name, array in arrays.items()}, 0.0, finite=False)
    relative_norm = math.sqrt(math.fsum(_relative_square(array, peak) for array in arrays.values()))
    if (norm := peak * relative_norm) > target:
        for array in arrays.values():
            array /= peak
            array *= target / relative_norm
    return Clipped(arrays, norm, finite=True)


def _relative_square(array: NDArray[np.float64], peak: float) -> float:
    # Squares of values up to 1 do not overflow, and only those vanish that do not count.
    return float(np.square(array / peak).sum()) if peak else 0.0


def _peak(arrays: Mapping[str, NDArray[np.float64]]) -> float:
    # np.max hands NaN on, and an infinity is its own maximum.
    return float(np.max([np.abs(array).max(initial=0.0) for array in arrays.values()], initial=0.0))
