"""From arrays to a federation's folder: settings, task, and each organisation's data in a file of its own."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.splits import Indices
from fedbucket.cli import main as fedbucket

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Inputs, one row an example, and their classes."""

    inputs: NDArray[Any]
    targets: Labels

    def part(self, indices: Indices) -> "Data":
        """Return some of the examples."""
        return Data(self.inputs[indices], self.targets[indices])


def hold_out(data: Data, share: float, random: np.random.Generator) -> tuple[Data, Data]:
    """Return the examples shuffled and cut: (all but `share` of them, `share` of them)."""
    order = random.permutation(len(data.targets))
    cut = round(len(order) * share)
    return data.part(order[cut:]), data.part(order[:cut])


def federate(example: Path, out: Path, name: str, seed: int, clients: dict[str, Data], test: Data, split: str) -> None:
    """Write the federation's folder to `out`/federation and run it, as `fedbucket run` does.

    Args:
        example: the folder with the example's task.py and federation.toml; the latter lacks only the clients.
        clients: each client's training examples.
        test: examples that no client holds.
        split: how the examples were dealt out, in words.
    """
    folder = out / "federation"
    for sub in ("clients", "data"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    shutil.copy(example / "task.py", folder / "task.py")
    settings = Template((example / "federation.toml").read_text()).substitute(name=name, seed=seed)
    for client, part in clients.items():
        settings += f'\n[[client]]\nid = "{client}"\nexamples = {len(part.targets)}\ninbox = "gs://{name}-{client}"\n'
        (folder / "clients" / f"{client}.toml").write_text(_client_toml(name, client))
        np.savez(folder / "data" / f"{client}.npz", train_inputs=part.inputs, train_targets=part.targets)
    np.savez(folder / "data" / "test.npz", test_inputs=test.inputs, test_targets=test.targets)
    (folder / "local.toml").write_text(f'test = "data/test.npz"\nsplit = "{split}"\n')
    (folder / "federation.toml").write_text(settings)
    fedbucket(["run", str(folder / "federation.toml"), "--out", str(out)])


def _client_toml(name: str, client: str) -> str:
    return f'id = "{client}"\ndata = "../data/{client}.npz"\n\n[[agreement]]\nfederation = "{name}"\ntask = "../task.py"\n'
