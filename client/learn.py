"""One round of local training, and the first model."""

import logging
from collections.abc import Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch.nn import Module
from torch.utils.data import Dataset

from client.checkpoints import UNSAVED, Saves
from client.data import data_source
from client.privacy.accounting import SampledSteps
from client.privacy.convex import full_batch_steps
from client.privacy.dp_sgd import DpSgd, dp_sgd, one_step
from client.privacy.noise import Source
from client.privacy.plan import Difference, Plan
from client.refusals import refuse_non_finite_weights, refuse_unfit_metrics, refuse_unfit_model
from client.task import Task, load_task
from client.training import count_correct, derive_seed, digest, evaluate, fit, seed_secretly, stacked
from client.update import Learned
from client.weights import floating, load_into, model_file, tied
from exchange.documents import sha256
from exchange.errors import TaskError, UnsupportedModel
from exchange.records import Metrics
from exchange.spec import Agreement, ClientEntry, ClientSettings, FederationSettings

log = logging.getLogger(__name__)


def initial_model(task: Task, settings: FederationSettings) -> bytes:
    """Return global model 0: the task's model, initialised from the seed in the settings.

    Raises:
        UnsupportedModel: clients would refuse to train it, and a federation keeps the model that it began with.
    """
    module = task.model(derive_seed(settings.train.seed, "initial weights"))
    refuse_unfit_model(task, module, settings)
    return model_file(module, {"federation": settings.name, "round": "0"})


class LocalTraining:
    """A client's `Learn`: its task, on its data.

    Args:
        settings: the client's own.
        folder: what the task's and the data's paths are relative to.
        normals: noise for DP-SGD; `client.privacy.noise.system_normals` in production.
        uniforms: for the samples of DP-SGD and for dropout; `client.privacy.noise.system_uniforms` in production.
        cache: a folder for data that lie in a bucket.
    """

    def __init__(
        self, settings: ClientSettings, folder: Path, normals: Source, uniforms: Source, cache: Path | None = None
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._folder = folder
        self._normals = normals
        self._uniforms = uniforms
        self._tasks: dict[Path, Task] = {}

    def __call__(
        self,
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: Plan | None,
        saves: Saves = UNSAVED,
    ) -> Learned:
        """Train from `model`, or go on where `saves` has it, and return what came of it.

        Raises:
            TaskError: the task failed.
            InvalidTensorFile: the model holds values that are not finite.
            TrainingPaused, RoundClosed: from `saves`.
        """
        task = self._task(agreement)
        source = data_source(self._folder, self._settings.data, self._cache, self._settings.identity)
        module = _global_model(task, model)
        entry = self._entry(settings)
        dataset = training_data(task, source, entry.examples)
        # Whoever mends the task, or has other data, begins anew.
        code, examples = sha256(task.path.read_bytes()), len(cast(Sized, dataset))
        saves = saves.bound(task_sha256=code, examples=str(examples))
        metrics, correct = self._evaluate(task, source, settings, model)
        refuse_unfit_model(task, module, settings)
        if plan is not None and plan.privacy.unit == "example":
            return Learned(self._private(task, module, dataset, plan, saves), metrics, correct, tied(module))
        # Noise on weights that training leaves alone would change them all the same, and hide nothing.
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        difference = self._fit(task, module, dataset, settings, round_, saves)
        if plan is None:
            return Learned(difference, metrics)
        return Learned({name: difference[name] for name in trained}, metrics, tied=tied(module))

    def _evaluate(
        self, task: Task, source: str, settings: FederationSettings, model: bytes
    ) -> tuple[Metrics, int | None]:
        """Return the global model's metrics, as far as they are shared, and its right answers, if these are."""
        share = settings.metrics.share
        if share == "none":
            return {}, None
        held_out = task.data(source, "validation", self._entry(settings).validation_examples)
        if held_out is None:
            return {}, None
        module = _global_model(task, model)  # one of its own: training is not to see what this one keeps of its rows
        if share == "noised":
            return {}, count_correct(task, module, held_out, self._settings.device)
        metrics = evaluate(task, module, held_out, self._settings.device)
        refuse_unfit_metrics(task, metrics, settings.stop)
        return metrics, None

    def _fit(
        self, task: Task, module: Module, dataset: Dataset[Any], settings: FederationSettings, round_: int, saves: Saves
    ) -> Difference:
        """Return what ordinary training makes; noise, if any, is put on the whole of it."""
        before = floating(module)
        seed = derive_seed(settings.train.seed, self._settings.id, round_)
        fit(task, module, dataset, settings.train, seed, settings.train.local_epochs, self._settings.device, saves)
        if not all(tensor.isfinite().all() for tensor in module.state_dict().values()):
            log.warning(
                "%s: training ended in weights that are not finite: look for NaN in the data, or take "
                "a smaller train.learning_rate",
                task.path,
            )
        return {name: after.astype(np.float64) - before[name] for name, after in floating(module).items()}

    def _private(self, task: Task, module: Module, dataset: Dataset[Any], plan: Plan, saves: Saves) -> Difference:
        """Return what training makes that is, or can be made, private to one example."""
        if self._settings.device == "mps":
            raise UnsupportedModel('device: "mps" lacks float64, in which gradients are clipped and summed; take "cpu"')
        module.to(self._settings.device).train()
        # What dropout drops and augmentation changes must not hang on a row's place: by a seed that others know, one
        # row less would change it for all rows after it. Drawn from a secret, it goes with the row.
        seed_secretly(self._uniforms)
        with task.blamed("training"):
            inputs, targets = (tensor.to(self._settings.device) for tensor in stacked(task, dataset))
            if isinstance(plan.event, SampledSteps):
                steps = self._dp_sgd(plan, plan.event)
                sources = {"normals": self._normals, "uniforms": self._uniforms}
                return dp_sgd(module, task.loss, inputs, targets, steps, **sources, saves=saves)
            train = plan.settings.train
            declared = self._entry(plan.settings).examples
            if train.local_epochs == 1:
                return one_step(
                    module,
                    task.loss,
                    inputs,
                    targets,
                    learning_rate=train.learning_rate,
                    clip_norm=plan.privacy.clip_norm,
                    declared_examples=declared,
                    micro_batch=self._settings.micro_batch,
                    # In a sum that goes on with other rows than it was begun with, a row that moved could count twice.
                    saves=saves.bound(data_sha256=digest((inputs, targets))),
                )
            return full_batch_steps(
                module,
                inputs,
                targets,
                learning_rate=train.learning_rate,
                steps=train.local_epochs,
                declared=declared,
                saves=saves,
            )

    def _dp_sgd(self, plan: Plan, event: SampledSteps) -> DpSgd:
        train = plan.settings.train
        return DpSgd(
            clip_norm=plan.privacy.clip_norm,
            noise_multiplier=event.noise_multiplier,
            sampling_probability=event.sampling_probability,
            steps=event.steps,
            learning_rate=train.learning_rate,
            declared_examples=self._entry(plan.settings).examples,
            optimizer=train.optimizer,
            momentum=train.momentum,
            proximal_mu=train.proximal_mu,
            micro_batch=self._settings.micro_batch,
        )

    def _entry(self, settings: FederationSettings) -> ClientEntry:
        return next(entry for entry in settings.client if entry.id == self._settings.id)

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


def _global_model(task: Task, model: bytes) -> Module:
    module = task.model(0)
    load_into(module, model)
    refuse_non_finite_weights(module)
    return module
