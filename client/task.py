"""The organisation's own model and data: a plain Python module, which imports nothing from us.

    def model() -> torch.nn.Module: ...
    def data(source: str, split: str) -> torch.utils.data.Dataset: ...      # split: "train", "validation" or "test"
    def loss(output, target) -> torch.Tensor: ...                           # optional, cross entropy by default
    def metrics(output, target) -> dict[str, float]: ...                    # optional, accuracy by default

`data` gives pairs (input, target), or None for a split that the source does not have.
"""

import importlib.util
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch.nn import Module
from torch.utils.data import Dataset, Subset

from exchange.errors import FedbucketError, TaskError
from exchange.records import Metrics

log = logging.getLogger(__name__)

_DEFAULT_LOSS = "cross entropy, the loss of a task without loss(output, target),"
_MOST_SHOWN = 4  # parts of an example; a list of a thousand is one thing

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Task:
    """A loaded task; every method raises TaskError where the task's own code fails."""

    path: Path
    module: ModuleType

    def model(self, seed: int) -> Module:
        """Return the model with initial weights drawn from `seed`."""
        torch.manual_seed(seed)
        with self.blamed("model()"):
            model = self.module.model()
        if not isinstance(model, Module):
            raise TaskError(f"{self.path}: model() returned {type(model).__name__}, expected a torch.nn.Module")
        if not any(each.requires_grad and each.is_floating_point() and each.numel() for each in model.parameters()):
            raise TaskError(f"{self.path}: model() has no weights to train, expected at least one floating parameter")
        return model

    def data(self, source: str, split: str, limit: int | None = None) -> Dataset[Any] | None:
        """Return the examples of a split, at most the first `limit`; None if the source has no such split."""
        with self.blamed(call := f"data({source!r}, {split!r})"):
            dataset = self.module.data(source, split)
        if dataset is None:
            return None
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise TaskError(
                f"{self.path}: data() returned {type(dataset).__name__}, expected a torch Dataset with a length"
            )
        self._refuse_other_than_pairs(dataset, call)
        if limit is not None and len(dataset) > limit:
            log.warning("%s: %d examples, declared are %d: only the first are used", source, len(dataset), limit)
            return Subset(cast(Dataset[Any], dataset), range(limit))
        return cast(Dataset[Any], dataset)

    @property
    def has_own_loss(self) -> bool:
        """Whether the task brings a loss of its own."""
        return hasattr(self.module, "loss")

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar."""
        with self.blamed("loss()" if self.has_own_loss else _DEFAULT_LOSS):
            loss = cast(Loss, getattr(self.module, "loss", torch.nn.functional.cross_entropy))(output, target)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise TaskError(f"{self.path}: loss() returned {_form(loss)}, expected one number: the mean of the batch")
        return loss

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Metrics:
        """Return the metrics of a whole split."""
        if not hasattr(self.module, "metrics"):
            return self._accuracy(output, target)
        with self.blamed("metrics()"):
            found = self.module.metrics(output, target)
            if not isinstance(found, Mapping):
                raise TaskError(
                    f'{self.path}: metrics() returned {_form(found)}, expected numbers by name: {{"mse": 0.25}}'
                )
            return {str(name): float(value) for name, value in found.items()}

    def _accuracy(self, output: torch.Tensor, target: torch.Tensor) -> Metrics:
        """Return the share of right answers, for outputs of classes; of others it would be a number, too."""
        if output.ndim < 2 or output.shape[1] < 2 or target.shape != output.shape[:1] + output.shape[2:]:
            raise TaskError(
                f"{self.path}: has no metrics(), and accuracy, the default, takes outputs of shape (n, classes) and "
                f"targets of shape (n,); got {_form(output)} and {_form(target)}: add metrics(output, target), which "
                'returns numbers by name, {"mse": 0.25}'
            )
        return {"accuracy": (output.argmax(dim=1) == target).double().mean().item()}

    def _refuse_other_than_pairs(self, dataset: Any, call: str) -> None:
        """Raise TaskError where the first example is no pair that batches can be made of."""
        if not len(dataset):
            return
        with self.blamed(call):
            example = dataset[0]
        if not isinstance(example, tuple | list) or len(example) != 2 or not all(map(_is_numeric, example)):
            raise TaskError(
                f"{self.path}: {call} gave a first example of {_form(example)}, expected a pair (input, target), each "
                "a tensor, an array or a number"
            )

    @contextmanager
    def blamed(self, call: str) -> Iterator[None]:
        """Turn whatever the task's code raises into a TaskError that names the task's own line."""
        try:
            yield
        except FedbucketError:
            raise  # our own: it is a TaskError already, or not the task's fault
        except (Exception, SystemExit) as error:  # a task that calls exit() would end its process without a word
            raise TaskError(
                f"{self.path}: {call} raised {type(error).__name__}: {error}{_place(error, self.path)}"
            ) from error


def load_task(path: Path) -> Task:
    """Return the task in the Python file `path`; raises TaskError."""
    name = f"fedbucket_task_{path.stem}"
    if not path.exists():
        raise TaskError(f"{path}: no such file; expected a Python file with model() and data(), as `task` names it")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TaskError(f"{path}: expected a Python file with model() and data()")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    task = Task(path, module)
    with task.blamed("importing it"):
        spec.loader.exec_module(module)
    if missing := [name for name in ("model", "data") if not callable(getattr(module, name, None))]:
        raise TaskError(f"{path}: expected functions model() and data(); {' and '.join(missing)} missing")
    return task


def _place(error: BaseException, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f" (line {lines[-1]})" if lines else ""


def _is_numeric(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray | np.number | int | float)


def _form(value: Any) -> str:
    """Say what a value is, without its content: that may be a patient's."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list) and len(value) <= _MOST_SHOWN:
        return f"({', '.join(map(_form, value))})"
    return f"{'an' if type(value).__name__[0] in 'aeiouAEIOU' else 'a'} {type(value).__name__}"
