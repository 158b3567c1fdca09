"""From arrays to a federation's folder: settings, task, and each organisation's data in a file of its own."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.splits import Indices


@dataclass(frozen=True)
class Data:
    """Inputs, one row an example, and their targets."""

    inputs: NDArray[Any]
    targets: NDArray[Any]

    def part(self, indices: Indices) -> "Data":
        """Return some of the examples."""
        return Data(self.inputs[indices], self.targets[indices])


def hold_out(data: Data, share: float, random: np.random.Generator) -> tuple[Data, Data]:
    """Return the examples shuffled and cut: (all but `share` of them, `share` of them)."""
    order = random.permutation(len(data.targets))
    cut = round(len(order) * share)
    return data.part(order[cut:]), data.part(order[:cut])


def write_federation(
    example: Path, folder: Path, name: str, seed: int, parts: dict[str, Data], test: Data, split: str
) -> Path:
    """Write the folder of a federation and return the path of its federation.toml.

    Args:
        example: the folder with the example's task.py and federation.toml; the latter lacks only the clients.
        parts: each client's training examples.
        test: examples that no client holds.
        split: how the examples were dealt out, in words.
    """
    for sub in ("clients", "data"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    shutil.copy(example / "task.py", folder / "task.py")
    settings = Template((example / "federation.toml").read_text()).substitute(name=name, seed=seed)
    for client, part in parts.items():
        settings += f'\n[[client]]\nid = "{client}"\nexamples = {len(part.targets)}\ninbox = "gs://{name}-{client}"\n'
        np.savez(folder / "data" / f"{client}.npz", train_inputs=part.inputs, train_targets=part.targets)
        (folder / "clients" / f"{client}.toml").write_text(_client_toml(name, client))
    np.savez(folder / "data" / "test.npz", test_inputs=test.inputs, test_targets=test.targets)
    (folder / "local.toml").write_text(f'test = "data/test.npz"\nsplit = "{split}"\n')
    (folder / "federation.toml").write_text(settings)
    return folder / "federation.toml"


def _client_toml(name: str, client: str) -> str:
    return f'id = "{client}"\ndata = "data/{client}.npz"\n\n[[agreement]]\nfederation = "{name}"\ntask = "task.py"\n'
