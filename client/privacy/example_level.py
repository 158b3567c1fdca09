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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from client.privacy.checks import count, positive

Loss = Callable[[Any, Tensor], Tensor]

DEFAULT_MICRO_BATCH = (
    64  # on a CPU the fastest for small networks: longer ones leave the cache, shorter ones wait for Python
)
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

    def __init__(self, model: nn.Module, loss: Loss, clip_norm: float, micro_batch: int = DEFAULT_MICRO_BATCH) -> None:
        refuse_batch_statistics(model)
        self._model, self._loss = model, loss
        self._target = positive("clip_norm", clip_norm) * _AIM
        self._micro_batch = count("micro_batch", micro_batch)
        self._layers: dict[str, str | None] | None = None  # found at the first example

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
        if self._layers is None:
            self._layers = _find_layers(self._model, self._loss, parameters, inputs[:1], targets[:1])
        own = {name: parameters[name] for layer in self._layers.items() for name in layer if name is not None}
        taps = _Taps({id(own[weight]): weight for weight in self._layers})

        def example_loss(free: dict[str, Tensor], zeros: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
            with taps.held_by(zeros):
                output = functional_call(self._model, {**own, **free}, (x.unsqueeze(0),))
                return self._loss(output, y.unsqueeze(0)), taps.rows

        free = {name: parameter for name, parameter in parameters.items() if name not in own}
        zeros = {weight: own[weight].new_zeros(len(own[weight])) for weight in self._layers}
        per_example = vmap(grad(example_loss, argnums=(0, 1), has_aux=True), (None, None, 0, 0), randomness="different")
        (dense, deltas), rows = per_example(free, zeros, inputs, targets)
        if any(taps.calls[weight] != 1 for weight in self._layers):
            self._layers = {}  # a model that runs otherwise than on its trial: every parameter the general way
            return self._gradients(parameters, inputs, targets)
        return [
            _Dense(name, values.flatten(1) if values.ndim > 1 else values[:, None]) for name, values in dense.items()
        ] + [
            _Outer(weight, bias, deltas[weight].double(), rows[weight].double())
            for weight, bias in self._layers.items()
        ]


@dataclass
class _Dense:
    """The per-example gradients of one parameter: shape (batch, parameter's size)."""

    name: str
    values: Tensor

    def squared_norms(self) -> Tensor:
        squares = [column.double().square_().sum(1) for column in self.values.split(_COLUMNS, 1)]
        return torch.stack(squares).sum(0)

    def add_to(self, sums: Mapping[str, Tensor], factors: Tensor) -> None:
        parts = sums[self.name].view(-1).split(_COLUMNS)
        for part, columns in zip(parts, self.values.split(_COLUMNS, 1), strict=True):
            part.addmv_(columns.double().T, factors)

    def keep(self, examples: Tensor) -> "_Dense":
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

    def keep(self, examples: Tensor) -> "_Outer":
        return _Outer(self.weight, self.bias, self.deltas[examples], self.rows[examples])


def _add_clipped(sums: Mapping[str, Tensor], gradients: "Sequence[_Dense | _Outer]", target: float) -> int:
    norms = torch.stack([gradient.squared_norms() for gradient in gradients]).sum(0).sqrt_()
    finite = norms.isfinite()
    if not finite.all():  # 0·NaN is NaN, so that a factor of 0 would not do
        gradients, norms = [gradient.keep(finite) for gradient in gradients], norms[finite]
    factors = (target / norms).clamp_(max=1)
    for gradient in gradients:
        gradient.add_to(sums, factors)
    return len(finite) - len(norms)


class _Taps(TorchFunctionMode):
    """While active, notes what linear layers see, and adds a tap to their output in place of differentiating the weight.

    A tap is 0: the gradient in it is the gradient δ of the layer's output.

    Attributes:
        rows: by weight, the layer's one input row, shape (in,).
        biases: by weight, the name of the bias it was used with, if that has one.
        calls: how often each weight or bias was seen.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names
        self._taps: Mapping[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.biases: dict[str, str | None] = {}
        self.calls: Counter[str] = Counter()

    def held_by(self, taps: Mapping[str, Tensor]) -> "_Taps":
        self._taps = taps
        return self

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not F.linear:
            return function(*args, **kwargs)
        return self._linear(*args, **kwargs)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        name = self._names.get(id(weight))
        if name is None or input.numel() != weight.shape[1]:
            return F.linear(input, weight, bias)
        bias_name = self._names.get(id(bias))
        self.biases[name] = bias_name
        self.calls.update(used for used in (name, bias_name) if used is not None)
        self.rows[name] = input.reshape(-1)
        own_bias = bias.detach() if bias is not None and bias_name is not None else bias
        output = F.linear(input, weight.detach(), own_bias)
        return output + self._taps[name] if name in self._taps else output


def _find_layers(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> dict[str, str | None]:
    # By weight its bias: of the linear layers that see one row, once, and whose parameters have no other use. What is
    # left of the gradient in a parameter once its layers are cut off shows every other use.
    leaves = {name: parameter.clone().requires_grad_() for name, parameter in parameters.items()}
    with torch.enable_grad(), _Taps({id(leaf): name for name, leaf in leaves.items()}) as taps:
        value = loss(functional_call(model, leaves, (x,)), y)
    seen = [name for name in taps.calls if value.requires_grad]
    others = torch.autograd.grad(value, [leaves[name] for name in seen], allow_unused=True) if seen else ()
    elsewhere = {name for name, other in zip(seen, others, strict=True) if other is not None}
    single = {name for name, calls in taps.calls.items() if calls == 1} - elsewhere
    return {weight: bias for weight, bias in taps.biases.items() if {weight, bias} <= single | {None}}
