"""Gradients of single examples, clipped and summed: the sum moves by at most C when an example joins or leaves.

Every gradient is taken by `torch.func.vmap(grad)`: as far as its code can tell, the model sees one example at a time,
so that a clipped gradient depends on its own example alone whatever the model does. Norms and sums are float64.

Where the gradient of a linear layer's weight is an outer product (`client.privacy.taps`), nothing of the weight's size
is held per example: ‖δxᵀ‖ = ‖δ‖‖x‖, and a weighted sum of them is one matrix product. For the usual networks that is
most of the memory and of the time. If the layers were found wrongly, that would cost accuracy but no privacy: the norm
is that of the very vector that is summed.

A model's dropout draws anew for every example. Its draws must be secret (`client.training.seed_secretly`): by a seed
that others know they would hang on an example's place, and one example less would change those of all after it.

What remains: what a model keeps in plain attributes from one call to the next (a count of its calls, say) can tell one
micro-batch from another. And no kernel promises that an example's place in a batch leaves the last bits of its gradient
alone; all batches have one shape, in which none was seen to.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from client.checkpoints import UNSAVED, Saves
from client.privacy.batches import DEFAULT_MICRO_BATCH, filled
from client.privacy.checks import count, positive
from client.privacy.layers import refuse_batch_statistics, refuse_unmapped
from client.privacy.taps import Loss, Taps, buffers_of, find_layers
from client.snapshots import resume, snapshot
from exchange.errors import UnsupportedModel

log = logging.getLogger(__name__)

_AIM = 1 - 2.0**-40  # below the clip norm by more than float64 rounds off: "at most C" holds for the numbers themselves
_COLUMNS = 4096  # so many parameters at a time are widened to float64: 2 MiB for 64 examples


class ClippedSum(NamedTuple):
    """A sum of clipped per-example gradients.

    Attributes:
        tensors: by name of each parameter with requires_grad, of its shape and on its device, float64.
        non_finite: how many examples counted as 0 since their gradient was not finite: private, for the client's log.
    """

    tensors: dict[str, Tensor]
    non_finite: int


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
        UnsupportedModel: a layer keeps statistics of the batch, or has no gradient of single examples.
        ValueError: a number out of its range, or inputs and targets of different length.
    """
    return ClippedGradients(model, loss, clip_norm, micro_batch)(inputs, targets)


class ClippedGradients:
    """`clipped_gradient_sum` of one model for many batches: what it learns about the model is learnt once."""

    def __init__(self, model: nn.Module, loss: Loss, clip_norm: float, micro_batch: int = DEFAULT_MICRO_BATCH) -> None:
        refuse_batch_statistics(model)
        refuse_unmapped(model)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UnsupportedModel("model: expected a parameter with requires_grad, got none")
        self._model, self._loss = model, loss
        self._target = positive("clip_norm", clip_norm) * _AIM
        self._micro_batch = count("micro_batch", micro_batch)
        self._layers: dict[str, str | None] | None = None  # found at the first example

    def __call__(self, inputs: Tensor, targets: Tensor, saves: Saves = UNSAVED) -> ClippedSum:
        """Return the sum over `inputs` and `targets` at the model's present weights.

        Args:
            saves: where the sum goes on from; raises what that raises.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"targets: expected {len(inputs)} like the inputs, got {len(targets)}")
        parameters = {name: _laid_out(p.detach()) for name, p in self._model.named_parameters() if p.requires_grad}
        sums = {name: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for name, p in parameters.items()}
        begun = resume(saves, sums, None)
        non_finite = begun.get("non_finite", 0)
        if begun.get("general"):
            self._layers = {}
        for start in range(begun.get("examples", 0), len(inputs), self._micro_batch):
            stop = start + self._micro_batch
            gradients = self._gradients(parameters, inputs[start:stop], targets[start:stop])
            non_finite += _add_clipped(sums, gradients, self._target)
            place = {"examples": stop, "non_finite": non_finite, "general": not self._layers}
            saves.passed(partial(snapshot, sums, None, place))
        if non_finite:
            log.warning("%d of %d examples count as 0: their gradients are not finite", non_finite, len(inputs))
        return ClippedSum(sums, non_finite)

    def _gradients(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> "list[_Dense | _Outer]":
        if self._layers is None:  # on zeros: a model may keep what it first saw, and that must not be somebody's row
            trial = torch.zeros_like(x[:1]), torch.zeros_like(y[:1])
            self._layers = find_layers(self._model, self._loss, parameters, *trial)
        layers, count = self._layers, len(x)
        x, y = filled(x, self._micro_batch), filled(y, self._micro_batch)
        cut = {name: parameters[name] for layer in layers.items() for name in layer if name is not None}
        free = {name: parameter for name, parameter in parameters.items() if name not in cut}
        taps = Taps({id(cut[weight]): weight for weight in layers})
        (dense, deltas), rows = self._differentiate(cut, free, taps, x, y)
        if any(taps.calls[weight] != 1 for weight in layers):
            self._layers = {}  # the model ran otherwise than on its trial: from now on, every parameter the general way
            return self._gradients(parameters, x[:count], y[:count])
        outer = [
            _Outer(weight, bias, deltas[weight].double(), rows[weight].double()) for weight, bias in layers.items()
        ]
        found = [_Dense(name, gradient.reshape(len(x), -1)) for name, gradient in dense.items()] + outer
        return [gradient.keep(slice(count)) for gradient in found]

    def _differentiate(self, cut: dict[str, Tensor], free: dict[str, Tensor], taps: Taps, x: Tensor, y: Tensor) -> Any:
        # ((gradients in `free`, gradients in the taps), rows), each by name and with the examples in front.
        buffers = buffers_of(self._model)

        def example_loss(free: dict[str, Tensor], zeros: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
            with taps.adding(zeros), sdpa_kernel(SDPBackend.MATH):  # the one kernel of attention that vmap can batch
                output = functional_call(self._model, {**buffers, **cut, **free}, (x.unsqueeze(0),))
                return self._loss(output, y.unsqueeze(0)), taps.rows

        zeros = {weight: cut[weight].new_zeros(len(cut[weight])) for weight in self._layers or ()}
        gradient = grad(example_loss, argnums=(0, 1), has_aux=True)
        return vmap(gradient, in_dims=(None, None, 0, 0), randomness="different")(free, zeros, x, y)


@dataclass
class _Dense:
    """The per-example gradients of one parameter: values (batch, parameter's size)."""

    name: str
    values: Tensor

    def squared_norms(self) -> Tensor:
        squares = torch.zeros(len(self.values), dtype=torch.float64, device=self.values.device)
        for columns in _slices(self.values.shape[1]):
            squares += self.values[:, columns].double().square_().sum(1)
        return squares

    def add_to(self, sums: Mapping[str, Tensor], factors: Tensor) -> None:
        total = sums[self.name].view(-1)
        for columns in _slices(self.values.shape[1]):
            total[columns].addmv_(self.values[:, columns].double().T, factors)

    def keep(self, examples: Tensor | slice) -> "_Dense":
        return _Dense(self.name, self.values[examples])


@dataclass
class _Outer:
    """The per-example gradients δxᵀ of a linear layer's weight, and δ of its bias: δ (batch, out), x (batch, in)."""

    weight: str
    bias: str | None
    deltas: Tensor
    rows: Tensor

    def squared_norms(self) -> Tensor:
        return self.deltas.square().sum(1) * (self.rows.square().sum(1) + (self.bias is not None))

    def add_to(self, sums: Mapping[str, Tensor], factors: Tensor) -> None:
        deltas = self.deltas * factors[:, None]
        sums[self.weight].addmm_(deltas.T, self.rows)
        if self.bias is not None:
            sums[self.bias].add_(deltas.sum(0))

    def keep(self, examples: Tensor | slice) -> "_Outer":
        return _Outer(self.weight, self.bias, self.deltas[examples], self.rows[examples])


def _laid_out(parameter: Tensor) -> Tensor:
    # Convolution kernels with channels last, explicitly so even for one channel: PyTorch then lays out all activations
    # in this way, for which its CPU kernels, of pooling above all, are up to ten times faster.
    if parameter.ndim != 4:
        return parameter
    return parameter.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def _slices(size: int) -> list[slice]:
    return [slice(start, start + _COLUMNS) for start in range(0, size, _COLUMNS)]


def _add_clipped(sums: Mapping[str, Tensor], gradients: "Sequence[_Dense | _Outer]", target: float) -> int:
    norms = torch.stack([gradient.squared_norms() for gradient in gradients]).sum(0).sqrt_()
    finite = norms.isfinite()
    if not finite.all():  # 0·NaN is NaN, so that a factor of 0 would not do
        gradients, norms = [gradient.keep(finite) for gradient in gradients], norms[finite]
    factors = (target / norms).clamp_(max=1)
    for gradient in gradients:
        gradient.add_to(sums, factors)
    return len(finite) - len(norms)
