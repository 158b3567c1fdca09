"""Federations in memory under privacy, and what privacy costs by other means than the code under test."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from aggregator import rounds as parent_rounds
from client import rounds as client_rounds
from client.learn import LocalTraining, initial_model
from client.privacy.accounting import GaussianRelease
from client.privacy.ledger import Ledger, Spending
from client.rounds import Client
from client.update import Learned
from exchange import keys, tensors
from exchange.spec import FederationSettings, NoPrivacy
from tests.support.federation import Federation
from tests.support.settings import PRIVATE, client_settings, federation_settings
from tests.support.tasks import task, write_data, write_task

PAIR = ("alder", "birch")
EPSILON, DELTA = 8.0, 1e-5  # of PRIVATE
MECHANISMS: dict[str, dict[str, Any]] = {
    "client": PRIVATE,
    "example": PRIVATE | {"unit": "example"},
    "dp-sgd": {
        "mechanism": "dp-sgd",
        "epsilon": EPSILON,
        "delta": DELTA,
        "clip_norm": 1.0,
        "sampling_probability": 0.5,
    },
}
LEDGER = "ledger/data/"
RELEASE = str(keys.Release("orchard", 0))
WITHDRAWN = str(keys.Release("orchard", 0, withdrawn=True))
UPDATE = str(keys.Update("orchard", "alder", 0))
UPDATE_WITHDRAWN = str(keys.Update("orchard", "alder", 0, withdrawn=True))


def agreed(mechanism: str, rounds: int = 2, clients: tuple[str, ...] = PAIR, **sections: Any) -> FederationSettings:
    quorum = sections.pop("quorum", len(clients))
    return federation_settings(clients, rounds=rounds, quorum=quorum, privacy=MECHANISMS[mechanism], **sections)


class Private(Federation):
    """A federation in which the clients' own settings, training and noise can be changed.

    Attributes:
        change: what is done to a client before it acts.
        drawn: all normals that were drawn, by whom.
    """

    def __init__(self, settings: FederationSettings) -> None:
        super().__init__(settings, noisy=True)
        self.change: Callable[[Client], Client] = lambda client: client
        self.drawn: list[tuple[str, NDArray[np.float64]]] = []

    def client(self, name: str) -> Client:
        client = super().client(name)

        def normals(count: int) -> NDArray[np.float64]:
            self.drawn.append((name, client.normals(count)))
            return self.drawn[-1][1]

        return self.change(replace(client, normals=normals))

    def opened(self) -> "Private":
        """Start, and let every client have its first ticket, unanswered."""
        self.start()
        self.offline = set(self.settings.roster)
        self.deliver_all()
        self.offline.clear()
        return self

    def train(self, client: str = "alder", round_: int = 0) -> None:
        client_rounds.train(self.client(client), self.settings.name, round_)

    def granted(self, epsilon: float, *clients: str) -> None:
        """Let some clients, or alder, have another budget."""

        def change(changed: Client) -> Client:
            if changed.settings.id not in (clients or ("alder",)):
                return changed
            assert changed.settings.budget is not None
            budget = changed.settings.budget.model_copy(update={"epsilon": epsilon})
            return replace(changed, settings=changed.settings.model_copy(update={"budget": budget}))

        self.change = change

    def learning(self, learned: Learned) -> None:
        """Let every client learn this."""
        self.change = lambda client: replace(client, learn=lambda *_: learned)

    def charges(self, client: str = "alder") -> list[tuple[str, int]]:
        """Return (federation, round) of all charges of a client."""
        return [(charge.federation, charge.round) for charge in Ledger(self.states[client], "data").read()[1]]

    def update(self, client: str = "alder", round_: int = 0) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        """Return an update's tensors and metadata."""
        data = self.parent_bucket.read(str(keys.Update(self.settings.name, client, round_)))
        return tensors.load(data), tensors.layout_of(data).metadata

    def run_rounds(self, rounds: int) -> "Private":
        """Deliver events until so many rounds have closed."""
        self.deliver_until(keys.Model(self.settings.name, rounds))
        return self

    def statement(self, client: str = "alder", round_: int = 0) -> dict[str, Any]:
        """Return what an update says of its privacy."""
        found: dict[str, Any] = json.loads(self.update(client, round_)[1]["privacy"])
        return found


def with_history(federation: Private) -> Private:
    """Let alder have paid for a release to another federation, which took little."""
    earlier = Spending("meadow", "e" * 64, 0, "test", (GaussianRelease(50.0),))
    budget = federation.client("alder").settings.budget
    Ledger(federation.states["alder"], "data").charge(budget, earlier)
    federation.granted(1.1 * EPSILON)
    return federation


def gaussian_epsilon(multipliers: list[float]) -> float:
    """Return the ε of Gaussian releases by the curve of Gaussian DP: nothing of the code under test."""
    mu = math.sqrt(sum(z**-2 for z in multipliers))
    return brentq(lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - DELTA, 0, 100)


def oracle_epsilon(gaussians: list[float], sampled: list[tuple[float, float, int]]) -> float:
    """Return the ε of a mixture as dp-accounting has it."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for z in gaussians:
        accountant.compose(dp_accounting.GaussianDpEvent(z))
    for rate, z, steps in sampled:
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(z))
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    return float(accountant.get_epsilon(DELTA))


def real(folder: Path, settings: FederationSettings, *more: str) -> Private:
    """Return a federation in which alder trains a real task on twelve examples."""
    write_task(folder, *more)
    write_data(folder / "own.npz")
    federation = Private(settings)
    own = client_settings("alder", settings).model_copy(update={"data": "own.npz"})
    generator = np.random.default_rng(5)
    learn = LocalTraining(own, folder, generator.standard_normal, generator.random)
    federation.change = lambda client: replace(client, learn=learn)
    # By a parent that does not look whether clients will train it.
    careless = settings.model_copy(update={"privacy": NoPrivacy(mechanism="none")})
    parent_rounds.start(federation.parent_bucket, settings, initial_model(task(folder, *more), careless))
    return federation


def outcome(federation: Private, client: str) -> tuple[str | None, str]:
    parent_rounds.record(federation.parent, keys.Update("orchard", client, 0))
    receipt = federation.receipt(client, 0)
    return receipt.code and receipt.code.value, receipt.outcome
