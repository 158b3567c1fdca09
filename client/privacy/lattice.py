"""Adding noise on a lattice, so that the guarantee survives floating point.

A float32 value plus float32 noise shows in its last bits which value it was (Mironov, "On Significance of the Least
Significant Bits for Differential Privacy", CCS 2012). Here the value and the noise are whole numbers of one step g,

    g = the power of two just at or below (s/a)·2⁻³⁰,    q = trunc(u/g),    n = rint((s/a)ξ/g),    released g·(q + n)

u/g is exact, since g is a power of two. Since q + rint(x) = rint(q + x) for whole q, g·(q + n) is a post-processing of
gq + (s/a)ξ: the Gaussian mechanism itself, with its exact curve, on gq in place of u. Truncation is towards zero, so
‖gq‖₂ ≤ ‖u‖₂ and a bound on the norm still holds; the distance of two neighbours grows by less than `rounding_slack`.

ξ is drawn finely enough to hit every lattice point as far as 11 sd (`client.privacy.noise`). Whatever is done to the
released difference afterwards (scaling, adding the global model, rounding to float32) is post-processing.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from client.privacy.checks import count, positive
from client.privacy.noise import Source

_BITS = 30  # g√d stays far below the noise up to 10⁹ parameters; with 10 bits it is twice the noise at 10⁶
_BLOCK = 1 << 14  # 128 KiB of float64: a block and its temporaries stay in the L2 cache
_LARGEST = 2.0**62  # |q| and |n| below it add up within int64
_SD_RANGE = (2.0**-900, 2.0**900)  # the step and its inverse stay normal float64


def release(difference: NDArray[np.float64], noise_sd: float, normals: Source) -> NDArray[np.float64]:
    """Return `difference` plus Gaussian noise, both on the lattice.

    Args:
        difference: u, finite, shape (d,), float64.
        noise_sd: s/a, the standard deviation of the noise, in units of `difference`.
        normals: where standard normals come from; `client.privacy.noise.system_normals` in production.

    Returns:
        g·(q + n), shape (d,), float64.

    Raises:
        ValueError: another shape or dtype; a value that is not finite, or so far above `noise_sd` (2³¹ times and more)
            that its multiple of the step does not fit int64: no useful guarantee was meant.
    """
    if difference.ndim != 1 or difference.dtype != np.float64:
        raise ValueError(f"difference: expected shape (d,) in float64, got {difference.shape} in {difference.dtype}")
    step = lattice_step(noise_sd)
    released = np.empty_like(difference)
    for start in range(0, difference.size, _BLOCK):
        block = difference[start : start + _BLOCK]
        whole = _whole_steps(block, step)
        whole += np.rint(normals(block.size) * (noise_sd / step)).astype(np.int64)
        np.multiply(whole, step, out=released[start : start + _BLOCK])
    return released


def release_tensors(
    difference: Mapping[str, NDArray[np.float64]], noise_sd: float, normals: Source
) -> dict[str, NDArray[np.float64]]:
    """Return `release` of every tensor, by name and in its shape; raises as `release` does."""
    return {
        name: release(tensor.reshape(-1), noise_sd, normals).reshape(tensor.shape)
        for name, tensor in difference.items()
    }


def lattice_step(noise_sd: float) -> float:
    """Return g, the power of two in (noise_sd·2⁻³¹, noise_sd·2⁻³⁰]; raises ValueError outside 2⁻⁹⁰⁰ … 2⁹⁰⁰."""
    if not _SD_RANGE[0] <= positive("noise_sd", noise_sd) <= _SD_RANGE[1]:
        raise ValueError(f"noise_sd: expected a number from 2⁻⁹⁰⁰ to 2⁹⁰⁰, got {noise_sd!r}")
    _, exponent = math.frexp(noise_sd)  # noise_sd = m·2^exponent with ½ ≤ m < 1
    return math.ldexp(1.0, exponent - 1 - _BITS)


def refuse_unless_it_fits(bound: float, noise_sd: float) -> None:
    """Raise ValueError unless `release` takes every value up to `bound` in magnitude under noise of this sd.

    Asked before anything is charged: what `release` refuses afterwards is paid for, and its refusal tells of the data.
    """
    if not bound / lattice_step(noise_sd) <= _LARGEST / 2:  # half: whoever keeps to `bound` may round
        raise ValueError(
            f"noise_sd: expected at least 2⁻³⁰ of {bound:g}, the largest value that it is put on, got {noise_sd:g}; "
            "so little noise protects nobody"
        )


def rounding_slack(dimension: int, noise_sd: float) -> float:
    """Return 2g√d, which bounds what rounding adds to the L2 distance of two neighbours' differences.

    Rounding moves a coordinate by less than g, so a difference by less than g√d, and there are two of them.
    """
    return 2 * lattice_step(noise_sd) * math.sqrt(count("dimension", dimension))


def padded_sensitivity(sensitivity: float, noise_multiplier: float, dimension: int) -> float:
    """Return Δ' ≥ Δ + 2g√d for noise of sd zΔ': the sensitivity to calibrate with and to write into the manifest.

    g is at most zΔ'·2⁻³⁰, so Δ' = Δ / (1 − 2z√d·2⁻³⁰) is enough.

    Raises:
        ValueError: a number out of its range, or so much noise in so many dimensions that 2z√d reaches 2³⁰.
    """
    share = 2 * positive("noise_multiplier", noise_multiplier) * math.sqrt(count("dimension", dimension)) / 2.0**_BITS
    if share >= 1:
        raise ValueError(
            f"noise_multiplier and dimension: expected 2·z·√d below 2^{_BITS}, got z = {noise_multiplier!r} at "
            f"d = {dimension!r}"
        )
    return positive("sensitivity", sensitivity) / (1 - share)


def _whole_steps(block: NDArray[np.float64], step: float) -> NDArray[np.int64]:
    with np.errstate(over="ignore"):  # an overflow is infinite, and refused below
        steps = np.trunc(block * (1 / step))
    if not np.abs(steps).max() < _LARGEST:  # also where it is NaN
        raise ValueError(f"difference: expected finite values below {_LARGEST * step:g}, got one that is not")
    return steps.astype(np.int64)
