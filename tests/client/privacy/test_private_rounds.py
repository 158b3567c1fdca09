"""A client's round under privacy: one noised release a round, paid for before it is kept and kept before it leaves,
wherever the client dies; and nothing where it cannot be paid for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest

from client import rounds as client_rounds
from client.privacy.accounting import GaussianRelease
from client.privacy.ledger import ENTRY, Ledger, Spending, events_of
from client.privacy.plan import make_plan
from client.rounds import Client
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import ConsentRefused, LedgerError
from exchange.stores import Store
from tests.support.arithmetic import FIRST, model_file
from tests.support.buckets import Bucket, answers, contents
from tests.support.federation import TIME_LIMIT
from tests.support.private import (
    EPSILON,
    LEDGER,
    MECHANISMS,
    PAIR,
    RELEASE,
    UPDATE,
    UPDATE_WITHDRAWN,
    WITHDRAWN,
    Private,
    agreed,
    gaussian_epsilon,
    oracle_epsilon,
    with_history,
)
from tests.support.settings import client_settings
from tests.support.turns import Turns
from tests.support.watched import Crash, CrashingStore, Killed, Unavailable, WatchedStore, tolerated

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)

# A client that dies at any call to a store. Its account holds a charge of another federation already.


@dataclass(frozen=True)
class Scene:
    """A federation in which alder is about to be woken."""

    federation: Private
    act: Callable[[], object]
    patience: float = 0.0

    def again(self) -> None:
        for _ in range(3):
            self.federation.clock.advance(self.patience)
            self.act()


def by_ticket(mechanism: str) -> Scene:
    federation = with_history(Private(agreed(mechanism))).start()
    ticket = federation.deliver_until(keys.Ticket("orchard", 0))
    return Scene(federation, lambda: federation.deliver(ticket))


def by_timer(mechanism: str) -> Scene:
    federation = with_history(Private(agreed(mechanism, inboxes=False))).start()
    return Scene(federation, lambda: federation.sweep_client("alder"), patience=TIME_LIMIT)


def crashes(prepare: Callable[[], Scene]) -> list[tuple[Scene, Crash]]:
    """Return what a crash before or after each call leaves, one scene a crash; every call is crashed at."""
    counted = Crash()
    scene = prepare()
    scene.federation.watch = lambda store: CrashingStore(store, counted)
    scene.act()
    found = []
    for when, error, at in product(("before", "after"), (Unavailable, Killed), range(len(counted.calls))):
        scene, plan = prepare(), Crash(at, when, error)
        scene.federation.watch = lambda store, plan=plan: CrashingStore(store, plan)
        with tolerated():
            scene.act()
        assert plan.crashed, f"call {at} did not fail"
        found.append((scene, plan))
    return found


@every_mechanism
@pytest.mark.parametrize("prepare", [by_ticket, by_timer])
def test_a_client_that_dies_at_any_call_releases_one_file_a_round_and_pays_for_it_once(
    mechanism: str, prepare: Callable[[str], Scene]
):
    cases = crashes(lambda: prepare(mechanism))
    assert len(cases) > 100
    price = make_plan(agreed(mechanism), "alder").event
    for scene, plan in cases:
        federation = scene.federation
        try:
            assert_nothing_unpaid(federation)
            scene.again()
            assert federation.uploads().keys() == {UPDATE}
            assert len(federation.uploads()[UPDATE]) == 1
            assert federation.parent_bucket.read(UPDATE) == federation.states["alder"].read(RELEASE)
            assert federation.charges() == [("meadow", 0), ("orchard", 0)]
            _, charges, hashes = Ledger(federation.states["alder"], "data").read()
            assert federation.update()[1][ENTRY] == hashes[2]
            assert events_of(charges) == [GaussianRelease(50.0), price]
            assert federation.statement()["epsilon_federation"] == federation.statement()["epsilon_round"]
            federation.assert_sound()
        except AssertionError as failure:
            failure.add_note(f"after a crash {plan.when} {plan.calls[plan.at]}")
            raise


def assert_nothing_unpaid(federation: Private) -> None:
    """Hold what is there right after a crash against the order: charged, then kept, then uploaded."""
    state = contents(federation.states["alder"])
    assert federation.charges().count(("orchard", 0)) <= 1
    if federation.uploads():
        assert state[RELEASE] == federation.parent_bucket.read(UPDATE)
    if RELEASE in state:
        _, _, hashes = Ledger(federation.states["alder"], "data").read()
        assert tensors.layout_of(state[RELEASE]).metadata[ENTRY] in hashes[2:]


def test_a_client_that_dies_at_any_call_of_a_withdrawal_withdraws_all_the_same():
    def prepare() -> Scene:
        scene = by_ticket("example")
        scene.federation.granted(0.5)
        return scene

    for scene, plan in crashes(prepare):
        federation = scene.federation
        scene.again()
        assert federation.uploads().keys() == {UPDATE_WITHDRAWN}, f"after a crash {plan.when} {plan.calls[plan.at]}"
        assert federation.parent_bucket.read(UPDATE_WITHDRAWN) == federation.states["alder"].read(WITHDRAWN)
        assert federation.charges() == [("meadow", 0)]
        assert federation.learners["alder"].calls == []


def test_the_account_of_a_run_comes_to_what_was_agreed():
    federation = Private(agreed("example", rounds=3)).run(duplicates=True)
    for client in PAIR:
        _, charges, _ = Ledger(federation.states[client], "data").read()
        assert [charge.round for charge in charges] == [0, 1, 2]
        spent = gaussian_epsilon([event.noise_multiplier for charge in charges for event in charge.events])
        assert spent == pytest.approx(EPSILON, rel=1e-6)


def test_the_account_of_a_data_set_adds_up_what_different_mechanisms_spent():
    """One round of dp-sgd after another federation's release; the oracle composes both."""
    scene = by_ticket("dp-sgd")
    z = make_plan(scene.federation.settings, "alder").event.noise_multiplier
    truth = oracle_epsilon([50.0], [(0.5, z, 2)])
    scene.federation.granted(truth * 0.999)
    scene.act()
    assert scene.federation.uploads().keys() == {UPDATE_WITHDRAWN}
    scene = by_ticket("dp-sgd")
    scene.federation.granted(truth * 1.001)
    scene.act()
    assert scene.federation.uploads().keys() == {UPDATE}


# In which order.


@every_mechanism
def test_it_looks_for_a_newer_model_then_pays_then_keeps_then_reads_back_then_uploads(mechanism: str):
    log = Crash()
    federation = Private(agreed(mechanism)).opened()
    federation.watch = lambda store: CrashingStore(store, log)

    def noting(client: Client) -> Client:
        def learn(*arguments: Any) -> Learned:
            log.calls.append("learn")
            return client.learn(*arguments)

        return replace(client, learn=learn)

    federation.change = noting
    federation.train()
    calls = log.calls
    kept = calls.index(f"create {RELEASE}")
    order = [
        calls.index("learn"),
        calls.index("list orchard/public/models/", calls.index("learn")),
        calls.index("stat orchard/public/finished.json", calls.index("learn")),
        calls.index(f"create {LEDGER}000001.json"),
        kept,
        calls.index(f"read {RELEASE}", kept),
        calls.index(f"create {UPDATE}"),
    ]
    assert order == sorted(order)
    assert calls.index(f"read {LEDGER}000000.json") < calls.index("learn"), "the budget is looked at before training"


def test_a_round_reads_each_entry_of_a_long_account_once():
    """Over a network an entry takes as long as a thousand take to be checked."""
    log = Crash()
    federation = Private(agreed("example")).opened()
    ledger = Ledger(federation.states["alder"], "data")
    budget = federation.client("alder").settings.budget
    for round_ in range(40):
        ledger.charge(budget, Spending("meadow", "e" * 64, round_, "test", (GaussianRelease(1000.0),)))
    federation.granted(1.1 * EPSILON)
    federation.watch = lambda store: CrashingStore(store, log)
    federation.train()
    assert federation.charges()[-1] == ("orchard", 0)
    read = [call for call in log.calls if call.startswith(f"read {LEDGER}")]
    assert len(read) == len(set(read)) == 1 + 40 + 1


@pytest.mark.parametrize("mechanism", ["client", "example"])
def test_no_noise_is_drawn_before_it_is_paid_for(mechanism: str):
    federation = Private(agreed(mechanism)).opened()
    plan = Crash(f"create {LEDGER}000001.json", "before", Unavailable)
    federation.watch = lambda store: CrashingStore(store, plan)
    with tolerated():
        federation.train()
    assert plan.crashed
    assert federation.drawn == []


@every_mechanism
@pytest.mark.parametrize("how", ["closed", "finished"])
def test_a_round_that_closed_while_it_trained_costs_nothing(mechanism: str, how: str):
    federation = Private(agreed(mechanism)).opened()

    def closing(client: Client) -> Client:
        def learn(*arguments: Any) -> Learned:
            key = keys.Model("orchard", 1) if how == "closed" else keys.Finished("orchard")
            federation.parent_bucket.create(str(key), model_file(federation.settings, 1, FIRST))
            return client.learn(*arguments)

        return replace(client, learn=learn)

    federation.change = closing
    before = answers(federation.states["alder"])
    federation.train()
    assert federation.learners["alder"].calls == [0]
    assert federation.drawn == []
    assert answers(federation.states["alder"]).keys() - before == {str(keys.Attempt("orchard", 0, 0))}
    assert federation.uploads() == {}


class Forgetful(WatchedStore):
    """Private state that gives back other bytes than it took."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner, lambda call: 0, lambda number: None)

    def read(self, key: str, *arguments: Any, **options: Any) -> bytes:
        data = super().read(key, *arguments, **options)
        return b"what was read back" if key in (RELEASE, WITHDRAWN) else data


@pytest.mark.parametrize("epsilon", [9.0, 0.5], ids=["released", "withdrawn"])
def test_what_is_uploaded_is_what_private_state_gave_back(epsilon: float):
    federation = Private(agreed("example")).opened()
    federation.granted(epsilon)
    client = federation.client("alder")
    client_rounds.train(replace(client, state=Forgetful(client.state)), "orchard", 0)
    uploaded = UPDATE if epsilon > EPSILON else UPDATE_WITHDRAWN
    assert federation.parent_bucket.read(uploaded) == b"what was read back"


# Two attempts.


def test_a_second_attempt_goes_on_from_the_charge_of_the_first_with_noise_of_its_own():
    scene = by_ticket("example")
    federation = scene.federation
    plan = Crash(f"create {RELEASE}", "before", Killed)
    federation.watch = lambda store: CrashingStore(store, plan)
    with tolerated():
        scene.act()
    assert plan.crashed
    paid = federation.charges()
    assert paid[-1] == ("orchard", 0)
    federation.granted(0.1)  # what is paid for is not weighed again
    scene.again()
    assert federation.charges() == paid
    assert federation.learners["alder"].calls == [0, 0]
    first, second = np.split(np.concatenate([noise for _, noise in federation.drawn]), 2)
    assert not np.isclose(first, second).any()
    assert len(federation.uploads()[UPDATE]) == 1
    federation.assert_sound()


@every_mechanism
@pytest.mark.parametrize("moment", [f"create {LEDGER}000001.json", f"create {RELEASE}", f"create {UPDATE}"])
def test_an_attempt_that_is_overtaken_uploads_what_the_other_released(mechanism: str, moment: str):
    federation = Private(agreed(mechanism)).opened()
    overtaken = []

    def before(call: str) -> int:
        if call == moment and not overtaken:
            overtaken.append(call)
            federation.watch = lambda store: store
            federation.train()
        return 0

    federation.watch = lambda store: WatchedStore(store, before, lambda number: None)
    federation.train()
    assert overtaken
    assert federation.charges() == [("orchard", 0)]
    assert federation.parent_bucket.read(UPDATE) == federation.states["alder"].read(RELEASE)
    releases = {digest for key, digest in federation.states["alder"].attempts if key == RELEASE}
    assert len(releases) == 2 - (moment == f"create {UPDATE}"), "each attempt has noise of its own"
    federation.assert_sound()


def test_two_federations_on_one_data_set_never_both_get_what_is_left_of_its_budget():
    def prepare() -> tuple[Private, Private]:
        orchard = Private(agreed("example", rounds=1)).opened()
        apiary = Private(agreed("example", rounds=1, name="apiary")).opened()
        apiary.states["alder"] = orchard.states["alder"]
        return orchard, apiary

    for seed in range(30):
        federations, turns = prepare(), Turns()
        for federation in federations:
            federation.granted(EPSILON)  # each asks for all of it
            federation.watch = turns.watch
        turns.run([federation.train for federation in federations], Random(seed).choice)
        assert turns.errors == [None, None]
        uploads = [key for federation in federations for key in federation.uploads()]
        assert sorted("withdrawn" in key for key in uploads) == [False, True], turns.steps
        assert len(federations[0].charges()) == 1


# A budget that is spent.


def test_a_client_that_cannot_pay_withdraws_by_name_and_the_round_closes_without_it(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.ERROR, "client.rounds")
    federation = Private(agreed("example", quorum=1))
    federation.granted(2.0)
    federation.run()
    assert federation.learners["alder"].calls == []
    assert answers(federation.states["alder"]).keys() == {f"{LEDGER}000000.json"} | {
        str(keys.Release("orchard", round_, withdrawn=True)) for round_ in range(2)
    }
    assert [federation.receipt("alder", round_).outcome for round_ in range(2)] == ["withdrawn"] * 2
    assert [federation.cohort(round_).withdrawn for round_ in range(2)] == [("alder",)] * 2
    assert [federation.summary(round_).averaged for round_ in range(2)] == [("birch",)] * 2
    assert federation.tickets("alder")[1].last == "withdrawn"
    assert [name for name, _ in federation.drawn] == ["birch"] * len(federation.drawn)
    z = make_plan(federation.settings, "alder").event.noise_multiplier
    cost = gaussian_epsilon([z])
    assert (
        f"BudgetExceeded: alder withdraws from round 0 of orchard: round 0 of orchard would take the account to "
        f"ε = {cost:.4g}, granted are 2 (unit: one example, add-or-remove; δ = 1e-05)"
    ) in [record.getMessage() for record in caplog.records]


def test_a_client_pays_for_as_many_rounds_as_its_budget_takes():
    settings = agreed("example", rounds=3, quorum=1)
    z = make_plan(settings, "alder").event.noise_multiplier
    federation = Private(settings)
    federation.granted(gaussian_epsilon([z, z]) * 1.0001)
    federation.run(duplicates=True)
    assert federation.charges() == [("orchard", 0), ("orchard", 1)]
    assert [federation.summary(round_).withdrawn for round_ in range(3)] == [(), (), ("alder",)]
    assert federation.learners["alder"].calls == [0, 1]


def test_a_withdrawal_stands_though_the_budget_is_raised():
    federation = Private(agreed("example")).opened()
    federation.granted(0.5)
    federation.train()
    federation.granted(50.0)
    federation.train()
    federation.parent_bucket = Bucket(federation.clock)  # the parent's copy was lost, and with it the answer
    federation.start()
    federation.train()
    federation.clock.advance(TIME_LIMIT)
    federation.sweep_client("alder")
    assert federation.uploads().keys() == {UPDATE_WITHDRAWN}
    assert federation.charges() == []
    assert federation.learners["alder"].calls == []


def test_what_one_federation_spent_the_next_one_on_the_same_data_set_cannot_spend():
    orchard = Private(agreed("example")).run()
    apiary = Private(agreed("example", name="apiary", quorum=1))
    apiary.states["alder"] = orchard.states["alder"]
    apiary.run()
    assert [apiary.summary(round_).withdrawn for round_ in range(2)] == [("alder",)] * 2
    assert apiary.charges() == [("orchard", 0), ("orchard", 1)]


def test_another_data_set_of_the_same_client_has_a_budget_of_its_own():
    orchard = Private(agreed("example")).run()
    apiary = Private(agreed("example", name="apiary"))
    apiary.states["alder"] = orchard.states["alder"]
    Ledger(apiary.states["alder"], "discharges").open("example", "add-or-remove", bytes(32))

    def discharges(client: Client) -> Client:
        dataset = "discharges" if client.settings.id == "alder" else "data"
        return replace(client, settings=client.settings.model_copy(update={"dataset": dataset}))

    apiary.change = discharges
    apiary.run()
    assert [apiary.summary(round_).averaged for round_ in range(2)] == [PAIR] * 2
    assert len(Ledger(apiary.states["alder"], "discharges").read()[1]) == 2


# An account that is not as it should be.


@every_mechanism
def test_a_release_whose_entry_was_lost_is_neither_uploaded_nor_followed_by_another(mechanism: str):
    federation = Private(agreed(mechanism)).opened()
    plan = Crash(f"create {UPDATE}", "before", Killed)
    federation.watch = lambda store: CrashingStore(store, plan)
    with tolerated():
        federation.train()
    federation.watch = lambda store: store
    objects = contents(federation.states["alder"])
    lost = objects.pop(f"{LEDGER}000001.json")
    federation.states["alder"] = state = Bucket(federation.clock)
    for key, data in objects.items():
        state.create(key, data)
    with pytest.raises(LedgerError, match=f"{RELEASE} .* in no account; restore"):
        federation.train()
    assert federation.uploads() == {}
    federation.parent_bucket.create(str(keys.Model("orchard", 1)), model_file(federation.settings, 1, FIRST))
    with pytest.raises(LedgerError, match=f"{RELEASE} .* in no account; restore"):
        federation.train(round_=1)
    assert federation.learners["alder"].calls == [0]
    state.create(f"{LEDGER}000001.json", lost)
    federation.train(round_=1)
    assert federation.uploads().keys() >= {str(keys.Update("orchard", "alder", 1))}


@every_mechanism
def test_private_state_put_back_to_an_earlier_day_releases_nothing(mechanism: str):
    """Account and releases agree with each other; the client's own upload tells that both are old."""
    federation = Private(agreed(mechanism)).opened()
    earlier = contents(federation.states["alder"])
    federation.train()
    today = contents(federation.states["alder"])
    federation.parent_bucket.create(str(keys.Model("orchard", 1)), model_file(federation.settings, 1, FIRST))

    def put_back(objects: dict[str, bytes]) -> None:
        federation.states["alder"] = Bucket(federation.clock)
        for key, data in objects.items():
            federation.states["alder"].create(key, data)

    put_back(earlier)
    with pytest.raises(LedgerError, match=f"{UPDATE} .* in no account; restore"):
        federation.train(round_=1)
    assert federation.uploads().keys() == {UPDATE}
    put_back(today)
    federation.train(round_=1)
    assert federation.uploads().keys() == {UPDATE, str(keys.Update("orchard", "alder", 1))}


def test_an_account_for_another_unit_releases_nothing():
    federation = Private(agreed("example")).opened()
    federation.states["alder"] = Bucket(federation.clock)
    Ledger(federation.states["alder"], "data").open("client", "replace-one", bytes(32))
    before = answers(federation.states["alder"])
    with pytest.raises(LedgerError, match=r"kept for unit client \(replace-one\), the budget is for unit example"):
        federation.train()
    assert answers(federation.states["alder"]) == before
    assert federation.learners["alder"].calls == []


# What was never agreed to.


@pytest.mark.parametrize("mechanism", ["example", "dp-sgd"])
@pytest.mark.parametrize(
    ("agreement", "own", "message"),
    [
        ({"mechanisms": ("none",)}, {}, r"privacy.mechanism is '(ornstein|dp)-.*', agreed are \['none'\]"),
        ({"max_epsilon": 7.99}, {}, r"privacy.epsilon is 8 \(unit: one example, .* δ = 1e-05\), agreed are at most 7"),
        ({"max_epsilon": None}, {}, r"max_epsilon is not set; .* ε = 8 \(unit: one example"),
        ({}, {"budget": None}, r"no \[budget\]: nothing may be spent"),
        ({}, {"unit": "client", "adjacency": "replace-one"}, "protects one example .* is for one client"),
        ({}, {"adjacency": "replace-one"}, r"one example \(add-or-remove\), the budget is for one .*\(replace-one\)"),
    ],
    ids=["mechanism", "ε above", "no ε", "no budget", "other unit", "other adjacency"],
)
def test_a_privacy_that_was_not_agreed_to_is_refused_by_name_and_nothing_is_created(
    mechanism: str, agreement: dict[str, Any], own: dict[str, Any], message: str
):
    settings = agreed(mechanism)
    federation = Private(settings).opened()
    asked = client_settings("alder", settings, **agreement)
    budget = None if "budget" in own else asked.budget.model_copy(update=own)
    asked = asked.model_copy(update={"budget": budget})
    federation.change = lambda client: replace(client, settings=asked)
    buckets = [federation.parent_bucket, *federation.inboxes.values(), *federation.states.values()]
    before = [contents(bucket) for bucket in buckets]
    with pytest.raises(ConsentRefused, match=message):
        federation.train()
    with pytest.raises(ExceptionGroup) as caught:
        federation.sweep_client("alder")
    assert caught.group_contains(ConsentRefused, match=message)
    assert [contents(bucket) for bucket in buckets] == before
    assert federation.learners["alder"].calls == []
    assert federation.drawn == []
