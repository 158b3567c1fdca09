"""Several steps with noise only on the result: where the model is known to be convex, and nowhere else.

One example moves full-batch gradient descent by at most so much a step, and steps on a convex, smooth loss do not let
that grow (`sensitivity.output_perturbation_sensitivity`). Near a saddle of a deep model they do. Known to be convex is
here: one linear layer under cross entropy, on rows no longer than 1.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.privacy.taps import Loss
from exchange.errors import UnsupportedModel


def refuse_unknown_convexity(model: nn.Module, own_loss: bool) -> None:
    """Raise UnsupportedModel unless the loss is known to be convex in the weights.

    Args:
        own_loss: whether the task brings a loss of its own.
    """
    if type(model) is not nn.Linear or own_loss:
        raise UnsupportedModel(
            "several full-batch steps with noise on their result need a convex loss, known here for one "
            'torch.nn.Linear under cross entropy only; take local_epochs = 1, or privacy.mechanism = "dp-sgd"'
        )


def full_batch_steps(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, learning_rate: float, steps: int, declared: int
) -> dict[str, NDArray[np.float64]]:
    """Return w_E − w_0 after `steps` full-batch steps, by name, float64: not private before its release.

    Rows longer than 1 are scaled to length 1; rows that are not finite count as 0. A step divides by `declared`.

    Args:
        loss: the mean loss of a batch.
        inputs, targets: at most `declared` rows.
    """
    rows = torch.where(inputs.isfinite().all(dim=1, keepdim=True), inputs, 0.0)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0)
    start = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (loss(model(rows), targets) * (len(rows) / declared)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {
        name: (parameter.detach().double() - start[name]).cpu().numpy() for name, parameter in model.named_parameters()
    }
