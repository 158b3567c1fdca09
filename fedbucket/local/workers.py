"""What runs in worker processes: everything that needs torch. The process that delivers events never imports it."""

import os
import threading
import time
from collections.abc import Sized
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

import torch
from torch.utils.data import Dataset

from client import consent, rounds
from client.baseline import train_to_convergence
from client.checkpoints import Pace
from client.data import data_source
from client.learn import LocalTraining, initial_model, training_data
from client.privacy.noise import system_normals, system_uniforms
from client.rounds import Client
from client.task import Task, load_task
from client.training import evaluate
from client.weights import load_into
from exchange import keys
from exchange.errors import ConsentRefused, FedbucketError, PrivacyError, SettingsError, TaskError
from exchange.events import ObjectCreated
from exchange.records import Metrics
from fedbucket.local.folder import FederationFolder, RunFolder
from fedbucket.local.notifying import NotifyingStore
from fedbucket.local.progress import log_beside_the_line

_SAVE_EVERY = 60  # seconds of training that an interrupted run may have to do again
_PERMANENT = (ConsentRefused, PrivacyError, SettingsError, TaskError)  # trying again would give the same answer


@dataclass(frozen=True)
class Outcome:
    """What a job did. Errors come as text: not every exception survives the way between processes.

    Attributes:
        created: the keys of the objects that it created in the parent bucket, in order, whether it failed or not.
        started, ended: seconds since 1970.
        value: what it returned.
        error: None if it succeeded.
        permanent: whether a person must act before it can succeed.
    """

    created: list[str]
    started: float
    ended: float
    value: Any = None
    error: str | None = None
    permanent: bool = False


class Worker:
    """One worker process, for one run."""

    def __init__(self, federation: FederationFolder, run: RunFolder) -> None:
        self._federation = federation
        self._run = run
        self._settings = federation.settings
        self._learners = {
            name: LocalTraining(client, federation.client_folder, system_normals, system_uniforms, run.data)
            for name, client in federation.clients.items()
        }
        self._created: list[str] = []

    def attempt(self, method: str, *arguments: Any) -> Outcome:
        """Call one of the methods below and say what came of it."""
        self._created = []
        started = time.time()

        def outcome(value: Any = None, error: str | None = None, permanent: bool = False) -> Outcome:
            return Outcome(self._created, started, time.time(), value, error, permanent)

        try:
            return outcome(getattr(self, method)(*arguments))
        except _PERMANENT as error:
            return outcome(error=str(error), permanent=True)
        except FedbucketError as error:
            return outcome(error=f"{type(error).__name__}: {error}")
        except ExceptionGroup as group:
            causes = [error for error in group.exceptions if isinstance(error, _PERMANENT)]
            return outcome(error="; ".join(map(str, causes or group.exceptions)), permanent=bool(causes))

    def answer(self, client: str, event: ObjectCreated | None) -> None:
        """Let a client handle an event in its bucket, or its timer."""
        settings = self._federation.clients[client]
        own = Client(
            settings=settings,
            open_parent=lambda _: NotifyingStore(self._run.parent, self._created.append),
            inbox=self._run.inbox(client),
            state=self._run.state(client),
            learn=self._learners[client],
            normals=system_normals,
            time_limit=0,  # a timer fires only while nothing is under way here
            pace=Pace(time.monotonic, _SAVE_EVERY),
        )
        if event is None:
            rounds.sweep(own)
        else:
            rounds.handle(own, event)

    def first_model(self) -> bytes:
        """Return global model 0."""
        return initial_model(self._task(self._settings.roster[0]), self._settings)

    def evaluate(self, round_: int) -> Metrics:
        """Return the metrics of global model `round_` on the test set."""
        task = self._task(self._settings.roster[0])
        module = task.model(0)
        key = str(keys.Model(self._settings.name, round_))
        load_into(module, self._run.parent.read(key, limit=2**62))
        return evaluate(task, module, self._test(task), "cpu")

    def test_examples(self) -> int | None:
        """Return how many examples the test set has; None if it does not know that itself."""
        dataset = self._test(self._task(self._settings.roster[0]))
        return len(dataset) if isinstance(dataset, Sized) else None

    def baseline(self, clients: list[str]) -> Metrics:
        """Return, on the test set, the metrics of one model trained to convergence on the data of `clients`."""
        task = self._task(clients[0])
        datasets = [self._data(client) for client in clients]
        train = self._federation.local.baseline_train or self._settings.train
        seed = self._settings.train.seed
        module = train_to_convergence(task, datasets, train, seed, self._federation.clients[clients[0]].device)
        return evaluate(task, module, self._test(task), "cpu")

    def _task(self, client: str) -> Task:
        agreement = consent.agreed(self._federation.clients[client], self._settings.name)
        return load_task((self._federation.client_folder / agreement.task).resolve())

    def _data(self, client: str) -> Dataset[Any]:
        source = data_source(self._federation.client_folder, self._federation.clients[client].data, self._run.data)
        entry = self._settings.entry(client)
        return training_data(self._task(client), source, entry.examples if entry else None)

    def _test(self, task: Task) -> Dataset[Any]:
        source = data_source(self._federation.path, self._federation.local.test or "", self._run.data)
        if (dataset := task.data(source, "test")) is None:
            raise TaskError(f"{task.path}: data({source!r}, 'test') returned None; local.toml names it as the test set")
        return dataset


_worker: Worker | None = None


def begin(federation: FederationFolder, run: RunFolder) -> None:
    """Prepare this process: one thread of torch, and no life after its parent."""
    global _worker
    _worker = Worker(federation, run)
    log_beside_the_line()
    torch.set_num_threads(1)  # the clients are the parallelism; and the order of additions is the same everywhere
    threading.Thread(target=_die_with_parent, daemon=True).start()


def attempt(method: str, *arguments: Any) -> Outcome:
    """Call `method` of this process's worker."""
    if _worker is None:
        raise RuntimeError("begin() has not run in this process")
    return _worker.attempt(method, *arguments)


def _die_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
