"""An example's federation in this process: the production handlers and the examples' own training, buckets in memory.

Nothing is simulated but the events: in each turn every client's timer fires, then the parent's.
"""

import tomllib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from aggregator import rounds as parent_rounds
from aggregator.rounds import Parent
from client import rounds as client_rounds
from client.baseline import train_to_convergence
from client.checkpoints import Pace
from client.learn import LocalTraining, initial_model, training_data
from client.privacy.ledger import Ledger
from client.privacy.noise import system_normals, system_uniforms
from client.rounds import Client, Learn
from client.task import Task, load_task
from client.training import evaluate
from client.weights import load_into
from examples.prepare import BASELINE, Data, settings_toml, write_data
from exchange import keys
from exchange.spec import (
    Agreement,
    Budget,
    ClientSettings,
    FederationSettings,
    NoPrivacy,
    Privacy,
    TrainSettings,
    validate,
)
from exchange.stores import exists
from exchange.stores.memory import MemoryStore

_ACCOUNT = "data"


@dataclass(frozen=True)
class Example:
    """One of examples/.

    Attributes:
        path: its folder, with task.py and the settings.
        dealt: seed → each client's examples, and those of the test set.
    """

    path: Path
    dealt: Callable[[int], tuple[dict[str, Data], Data]]


@dataclass(frozen=True)
class Dealt:
    """An example's data for one seed, written to `folder`, one file a client."""

    example: Example
    seed: int
    folder: Path
    clients: dict[str, Data]
    test: Data

    @property
    def task(self) -> Task:
        return load_task(self.example.path / "task.py")

    def settings(self, epsilon: float | None, rounds: int | None = None) -> FederationSettings:
        """Return the example's own settings for ε, in its own unit and at its own δ; None is without noise.

        Args:
            rounds: in place of the example's own.
        """
        found = tomllib.loads(settings_toml(self.example.path, "priced", self.seed, epsilon, self.clients))
        return validate(FederationSettings, found | {"rounds": rounds or found["rounds"]}, str(self.example.path))

    def metrics(self, model: torch.nn.Module, test: Data | None = None) -> dict[str, float]:
        """Return the task's metrics of `model` on `test`; on the test set, which no client holds, if None."""
        test = test or self.test
        inputs, targets = (torch.from_numpy(part) for part in (test.inputs, test.targets))
        return evaluate(self.task, model, TensorDataset(inputs, targets), "cpu")

    def accuracy(self, model: torch.nn.Module) -> float:
        """Return the accuracy of `model` on the test set."""
        return self.metrics(model)["accuracy"]

    def trained(self, clients: list[str]) -> torch.nn.Module:
        """Return one model trained to convergence, without noise, on the data of `clients`."""
        task = self.task
        datasets = [training_data(task, self._data(client), None) for client in clients]
        train = TrainSettings.model_validate(tomllib.loads(BASELINE)["baseline_train"])
        return train_to_convergence(task, datasets, train, self.seed, "cpu")

    def baseline(self, clients: list[str]) -> float:
        """Return the accuracy of one model trained to convergence, without noise, on the data of `clients`."""
        return self.accuracy(self.trained(clients))

    def federated(self, settings: FederationSettings) -> float:
        """Return the accuracy of the last model of a whole run."""
        return self.accuracy_of(self.models(settings)[-1])

    def models(self, settings: FederationSettings, learning: "Learning" = lambda _, learn: learn) -> list[bytes]:
        """Return the global models of a whole run, model 0 first; `learning` as of `run`."""
        return run(settings, self.task, {client: self._data(client) for client in self.clients}, learning)

    def loaded(self, file: bytes) -> torch.nn.Module:
        """Return the task's model with the weights of a weight file."""
        model = self.task.model(0)
        load_into(model, file)
        return model

    def accuracy_of(self, file: bytes) -> float:
        """Return the `accuracy` of a weight file."""
        return self.accuracy(self.loaded(file))

    def _data(self, client: str) -> str:
        return str(self.folder / f"{client}.npz")


def deal(example: Example, seed: int, folder: Path) -> Dealt:
    """Deal the example's data out and write them to `folder`."""
    clients, test = example.dealt(seed)
    write_data(folder, clients, test)
    return Dealt(example, seed, folder, clients, test)


Learning = Callable[[str, Learn], Learn]


def run(
    settings: FederationSettings, task: Task, data: dict[str, str], learning: Learning = lambda _, learn: learn
) -> list[bytes]:
    """Run a federation to its end and return its global models, model 0 first.

    Args:
        data: each client's file.
        learning: (client, its honest training) → what it does instead.
    """
    parent, inboxes = MemoryStore(lambda: 0.0), defaultdict[str, MemoryStore](lambda: MemoryStore(lambda: 0.0))
    clients = [_client(settings, name, task, data[name], parent, learning) for name in settings.roster]
    parent_rounds.start(parent, settings, initial_model(task, settings))
    for turn in range(settings.rounds + 1):  # one more, in which the parent says that it is over
        for client in clients:
            client_rounds.sweep(client)
        parent_rounds.sweep(Parent(parent, inboxes.__getitem__, time_limit=0), f"timer:{turn}")
    assert exists(parent, str(keys.Finished(settings.name)))
    return [parent.read(info.key) for info in parent.list(keys.models(settings.name))]


def _client(
    settings: FederationSettings, name: str, task: Task, data: str, parent: MemoryStore, learning: Learning
) -> Client:
    own, state = _client_settings(settings, name, task, data), MemoryStore(lambda: 0.0)
    if own.budget is not None:
        Ledger(state, _ACCOUNT).open(own.budget.unit, own.budget.adjacency, bytes(32))
    return Client(
        settings=own,
        open_parent=lambda _: parent,
        inbox=None,
        state=state,
        learn=learning(name, LocalTraining(own, Path(), system_normals, system_uniforms)),
        normals=system_normals,
        time_limit=0,
        pace=Pace(lambda: 0.0),
    )


def _client_settings(settings: FederationSettings, name: str, task: Task, data: str) -> ClientSettings:
    privacy: Privacy = settings.privacy
    private = None if isinstance(privacy, NoPrivacy) else privacy
    agreement = Agreement(
        federation=settings.name,
        task=str(task.path),
        settings_sha256=settings.sha256,
        mechanisms=(privacy.mechanism,),
        max_epsilon=private and private.epsilon,
    )
    budget = private and Budget(
        unit=private.unit, adjacency=private.adjacency, epsilon=private.epsilon, delta=private.delta
    )
    return ClientSettings(id=name, data=data, dataset=_ACCOUNT, budget=budget, agreement=(agreement,))
