"""Will a loan go bad? From 43 numbers of its application, scaled to unit norm: softmax regression."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import Dataset, TensorDataset


def model() -> torch.nn.Module:
    return torch.nn.Linear(43, 2, bias=False)  # every row has a code of every attribute: together they are a bias


def data(source: str, split: str) -> Dataset | None:
    with np.load(source) as arrays:
        if f"{split}_inputs" not in arrays:
            return None
        return TensorDataset(torch.from_numpy(arrays[f"{split}_inputs"]), torch.from_numpy(arrays[f"{split}_targets"]))


def metrics(output: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    # Most loans are good, and whoever grants them all is right in 70 of 100: the AUC says who is told from whom.
    accuracy = (output.argmax(dim=1) == target).double().mean().item()
    return {"accuracy": accuracy, "auc": roc_auc_score(target, output[:, 1] - output[:, 0])}
