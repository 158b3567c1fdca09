"""The randomness of the guarantee: from the operating system, and from nowhere else.

NumPy's and torch's generators can be predicted from their output, and a frozen layer (u = 0) publishes raw output.
Nothing here takes a seed, and nothing here may; tests hand in a source of their own.
"""

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

_RARE = 2.0**-10  # beyond 3.1 standard deviations; the gaps reach the lattice's step at 5.4
LARGEST_NORMAL = 12.0  # above the magnitude of every draw of `system_normals`


class Source(Protocol):
    """A source of independent draws from one law."""

    def __call__(self, count: int, /) -> NDArray[np.float64]:
        """Return `count` draws, shape (count,)."""
        ...


def system_normals(count: int, /) -> NDArray[np.float64]:
    """Return standard normals made of the operating system's randomness, shape (count,).

    Inversion of uniforms, by halves: for v = (j + ½)·2⁻⁵³ on (−½, ½), |Φ⁻¹(½ − |v|)| with the sign of v. Far out, where
    steps of 2⁻⁵³ in ½ − |v| would leave gaps wider than the lattice's step, 53 further bits fill them. Both tails have
    the same resolution, and nothing is ever infinite: magnitudes end at −Φ⁻¹(2⁻¹⁰⁷) = 11.9.
    """
    centred = _centred_uniforms(count)
    tail = 0.5 - np.abs(centred)
    rare = np.flatnonzero(tail < _RARE)
    tail[rare] += (system_uniforms(len(rare)) + (2.0**-54 - 0.5)) * 2.0**-53
    ndtri(tail, out=tail)
    return np.copysign(tail, centred)


def system_uniforms(count: int, /) -> NDArray[np.float64]:
    """Return uniforms on [0, 1), multiples of 2⁻⁵³ made of the operating system's randomness, shape (count,)."""
    return np.asarray(_words(count).view(np.uint64) >> 11, np.float64) * 2.0**-53


def _centred_uniforms(count: int) -> NDArray[np.float64]:
    # 53 signed bits: j + ½ is exact. On (0, 1), k + ½ needs 54 bits: (2⁵³ − ½)·2⁻⁵³ rounds to 1, and Φ⁻¹ to infinity.
    centred = (_words(count) >> 11).astype(np.float64)
    centred += 0.5
    centred *= 2.0**-53
    return centred


def _words(count: int) -> NDArray[np.int64]:
    return np.frombuffer(os.urandom(8 * count), dtype=np.int64)  # noqa: TID251 - the one place where noise may begin
