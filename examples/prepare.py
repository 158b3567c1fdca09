"""From arrays to a federation's folder: settings, task, and each organisation's data in a file of its own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from examples.splits import Indices
from exchange.spec import NoPrivacy, Privacy, read_federation
from fedbucket.cli import main as fedbucket

Labels = NDArray[np.int64]
BASELINE = """
[baseline_train]
optimizer = "adam"
learning_rate = 0.01
batch_size = 16
"""


def privacy_options(epsilon: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives an example's command --epsilon, with this default, and --no-privacy."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command = click.option("--no-privacy", "epsilon", flag_value=None, type=float, help="No noise at all.")(command)
        said = "ε of each client's data: unit one example, added or removed; δ = 1e-5."
        return click.option("--epsilon", type=float, default=epsilon, show_default=True, help=said)(command)

    return decorate


@dataclass(frozen=True)
class Data:
    """Inputs, one row an example, and their classes."""

    inputs: NDArray[Any]
    targets: Labels

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, indices: Indices) -> "Data":
        """Return some of the examples."""
        return Data(self.inputs[indices], self.targets[indices])


def hold_out(data: Data, share: float, random: np.random.Generator) -> tuple[Data, Data]:
    """Return the examples shuffled and cut: (all but `share` of them, `share` of them)."""
    order = random.permutation(len(data.targets))
    cut = round(len(order) * share)
    return data.part(order[cut:]), data.part(order[:cut])


def federate(
    example: Path,
    out: Path,
    name: str,
    seed: int,
    epsilon: float | None,
    clients: dict[str, Data],
    test: Data,
    split: str,
    emulators: str | None = None,
) -> None:
    """Write the federation's folder to `out`/federation and run it, as `fedbucket run` does.

    Args:
        example: the folder with the example's task.py and its settings, which lack only the clients.
        epsilon: what each client grants on its data; None runs without privacy.
        clients: each client's training examples.
        test: examples that no client holds.
        split: how the examples were dealt out, in words.
        emulators: run across emulated clouds, with the parent in this one.
    """
    folder = out / "federation"
    (folder / "clients").mkdir(parents=True, exist_ok=True)
    shutil.copy(example / "task.py", folder / "task.py")
    (folder / "federation.toml").write_text(settings_toml(example, name, seed, epsilon, clients))
    write_data(folder / "data", clients, test)
    privacy = read_federation(folder / "federation.toml").privacy
    for client in clients:
        (folder / "clients" / f"{client}.toml").write_text(_client_toml(name, client, privacy))
    (folder / "local.toml").write_text(f'test = "data/test.npz"\nsplit = "{split}"\n{BASELINE}')
    across = [] if emulators is None else ["--emulators", emulators]
    fedbucket(["run", str(folder / "federation.toml"), "--out", str(out), *across])


def settings_toml(example: Path, name: str, seed: int, epsilon: float | None, clients: dict[str, Data]) -> str:
    """Return the federation.toml of the example in the folder `example` with these clients."""
    template = Template((example / ("without-privacy.toml" if epsilon is None else "federation.toml")).read_text())
    settings = template.substitute(name=name, seed=seed, epsilon=epsilon)
    for client, part in clients.items():
        settings += f'\n[[client]]\nid = "{client}"\nexamples = {len(part.targets)}\ninbox = "gs://{name}-{client}"\n'
    return settings


def write_data(folder: Path, clients: dict[str, Data], test: Data) -> None:
    """Write each client's examples to CLIENT.npz and the others to test.npz, as the examples' tasks read them."""
    folder.mkdir(parents=True, exist_ok=True)
    for client, part in clients.items():
        np.savez(folder / f"{client}.npz", train_inputs=part.inputs, train_targets=part.targets)
    np.savez(folder / "test.npz", test_inputs=test.inputs, test_targets=test.targets)


def _client_toml(name: str, client: str, privacy: Privacy) -> str:
    own = f'id = "{client}"\ndata = "../data/{client}.npz"\n'
    agreement = f'\n[[agreement]]\nfederation = "{name}"\ntask = "../task.py"\nmechanisms = ["{privacy.mechanism}"]\n'
    if isinstance(privacy, NoPrivacy):
        return own + agreement
    budget = (
        f'\n[budget]\nunit = "{privacy.unit}"\nadjacency = "{privacy.adjacency}"\n'
        f"epsilon = {privacy.epsilon}\ndelta = {privacy.delta}\n"
    )
    return own + budget + agreement + f"max_epsilon = {privacy.epsilon}\n"
