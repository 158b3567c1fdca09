"""What federation is measured against: training on all data in one place, to the end."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils.data import TensorDataset

from client.baseline import train_to_convergence
from client.learn import initial_model
from client.task import Task
from client.weights import model_file
from exchange.spec import TrainSettings
from tests.support.settings import federation_settings
from tests.support.tasks import task

LOSS = "def loss(output, target): return ((output - target) ** 2).mean()"
SEED = 4
MODEL = "def model(): return torch.nn.Linear(2, 1)"


@pytest.fixture
def squares(tmp_path: Path) -> Task:
    return task(tmp_path, MODEL, LOSS)


def rows(seed: int, count: int) -> TensorDataset:
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((count, 2)).astype(np.float32)
    targets = (inputs @ [[1.0], [-2.0]] + 0.5 + 0.1 * generator.standard_normal((count, 1))).astype(np.float32)
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets))


def least_squares(*datasets: TensorDataset) -> np.ndarray:
    inputs = np.concatenate([dataset.tensors[0].numpy() for dataset in datasets]).astype(np.float64)
    targets = np.concatenate([dataset.tensors[1].numpy() for dataset in datasets])[:, 0]
    return np.linalg.lstsq(np.column_stack([inputs, np.ones(len(inputs))]), targets, rcond=None)[0]


def weights(module: torch.nn.Module) -> np.ndarray:
    return np.append(module.weight.detach().numpy().ravel(), module.bias.detach().numpy())


def test_it_finds_the_best_weights_for_all_data_together(squares: Task):
    settings = TrainSettings(learning_rate=0.2)
    parts = [rows(1, 40), rows(2, 10), rows(3, 25)]
    found = weights(train_to_convergence(squares, parts, settings, SEED, "cpu"))
    assert found == pytest.approx(least_squares(*parts), abs=0.02)
    alone = weights(train_to_convergence(squares, parts[:1], settings, SEED, "cpu"))
    assert alone == pytest.approx(least_squares(parts[0]), abs=0.02)


def test_the_pull_of_a_federation_does_not_hold_it_back(squares: Task):
    plain = TrainSettings(learning_rate=0.2)
    pulled = TrainSettings(learning_rate=0.2, proximal_mu=5.0)
    first, second = (
        train_to_convergence(squares, [rows(1, 40)], settings, SEED, "cpu") for settings in (plain, pulled)
    )
    assert np.array_equal(weights(first), weights(second))


def test_it_is_the_same_every_time(squares: Task):
    settings = TrainSettings(learning_rate=0.1, batch_size=7)
    first, second = (
        model_file(train_to_convergence(squares, [rows(1, 20)], settings, SEED, "cpu"), {}) for _ in range(2)
    )
    assert first == second


def test_of_a_training_that_diverges_finite_weights_are_left(squares: Task):
    settings = TrainSettings(learning_rate=1e9)
    found = train_to_convergence(squares, [rows(1, 20)], settings, SEED, "cpu")
    first = safetensors.torch.load(initial_model(squares, federation_settings(train={"seed": SEED})))
    assert np.array_equal(found.weight.detach().numpy(), first["weight"].numpy())
