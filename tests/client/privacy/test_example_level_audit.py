"""A whole federation, played against: can what it uploads tell whether one row was in the data?

The very path of production: a task, local training, the client's account, kept releases, receipts and averages. The
attacker knows all other rows, all models and all uploads, and takes the likelihood ratio of them all, which nothing
beats. Its arithmetic is NumPy's and its own.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator.rounds import start
from client.learn import LocalTraining, initial_model
from client.privacy import plan
from client.privacy.audit import AuditResult, audit
from exchange import tensors
from exchange.spec import FederationSettings
from tests.support.private import Private
from tests.support.settings import client_settings, federation_settings
from tests.support.tasks import task, write_task

ROUNDS, ROWS, RATE, CLIP = 5, 8, 2.0, 0.1
EPSILON, DELTA = 10.0, 1e-5  # of all rounds together: μ = 2, where an audit of few runs sees most
CANARY = np.array([3.0, -3.0], np.float32), 1  # far out and in no class of its own: its gradient is always clipped


def rows(canary_present: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(4)
    inputs = generator.standard_normal((ROWS - 1, 2)).astype(np.float32)
    targets = generator.integers(3, size=ROWS - 1)
    if canary_present:
        return np.vstack([inputs, CANARY[0]]), np.append(targets, CANARY[1])
    return inputs, targets


def step(model: dict[str, NDArray[np.float32]], inputs: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray:
    """Return −η/n Σ clip(∇ℓ_i, C) of softmax regression at `model`, flat."""
    scores = inputs @ model["weight"].T.astype(np.float64) + model["bias"]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    residuals = shares / shares.sum(axis=1, keepdims=True) - np.eye(3)[targets]
    gradients = np.einsum("no,ni->noi", residuals, np.column_stack([inputs, np.ones(len(inputs))])).reshape(-1, 9)
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    return -RATE / ROWS * (gradients * np.minimum(1, CLIP / norms)).sum(axis=0)


def flat(model: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.column_stack([model["weight"], model["bias"]]).astype(np.float64).ravel()


def settings() -> FederationSettings:
    return federation_settings(
        ("alder",),
        rounds=ROUNDS,
        quorum=1,
        train={"learning_rate": RATE},
        privacy={
            "mechanism": "ornstein-uhlenbeck",
            "unit": "example",
            "epsilon": EPSILON,
            "delta": DELTA,
            "clip_norm": CLIP,
        },
        client=[{"id": "alder", "examples": ROWS, "inbox": "gs://alder"}],
    )


def game(folder: Path, seed: int) -> Callable[[bool], float]:
    """Return the score of one run, in which the canary is there or not."""
    write_task(folder)
    agreed, generator = settings(), np.random.default_rng(seed)
    first = initial_model(task(folder), agreed)
    learns = {}
    for present in (False, True):
        inputs, targets = rows(present)
        np.savez(folder / f"{present}.npz", train_inputs=inputs, train_targets=targets)
        own = client_settings("alder", agreed).model_copy(update={"data": f"{present}.npz"})
        learns[present] = LocalTraining(own, folder, generator.standard_normal, generator.random)

    def play(canary_present: bool) -> float:
        federation = Private(agreed)
        federation.change = lambda client: replace(
            client, learn=learns[canary_present], normals=generator.standard_normal
        )
        start(federation.parent_bucket, agreed, first)
        return score(federation.run())

    return play


def score(federation: Private) -> float:
    """Return the log likelihood ratio of all that was uploaded, but for constants."""
    others, total = rows(canary_present=False), 0.0
    models = [tensors.load(model) for model in federation.models]
    for round_, model in enumerate(models[:-1]):
        canary = step(model, CANARY[0][None], np.array([CANARY[1]]))
        assert np.linalg.norm(canary) == pytest.approx(RATE * CLIP / ROWS)
        expected = flat(model) + step(model, *others) + canary / 2  # half way between the worlds
        total += float((flat(federation.update("alder", round_)[0]) - expected) @ canary)
    assert federation.statement("alder", ROUNDS - 1)["epsilon_federation"] == pytest.approx(EPSILON, rel=1e-6)
    return total


def assert_honest(found: AuditResult, least: float) -> None:
    assert least * EPSILON < found.epsilon <= EPSILON, found


def test_a_federation_is_audited_below_what_it_claims(tmp_path: Path):
    assert_honest(audit(game(tmp_path, seed=1), trials=120, delta=DELTA), least=0.2)


def test_a_sensitivity_half_as_large_as_it_is_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = plan.one_step_sensitivity
    monkeypatch.setattr(plan, "one_step_sensitivity", lambda *arguments: right(*arguments) / 2)
    assert audit(game(tmp_path, seed=2), trials=120, delta=DELTA).epsilon > EPSILON


@pytest.mark.slow
def test_a_federation_is_audited_just_below_what_it_claims(tmp_path: Path):
    assert_honest(audit(game(tmp_path, seed=3), trials=1500, delta=DELTA), least=0.75)
