"""Several steps with noise only on the result: where the model is known to be convex, and nowhere else.

One example moves full-batch gradient descent by at most so much a step, and steps on a convex, smooth loss do not let
that grow (`sensitivity.output_perturbation_sensitivity`). Near a saddle of a deep model they do. Known to be convex is
here: one linear layer under cross entropy, on rows no longer than 1.
"""

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from client.checkpoints import UNSAVED, Saves
from client.privacy.sensitivity import ROUNDED, SOFTMAX_LIPSCHITZ
from client.snapshots import resume, snapshot
from exchange.errors import InvalidTensorFile, UnsupportedModel


def refuse_unknown_convexity(model: nn.Module, own_loss: bool) -> None:
    """Raise UnsupportedModel unless the loss is known to be convex in the weights.

    Args:
        own_loss: whether the task brings a loss of its own.
    """
    own_weights = {name for name, _ in model.named_parameters()} - {"weight", "bias"}  # of weight_norm, for one
    if type(model) is not nn.Linear or own_weights or own_loss:
        raise UnsupportedModel(
            "several full-batch steps with noise on their result need a convex loss, known here for one "
            'torch.nn.Linear under cross entropy only; take local_epochs = 1, or privacy.mechanism = "dp-sgd"'
        )


def full_batch_steps(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    learning_rate: float,
    steps: int,
    declared: int,
    saves: Saves = UNSAVED,
) -> dict[str, NDArray[np.float64]]:
    """Return w_E − w_0 after `steps` full-batch steps, by name, float64: not private before its release.

    Rows longer than 1 are scaled to length 1; rows that are not finite count as 0. A step divides the sum of the rows'
    cross entropies by `declared`: their mean would be over the rows that have a class, so that one row could move all.
    The steps are taken in float64: what float32 rounds off can be more than one example may move. The model stays.

    Args:
        model: what `refuse_unknown_convexity` lets pass.
        inputs: shape (n, d), with n at most `declared`.
        targets: the rows' classes, shape (n,).
        saves: where training goes on from, to the same bytes as if it had never stopped.

    Raises:
        UnsupportedModel: other shapes, or targets that are no classes: their gradients would have no bound.
        InvalidTensorFile: weights so large that what float64 rounds off beside them could show a row; a parent that
            wishes to see one would choose such.
        TrainingPaused, RoundClosed: from `saves`.
    """
    if inputs.ndim != 2 or targets.ndim != 1 or targets.is_floating_point():
        raise UnsupportedModel(
            "several full-batch steps with noise on their result take one row of numbers and one class an example, got "
            f"{inputs.ndim - 1} and {targets.ndim - 1} dimensions an example, targets in {targets.dtype}"
        )
    rows = torch.where(inputs.isfinite().all(dim=1, keepdim=True), inputs, 0.0).double()
    rows /= rows.norm(dim=1, keepdim=True).clamp(min=1.0)
    parameters = dict(model.named_parameters())
    start = {name: parameter.detach().double() for name, parameter in parameters.items()}
    largest = _largest_weight(sum(tensor.numel() for tensor in start.values()), learning_rate, steps, declared)
    if any(tensor.abs().max() > largest for tensor in start.values()):
        raise InvalidTensorFile(
            f"the global model holds weights above {largest:.3g}, beside which one of {declared} examples is less than "
            "float64 rounds off; nothing was learned"
        )
    weights = {name: start[name].clone().requires_grad_(parameters[name].requires_grad) for name in start}
    optimizer = torch.optim.SGD(weights.values(), learning_rate)
    for step in range(resume(saves, weights, optimizer).get("steps", 0), steps):
        optimizer.zero_grad()
        loss = cross_entropy(linear(rows, weights["weight"], weights.get("bias")), targets, reduction="sum")
        (loss / declared).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        saves.passed(partial(snapshot, weights, optimizer, {"steps": step + 1}))
    return {name: (tensor.detach() - start[name]).cpu().numpy() for name, tensor in weights.items()}


def _largest_weight(dimension: int, learning_rate: float, steps: int, declared: int) -> float:
    """Return the largest weight of a start from which rounding moves neighbours apart by at most Δ·ROUNDED.

    A step of weights up to M rounds each of d coordinates by at most M·2⁻⁵³, for either neighbour: by M√d·2⁻⁵²
    together, where an example moves it by ηL/n. Eight times that leaves room for what outputs and sums round off.
    """
    room = ROUNDED * learning_rate * SOFTMAX_LIPSCHITZ / declared
    reached = steps * learning_rate * SOFTMAX_LIPSCHITZ  # how far the weights may move on the way
    return max(0.0, room / (8 * math.sqrt(dimension) * 2.0**-52) - reached)
