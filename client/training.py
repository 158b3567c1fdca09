"""Local training and evaluation in torch."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import Module
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, Dataset

from client.task import Task
from exchange.errors import TaskError
from exchange.records import Metrics
from exchange.spec import TrainSettings

_EVALUATION_BATCH = 1024


def fit(
    task: Task, module: Module, dataset: Dataset[Any], settings: TrainSettings, seed: int, epochs: int, device: str
) -> list[float]:
    """Train `module` in place by mini-batch gradient descent; return the mean loss of each epoch.

    With proximal_mu > 0, μ/2·‖w − w₀‖² is added to the loss, w₀ the weights at the call (FedProx, Li et al. 2020).

    Args:
        seed: fixes the order of the examples and whatever randomness the model has.
        device: where to compute; `module` is moved there.

    Raises:
        TaskError: the task's model, data or loss failed.
    """
    torch.manual_seed(seed)
    module.to(device).train()
    anchor = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = _optimizer(module, settings)
    batches = _batches(dataset, settings.batch_size, torch.Generator().manual_seed(seed))
    losses = []
    with task.blamed("training"):
        for _ in range(epochs):
            total, count = 0.0, 0
            for inputs, targets in batches:
                optimizer.zero_grad()
                loss = task.loss(module(inputs.to(device)), targets.to(device))
                (loss + _proximal(module, anchor, settings.proximal_mu)).backward()  # type: ignore[no-untyped-call]
                if settings.gradient_clip is not None:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), settings.gradient_clip)
                optimizer.step()
                total, count = total + loss.item() * len(targets), count + len(targets)
            losses.append(total / max(count, 1))
    return losses


def evaluate(task: Task, module: Module, dataset: Dataset[Any], device: str) -> Metrics:
    """Return the task's metrics of `module` on all of `dataset`; raises TaskError."""
    return task.metrics(*_predictions(task, module, dataset, device))


def count_correct(task: Task, module: Module, dataset: Dataset[Any], device: str) -> int:
    """Return on how many examples the largest output is the target's class; raises TaskError.

    An example whose outputs are not finite is not among them; no example bears on another's answer.
    """
    outputs, targets = _predictions(task, module, dataset, device)
    return int(((outputs.argmax(dim=1) == targets) & outputs.isfinite().all(dim=1)).sum())


def _predictions(task: Task, module: Module, dataset: Dataset[Any], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    module.to(device).eval()
    outputs, targets = [], []
    with torch.no_grad(), task.blamed("evaluation"):
        for inputs, target in DataLoader(dataset, _EVALUATION_BATCH):
            outputs.append(module(inputs.to(device)).cpu())
            targets.append(target)
    if not outputs:
        raise TaskError(
            f"{task.path}: data() gave no examples to evaluate on; expected some, or None for no such split"
        )
    return torch.cat(outputs), torch.cat(targets)


def stacked(task: Task, dataset: Dataset[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all inputs and all targets of `dataset` as two tensors, examples in front; raises TaskError."""
    with task.blamed("data()"):
        inputs, targets = next(iter(DataLoader(dataset, len(dataset))))  # type: ignore[arg-type]
    return inputs, targets


def derive_seed(*parts: str | int) -> int:
    """Return a seed of 63 bits that depends on all of `parts`, and on nothing else."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _optimizer(module: Module, settings: TrainSettings) -> Optimizer:
    if settings.optimizer == "adam":
        return Adam(module.parameters(), settings.learning_rate)
    return SGD(module.parameters(), settings.learning_rate, momentum=settings.momentum)


def _batches(dataset: Dataset[Any], batch_size: int | None, generator: torch.Generator) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size or len(dataset), shuffle=True, generator=generator)  # type: ignore[arg-type]


def _proximal(module: Module, anchor: list[torch.Tensor], mu: float) -> torch.Tensor | float:
    if mu == 0:
        return 0.0
    pairs: Iterator[tuple[torch.Tensor, torch.Tensor]] = zip(module.parameters(), anchor, strict=True)
    return mu / 2 * torch.stack([((weight - start) ** 2).sum() for weight, start in pairs]).sum()
