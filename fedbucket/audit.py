"""`fedbucket privacy audit`: canaries through the very path that updates take, and what they give away.

Two neighbouring worlds: in one the canary is there, in the other it is not (or its opposite is, where the unit is
replaced). The update is read back from the parent bucket, as the parent would read it; its score is its inner product
with the canary, which is the likelihood ratio of the two worlds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator import rounds as parent_rounds
from client import rounds as client_rounds
from client.checkpoints import Pace
from client.privacy.accounting import epsilon
from client.privacy.audit import AuditResult, audit
from client.privacy.ledger import Ledger
from client.privacy.noise import Source
from client.privacy.plan import Plan, make_plan
from client.rounds import Client
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import SettingsError
from exchange.spec import Agreement, Budget, ClientSettings, FederationSettings, OrnsteinUhlenbeckPrivacy
from exchange.stores import Store
from exchange.stores.memory import MemoryStore

_DIMENSION = 64  # the guarantee does not depend on it; small is fast
_BEYOND = 10.0  # a canary that is clipped is sent this many times as long


@dataclass(frozen=True)
class Audited:
    """What one round claims, and what canaries could tell.

    Attributes:
        claimed: ε of one round at δ.
        found: the lower bound that the audit gives.
    """

    unit: str
    adjacency: str
    delta: float
    claimed: float
    found: AuditResult

    @property
    def kept(self) -> bool:
        """Whether the audit leaves the claim standing."""
        return self.found.epsilon <= self.claimed


def audit_round(settings: FederationSettings, client: str, trials: int, confidence: float, normals: Source) -> Audited:
    """Audit one round of a client of the federation.

    Args:
        trials: runs in each of the two worlds.
        normals: where the mechanism's noise comes from.

    Raises:
        SettingsError: the federation has no such mechanism, or no such client.
    """
    plan = make_plan(settings, client)
    if plan is None or not isinstance(plan.privacy, OrnsteinUhlenbeckPrivacy):
        raise SettingsError(
            settings.name,
            [
                f'privacy.mechanism: expected "ornstein-uhlenbeck", of which the audit is, '
                f'got "{settings.privacy.mechanism}"'
            ],
        )
    canary = np.zeros(_DIMENSION)
    canary[0] = _length(plan)
    absent = -canary if plan.privacy.adjacency == "replace-one" else np.zeros(_DIMENSION)

    def release(present: bool) -> float:
        return float(_upload(plan, client, canary if present else absent, normals) @ canary)

    delta = plan.privacy.delta
    found = audit(release, trials, delta, confidence)
    return Audited(plan.privacy.unit, plan.privacy.adjacency, delta, epsilon([plan.event], delta), found)


def _length(plan: Plan) -> float:
    """Return the norm of the canary: the most that one unit can move, or far more where clipping is to hold it."""
    if plan.privacy.unit == "client":
        return _BEYOND * plan.privacy.clip_norm
    return plan.sensitivity / (2 if plan.privacy.adjacency == "replace-one" else 1)


def _upload(plan: Plan, client: str, difference: NDArray[np.float64], normals: Source) -> NDArray[np.float64]:
    """Return what the parent reads of one round in which local training moved the model by `difference`."""
    settings = plan.settings
    parent, state = MemoryStore(lambda: 0.0), MemoryStore(lambda: 0.0)
    model = tensors.dump({"weights": np.zeros(_DIMENSION)}, {"federation": settings.name, "round": "0"})
    parent_rounds.start(parent, settings, model)
    Ledger(state, "data").open(plan.privacy.unit, plan.privacy.adjacency, bytes(32))
    own = Client(
        settings=_settings(plan, client),
        open_parent=_always(parent),
        inbox=None,
        state=state,
        learn=lambda *_: Learned({"weights": difference}),
        normals=normals,
        time_limit=0,
        pace=Pace(lambda: 0.0),
    )
    client_rounds.train(own, settings.name, 0)
    update = parent.read(str(keys.Update(settings.name, client, 0)))
    return np.asarray(tensors.load(update)["weights"], np.float64)


def _settings(plan: Plan, client: str) -> ClientSettings:
    privacy = plan.privacy
    agreement = Agreement(
        federation=plan.settings.name,
        task="",
        settings_sha256=plan.settings.sha256,
        mechanisms=(privacy.mechanism,),
        max_epsilon=privacy.epsilon,
        share_metrics=True,
    )
    budget = Budget(unit=privacy.unit, adjacency=privacy.adjacency, epsilon=privacy.epsilon, delta=privacy.delta)
    return ClientSettings(id=client, data="", budget=budget, agreement=(agreement,))


def _always(store: Store) -> Callable[[Agreement], Store]:
    return lambda _: store
