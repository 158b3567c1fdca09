"""Gradients of single examples, clipped and summed: the sum moves by at most C when an example joins or leaves.

Every gradient is taken by `torch.func.vmap(grad)`: the model sees one example at a time, as far as its code can tell, so
that a clipped gradient depends on its own example alone whatever the model does. Norms and sums are float64.

A linear layer that sees one row an example is not differentiated in its weight. With input x and δ, the gradient of
its output, the weight's gradient is the outer product δxᵀ: its norm is ‖δ‖‖x‖, and a weighted sum over examples is one
matrix product (Goodfellow, "Efficient Per-Example Gradient Computations", 2015). Nothing of the weight's size is held
per example, which for the usual networks is most of the memory and of the time. Which layers qualify is found by a trial on one
example; a wrong finding would cost accuracy, never privacy, since the norm is that of the very vector that is summed.

What remains: the last bits of an example's float32 gradient can depend on the size of the batch that it was computed in
(the matrix kernels choose their order of summation), so that a neighbour's absence can move the others by rounding.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from client.privacy.checks import count, positive

Loss = Callable[[Any, Tensor], Tensor]

DEFAULT_MICRO_BATCH = 64  # on a CPU the fastest for small networks: longer ones leave the cache, shorter ones wait for Python
_AIM = 1 - 2.0**-40  # below the clip norm by more than float64 rounds off, so that "at most C" is true of the numbers
_COLUMNS = 4096  # so many parameters at a time are widened to float64: 2 MiB at 64 examples


class UnsupportedModel(ValueError):
    """A model whose examples cannot be told apart."""


class ClippedSum(NamedTuple):
    """A sum of clipped per-example gradients.

    Attributes:
        tensors: float64, by parameter name, in the parameters' shapes and on their device; only those with requires_grad.
        non_finite: how many examples counted as 0 since their gradient was not finite: private, for the client's log.
    """

    tensors: dict[str, Tensor]
    non_finite: int


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise UnsupportedModel if a layer mixes the examples of a batch, or keeps statistics of them."""
    for name, layer in model.named_modules():
        running = isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats
        if running or isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedModel(
                f"layer {name!r}: expected one that treats each example alone, got {type(layer).__name__}, which keeps "
                "statistics of the whole batch; replace it by GroupNorm"
            )


def clipped_gradient_sum(
    model: nn.Module,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    clip_norm: float,
    micro_batch: int = DEFAULT_MICRO_BATCH,
) -> ClippedSum:
    """Return Σ_i g_i·min(1, C/‖g_i‖), where g_i is the gradient at example i over all trainable parameters jointly.

    An example whose gradient is not finite counts as 0.

    Args:
        model: any module; its mode (train or eval) and its frozen parameters are respected.
        loss: loss(output, target) of a batch, called with batches of one.
        inputs: shape (n, …); may be empty.
        targets: shape (n, …).
        clip_norm: C > 0.
        micro_batch: how many examples are held at a time: memory grows with it, the result does not depend on it.

    Raises:
        UnsupportedModel: a layer keeps statistics of the batch.
        ValueError: a number out of its range, or inputs and targets of different length.
    """
    return ClippedGradients(model, loss, clip_norm, micro_batch)(inputs, targets)


class ClippedGradients:
    """`clipped_gradient_sum` of one model for many batches: what it learns about the model is learnt once."""

    def __init__(
        self, model: nn.Module, loss: Loss, clip_norm: float, micro_batch: int = DEFAULT_MICRO_BATCH
    ) -> None:
        refuse_batch_statistics(model)
        self._model, self._loss = model, loss
        self._target = positive("clip_norm", clip_norm) * _AIM
        self._micro_batch = count("micro_batch", micro_batch)
        self._tapped: dict[str, str | None] | None = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> ClippedSum:
        """Return the sum over `inputs` and `targets` at the model's present weights."""
        if len(inputs) != len(targets):
            raise ValueError(f"targets: expected {len(inputs)} like the inputs, got {len(targets)}")
        parameters = {name: p.detach() for name, p in self._model.named_parameters() if p.requires_grad}
        sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
        non_finite = 0
        for start in range(0, len(inputs), self._micro_batch):
            stop = start + self._micro_batch
            gradients = self._gradients(parameters, inputs[start:stop], targets[start:stop])
            non_finite += _add_clipped(sums, gradients, self._target)
        return ClippedSum(sums, non_finite)

    def _gradients(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> "list[_Dense | _Outer]":
        if self._tapped is None:
            self._tapped = _tappable(self._model, self._loss, parameters, inputs[:1], targets[:1])
        tapped = self._tapped
        fixed = {name: parameters[name] for pair in tapped.items() for name in pair if name is not None}
        taps = {name: parameters[name].new_zeros(parameters[name].shape[0]) for name in tapped}

        def example_loss(free: dict[str, Tensor], taps: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
            with _Taps({id(fixed[name]): name for name in tapped}, taps) as mode:
                output = functional_call(self._model, {**fixed, **free}, (x.unsqueeze(0),))
                return self._loss(output, y.unsqueeze(0)), (mode.rows, mode.calls)
