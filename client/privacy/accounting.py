"""What a sequence of releases costs, exactly.

A Gaussian release with noise multiplier z is μ-GDP with μ = 1/z, and a sequence of them, chosen adaptively or not, is
exactly √(Σ 1/z²)-GDP (Dong, Roth, Su, "Gaussian Differential Privacy", 2019, corollary 3.3). Its whole curve is

    δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)        (ibid. corollary 2.13; Balle and Wang, ICML 2018, theorem 8)

Poisson-sampled steps (DP-SGD) have no such form and are composed numerically, rounded towards caution, as privacy loss
distributions by dp-accounting. The relation there is add-or-remove throughout: the sensitivity is in z already, and
dp-accounting's replace-one would double it a second time.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy.special import log_ndtr

from client.privacy.checks import count, inside_unit_interval, non_negative, positive, probability

_CAUTION = 1 + 1e-9  # more noise than needed by so much, so that rounding never ends above the target
_INTERVAL = 1e-4  # of privacy loss; dp-accounting's own default
_TOLERANCE = 1.001  # of a sampled step's z; worth about 0.2 % of ε
_SMALLEST_MULTIPLIER, _LARGEST_MULTIPLIER = 0.2, 1e6  # the size of a PLD grows as 1/z²
_LARGEST_MU = 10.0  # in a PLD, whose size grows as μ²: ε near 90, an odds factor of e⁹⁰, which protects nobody
_TARGETS = (1e-3, 1e12)  # of ε: outside, rounding could end above the target, and neither extreme is of any use
_LOG_ZERO = -800.0  # e^−800 is below every positive float64


@dataclass(frozen=True)
class GaussianRelease:
    """One release of a sum of sensitivity Δ with Gaussian noise of sd zΔ a coordinate; the OU mechanism is one.

    Attributes:
        noise_multiplier: z > 0.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("noise_multiplier", self.noise_multiplier)


@dataclass(frozen=True)
class SampledSteps:
    """Steps of DP-SGD: in each, every example takes part with probability q, and noise of sd zC is put on the sum.

    C is the clip norm. Neighbours differ by one example, added or removed; for replaced ones this is no account.

    Attributes:
        sampling_probability: q in (0, 1]; at 1 the steps are plain Gaussian releases.
        noise_multiplier: z > 0.
        steps: how many, at least 1.
    """

    sampling_probability: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        probability("sampling_probability", self.sampling_probability)
        positive("noise_multiplier", self.noise_multiplier)
        count("steps", self.steps)


Event = GaussianRelease | SampledSteps


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return δ(ε) of μ-GDP; raises ValueError unless μ > 0 and ε ≥ 0 are finite."""
    return math.exp(_log_delta(positive("mu", mu), non_negative("epsilon", epsilon)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest ε ≥ 0 at which μ-GDP is (ε, δ)-DP; raises ValueError unless μ > 0 is finite and 0 < δ < 1."""
    log_delta = math.log(inside_unit_interval("delta", delta))
    if _log_delta(positive("mu", mu), 0.0) <= log_delta:
        return 0.0
    tail = math.sqrt(-2 * log_delta)  # Φ(−tail) ≤ δ, so that ε = μ²/2 + μ·tail is enough
    return _root(lambda epsilon: _log_delta(mu, epsilon) - log_delta, 0.0, mu * mu / 2 + mu * tail)


def compose(multipliers: Iterable[float]) -> float:
    """Return μ = √(Σ 1/z²) of Gaussian releases with these z, 0 for none; raises ValueError for z ≤ 0."""
    return math.hypot(*(1 / positive("noise_multiplier", multiplier) for multiplier in multipliers))


def calibrate_multiplier(epsilon: float, delta: float, rounds: int) -> float:
    """Return the z at which `rounds` Gaussian releases together are (ε, δ)-DP, and not more than that.

    Balle and Wang's analytic calibration (ICML 2018, algorithm 1), for √rounds times the μ of one release.

    Raises:
        ValueError: ε is not a number from 0.001 to 1e12, δ is not inside (0, 1), or `rounds` is below 1.
    """
    if not _TARGETS[0] <= positive("epsilon", epsilon) <= _TARGETS[1]:
        raise ValueError(f"epsilon: expected a number from {_TARGETS[0]:g} to {_TARGETS[1]:g}, got {epsilon!r}")
    log_delta = math.log(inside_unit_interval("delta", delta))
    tail = math.sqrt(-2 * log_delta)
    lower = 2 * epsilon / (tail + math.sqrt(tail * tail + 2 * epsilon))  # ε = μ²/2 + μ·tail
    upper = 2 * lower
    while _log_delta(upper, epsilon) < log_delta:
        upper *= 2
    mu = _root(lambda mu: _log_delta(mu, epsilon) - log_delta, lower, upper)
    return math.sqrt(count("rounds", rounds)) / mu * _CAUTION


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Return the ε of all `events` together at `delta`.

    Exact where every event is Gaussian. Otherwise from dp-accounting's PLD accountant at its default discretisation,
    which rounds up; equal events are grouped, so that the order in which they came does not matter. Beside Gaussian
    events that protect nobody (ε near 90 and above) it is the sum of both kinds' ε at δ/2, which is never less.

    Raises:
        ValueError: δ is not inside (0, 1).
    """
    inside_unit_interval("delta", delta)
    mus, sampled = [0.0], Counter[tuple[float, float]]()
    for event in events:
        match event:
            case GaussianRelease(multiplier):
                mus.append(1 / multiplier)
            case SampledSteps(1, multiplier, steps):
                mus.append(math.sqrt(steps) / multiplier)
            case SampledSteps(rate, multiplier, steps):
                sampled[rate, multiplier] += steps
    mu = math.hypot(*mus)
    if not sampled:
        return gaussian_epsilon(mu, delta) if mu else 0.0
    steps_taken = tuple(sorted((*steps, number) for steps, number in sampled.items()))
    if mu > _LARGEST_MU:
        return gaussian_epsilon(mu, delta / 2) + _pld_epsilon(0.0, steps_taken, delta / 2)
    return _pld_epsilon(mu, steps_taken, delta)


def calibrate_sampled(epsilon: float, delta: float, sampling_probability: float, steps: int) -> float:
    """Return a z at which `steps` Poisson-sampled steps are (ε, δ)-DP, at most 0.1 % above the smallest such z.

    Bisection on the accountant that `epsilon` uses, at a coarse discretisation and then at its own, so that the two
    agree. It starts at the central limit, μ = q√(steps·(e^(1/z²) − 1)) (Bu, Dong, Long, Su, "Deep Learning with
    Gaussian Differential Privacy", 2020). Less than 0.2 is never returned.

    Raises:
        ValueError: a number is out of its range, or ε is too small for the accountant to show for so many steps.
    """
    if sampling_probability == 1:
        return calibrate_multiplier(epsilon, delta, steps)
    relative_mu = 1 / (
        calibrate_multiplier(epsilon, delta, steps) * probability("sampling_probability", sampling_probability)
    )
    multiplier = max(1 / math.sqrt(math.log1p(relative_mu**2)), _SMALLEST_MULTIPLIER)
    for interval, stride in ((10 * _INTERVAL, 1.05), (_INTERVAL, _TOLERANCE)):

        def sound(multiplier: float, interval: float = interval) -> bool:
            return _pld_epsilon(0.0, ((sampling_probability, multiplier, steps),), delta, interval) <= epsilon

        multiplier = _smallest(sound, multiplier, stride)
    if multiplier == _LARGEST_MULTIPLIER:
        raise ValueError(f"epsilon: expected one that the accountant can show for {steps} steps, got {epsilon!r}")
    return multiplier


def _smallest(sound: Callable[[float], bool], guess: float, stride: float) -> float:
    # `sound` holds from some multiplier on. Bracket that one from the guess by ever longer strides, then bisect.
    if sound(guess):
        upper = guess
        while upper > _SMALLEST_MULTIPLIER and sound(lower := max(upper / stride, _SMALLEST_MULTIPLIER)):
            upper, stride = lower, stride**2
        if upper == _SMALLEST_MULTIPLIER:
            return upper
    else:
        lower = guess
        while not sound(upper := min(lower * stride, _LARGEST_MULTIPLIER)):
            if upper == _LARGEST_MULTIPLIER:
                return upper
            lower, stride = upper, stride**2
    while upper / lower > _TOLERANCE:
        middle = math.sqrt(lower * upper)
        lower, upper = (lower, middle) if sound(middle) else (middle, upper)
    return upper


def _log_delta(mu: float, epsilon: float) -> float:
    log_above = float(log_ndtr(mu / 2 - epsilon / mu))
    log_ratio = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)) - log_above
    return log_above + math.log(-math.expm1(log_ratio)) if log_ratio < 0 else _LOG_ZERO


def _root(function: Callable[[float], float], lower: float, upper: float) -> float:
    from scipy.optimize import brentq  # half a second, which a command that calibrates nothing need not wait for

    return float(brentq(function, lower, upper, xtol=1e-300, rtol=8.9e-16, maxiter=500))  # to the root's last bits


@lru_cache(maxsize=4096)  # a second each; the clients of a federation ask the same, round by round
def _pld_epsilon(
    mu: float, sampled: tuple[tuple[float, float, int], ...], delta: float, interval: float = _INTERVAL
) -> float:
    import dp_accounting  # about a second, which a ledger of Gaussian releases need not wait for
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, interval)
    if mu:
        accountant.compose(dp_accounting.GaussianDpEvent(1 / mu))
    for rate, multiplier, steps in sampled:
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    return float(accountant.get_epsilon(delta))
