"""What federation is measured against: the same model, trained where the data happen to lie together."""

from copy import deepcopy
from typing import Any, cast

from torch.nn import Module
from torch.utils.data import ConcatDataset, Dataset

from client.task import Task
from client.training import derive_seed, fit
from exchange.spec import TrainSettings

_EPOCHS_AT_A_TIME = 10
_MAX_EPOCHS = 1000
_PROGRESS = 1e-3  # ten epochs that lower the mean loss by less are the end; in nats, where the loss is cross entropy


def train_to_convergence(
    task: Task, datasets: list[Dataset[Any]], settings: TrainSettings, seed: int, device: str
) -> Module:
    """Return the task's model, trained on all of `datasets` until the training loss stands still.

    Of a training that ends in divergence, the best weights before it are returned.

    Args:
        settings: optimizer, learning rate and batch size; no proximal pull is added.
        seed: of the federation: it starts from the same initial weights.
    """
    module = task.model(derive_seed(seed, "initial weights"))
    train = settings.model_copy(update={"proximal_mu": 0.0})
    dataset = datasets[0] if len(datasets) == 1 else cast(Dataset[Any], ConcatDataset(datasets))
    best, weights = float("inf"), deepcopy(module.state_dict())
    for epoch in range(0, _MAX_EPOCHS, _EPOCHS_AT_A_TIME):
        order = derive_seed(seed, "baseline", epoch)
        loss = fit(task, module, dataset, train, order, _EPOCHS_AT_A_TIME, device)[-1]
        if not loss < best - _PROGRESS:
            break
        best, weights = loss, deepcopy(module.state_dict())
    module.load_state_dict(weights)
    return module
