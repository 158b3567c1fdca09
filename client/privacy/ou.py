"""The Ornstein-Uhlenbeck mechanism, at a fixed time.

The process dX = θ(μ − X)dt + σ dW starts at the client's clipped weights X₀ = μ + u and reverts to μ, the global model,
which is public to the federation. Its transition is exact (Uhlenbeck and Ornstein 1930): after time t

    X_t = μ + a·u + s·ξ,    a = e^(−θt),    s² = σ²(1 − e^(−2θt)) / (2θ),    ξ ~ N(0, I)

with a = 1 and s² = σ²t for θ = 0 (Brownian motion). (X_t − μ)/a = u + (s/a)ξ is a public bijection of it, so that with
L2 sensitivity Δ of u the release is exactly a Gaussian mechanism with noise multiplier z = s/(aΔ), and its privacy is
that of `client.privacy.accounting` at z. As a diffusion mechanism: Balle, Barthe, Gaboardi, Geumlek, "Privacy
Amplification by Mixing and Diffusion Mechanisms" (NeurIPS 2019), section 5.

In any account only z counts. θ and t say how far a release is pulled to the global model when it is left contracted
(`debias = "none"`), and how σ, the diffusion, relates to z. The defaults of a federation, `DEFAULT_THETA` and
`DEFAULT_TIME`, keep a = 0.78.
"""

import math
from dataclasses import dataclass
from typing import Literal

from client.privacy.checks import count, non_negative, one_of, positive

Debias = Literal["exact", "none", "optimal"]

DEFAULT_THETA = 1.0  # the unit of time is the time in which the process forgets its start
DEFAULT_TIME = 0.25  # a = e^(−1/4) = 0.78: a mild pull
_MAX_EXPONENT = 700.0  # e^(2θt) stays a finite float64


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """The transition of dX = θ(μ − X)dt + σ dW over a fixed time.

    Attributes:
        theta: θ ≥ 0, the rate of reversion, per unit of time.
        time: t > 0.
        sigma: σ > 0, the diffusion, in units of the weights per square root of time.

    Raises:
        ValueError: a parameter is out of its range or not finite, or 2θt > 700 (the release would be noise alone).
    """

    theta: float
    time: float
    sigma: float

    def __post_init__(self) -> None:
        _exponent(self.theta, self.time)
        positive("sigma", self.sigma)

    @property
    def contraction(self) -> float:
        """a = e^(−θt): what is left of the difference u."""
        return math.exp(-self.theta * self.time)

    @property
    def noise_sd(self) -> float:
        """s = σ√((1 − e^(−2θt)) / (2θ)): the noise a coordinate of the release, in units of the weights."""
        return self.debiased_sd * self.contraction

    @property
    def debiased_sd(self) -> float:
        """s/a = σ√((e^(2θt) − 1) / (2θ)): the noise a coordinate of u + (s/a)ξ, in units of the weights."""
        return self.sigma * _growth(self.theta, self.time)

    def noise_multiplier(self, sensitivity: float) -> float:
        """Return z = s/(aΔ), where `sensitivity` is Δ, the L2 sensitivity of u."""
        return self.debiased_sd / positive("sensitivity", sensitivity)


def calibrate(
    noise_multiplier: float, sensitivity: float, theta: float = DEFAULT_THETA, time: float = DEFAULT_TIME
) -> OrnsteinUhlenbeck:
    """Return the mechanism with noise multiplier z: σ = zΔ√(2θ / (e^(2θt) − 1)).

    Args:
        noise_multiplier: z > 0, as `client.privacy.accounting` gives it for a budget.
        sensitivity: Δ > 0, the L2 sensitivity of u, rounding included (`client.privacy.lattice.padded_sensitivity`).
        theta: θ ≥ 0.
        time: t > 0.

    Raises:
        ValueError: a parameter is out of its range or not finite.
    """
    debiased_sd = positive("noise_multiplier", noise_multiplier) * positive("sensitivity", sensitivity)
    _exponent(theta, time)
    return OrnsteinUhlenbeck(theta, time, debiased_sd / _growth(theta, time))


def release_scale(
    debias: Debias, mechanism: OrnsteinUhlenbeck, *, dimension: int, clients: int, update_bound: float
) -> float:
    """Return the factor put on the debiased difference u + (s/a)ξ before it is added to the global model.

    "exact" is 1: unbiased. "none" is a: the process's own a·u + s·ξ. "optimal" is a* = 1/(1 + k) with
    k = d(s/a)² / (K R²) = d z²Δ² / (K R²). Averaged over K clients of equal weight, the noise has d(s/a)²/K as its
    expected squared norm, and c = ‖ū‖²/(‖ū‖² + d(s/a)²/K) minimises E‖c(ū + noise) − ū‖² (linear shrinkage, as in
    James and Stein 1961); with R in place of the secret ‖ū‖ it is the best linear factor for the worst ‖ū‖ ≤ R. A
    factor made of public numbers is post-processing: whichever is chosen, z is the same.

    Args:
        debias: the choice.
        mechanism: what was released with.
        dimension: d, the number of released parameters.
        clients: K, the clients that are averaged; public: the roster or the quorum, not the cohort of this round.
        update_bound: R, the public bound on ‖u‖₂ in units of the weights: the clip norm C at client level, ηC for one
            full-batch step at learning rate η with examples clipped to C.

    Raises:
        ValueError: an unknown choice, or a number out of its range.
    """
    one_of("debias", debias, ("exact", "none", "optimal"))
    signal = positive("update_bound", update_bound) * math.sqrt(count("clients", clients))
    noise = mechanism.debiased_sd * math.sqrt(count("dimension", dimension))
    factors = {"exact": 1.0, "none": mechanism.contraction, "optimal": 1 / (1 + (noise / signal) ** 2)}
    return factors[debias]


def _exponent(theta: float, time: float) -> float:
    exponent = 2 * non_negative("theta", theta) * positive("time", time)
    if exponent > _MAX_EXPONENT:
        raise ValueError(f"theta and time: expected 2·theta·time of at most {_MAX_EXPONENT:g}, got {exponent:g}")
    return exponent


def _growth(theta: float, time: float) -> float:
    # √((e^x − 1)/(2θ)) = √(t·(e^x − 1)/x) with x = 2θt; expm1 keeps it exact down to the Brownian limit x = 0.
    exponent = _exponent(theta, time)
    return math.sqrt(time * (math.expm1(exponent) / exponent if exponent else 1.0))
