"""Which linear layers need no gradient in their weight, and what to note of them instead.

Where a linear layer sees one row x an example, the gradient of its weight is the outer product δxᵀ, with δ the gradient
of its output (Goodfellow, "Efficient Per-Example Gradient Computations", 2015). So x and δ are enough, and δ is the
gradient in a tap: a zero added to the output.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

log = logging.getLogger(__name__)

Loss = Callable[[Any, Tensor], Tensor]


class Taps(TorchFunctionMode):
    """While active, linear layers on one row are cut off from their parameters, and tapped.

    Attributes:
        rows: by weight, the row that its layer saw, shape (in,).
        biases: by weight, the name of the bias that it was used with, None where that has no name here.
        calls: how often each weight and bias was used so.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        """Watch the parameters with these names, known by their id()."""
        super().__init__()
        self._names = names
        self._zeros: Mapping[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.biases: dict[str, str | None] = {}
        self.calls: Counter[str] = Counter()

    def adding(self, zeros: Mapping[str, Tensor]) -> "Taps":
        """Return self, set to add `zeros[weight]`, shape (out,), to the output of each weight's layer."""
        self._zeros = zeros
        return self

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Handle one call of a torch function."""
        answer = self._linear if function is functional.linear else function
        return answer(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002 - torch's name
        name, bias_name = self._names.get(id(weight)), self._names.get(id(bias))
        if name is None or input.numel() != weight.shape[1]:
            return functional.linear(input, weight, bias)
        self.rows[name], self.biases[name] = input.reshape(-1), bias_name
        self.calls.update(used for used in (name, bias_name) if used)
        output = functional.linear(input, weight.detach(), bias.detach() if bias is not None and bias_name else bias)
        return output + self._zeros[name] if name in self._zeros else output


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers of `model` by name.

    A call that is given them leaves nothing of its examples there for the next one (spectral norm would).
    """
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def find_layers(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> dict[str, str | None]:
    """Return, by weight, the bias of each linear layer that sees one row, once, and shares no parameter.

    A trial on one example tells. The layers are cut off from their parameters in it, so that a gradient which still
    reaches one shows another use of it.

    Args:
        model: any module.
        loss: loss(output, target) of a batch.
        parameters: the parameters to train, by name.
        x: what looks like one example, shape (1, …): no real one, for a model may keep what it sees.
        y: its target, shape (1, …).
    """
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    with torch.enable_grad(), Taps({id(leaf): name for name, leaf in leaves.items()}) as taps:
        try:
            value = loss(functional_call(model, {**buffers_of(model), **leaves}, (x,)), y)
        except Exception as error:  # noqa: BLE001 - what fails on a made-up example need not fail on real ones
            log.info("the model fails on zeros, so gradients are taken the general, slower way: %r", error)
            return {}
    used = list(taps.calls) if value.requires_grad else []
    others = torch.autograd.grad(value, [leaves[name] for name in used], allow_unused=True) if used else ()
    elsewhere = {name for name, other in zip(used, others, strict=True) if other is not None}
    alone = {name for name, calls in taps.calls.items() if calls == 1} - elsewhere
    return {weight: bias for weight, bias in taps.biases.items() if {weight, bias} <= alone | {None}}
