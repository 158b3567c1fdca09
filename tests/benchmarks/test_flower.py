"""Our strategies against Flower's own implementations, on the same numbers. Flower is installed for it: slow."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.environments import flower_python
from exchange import keys, tensors
from exchange.spec import FederationSettings
from tests.support.arithmetic import model_file, update_file
from tests.support.federation import Federation
from tests.support.settings import federation_settings

ROOT = Path(__file__).parents[2]
CLIENTS = tuple(f"client-{number}" for number in range(9))
ROUNDS, ELEMENTS = 4, 500
ADAPTIVE = {"learning_rate": 0.3, "beta_1": 0.8, "tau": 0.05}
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {"name": "fedavg"},
    "median": {"name": "median"},
    "trimmed-mean": {"name": "trimmed-mean", "byzantine": 2},
    "multi-krum": {"name": "multi-krum", "byzantine": 2},
    "krum": {"name": "multi-krum", "byzantine": 2, "select": 1},
    "fedavgm": {"name": "fedavgm", "learning_rate": 0.3, "momentum": 0.8},
    "fedadagrad": {"name": "fedadagrad"} | ADAPTIVE,
    "fedadam": {"name": "fedadam", "beta_2": 0.9} | ADAPTIVE,
    "fedyogi": {"name": "fedyogi", "beta_2": 0.9} | ADAPTIVE,
}


def settings_of(strategy: dict[str, Any]) -> FederationSettings:
    entries = [{"id": client, "examples": 100 + 7 * number} for number, client in enumerate(CLIENTS)]
    return federation_settings(CLIENTS, rounds=ROUNDS, quorum=len(CLIENTS), strategy=strategy, client=entries)


def models_of(strategy: dict[str, Any], model: NDArray[np.float32], updates: NDArray[np.float32]) -> list[Any]:
    """Return the models after each round in which the clients send these updates."""
    federation = Federation(settings_of(strategy))
    federation.parent_bucket.create("orchard/public/federation.json", federation.settings.to_bytes())
    federation.parent_bucket.create(str(keys.Model("orchard", 0)), model_file(federation.settings, 0, {"w": model}))
    for round_ in range(ROUNDS):
        federation.events.clear()
        for client, row in zip(CLIENTS, updates[round_], strict=True):
            federation.upload(client, round_, update_file({"w": row}, client, round_))
        federation.sweep_parent()
    return [tensors.load(data)["w"] for data in federation.models[1:]]


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    generator = np.random.default_rng(7)
    updates = generator.standard_normal((ROUNDS, len(CLIENTS), ELEMENTS)).astype(np.float32)
    updates[:, 4] += 3
    return {
        "model": generator.standard_normal(ELEMENTS).astype(np.float32),
        "updates": updates,
        "examples": np.array([100 + 7 * number for number in range(len(CLIENTS))]),
    }


@pytest.fixture(scope="module")
def flowers(numbers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("flower")
    np.savez(folder / "in.npz", **numbers)
    python = flower_python(ROOT / ".cache" / "benchmarks")
    command = [python, "-m", "benchmarks.flower_rules", folder / "in.npz", folder / "out.npz"]
    subprocess.run(command, cwd=ROOT, check=True)
    with np.load(folder / "out.npz") as found:
        return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_makes_the_models_that_flowers_makes(
    name: str, numbers: dict[str, Any], flowers: dict[str, Any]
) -> None:
    ours = models_of(STRATEGIES[name], numbers["model"], numbers["updates"])
    for mine, theirs in zip(ours, flowers[name], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)  # theirs adds up in float32
