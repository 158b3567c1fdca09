"""Strategies in whole runs: each makes the models that its paper says, whatever happens, and leaves what it remembers
as objects that are written once."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from aggregator.inspection import verify
from aggregator.mean import mean_of
from aggregator.server_optimizers import Optimizer
from aggregator.stripes import Rule, discard, write_data
from exchange import keys, tensors
from exchange.blocks import Piece
from exchange.errors import CohortUnreadable
from exchange.spec import FedAvgM, FederationSettings
from exchange.stores import exists
from exchange.stores.memory import MemoryStore
from tests.aggregator.test_inspection import copied
from tests.aggregator.test_races import Act, race, receipt_event, schedules
from tests.support.arithmetic import FIRST, Arrays, file_of, trained
from tests.support.buckets import contents
from tests.support.federation import Federation
from tests.support.settings import EXAMPLES, federation_settings
from tests.support.watched import Crash, CrashingStore, Killed
from tests.support.weights import opened

FIVE = ("alder", "birch", "cedar", "dogwood", "elder")
ETA, BETA_1, BETA_2, TAU = 0.3, 0.8, 0.9, 0.05

Moments = dict[str, list[np.ndarray[Any, Any]]]


def weighted(members: Sequence[tuple[Arrays, int]], name: str) -> np.ndarray[Any, Any]:
    total = sum(weights[name].astype(np.float64) * count for weights, count in members)
    return np.asarray(total / sum(count for _, count in members))


def adaptive(second: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Reddi et al. 2021, algorithm 2, lines 11 to 13."""

    def step(delta: Any, m: Any, v: Any) -> Any:
        m = BETA_1 * m + (1 - BETA_1) * delta
        v = second(v, delta**2)
        return ETA * m / (np.sqrt(v) + TAU), m, v

    return step


ADAPTIVE = {"learning_rate": ETA, "beta_1": BETA_1, "tau": TAU}
SERVER: dict[str, tuple[dict[str, Any], Callable[..., Any], float]] = {
    "fedavgm": (
        {"learning_rate": ETA, "momentum": BETA_1},
        lambda delta, m, v: (ETA * (BETA_1 * m + delta), BETA_1 * m + delta, v),
        0.0,
    ),
    "fedadagrad": (ADAPTIVE, adaptive(lambda v, square: v + square), TAU**2),
    "fedadam": (
        ADAPTIVE | {"beta_2": BETA_2},
        adaptive(lambda v, square: BETA_2 * v + (1 - BETA_2) * square),
        TAU**2,
    ),
    "fedyogi": (
        ADAPTIVE | {"beta_2": BETA_2},
        adaptive(lambda v, square: v - (1 - BETA_2) * square * np.sign(v - square)),
        TAU**2,
    ),
}


def settings_of(name: str, clients: Sequence[str] = FIVE[:2], rounds: int = 3, **more: Any) -> FederationSettings:
    strategy = {"name": name} | (SERVER[name][0] if name in SERVER else {})
    return federation_settings(clients, rounds=rounds, quorum=len(clients), strategy=strategy | more)


def examples(client: str) -> int:
    return EXAMPLES.get(client, 10)


def expected_models(name: str, cohorts: Sequence[Sequence[str]]) -> list[Arrays]:
    """Return the models that an optimizer makes, by its formulas; none in a cohort keeps model and moments."""
    _, step, first = SERVER[name]
    model, models = FIRST, [FIRST]
    kept: Moments = {
        key: [np.zeros(array.shape), np.full(array.shape, first)] for key, array in FIRST.items() if key != "steps"
    }
    for round_, clients in enumerate(cohorts):
        members = [(trained(model, client, round_), examples(client)) for client in clients]
        after: dict[str, Any] = dict(model)
        for key, (m, v) in kept.items() if members else ():
            moved, m, v = step(weighted(members, key) - model[key], m, v)
            kept[key] = [part.astype(np.float32).astype(np.float64) for part in (m, v)]
            after[key] = (model[key] + moved).astype(np.float32)
        model = after
        models.append(model)
    return models


def assert_models(federation: Federation, expected: Sequence[Arrays]) -> None:
    assert len(federation.models) == len(expected)
    for data, arrays in zip(federation.models, expected, strict=True):
        found = tensors.load(data)
        for name, array in arrays.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", SERVER)
def test_a_server_optimizer_takes_the_steps_of_its_paper(name: str):
    federation = Federation(settings_of(name)).run()
    assert_models(federation, expected_models(name, [FIVE[:2]] * 3))
    assert [verdict.verdict for verdict in verify(federation.parent_bucket, "orchard")] == ["good"] * 3


def test_fedadam_by_hand():
    # One element at 1, one update at 3: Δ = 2, m = .2·2 = .4, v = .9·.0025 + .1·4 = .40225,
    # x = 1 + .3·.4/(√.40225 + .05) = 1.175389…
    strategy = settings_of("fedadam").strategy
    model = opened(file_of({"w": np.array([1.0])}, {}))
    optimizer = Optimizer(strategy, model, None)
    new, state = optimizer.step([Piece("w", 0, 1)], np.array([1.0]), np.array([3.0]))
    assert new == pytest.approx([1 + 0.3 * 0.4 / (0.40225**0.5 + 0.05)], rel=1e-15)
    assert np.frombuffer(state) == pytest.approx([0.4, 0.40225], rel=1e-15)


@pytest.mark.parametrize("name", SERVER)
def test_what_an_optimizer_remembers_lies_beside_the_round(name: str):
    federation = Federation(settings_of(name)).run()
    for round_ in range(3):
        state = federation.folder(f"rounds/{round_:06d}/optimizer")
        ((key, data),) = state.items()
        assert key == f"orchard/rounds/{round_:06d}/optimizer.safetensors"
        layout, kinds = tensors.layout_of(data), 1 if name == "fedavgm" else 2
        assert layout.metadata == {"federation": "orchard", "round": str(round_)}
        assert {tensor.name: tensor.shape for tensor in layout.tensors.values()} == {
            "layer.weight": (2, 3, kinds),
            "layer.bias": (3, kinds),
        }


def test_strategies_without_memory_leave_nothing_more():
    for name in ("fedavg", "median"):
        assert Federation(settings_of(name)).run().folder("rounds/000000/optimizer") == {}


@pytest.mark.parametrize("name", SERVER)
def test_void_rounds_leave_model_and_memory_as_they_were(name: str):
    federation = Federation(settings_of(name, rounds=5))
    for round_ in (1, 2):
        federation.instead[("birch", round_)] = lambda round_=round_: federation.upload("birch", round_, None)
    federation.run()
    assert [federation.summary(round_).void_rounds for round_ in range(5)] == [0, 1, 2, 0, 0]
    assert_models(federation, expected_models(name, [FIVE[:2], [], [], FIVE[:2], FIVE[:2]]))
    assert federation.folder("rounds/000001/optimizer") == {}
    assert [verdict.verdict for verdict in verify(federation.parent_bucket, "orchard")] == ["good"] * 5


def test_the_tolerance_looks_at_the_step_that_is_taken():
    settings = federation_settings(
        FIVE[:2], rounds=3, strategy={"name": "fedavgm", "learning_rate": 1e-6}, stop={"tolerance": 1e-3}
    )
    federation = Federation(settings).run()
    assert federation.ending().reason == "tolerance"
    assert federation.ending().round == 1


def test_the_state_of_an_optimizer_is_in_the_order_of_the_model_and_as_wide_as_need_be():
    model = opened(
        file_of(
            {"a": np.zeros(3, np.float16), "b": np.zeros((2, 2)), "c": np.zeros(2, np.float32), "n": np.zeros(1, int)},
            {},
        )
    )
    layout = tensors.read_layout(
        lambda offset, count: header[offset : offset + count],
        tensors.size_of(header := Optimizer(settings_of("fedadam").strategy, model, None).header({})),
    )
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in layout.tensors.values()] == [
        ("b", "F64", (2, 2, 2)),
        ("c", "F32", (2, 2)),
        ("a", "F32", (3, 2)),
    ]


def test_a_step_out_of_the_models_range_ends_at_its_edge():
    federation = Federation(settings_of("fedavgm", learning_rate=1e300)).run()
    last = tensors.load(federation.models[-1])
    assert all(np.isfinite(array).all() for array in last.values())
    assert federation.ending().reason == "rounds"


# Whatever happens.


ROBUST = [
    {"name": "median"},
    {"name": "trimmed-mean", "byzantine": 1},
    {"name": "multi-krum", "byzantine": 1},
    {"name": "multi-krum", "byzantine": 1, "select": 1, "weights": "examples"},
]


def test_a_crash_at_any_call_of_a_run_with_memory_changes_nothing():
    settings = settings_of("fedyogi", rounds=2)
    undisturbed = Federation(settings).run()
    plan = Crash()
    counted = Federation(settings).start()
    counted.watch = lambda store: CrashingStore(store, plan)
    counted.run()
    assert any(call == "commit orchard/rounds/000001/optimizer.safetensors" for call in plan.calls)
    for when in ("before", "after"):
        for at in range(0, len(plan.calls)):
            crash = Crash(at, when, Killed)
            federation = Federation(settings).start()
            federation.watch = lambda store, crash=crash: CrashingStore(store, crash)
            federation.run()
            federation.watch = lambda store: store
            assert federation.models == undisturbed.models, plan.calls[at]
            assert federation.folder("rounds/000001/optimizer") == undisturbed.folder("rounds/000001/optimizer")


PAIR = ("alder", "birch")


def ready(settings: FederationSettings) -> Federation:
    """Return a federation with a frozen cohort whose maker is dead."""
    federation = Federation(settings).start()
    federation.deliver_until(keys.Receipt("orchard", 0, "alder"))
    federation.events.clear()
    crash = Crash("create orchard/rounds/000000/cohort.json", "after", Killed)
    federation.watch = lambda store: CrashingStore(store, crash)
    with pytest.raises(Killed):
        federation.deliver(receipt_event("alder"))
    federation.watch = lambda store: store
    federation.clock.advance(1000)
    return federation


def aggregate(client: str) -> Act:
    return lambda federation: federation.deliver(receipt_event(client))


def test_two_functions_that_aggregate_at_once_write_one_state_and_one_model():
    prepare = partial(ready, settings_of("fedadam", PAIR, rounds=1))
    alone = prepare()
    alone.deliver(receipt_event("alder"))
    for choose in schedules(prepare, aggregate("alder"), aggregate("birch")):
        federation = race(prepare, aggregate("alder"), aggregate("birch"), choose)
        assert federation.models == alone.models
        assert federation.folder("rounds/") == alone.folder("rounds/")


@pytest.mark.parametrize("at", [-1, 20, 8])
def test_a_byte_changed_in_what_an_optimizer_remembers_is_found(at: int):
    federation = Federation(settings_of("fedadam")).run()
    key = "orchard/rounds/000001/optimizer.safetensors"
    data = bytearray(federation.parent_bucket.read(key))
    data[at] ^= 1
    federation.parent_bucket.replace(key, bytes(data))
    found = list(verify(federation.parent_bucket, "orchard"))
    assert [verdict.verdict for verdict in found][:2] == ["good", "bad"]
    assert "optimizer" in found[1].detail


def test_a_memory_that_is_gone_is_an_error_and_no_fresh_start():
    federation = Federation(settings_of("fedadam")).start()
    federation.deliver_until(keys.Model("orchard", 1))
    state = "orchard/rounds/000000/optimizer.safetensors"
    federation.parent_bucket = copied(federation, without=state)
    federation.sweep_client("alder")
    federation.sweep_client("birch")
    with pytest.raises(ExceptionGroup) as caught:
        federation.sweep_parent()
    assert caught.group_contains(CohortUnreadable, match=state)
    assert not exists(federation.parent_bucket, "orchard/public/models/000002.safetensors")


# Robust rules in whole runs.


@pytest.mark.parametrize("strategy", ROBUST, ids=str)
def test_a_robust_rule_holds_a_liar_back_for_a_whole_run(strategy: dict[str, Any]):
    settings = federation_settings(FIVE, rounds=3, quorum=5, strategy=strategy)
    federation = Federation(settings)
    for round_ in range(3):
        federation.instead[("cedar", round_)] = lambda round_=round_: lie(federation, round_)
    federation.run()
    for data in federation.models[1:]:
        assert all(np.abs(array).max() < 20 for array in tensors.load(data).values())
    assert [verdict.verdict for verdict in verify(federation.parent_bucket, "orchard", 2)] == ["good"] * 3
    again = Federation(settings)
    again.instead = {key: partial(lie, again, key[1]) for key in federation.instead}
    assert again.run().models == federation.models


def lie(federation: Federation, round_: int) -> None:
    weights = {name: np.full(array.shape, 1e6, np.float32) for name, array in FIRST.items() if name != "steps"}
    metadata = {"federation": "orchard", "round": str(round_), "client": "cedar"}
    federation.upload("cedar", round_, file_of(weights, metadata))


def test_those_whom_krum_leaves_out_are_named_and_told():
    settings = federation_settings(FIVE, rounds=2, quorum=5, strategy={"name": "multi-krum", "byzantine": 1})
    federation = Federation(settings)
    federation.instead[("cedar", 0)] = lambda: lie(federation, 0)
    federation.run()
    summary = federation.summary(0)
    assert summary.left_out == ("cedar",)
    assert summary.averaged == ("alder", "birch", "dogwood", "elder")
    assert set(summary.norms) == set(FIVE)
    assert [ticket.last for ticket in federation.tickets("cedar")][:2] == [None, "left out"]
    assert [ticket.last for ticket in federation.tickets("alder")][:2] == [None, "averaged"]
    expected = {
        name: weighted([(trained(FIRST, client, 0), 1) for client in summary.averaged], name)
        for name in ("layer.weight", "layer.bias")
    }
    for name, array in expected.items():
        assert np.array_equal(tensors.load(federation.models[1])[name], array.astype(np.float32))


def test_uniform_weights_ignore_how_many_examples_a_client_declares():
    federation = Federation(settings_of("fedavg", rounds=1, weights="uniform")).run()
    members = [(trained(FIRST, client, 0), 1) for client in PAIR]
    found = tensors.load(federation.models[1])
    assert np.array_equal(found["layer.bias"], weighted(members, "layer.bias").astype(np.float32))


def test_nothing_but_the_state_is_added_to_the_bucket():
    plain, state = (
        contents(Federation(settings_of(name)).run().parent_bucket).keys() for name in ("fedavg", "fedadam")
    )
    assert state - plain == {f"orchard/rounds/{round_:06d}/optimizer.safetensors" for round_ in range(3)}


@pytest.mark.parametrize("strategy", [None, FedAvgM(name="fedavgm")])
def test_a_round_reads_every_byte_of_the_model_and_of_an_update_once(strategy: FedAvgM | None):
    class Counting(MemoryStore):
        def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
            read[key] += len(buffer)
            super().read_into(key, offset, buffer, version)

    read: Counter[str] = Counter()
    store = Counting(lambda: 0.0)
    model, update = (opened(file_of(FIRST, {}), store, key) for key in ("model", "update"))
    mean = mean_of([(update, 1)])
    rule = Rule(mean.combine, mean.elements, Optimizer(strategy, model, None).step) if strategy else mean
    read.clear()
    write_data(model, rule, discard)
    floating = sum(tensor.end - tensor.begin for tensor in update.layout.floating)
    assert read == {"model": model.layout.size - model.layout.data_begin, "update": floating}
