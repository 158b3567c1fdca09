"""One round of local training, and the first model."""

from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

from torch.utils.data import Dataset

from client.rounds import Learned
from client.task import Task, load_task
from client.training import derive_seed, evaluate, fit
from client.weights import floating, load_into, model_file
from exchange.errors import TaskError
from exchange.spec import Agreement, ClientSettings, FederationSettings


def initial_model(task: Task, settings: FederationSettings) -> bytes:
    """Return global model 0: the task's model, initialised from the seed in the settings."""
    module = task.model(derive_seed(settings.train.seed, "initial weights"))
    return model_file(module, {"federation": settings.name, "round": "0"})


class LocalTraining:
    """A client's `Learn`: its task, on its data.

    Args:
        settings: the client's own.
        folder: what the task's and the data's paths are relative to.
    """

    def __init__(self, settings: ClientSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._tasks: dict[Path, Task] = {}

    def __call__(self, agreement: Agreement, settings: FederationSettings, round_: int, model: bytes) -> Learned:
        """Train from `model` and return what came of it; raises TaskError."""
        task = self._task(agreement)
        source = data_source(self._folder, self._settings.data)
        module = task.model(0)
        load_into(module, model)
        entry = settings.entry(self._settings.id)
        dataset = training_data(task, source, entry.examples if entry else None)
        metrics = {}
        if settings.metrics.share == "open" and (held_out := task.data(source, "validation")) is not None:
            metrics = evaluate(task, module, held_out, self._settings.device)
        seed = derive_seed(settings.train.seed, self._settings.id, round_)
        fit(task, module, dataset, settings.train, seed, settings.train.local_epochs, self._settings.device)
        return Learned(floating(module), metrics)

    def _task(self, agreement: Agreement) -> Task:
        path = (self._folder / agreement.task).resolve()
        if path not in self._tasks:
            self._tasks[path] = load_task(path)
        return self._tasks[path]


def training_data(task: Task, source: str, limit: int | None) -> Dataset[Any]:
    """Return at most the first `limit` training examples; raises TaskError if there are none."""
    dataset = task.data(source, "train", limit)
    if dataset is None or not len(cast(Sized, dataset)):
        raise TaskError(f"{task.path}: data({source!r}, 'train') gave no examples: there is nothing to train on")
    return dataset


def data_source(folder: Path, data: str) -> str:
    """Return what is handed to the task's data(): a path relative to `folder` made whole, anything else as it is."""
    return str((folder / data).resolve()) if (folder / data).exists() else data
