"""Does a mechanism keep what it claims? A lower bound on ε, from playing against it.

Two neighbouring worlds, with and without a canary; one score a run, the greater the more it speaks for the canary; one
threshold. How well the worlds can be told apart is bounded by the guarantee, so how well they were told apart bounds
the guarantee (Nasr et al., "Tight Auditing of Differentially Private Machine Learning", USENIX Security 2023):

    μ ≥ Φ⁻¹(TPR) − Φ⁻¹(FPR)        with Clopper and Pearson's bounds in place of the rates

It is read in Gaussian DP: above μ it refutes a claim of μ-GDP, which is what releases with Gaussian noise claim. An
audit finds a wrong account; it never proves a right one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

from client.privacy.accounting import gaussian_epsilon
from client.privacy.checks import count, inside_unit_interval

_CHOOSING_TAIL = 1e-8  # far more doubt than the judgement has, so that no threshold is chosen for one lucky score


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        epsilon: the lower bound on ε at the δ asked for; 0 where nothing was found.
        mu: the lower bound on μ of Gaussian DP.
        true_positive_rate: its lower confidence bound.
        false_positive_rate: its upper confidence bound.
        threshold: a score above it was taken for the canary.
        confidence: with which both bounds hold together.
    """

    epsilon: float
    mu: float
    true_positive_rate: float
    false_positive_rate: float
    threshold: float
    confidence: float


def audit(release: Callable[[bool], float], trials: int, delta: float, confidence: float = 0.95) -> AuditResult:
    """Return `audited_epsilon` of `trials` runs of `release(canary_present)` in each world."""
    scores = {
        present: np.array([release(present) for _ in range(count("trials", trials))]) for present in (True, False)
    }
    return audited_epsilon(scores[True], scores[False], delta, confidence)


def audited_epsilon(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], delta: float, confidence: float = 0.95
) -> AuditResult:
    """Return a lower bound on the ε of a mechanism whose runs gave these scores.

    The threshold is chosen on the first half of either and judged on the second, so that choosing does not flatter it.

    Args:
        scores_in: one score for each run with the canary, shape (m,); at least 4, independent.
        scores_out: likewise without it, shape (k,).
        delta: δ in (0, 1).
        confidence: with which the bound holds; half of the rest goes to either rate.

    Raises:
        ValueError: too few scores, one that is NaN, or a number out of its range.
    """
    tail = (1 - inside_unit_interval("confidence", confidence)) / 2
    inside_unit_interval("delta", delta)
    (try_in, judge_in), (try_out, judge_out) = _halves("scores_in", scores_in), _halves("scores_out", scores_out)
    threshold = _best_threshold(try_in, try_out)
    true_positive = float(_lower_bound((judge_in > threshold).sum(), len(judge_in), tail))
    false_positive = float(_upper_bound((judge_out > threshold).sum(), len(judge_out), tail))
    mu = max(0.0, float(norm.ppf(true_positive) - norm.ppf(false_positive)))
    epsilon = gaussian_epsilon(mu, delta) if mu else 0.0
    return AuditResult(epsilon, mu, true_positive, false_positive, threshold, confidence)


def _halves(name: str, scores: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    if scores.ndim != 1 or len(scores) < 4 or np.isnan(scores).any():
        raise ValueError(f"{name}: expected at least 4 scores in one dimension, none of them NaN")
    return np.array_split(scores, 2)


def _best_threshold(scores_in: NDArray[np.float64], scores_out: NDArray[np.float64]) -> float:
    candidates = np.quantile(np.concatenate([scores_in, scores_out]), np.linspace(0, 1, 1001), method="lower")
    above_in = len(scores_in) - np.searchsorted(np.sort(scores_in), candidates, side="right")
    above_out = len(scores_out) - np.searchsorted(np.sort(scores_out), candidates, side="right")
    true_positive = _lower_bound(above_in, len(scores_in), _CHOOSING_TAIL)
    false_positive = _upper_bound(above_out, len(scores_out), _CHOOSING_TAIL)
    return float(candidates[np.argmax(norm.ppf(true_positive) - norm.ppf(false_positive))])


def _lower_bound(successes: NDArray[np.int64] | np.int64, trials: int, tail: float) -> NDArray[np.float64]:
    # Clopper and Pearson (1934): the rate below which so many successes have probability `tail`.
    return np.where(successes > 0, beta.ppf(tail, np.maximum(successes, 1), trials - successes + 1), 0.0)


def _upper_bound(successes: NDArray[np.int64] | np.int64, trials: int, tail: float) -> NDArray[np.float64]:
    return np.asarray(1 - _lower_bound(trials - successes, trials, tail))
