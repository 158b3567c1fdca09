"""From what was agreed to what is done in a round: which mechanism, how much noise, at which price."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.privacy.accounting import Event, GaussianRelease, SampledSteps, calibrate_multiplier, calibrate_sampled
from client.privacy.clipping import clip_l2
from client.privacy.lattice import padded_sensitivity, release, release_tensors
from client.privacy.noise import Source
from client.privacy.ou import OrnsteinUhlenbeck, calibrate, release_scale
from client.privacy.sensitivity import (
    SOFTMAX_LIPSCHITZ,
    SOFTMAX_SMOOTHNESS,
    client_sensitivity,
    example_sensitivity,
    one_step_sensitivity,
    output_perturbation_sensitivity,
)
from exchange.errors import PrivacyError
from exchange.spec import DpSgdPrivacy, FederationSettings, NoPrivacy, OrnsteinUhlenbeckPrivacy

Difference = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Plan:
    """What one client does in every round of a federation under privacy.

    Attributes:
        event: what one round costs, in the accountant's terms; holds the noise multiplier z.
        sensitivity: Δ of what the noise is put on, before what rounding adds.
    """

    settings: FederationSettings
    privacy: OrnsteinUhlenbeckPrivacy | DpSgdPrivacy
    event: Event
    sensitivity: float

    @property
    def events(self) -> tuple[Event, ...]:
        """All that one round costs: the release and, where it is shared with noise, the metric."""
        multiplier = self.settings.metrics.noise_multiplier
        return (self.event,) if multiplier is None else (self.event, GaussianRelease(multiplier))

    def release_accuracy(self, correct: int, declared: int, normals: Source) -> float:
        """Return the share of correct answers with noise on their number, which one example moves by at most 1."""
        multiplier = self.settings.metrics.noise_multiplier
        assert multiplier is not None, "the settings share no noised metric"
        return float(release(np.array([float(correct)]), multiplier, normals)[0]) / declared

    def release(self, difference: Difference, normals: Source) -> tuple[Difference, dict[str, Any]]:
        """Return the difference as it may leave the client, and the parameters that made it so.

        Args:
            difference: u = local − global by tensor, float64; after DP-SGD it is private already.
            normals: `client.privacy.noise.system_normals` in production.
        """
        if isinstance(self.privacy, DpSgdPrivacy):
            return difference, self._statement()
        if self.privacy.unit == "client":
            difference = clip_l2(difference, self.privacy.clip_norm).tensors
        dimension = sum(tensor.size for tensor in difference.values())
        process = self._process(dimension)
        scale = release_scale(
            self.privacy.debias,
            process,
            dimension=dimension,
            clients=len(self.settings.client),
            update_bound=self._update_bound(),
        )
        noised = release_tensors(difference, process.debiased_sd, normals)
        return {name: scale * tensor for name, tensor in noised.items()}, self._statement() | {
            "sensitivity": padded_sensitivity(self.sensitivity, self.event.noise_multiplier, dimension),
            "theta": process.theta,
            "time": process.time,
            "sigma": process.sigma,
            "contraction": process.contraction,
            "debias": self.privacy.debias,
        }

    def noise_sd(self, dimension: int) -> float:
        """Return the sd of the noise on each coordinate of one client's difference, debiased; 0 for DP-SGD."""
        return 0.0 if isinstance(self.privacy, DpSgdPrivacy) else self._process(dimension).debiased_sd

    def _process(self, dimension: int) -> OrnsteinUhlenbeck:
        assert isinstance(self.privacy, OrnsteinUhlenbeckPrivacy)
        sensitivity = padded_sensitivity(self.sensitivity, self.event.noise_multiplier, dimension)
        return calibrate(self.event.noise_multiplier, sensitivity, self.privacy.theta, self.privacy.time)

    def _update_bound(self) -> float:
        train, clip_norm = self.settings.train, self.privacy.clip_norm
        return clip_norm if self.privacy.unit == "client" else train.learning_rate * clip_norm * train.local_epochs

    def _statement(self) -> dict[str, Any]:
        statement = {
            "mechanism": self.privacy.mechanism,
            "unit": self.privacy.unit,
            "adjacency": self.privacy.adjacency,
            "clip_norm": self.privacy.clip_norm,
            "sensitivity": self.sensitivity,
            "noise_multiplier": self.event.noise_multiplier,
        }
        if isinstance(self.event, SampledSteps):
            statement |= {"sampling_probability": self.event.sampling_probability, "steps": self.event.steps}
        return statement


def make_plan(settings: FederationSettings, client: str) -> Plan | None:
    """Return what `client` does in every round of the federation; None without privacy.

    Raises:
        PrivacyError: for these numbers no such mechanism exists; the number is named.
    """
    try:
        return _plan(settings, client)
    except ValueError as error:
        raise PrivacyError(f"the settings of {settings.name} cannot be kept: {error}") from error


def _plan(settings: FederationSettings, client: str) -> Plan | None:
    privacy, train = settings.privacy, settings.train
    entry = settings.entry(client)
    if isinstance(privacy, NoPrivacy) or entry is None:
        return None
    if isinstance(privacy, DpSgdPrivacy):
        steps = max(1, round(train.local_epochs / privacy.sampling_probability))
        multiplier = _calibrate_sampled(
            privacy.epsilon, privacy.delta, privacy.sampling_probability, steps * settings.rounds
        )
        sampled = SampledSteps(privacy.sampling_probability, multiplier, steps)
        return Plan(settings, privacy, sampled, example_sensitivity(privacy.clip_norm, privacy.adjacency))
    event = GaussianRelease(_release_multiplier(settings, privacy))
    if privacy.unit == "client":
        sensitivity = client_sensitivity(privacy.clip_norm)
    elif train.local_epochs == 1:
        sensitivity = one_step_sensitivity(train.learning_rate, privacy.clip_norm, entry.examples, privacy.adjacency)
    else:
        sensitivity = output_perturbation_sensitivity(
            train.learning_rate,
            SOFTMAX_LIPSCHITZ,
            SOFTMAX_SMOOTHNESS,
            train.local_epochs,
            entry.examples,
            privacy.adjacency,
        )
    return Plan(settings, privacy, event, sensitivity)


def _release_multiplier(settings: FederationSettings, privacy: OrnsteinUhlenbeckPrivacy) -> float:
    """Return the z of each round's release that leaves room for each round's noised metric within the same ε."""
    rounds = settings.rounds
    alone = calibrate_multiplier(privacy.epsilon, privacy.delta, rounds)
    if (metric := settings.metrics.noise_multiplier) is None:
        return alone
    room = 1 / alone**2 - 1 / metric**2  # exact: the μ² of Gaussian releases add up
    if room <= 0:
        raise ValueError(
            f"metrics.noise_multiplier: {rounds} metrics at {metric:g} cost more than all of privacy.epsilon; "
            f"expected more than {alone:.3g}"
        )
    return float(1 / room**0.5)


_calibrate_sampled = lru_cache(calibrate_sampled)  # seconds; the same for every client and round of a federation
