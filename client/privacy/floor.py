"""How loud the noise is in the average of a round, known before anything is spent."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.privacy.plan import OuPlan, make_plan
from exchange import tensors
from exchange.errors import SettingsError
from exchange.spec import FederationSettings, NoPrivacy


def average_noise_norm(settings: FederationSettings, dimension: int) -> float | None:
    """Return the L2 norm to expect of the noise in the average of all clients: √d·√(Σ n_k² s_k²)/Σ n_k.

    None where it is not known beforehand: without noise, and under DP-SGD, where it depends on the optimizer.

    Args:
        dimension: d, the number of weights.
    """
    plans = {entry.id: make_plan(settings, entry.id) for entry in settings.client}
    squares, total = 0.0, 0
    for entry in settings.client:
        plan = plans[entry.id]
        if not isinstance(plan, OuPlan):
            return None
        squares += (entry.examples * plan.noise_sd(dimension)) ** 2
        total += entry.examples
    return math.sqrt(dimension * squares) / total


def noise_in_words(settings: FederationSettings, dimension: int) -> str | None:
    """Return a sentence on `average_noise_norm` beside what a client can say; None where that is not known."""
    noise = average_noise_norm(settings, dimension)
    plan = make_plan(settings, settings.roster[0])
    if noise is None or not isinstance(plan, OuPlan):
        return None
    return (
        f"On {dimension:,} weights the noise in the average of all {len(settings.client)} clients has an L2 norm of "
        f"about {noise:.2g} a round; the difference of a client has at most {plan.update_bound:.2g}."
    )


def refuse_unreachable_tolerance(settings: FederationSettings, model: Mapping[str, NDArray[Any]]) -> None:
    """Raise SettingsError if stop.tolerance lies below what noise alone moves the model by in every round.

    The model cannot grow beyond ‖w₀‖ + rounds·(bound + noise), so that its relative change stays above noise over that.

    Args:
        model: global model 0.
    """
    tolerance = settings.stop.tolerance
    if tolerance is None or isinstance(settings.privacy, NoPrivacy):
        return
    noise = average_noise_norm(settings, tensors.count_floating(model))
    plan = make_plan(settings, settings.roster[0])
    if noise is None or not isinstance(plan, OuPlan):
        raise SettingsError(
            settings.name,
            ["stop.tolerance: under dp-sgd the noise of a round is not known beforehand; take patience instead"],
        )
    start = math.sqrt(sum(float(np.square(tensor, dtype=np.float64).sum()) for tensor in model.values()))
    floor = noise / (start + settings.rounds * (plan.update_bound + noise))
    if tolerance < floor:
        raise SettingsError(
            settings.name,
            [f"stop.tolerance: expected at least {floor:.3g}, what noise alone moves the model by, got {tolerance:g}"],
        )
