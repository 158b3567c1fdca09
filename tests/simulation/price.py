"""What Gaussian releases cost together, by other means than the code under test."""

import math
from collections.abc import Iterable
from functools import lru_cache

from scipy.optimize import brentq
from scipy.special import ndtr


def epsilon_of(multipliers: Iterable[float], delta: float) -> float:
    """Return the ε at `delta` of releases with these noise multipliers: the curve of Gaussian DP (Dong et al. 2019)."""
    return _epsilon(math.sqrt(math.fsum(z**-2 for z in multipliers)), delta)


@lru_cache(maxsize=4096)
def _epsilon(mu: float, delta: float) -> float:
    if mu == 0:
        return 0.0
    return float(brentq(lambda e: ndtr(mu / 2 - e / mu) - math.exp(e) * ndtr(-mu / 2 - e / mu) - delta, 0, 100))
