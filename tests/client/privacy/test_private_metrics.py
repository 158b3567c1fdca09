"""Metrics under privacy: with noise, from the same account; openly, if both sides agree; otherwise not at all."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from client.privacy.ledger import Ledger
from client.privacy.plan import make_plan
from client.training import count_correct
from client.update import Learned
from exchange import tensors
from exchange.errors import ConsentRefused, SettingsError, UnsupportedModel
from exchange.spec import FederationSettings
from tests.support.private import (
    EPSILON,
    LEDGER,
    MECHANISMS,
    PAIR,
    RELEASE,
    UPDATE,
    Private,
    agreed,
    gaussian_epsilon,
    outcome,
    real,
)
from tests.support.settings import client_settings
from tests.support.tasks import task
from tests.support.watched import Crash, CrashingStore, Killed, tolerated

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)

# Metrics.

DECLARED = 40  # validation examples
METRIC_Z = 20.0
ROSTER = [
    {"id": client, "examples": 100, "validation_examples": DECLARED, "inbox": f"gs://{client}"} for client in PAIR
]


def with_metrics(rounds: int = 2) -> FederationSettings:
    return agreed("example", rounds=rounds, metrics={"share": "noised", "noise_multiplier": METRIC_Z}, client=ROSTER)


def counting(federation: Private, correct: int) -> Private:
    federation.learning(Learned({"layer.bias": np.zeros(3)}, correct=correct))
    return federation


def test_a_noised_metric_is_paid_for_in_the_entry_of_its_round():
    federation = counting(Private(with_metrics()), 31).run()
    for client in PAIR:
        _, charges, _ = Ledger(federation.states[client], "data").read()
        assert [charge.round for charge in charges] == [0, 1]
        for round_, charge in enumerate(charges):
            z = federation.statement(client, round_)["noise_multiplier"]
            assert [event.noise_multiplier for event in charge.events] == [z, METRIC_Z]
            said = federation.statement(client, round_)
            assert said["epsilon_round"] == pytest.approx(gaussian_epsilon([z, METRIC_Z]), rel=1e-9)
        assert gaussian_epsilon([z, METRIC_Z] * 2) == pytest.approx(EPSILON, rel=1e-6)
        assert gaussian_epsilon([z, METRIC_Z] * 2) <= EPSILON


def test_a_noised_metric_is_the_number_of_correct_answers_and_the_noise_that_was_paid_for():
    federation = counting(Private(with_metrics()).opened(), 31)
    learned = federation.client("alder").learn
    federation.change = lambda client: replace(client, learn=learned, normals=np.ones)
    federation.train()
    metrics = json.loads(federation.update()[1]["metrics"])
    assert metrics == {"accuracy": pytest.approx((31 + METRIC_Z) / DECLARED, rel=1e-9)}
    plan = make_plan(with_metrics(), "alder")
    normals = np.random.default_rng(3).standard_normal
    noise = np.array([plan.release_accuracy(31, DECLARED, normals) for _ in range(4000)]) * DECLARED - 31
    assert abs(np.sum(noise**2) / METRIC_Z**2 - 4000) < 5 * math.sqrt(2 * 4000)
    assert abs(noise.mean()) < 5 * METRIC_Z / math.sqrt(4000)


def test_noised_metrics_reach_the_summary_of_their_round():
    federation = counting(Private(with_metrics()), 31).run()
    for round_ in range(2):
        shared = [json.loads(federation.update(client, round_)[1]["metrics"])["accuracy"] for client in PAIR]
        assert shared[0] != shared[1]
        assert federation.summary(round_).metrics["accuracy"] == pytest.approx(np.mean(shared))


@pytest.mark.parametrize("moment", [f"create {LEDGER}000001.json", f"create {RELEASE}", f"create {UPDATE}"])
def test_a_noised_metric_is_released_once_wherever_the_client_dies(moment: str):
    federation = counting(Private(with_metrics()).opened(), 31)
    plan = Crash(moment, "after", Killed)
    federation.watch = lambda store: CrashingStore(store, plan)
    with tolerated():
        federation.train()
    federation.train()
    assert plan.crashed
    assert federation.charges() == [("orchard", 0)]
    assert len(federation.uploads()[UPDATE]) == 1
    federation.assert_sound()


def test_the_accuracy_that_is_noised_is_that_of_the_global_model_over_the_declared_number(tmp_path: Path):
    federation = real(tmp_path, with_metrics())  # has five validation examples
    changed = federation.change
    federation.change = lambda client: replace(changed(client), normals=np.zeros)
    federation.train()
    model = tensors.load(federation.models[0])
    with np.load(tmp_path / "own.npz") as arrays:
        scores = arrays["validation_inputs"] @ model["weight"].T + model["bias"]
        correct = int(np.sum(scores.argmax(axis=1) == arrays["validation_targets"]))
    assert 0 < correct < 5
    assert json.loads(federation.update()[1]["metrics"]) == {"accuracy": pytest.approx(correct / DECLARED)}


def test_one_validation_row_moves_the_number_of_right_answers_by_one_whatever_the_model_does(tmp_path: Path):
    """A model that normalises by the batch, under no name that is refused: one row could turn all answers."""
    centred = """
    class Centred(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)
        def forward(self, x):
            return x + self.layer(x).sum() * 0 - x.mean(dim=0)

    def model():
        return Centred()
    """
    loaded = task(tmp_path, centred)
    rows = torch.tensor([[0.0, 1.0]] * 9 + [[0.0, -999.0]])
    counted = [
        count_correct(loaded, loaded.model(0), TensorDataset(rows[:n], torch.zeros(n).long()), "cpu") for n in (9, 10)
    ]
    assert abs(counted[1] - counted[0]) <= 1


ONE_OUTPUT = """
def model():
    return torch.nn.Linear(2, 1)

train_data = data
def data(source, split):
    rows = train_data(source, split)
    return TensorDataset(rows.tensors[0], (rows.tensors[1] == 0).float().unsqueeze(1))

def loss(output, target):
    return torch.nn.functional.binary_cross_entropy_with_logits(output, target)
"""
TWO_ANSWERS = """
class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 6)

    def forward(self, x):
        return self.layer(x).reshape(-1, 3, 2)

def model():
    return Twice()

train_data = data
def data(source, split):
    rows = train_data(source, split)
    return TensorDataset(rows.tensors[0], rows.tensors[1].unsqueeze(1).repeat(1, 2))
"""
NO_CLASSES = "def model(): return torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))"


@pytest.mark.parametrize(
    ("more", "shapes"),
    [
        (ONE_OUTPUT, r"\(5, 1\) and \(5, 1\)"),
        (TWO_ANSWERS, r"\(5, 3, 2\) and \(5, 2\)"),
        (NO_CLASSES, r"\(5,\) and"),
    ],
    ids=["a column of targets", "two answers an example", "one number an example"],
)
def test_answers_of_which_one_example_could_move_more_than_one_are_refused_before_anything_is_charged(
    tmp_path: Path, more: str, shapes: str
):
    federation = real(tmp_path, with_metrics(), more)
    with pytest.raises(UnsupportedModel, match=rf"task\.py: .* one class: expected .*, got {shapes}"):
        federation.train()
    assert federation.charges() == []
    assert federation.uploads() == {}


@every_mechanism
def test_metrics_that_are_not_shared_are_not_computed_and_not_sent(tmp_path: Path, mechanism: str):
    secret = """
    train_data = data
    def data(source, split):
        assert split == "train", "nobody asked for that"
        return train_data(source, split)
    def metrics(output, target):
        raise AssertionError("nobody asked for that")
    """
    federation = real(tmp_path, agreed(mechanism), secret)
    federation.train()
    assert federation.update()[1].keys() == {"federation", "round", "client", "ledger", "privacy"}


def test_open_metrics_are_sent_as_they_are_if_both_sides_agree():
    federation = Private(agreed("example", metrics={"share": "open"})).opened()
    federation.learning(Learned({"layer.bias": np.zeros(3)}, metrics={"accuracy": 0.775}))
    federation.train()
    assert json.loads(federation.update()[1]["metrics"]) == {"accuracy": 0.775}
    assert outcome(federation, "alder") == (None, "accepted")
    assert len(Ledger(federation.states["alder"], "data").read()[1][0].events) == 1


def test_open_metrics_that_the_client_did_not_agree_to_are_refused():
    settings = agreed("example", metrics={"share": "open"})
    federation = Private(settings).opened()
    own = client_settings("alder", settings, share_metrics=False)
    federation.change = lambda client: replace(client, settings=own)
    with pytest.raises(ConsentRefused, match=r"metrics.share is 'open', share_metrics is not agreed"):
        federation.train()
    assert federation.charges() == []
    assert federation.uploads() == {}


def test_metrics_that_the_federation_did_not_agree_to_are_rejected():
    federation = Private(agreed("example")).opened()
    federation.learning(Learned({"layer.bias": np.zeros(3)}, metrics={"accuracy": 0.775}))
    federation.train()
    assert outcome(federation, "alder") == ("metadata", "rejected")


@pytest.mark.parametrize("mechanism", ["client", "dp-sgd"])
def test_noised_metrics_are_refused_where_nothing_would_pay_for_them(mechanism: str):
    with pytest.raises(SettingsError, match=r'metrics.share: "noised" goes with'):
        agreed(mechanism, metrics={"share": "noised", "noise_multiplier": METRIC_Z}, client=ROSTER)
