"""What a test set of so many examples can tell apart, and what it cannot."""

from __future__ import annotations

from math import sqrt

_QUANTILE = 1.96  # of the normal distribution: 95 of 100 test sets


def margin(accuracy: float, examples: int) -> float:
    """Return by how much another accuracy near this one must differ, as a share, for it to mean something.

    Half of Agresti and Caffo's 95 % interval (2000) for two equal proportions: one success and one failure are added to
    each. It takes the mistakes of the two models as independent. Models that are wrong on the same examples differ less
    by chance, and so does a mean over several models: it errs on the side of caution.

    Args:
        accuracy: between 0 and 1, on the test set.
        examples: how many the test set has.
    """
    size = examples + 2
    share = (accuracy * examples + 1) / size
    return _QUANTILE * sqrt(2 * share * (1 - share) / size)
