"""Weights by precision: w_k ∝ 1/(τ²/n_k + s_k²), the inverse of the variance of an element of client k's release.

s_k is the noise that the settings prescribe, never what an update claims: s_k = zΔ_k, where z is the noise multiplier
that ε, δ and the number of rounds leave, and Δ_k ∝ 1/n_k for the unit "example", 2C for the unit "client". τ², how much
clients differ by their data, is estimated from the releases by moments: with d elements and K clients,

    E Σ_k ‖u_k − ū‖² = d(1 − 1/K) Σ_k (τ²/n_k + s_k²),    ū the plain mean,

solved for τ², and 0 where noise alone explains more than is seen. All of it is post-processing of noised releases.
"""

from collections.abc import Sequence
from math import erfc, exp, log, sqrt

from exchange.records import StoredUpdate
from exchange.spec import FederationSettings, OrnsteinUhlenbeckPrivacy

_FINEST = 2**20  # the greatest weight: the mean takes whole numbers (docs/decisions/0003), and none is 0
# Of several local steps, whose examples are not clipped, and what of their Δ is kept for rounding, as a client has them
# (client/privacy/sensitivity.py).
_SOFTMAX_LIPSCHITZ = 2.0
_ROUNDED = 2.0**-10
_LARGEST = 1e300  # of τ²: the norms of a liar's float64 updates may add up to infinity, and then all weights were 0
_HALVINGS = 200  # until a bisection of float64 stands still


def weights(settings: FederationSettings, members: Sequence[StoredUpdate], moved: float, elements: int) -> list[int]:
    """Return the members' weights, whole numbers from 1 to 2²⁰.

    Args:
        moved: ‖ū‖₂, how far the plain mean of the members is from the global model.
        elements: d, of all floating tensors together.
    """
    noise = [noise_sd(settings, member.num_examples) ** 2 for member in members]
    sizes = [1 / member.num_examples for member in members]
    count = len(members)
    spread = max(0.0, sum(member.norm**2 for member in members) - count * moved**2)
    seen = spread / (max(1, elements) * (1 - 1 / count)) if count > 1 else 0.0
    # Six digits, which no difference between two machines' sums comes near, and more than the estimate is worth.
    heterogeneity = float(f"{min(max(0.0, (seen - sum(noise)) / sum(sizes)), _LARGEST):.6g}")
    precisions = [1 / (heterogeneity * size + square) for size, square in zip(sizes, noise, strict=True)]
    return [max(1, round(_FINEST * precision / max(precisions))) for precision in precisions]


def noise_sd(settings: FederationSettings, num_examples: int) -> float:
    """Return s_k of a client with so many declared examples, to nine digits.

    Without what rounding to the lattice adds to Δ, below 1e-6 of it up to 1e6 elements.
    """
    return float(f"{_multiplier(settings) * _sensitivity(settings, num_examples):.9g}")


def _sensitivity(settings: FederationSettings, num_examples: int) -> float:
    privacy, train = _privacy(settings), settings.train
    doubled = 2 if privacy.adjacency == "replace-one" else 1
    if privacy.unit == "client":
        return doubled * privacy.clip_norm
    steepest = privacy.clip_norm if train.local_epochs == 1 else _SOFTMAX_LIPSCHITZ * (1 + _ROUNDED)
    return doubled * train.local_epochs * train.learning_rate * steepest / num_examples


def _multiplier(settings: FederationSettings) -> float:
    """Return z: that of Gaussian releases which are (ε, δ)-DP together, less what a noised metric takes."""
    privacy = _privacy(settings)
    squared = _mu(privacy.epsilon, privacy.delta) ** 2 / settings.rounds
    if (metric := settings.metrics.noise_multiplier) is not None:
        squared -= 1 / metric**2
    return 1 / sqrt(squared)


def _mu(epsilon: float, delta: float) -> float:
    """Return the μ at which μ-GDP is (ε, δ)-DP: δ = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) (Dong, Roth, Su 2019).

    Above ε = 700, which protects nobody, only roughly: float64 has no such small Φ.
    """
    low, high = 0.0, 2 * epsilon + 40.0  # there δ is 1, for any ε > 0
    for _ in range(_HALVINGS):
        mu = (low + high) / 2
        tail = _normal(-mu / 2 - epsilon / mu)
        found = _normal(mu / 2 - epsilon / mu) - (exp(epsilon + log(tail)) if tail else 0.0)
        low, high = (low, mu) if found > delta else (mu, high)
    return low


def _normal(value: float) -> float:
    return erfc(-value / sqrt(2)) / 2


def _privacy(settings: FederationSettings) -> OrnsteinUhlenbeckPrivacy:
    assert isinstance(settings.privacy, OrnsteinUhlenbeckPrivacy), "the settings allow precision with no other"
    return settings.privacy
