"""Weights by precision: as the formula has them, from the settings' noise, whatever an update claims."""

from typing import Any

import numpy as np
import pytest

from aggregator.precision import noise_sd, weights
from client.privacy.plan import OuPlan, make_plan
from exchange import tensors
from exchange.records import StoredUpdate
from exchange.spec import FederationSettings
from tests.support.arithmetic import FIRST, update_file
from tests.support.federation import Federation
from tests.support.settings import CLIENTS, EXAMPLES, PRIVATE, federation_settings

BY_PRECISION = {"name": "fedavg", "weights": "precision"}
EXAMPLE = PRIVATE | {"unit": "example"}
NOISED = {"share": "noised", "noise_multiplier": 50.0}
ENTRIES = [{"id": client, "examples": count, "validation_examples": 10} for client, count in EXAMPLES.items()]


def settings_of(privacy: dict[str, Any], **sections: Any) -> FederationSettings:
    return federation_settings(strategy=BY_PRECISION, privacy=privacy, **sections)


CASES = [
    {"privacy": PRIVATE},
    {"privacy": PRIVATE | {"epsilon": 0.5, "delta": 1e-9, "clip_norm": 3.0}, "rounds": 200},
    {"privacy": EXAMPLE},
    {"privacy": EXAMPLE | {"epsilon": 600.0}},
    {"privacy": EXAMPLE | {"adjacency": "replace-one", "epsilon": 1.0}},
    {"privacy": EXAMPLE, "metrics": NOISED, "client": ENTRIES},
    {"privacy": EXAMPLE | {"clip_norm": 0.5}, "train": {"learning_rate": 0.25}, "rounds": 40},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("client", CLIENTS)
def test_the_noise_is_that_which_a_client_adds(case: dict[str, Any], client: str):
    settings = settings_of(**case)
    plan = make_plan(settings, client)
    assert isinstance(plan, OuPlan)
    assert noise_sd(settings, EXAMPLES[client]) == pytest.approx(plan.noise_sd(10), rel=1e-6)


def test_the_noise_after_several_local_steps_is_that_which_a_client_adds():
    settings = settings_of(EXAMPLE, train={"learning_rate": 0.25, "local_epochs": 3})
    plan = make_plan(settings, "birch")
    assert isinstance(plan, OuPlan)
    assert noise_sd(settings, EXAMPLES["birch"]) == pytest.approx(plan.noise_sd(10), rel=1e-6)


def stored(client: str, norm: float) -> StoredUpdate:
    return StoredUpdate(
        client=client, key="k", version="1", size=1, sha256="0" * 64, num_examples=EXAMPLES[client], norm=norm
    )


def test_weights_by_hand_where_the_noise_explains_all_that_is_seen():
    # Unit "example": s ∝ 1/n, so that without heterogeneity w ∝ n²; 7² of 100² is .0049, of 2²⁰ 5,138.
    members = [stored(client, 1.0) for client in CLIENTS]
    found = weights(settings_of(EXAMPLE), members, moved=1.0, elements=10)
    assert found == [2**20, 2**18, round(2**20 * 0.0049)]


def test_weights_by_hand_where_clients_differ_far_more_than_their_noise():
    # w ∝ n.
    members = [stored(client, 1e6) for client in CLIENTS]
    assert weights(settings_of(EXAMPLE), members, moved=0.0, elements=10) == [2**20, 2**19, round(2**20 * 0.07)]


def test_the_noise_of_clients_as_a_unit_is_the_same_for_all():
    members = [stored(client, 1.0) for client in CLIENTS]
    assert weights(settings_of(PRIVATE), members, moved=1.0, elements=10) == [2**20] * 3


def test_one_update_is_all_there_is():
    assert weights(settings_of(EXAMPLE), [stored("birch", 5.0)], moved=5.0, elements=10) == [2**20]


@pytest.mark.parametrize("norms", [(1.3e154, 1.0, 1.0), (1.3e154, 1.3e154, 1.0)], ids=["one liar", "two liars"])
def test_norms_whose_squares_no_float_holds_leave_everybody_a_weight(norms: tuple[float, ...]):
    members = [stored(client, norm) for client, norm in zip(CLIENTS, norms, strict=True)]
    assert weights(settings_of(EXAMPLE), members, moved=0.0, elements=1) == [2**20, 2**19, round(2**20 * 0.07)]


def test_heterogeneity_is_found_again():
    settings, elements, tau = settings_of(EXAMPLE), 200_000, 7.0
    generator = np.random.default_rng(0)
    noise = [noise_sd(settings, EXAMPLES[client]) for client in CLIENTS]
    releases = [
        3.0 + generator.standard_normal(elements) * np.sqrt(tau**2 / EXAMPLES[client] + sd**2)
        for client, sd in zip(CLIENTS, noise, strict=True)
    ]
    members = [stored(client, float(np.linalg.norm(u))) for client, u in zip(CLIENTS, releases, strict=True)]
    found = weights(settings, members, float(np.linalg.norm(np.mean(releases, axis=0))), elements)
    precisions = np.array([1 / (tau**2 / EXAMPLES[c] + sd**2) for c, sd in zip(CLIENTS, noise, strict=True)])
    assert np.array(found) / 2**20 == pytest.approx(precisions / precisions.max(), rel=0.02)


def test_a_run_is_averaged_by_precision_and_a_claim_of_less_noise_buys_no_weight():
    federation = Federation(settings_of(EXAMPLE, rounds=1)).start()
    federation.deliver_all()
    honest = tensors.load(federation.models[-1])
    updates = federation.folder("updates/")
    members = [federation.cohort(0).members[place] for place in range(3)]
    mean = [
        np.mean([tensors.load(data)[name] for data in updates.values()], axis=0) for name in honest if name != "steps"
    ]
    old = [FIRST[name] for name in honest if name != "steps"]
    moved = float(np.sqrt(sum(np.sum((a.astype(np.float64) - b) ** 2) for a, b in zip(mean, old, strict=True))))
    counted = weights(federation.settings, members, moved, elements=9)
    for name in ("layer.weight", "layer.bias"):
        parts = [tensors.load(data)[name].astype(np.float64) for data in updates.values()]
        expected = sum(part * count for part, count in zip(parts, counted, strict=True)) / sum(counted)
        assert np.allclose(honest[name], expected, rtol=1e-6)

    again = Federation(settings_of(EXAMPLE, rounds=1)).start()
    for client, data in zip(CLIENTS, updates.values(), strict=True):
        layout = tensors.layout_of(data)
        claim = layout.metadata["privacy"]
        claimed = claim.replace('"noise_multiplier": ', '"noise_multiplier": 0.000001, "claimed": ')
        assert claimed != claim
        arrays = {name: tensors.load(data)[name] for name in ("layer.weight", "layer.bias")}
        again.instead[(client, 0)] = lambda client=client, arrays=arrays, claimed=claimed: again.upload(
            client, 0, update_file(arrays, client, 0, privacy=claimed)
        )
    again.deliver_all()
    assert tensors.load(again.models[-1])["layer.bias"].tobytes() == honest["layer.bias"].tobytes()
