"""Local training and evaluation in torch."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vmap
from torch.nn import Module
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from client.checkpoints import UNSAVED, Checkpoint, Saves
from client.privacy.batches import DEFAULT_MICRO_BATCH, filled
from client.privacy.noise import Source
from client.privacy.taps import buffers_of
from client.snapshots import resume, snapshot, tensors_of
from client.task import Task
from exchange.errors import TaskError, UnsupportedModel
from exchange.records import Metrics
from exchange.spec import TrainSettings

_EVALUATION_BATCH = 1024
_WORDS = slice(3, 627)  # where torch's state of a Mersenne Twister, in words of 8 bytes, has its 624 numbers


def fit(
    task: Task,
    module: Module,
    dataset: Dataset[Any],
    settings: TrainSettings,
    seed: int,
    epochs: int,
    device: str,
    saves: Saves = UNSAVED,
) -> list[float]:
    """Train `module` in place by mini-batch gradient descent; return the mean loss of each epoch.

    With proximal_mu > 0, μ/2·‖w − w₀‖² is added to the loss, w₀ the weights at the call (FedProx, Li et al. 2020).

    Args:
        seed: fixes the order of the examples and whatever randomness the model has.
        device: where to compute; `module` is moved there.
        saves: where training goes on from, to the same bytes as if it had never stopped; examples that were used
            before are not loaded again.

    Raises:
        TaskError: the task's model, data or loss failed.
        TrainingPaused, RoundClosed: from `saves`.
    """
    torch.manual_seed(seed)
    module.to(device).train()
    anchor = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = _optimizer(module, settings)
    size: int = len(dataset)  # type: ignore[arg-type]
    batch_size = settings.batch_size or size
    order = torch.Generator().manual_seed(seed)
    begun = resume(saves, tensors_of(module), optimizer)
    steps, totals = begun.get("steps", 0), begun.get("totals", [0.0] * epochs)
    with task.blamed("training"):
        for epoch in range(epochs):
            done = steps - epoch * -(-size // batch_size)
            for inputs, targets in _batches(dataset, batch_size, order, skip=max(0, done)):
                optimizer.zero_grad()
                loss = task.loss(module(inputs.to(device)), targets.to(device))
                (loss + _proximal(module, anchor, settings.proximal_mu)).backward()  # type: ignore[no-untyped-call]
                if settings.gradient_clip is not None:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), settings.gradient_clip)
                optimizer.step()
                steps, totals[epoch] = steps + 1, totals[epoch] + loss.item() * len(targets)
                saves.passed(partial(_checkpoint, module, optimizer, {"steps": steps, "totals": totals}))
    return [total / size for total in totals]


def _checkpoint(module: Module, optimizer: Optimizer, place: Mapping[str, Any]) -> Checkpoint:
    return snapshot(tensors_of(module), optimizer, place)


def evaluate(task: Task, module: Module, dataset: Dataset[Any], device: str) -> Metrics:
    """Return the task's metrics of `module` on all of `dataset`; raises TaskError."""
    return task.metrics(*_predictions(task, module, dataset, device))


def count_correct(task: Task, module: Module, dataset: Dataset[Any], device: str) -> int:
    """Return on how many examples the largest output is the target's class.

    An example whose outputs are not finite is not among them. The model sees one example at a time, as far as its code
    can tell: no example bears on another's answer, whatever the model does.

    Raises:
        TaskError: as `evaluate`.
        UnsupportedModel: other shapes than (n, classes) and (n,): one example could move the number by more than 1.
    """
    outputs, targets = _predictions(task, module, dataset, device, _one_at_a_time(module), DEFAULT_MICRO_BATCH)
    if outputs.ndim != 2 or targets.shape != outputs.shape[:1]:
        raise UnsupportedModel(
            f"{task.path}: the number of right answers can be shared with noise where an example has one row of "
            f"outputs and one class: expected shapes (n, classes) and (n,), got {tuple(outputs.shape)} and "
            f'{tuple(targets.shape)}; take metrics.share = "none"'
        )
    return int(((outputs.argmax(dim=1) == targets) & outputs.isfinite().all(dim=1)).sum())


def _one_at_a_time(module: Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def answer(row: torch.Tensor) -> torch.Tensor:
        state = {**dict(module.named_parameters()), **buffers_of(module)}
        with sdpa_kernel(SDPBackend.MATH):  # the one kernel of attention that vmap can batch
            output: torch.Tensor = functional_call(module, state, (row.unsqueeze(0),))
        return output.squeeze(0)

    def answers(rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = vmap(answer, randomness="different")(filled(rows, DEFAULT_MICRO_BATCH))
        return found[: len(rows)]

    return answers


def _predictions(
    task: Task,
    module: Module,
    dataset: Dataset[Any],
    device: str,
    answer: Callable[[torch.Tensor], torch.Tensor] | None = None,
    batch: int = _EVALUATION_BATCH,
) -> tuple[torch.Tensor, torch.Tensor]:
    answer = answer or module
    module.to(device).eval()
    outputs, targets = [], []
    with torch.no_grad(), task.blamed("evaluation"):
        for inputs, target in DataLoader(dataset, batch):
            outputs.append(answer(inputs.to(device)).cpu())
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


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Return the SHA-256 of what all `tensors` hold, 64 hexadecimal digits; of their shapes it says nothing."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def seed_secretly(uniforms: Source) -> None:
    """Let torch draw from a state that nobody can guess.

    Of a seed its generator on the CPU takes 32 bits, few enough to try them all; the state has 624 such words.
    """
    torch.manual_seed(int(uniforms(1)[0] * 2.0**53))  # of every device; a GPU's generator takes all bits
    state = torch.get_rng_state().view(torch.int64)
    state[_WORDS] = torch.from_numpy((uniforms(_WORDS.stop - _WORDS.start) * 2.0**32).astype(np.int64))
    torch.set_rng_state(state.view(torch.uint8))


def derive_seed(*parts: str | int) -> int:
    """Return a seed of 63 bits that depends on all of `parts`, and on nothing else."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _optimizer(module: Module, settings: TrainSettings) -> Optimizer:
    if settings.optimizer == "adam":
        return Adam(module.parameters(), settings.learning_rate)
    return SGD(module.parameters(), settings.learning_rate, momentum=settings.momentum)


class _Remaining(BatchSampler):
    """The batches of an epoch but the first `skip`, which are drawn and not loaded."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, order: torch.Generator, skip: int) -> None:
        super().__init__(RandomSampler(dataset, generator=order), batch_size, drop_last=False)  # type: ignore[arg-type]
        self._skip = skip

    def __iter__(self) -> Iterator[list[int]]:
        return islice(super().__iter__(), self._skip, None)


def _batches(dataset: Dataset[Any], batch_size: int, order: torch.Generator, skip: int) -> DataLoader[Any]:
    return DataLoader(dataset, batch_sampler=_Remaining(dataset, batch_size, order, skip), generator=order)


def _proximal(module: Module, anchor: list[torch.Tensor], mu: float) -> torch.Tensor | float:
    if mu == 0:
        return 0.0
    pairs: Iterator[tuple[torch.Tensor, torch.Tensor]] = zip(module.parameters(), anchor, strict=True)
    return mu / 2 * torch.stack([((weight - start) ** 2).sum() for weight, start in pairs]).sum()
