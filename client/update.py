"""From what was learned to the file that leaves the client."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.privacy.account import Account
from client.privacy.ledger import ENTRY
from client.privacy.noise import Source
from exchange import tensors
from exchange.records import Metrics


@dataclass(frozen=True)
class Learned:
    """What local training found.

    Attributes:
        difference: u = local − global by tensor, float64, in the model's shapes; tensors left out have not moved.
        metrics: the global model's, on the client's own validation split; empty unless they are shared openly.
        correct: how many of the validation examples the global model gets right; None unless that is shared with noise.
        tied: by further names of tensors that the model has under several, the name by which `difference` may have it.
    """

    difference: Mapping[str, NDArray[np.float64]]
    metrics: Metrics = field(default_factory=dict)
    correct: int | None = None
    tied: Mapping[str, str] = field(default_factory=dict)


def update_file(
    client: str,
    normals: Source,
    account: Account | None,
    federation: str,
    round_: int,
    model: bytes,
    learned: Learned,
) -> bytes:
    """Return the weight file to upload: the global model `model` and the difference, noised once that is paid for.

    Args:
        normals: standard normals for the noise.
        account: where the round is charged, before any noise is drawn; None without privacy.

    Raises:
        BudgetExceeded, LedgerError: the round could not be charged.
    """
    metadata = {"federation": federation, "round": str(round_), "client": client}
    metrics, difference = learned.metrics, learned.difference
    if account is not None:
        metadata[ENTRY] = account.charge()
        difference, statement = account.plan.release(difference, normals)
        metadata["privacy"] = json.dumps(statement | account.spent(), sort_keys=True)
        if learned.correct is not None:
            metrics = {"accuracy": account.accuracy(learned.correct, normals)}
    if metrics:
        metadata["metrics"] = json.dumps(metrics, sort_keys=True)
    # After the noise, which is drawn once for all names of a tensor: what is loaded last would undo the others.
    again = {name: difference[first] for name, first in learned.tied.items() if first in difference}
    return tensors.dump(_moved(tensors.load(model), {**difference, **again}), metadata)


def _moved(model: Mapping[str, NDArray[Any]], difference: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
    """Return the floating tensors of `model` plus `difference`, in the model's dtypes: rounded once, last."""
    floating = {name: tensor for name, tensor in model.items() if np.issubdtype(tensor.dtype, np.floating)}
    return {
        name: (tensor.astype(np.float64) + difference.get(name, 0.0)).astype(tensor.dtype)
        for name, tensor in floating.items()
    }
