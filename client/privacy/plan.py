"""From what was agreed to what is done in a round: which mechanism, how much noise, at which price."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.privacy.accounting import Event, GaussianRelease, SampledSteps, calibrate_multiplier, calibrate_sampled
from client.privacy.clipping import clip_l2
from client.privacy.lattice import padded_sensitivity, refuse_unless_it_fits, release, release_tensors
from client.privacy.noise import LARGEST_NORMAL, Source
from client.privacy.ou import OrnsteinUhlenbeck, calibrate, release_scale
from client.privacy.sensitivity import (
    ROUNDED,
    SOFTMAX_LIPSCHITZ,
    SOFTMAX_SMOOTHNESS,
    client_sensitivity,
    one_step_sensitivity,
    output_perturbation_sensitivity,
)
from exchange import tensors
from exchange.errors import PrivacyError, SettingsError
from exchange.spec import DpSgdPrivacy, FederationSettings, NoPrivacy, OrnsteinUhlenbeckPrivacy

log = logging.getLogger(__name__)

Difference = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class OuPlan:
    """A round with noise on the whole difference, by an Ornstein-Uhlenbeck process.

    Attributes:
        event: the release, in the accountant's terms; holds z.
        sensitivity: Δ of the difference, before what rounding adds.
    """

    settings: FederationSettings
    privacy: OrnsteinUhlenbeckPrivacy
    event: GaussianRelease
    sensitivity: float

    def check(self, dimension: int, largest: float = math.inf) -> None:
        """Raise ValueError if no such release exists, whatever was learned: asked before a round is charged.

        Args:
            dimension: d, the number of weights.
            largest: the largest number in the dtype in which they are uploaded.
        """
        process = self._process(dimension)
        refuse_unless_it_fits(self.update_bound, process.debiased_sd)
        reach = self._scale(process, dimension) * (self.update_bound + LARGEST_NORMAL * process.debiased_sd)
        if not reach < largest:
            raise ValueError(f"noise: expected less than {largest:g}, the largest weight, got up to {reach:g}")
        if (multiplier := self.settings.metrics.noise_multiplier) is not None:
            refuse_unless_it_fits(max(entry.validation_examples or 0 for entry in self.settings.client), multiplier)

    @property
    def events(self) -> tuple[Event, ...]:
        """All that one round costs: the release and, where it is shared with noise, the metric."""
        multiplier = self.settings.metrics.noise_multiplier
        return (self.event,) if multiplier is None else (self.event, GaussianRelease(multiplier))

    def release(self, difference: Difference, normals: Source) -> tuple[Difference, dict[str, Any]]:
        """Return the difference as it may leave the client, and the update's statement of what was done to it.

        Args:
            difference: u = local − global by tensor, float64.
            normals: `client.privacy.noise.system_normals` in production.
        """
        if self.privacy.unit == "client":
            difference, _, finite = clip_l2(difference, self.privacy.clip_norm)
            if not finite:
                log.warning("the difference is not finite: it counts as 0")
        dimension = sum(tensor.size for tensor in difference.values())
        process = self._process(dimension)
        noised = release_tensors(difference, process.debiased_sd, normals)
        scale = self._scale(process, dimension)
        return {name: scale * tensor for name, tensor in noised.items()}, _statement(self) | {
            "sensitivity": padded_sensitivity(self.sensitivity, self.event.noise_multiplier, dimension),
            "theta": process.theta,
            "time": process.time,
            "sigma": process.sigma,
            "contraction": process.contraction,
            "debias": self.privacy.debias,
        }

    def release_accuracy(self, correct: int, declared: int, normals: Source) -> float:
        """Return the share of correct answers with noise on their number, which one example moves by at most 1."""
        multiplier = self.settings.metrics.noise_multiplier or math.nan  # the lattice refuses NaN
        return float(release(np.array([float(correct)]), multiplier, normals)[0]) / declared

    def noise_sd(self, dimension: int) -> float:
        """Return the sd of the noise on each of `dimension` coordinates of the difference that is uploaded."""
        process = self._process(dimension)
        return self._scale(process, dimension) * process.debiased_sd

    @property
    def update_bound(self) -> float:
        """The public bound on the L2 norm of the difference before noise."""
        train, clip_norm = self.settings.train, self.privacy.clip_norm
        if self.privacy.unit == "client":
            return clip_norm
        steepest = clip_norm if train.local_epochs == 1 else SOFTMAX_LIPSCHITZ
        return train.learning_rate * train.local_epochs * steepest

    def _process(self, dimension: int) -> OrnsteinUhlenbeck:
        sensitivity = padded_sensitivity(self.sensitivity, self.event.noise_multiplier, dimension)
        return calibrate(self.event.noise_multiplier, sensitivity, self.privacy.theta, self.privacy.time)

    def _scale(self, process: OrnsteinUhlenbeck, dimension: int) -> float:
        return release_scale(
            self.privacy.debias,
            process,
            dimension=dimension,
            clients=len(self.settings.client),
            update_bound=self.update_bound,
        )


@dataclass(frozen=True)
class DpSgdPlan:
    """A round with noise in every step of training.

    Attributes:
        event: the steps, in the accountant's terms; holds z.
        sensitivity: Δ of a step's sum of clipped gradients, before what rounding adds.
    """

    settings: FederationSettings
    privacy: DpSgdPrivacy
    event: SampledSteps
    sensitivity: float

    def check(self, dimension: int, largest: float = math.inf) -> None:
        """Raise ValueError if no such steps exist, whatever the data are: asked before a round is charged.

        Args:
            dimension: d, the number of weights.
            largest: of no account here: how far the steps lead is not known beforehand.
        """
        multiplier, rows = self.event.noise_multiplier, max(entry.examples for entry in self.settings.client)
        noise_sd = multiplier * padded_sensitivity(self.sensitivity, multiplier, dimension)
        refuse_unless_it_fits(rows * self.sensitivity, noise_sd)

    @property
    def events(self) -> tuple[Event, ...]:
        """All that one round costs."""
        return (self.event,)

    def release(self, difference: Difference, normals: Source) -> tuple[Difference, dict[str, Any]]:
        """Return the difference as it is, for it was made with noise, and the update's statement of that."""
        steps = {"sampling_probability": self.event.sampling_probability, "steps": self.event.steps}
        return difference, _statement(self) | steps


Plan = OuPlan | DpSgdPlan


def make_plan(settings: FederationSettings, client: str) -> Plan | None:
    """Return what `client` does in every round of the federation; None without privacy.

    Raises:
        PrivacyError: for these numbers no such mechanism exists; the number is named.
        SettingsError: the client is not on the roster.
    """
    if client not in settings.roster:
        raise SettingsError(settings.name, [f"client: expected one of {', '.join(settings.roster)}, got {client!r}"])
    try:
        match settings.privacy:
            case NoPrivacy():
                return None
            case DpSgdPrivacy() as privacy:
                plan: Plan = _dp_sgd_plan(settings, privacy)
            case OrnsteinUhlenbeckPrivacy() as privacy:
                event = GaussianRelease(_release_multiplier(settings, privacy))
                plan = OuPlan(settings, privacy, event, _difference_sensitivity(settings, privacy, client))
        plan.check(dimension=1)
        return plan
    except ValueError as error:
        raise _cannot_be_kept(settings, error) from error


def refuse_impossible_release(plan: Plan, model: Mapping[str, NDArray[Any]]) -> None:
    """Raise PrivacyError if no release of so many weights exists: before training, and before anything is charged.

    Args:
        model: the global model. What is trained of it may be less, and is then released all the more easily.
    """
    limits = [np.finfo(tensor.dtype).max for tensor in model.values() if np.issubdtype(tensor.dtype, np.floating)]
    try:
        plan.check(tensors.count_floating(model), float(min(limits, default=math.inf)))
    except ValueError as error:
        raise _cannot_be_kept(plan.settings, error) from error


def _cannot_be_kept(settings: FederationSettings, error: ValueError) -> PrivacyError:
    return PrivacyError(f"the settings of {settings.name} cannot be kept: {error}")


def _dp_sgd_plan(settings: FederationSettings, privacy: DpSgdPrivacy) -> DpSgdPlan:
    rate = privacy.sampling_probability
    steps = max(1, round(settings.train.local_epochs / rate))
    multiplier = _calibrate_sampled(privacy.epsilon, privacy.delta, rate, steps * settings.rounds)
    return DpSgdPlan(settings, privacy, SampledSteps(rate, multiplier, steps), sensitivity=privacy.clip_norm)


def _difference_sensitivity(settings: FederationSettings, privacy: OrnsteinUhlenbeckPrivacy, client: str) -> float:
    if privacy.unit == "client":
        return client_sensitivity(privacy.clip_norm)
    train = settings.train
    declared = next(entry.examples for entry in settings.client if entry.id == client)
    if train.local_epochs == 1:
        return one_step_sensitivity(train.learning_rate, privacy.clip_norm, declared, privacy.adjacency)
    exact = output_perturbation_sensitivity(
        train.learning_rate, SOFTMAX_LIPSCHITZ, SOFTMAX_SMOOTHNESS, train.local_epochs, declared, privacy.adjacency
    )
    return exact * (1 + ROUNDED)


def _release_multiplier(settings: FederationSettings, privacy: OrnsteinUhlenbeckPrivacy) -> float:
    """Return the z of each round's release that leaves room for each round's noised metric within the same ε."""
    rounds = settings.rounds
    alone = calibrate_multiplier(privacy.epsilon, privacy.delta, rounds)
    if (metric := settings.metrics.noise_multiplier) is None:
        return alone
    room = (1 / alone) ** 2 - (1 / metric) ** 2  # exact: the μ² of Gaussian releases add up
    if room <= 0:
        raise ValueError(
            f"metrics.noise_multiplier: {rounds} metrics at {metric:g} cost more than all of privacy.epsilon; "
            f"expected more than {alone:.3g}"
        )
    return float(1 / room**0.5)


def _statement(plan: Plan) -> dict[str, Any]:
    return {
        "mechanism": plan.privacy.mechanism,
        "unit": plan.privacy.unit,
        "adjacency": plan.privacy.adjacency,
        "clip_norm": plan.privacy.clip_norm,
        "sensitivity": plan.sensitivity,
        "noise_multiplier": plan.event.noise_multiplier,
    }


_calibrate_sampled = lru_cache(calibrate_sampled)  # seconds; the same for every client and round of a federation
