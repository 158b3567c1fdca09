"""Two functions at the same time: every way in which one may be interrupted, at a call to a store, by a part of the
other or by all of it; and some random interleavings."""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from aggregator import rounds as parent_rounds
from exchange import keys
from exchange.errors import AlreadyExists, DifferentContent
from exchange.events import ObjectCreated
from exchange.records import Cohort
from exchange.stores import exists
from tests.support.arithmetic import FIRST, reference, trained, update_file
from tests.support.buckets import contents
from tests.support.federation import TIME_LIMIT, Federation
from tests.support.settings import DEADLINE, PRIVATE, federation_settings
from tests.support.turns import Chooser, Turns, interruptions
from tests.support.watched import WatchedStore

PAIR = ("alder", "birch")
SETTINGS = federation_settings(PAIR, rounds=1, quorum=2)
MODEL_1 = reference(SETTINGS, [PAIR])[1]

Act = Callable[[Federation], object]


def ready_to_close() -> Federation:
    """Return a federation in which both clients have their receipts and nobody has acted on these."""
    federation = Federation(SETTINGS).start()
    federation.deliver_until(keys.Receipt("orchard", 0, "alder"))
    federation.events.clear()
    return federation


def receipt_event(client: str) -> ObjectCreated:
    key = str(keys.Receipt("orchard", 0, client))
    return ObjectCreated("parent", key, f"parent:{key}")


def aggregate(client: str) -> Act:
    return lambda federation: federation.deliver(receipt_event(client))


def schedules(prepare: Callable[[], Federation], first: Act, second: Act) -> list[Chooser]:
    """Return choosers for all interruptions of one by the other, and 50 random ones."""
    calls = []
    for act in (first, second):
        federation, turns = prepare(), Turns()
        federation.watch = turns.watch
        turns.run([partial(act, federation)], min)
        calls += turns.calls
    return [*interruptions(calls), *(Random(seed).choice for seed in range(50))]


def race(prepare: Callable[[], Federation], first: Act, second: Act, choose: Chooser) -> Federation:
    """Return the federation after the race; none of the two may raise."""
    federation, turns = prepare(), Turns()
    federation.watch = turns.watch
    turns.run([partial(first, federation), partial(second, federation)], choose)
    assert turns.errors == [None, None], turns.steps
    federation.watch = lambda store: store
    return federation


def writers(federation: Federation) -> int:
    """Return how many functions wrote model 1."""
    return sum(key == "orchard/public/models/000001.safetensors" for key, _ in federation.parent_bucket.attempts)


def test_two_aggregates_make_one_cohort_and_one_model():
    for choose in schedules(ready_to_close, aggregate("alder"), aggregate("birch")):
        federation = race(ready_to_close, aggregate("alder"), aggregate("birch"), choose)
        assert federation.models[1:] == [MODEL_1]
        assert writers(federation) == 1, "the loser of the cohort should have left the work to the winner"
        federation.assert_sound()


def test_two_deliveries_of_one_event_make_one_model():
    for choose in schedules(ready_to_close, aggregate("alder"), aggregate("alder")):
        federation = race(ready_to_close, aggregate("alder"), aggregate("alder"), choose)
        assert federation.models[1:] == [MODEL_1]


def frozen(by: str) -> Callable[[], Federation]:
    """Return how to make a federation whose cohort was frozen by the event of a receipt, by one who then died."""

    def prepare() -> Federation:
        federation = ready_to_close()
        receipts = {client: federation.receipt(client, 0) for client in PAIR}
        cohort = Cohort(
            federation="orchard",
            round=0,
            members=tuple(receipt.update for receipt in receipts.values()),
            void=False,
            rejected={},
            withdrawn=(),
            absent=(),
            frozen_by=receipt_event(by).id,
        )
        federation.parent_bucket.create("orchard/rounds/000000/cohort.json", cohort.to_bytes())
        return federation

    return prepare


def test_the_loser_of_a_cohort_returns_at_once_and_a_redelivery_to_the_winner_goes_on():
    federation = frozen("alder")()
    federation.deliver(receipt_event("birch"))
    assert len(federation.models) == 1
    federation.deliver(receipt_event("alder"))
    assert federation.models[1:] == [MODEL_1]


@pytest.mark.parametrize("act", [Federation.sweep_parent, aggregate("birch")], ids=["sweep", "event"])
def test_a_cohort_older_than_the_time_limit_is_taken_up_by_anybody(act: Act):
    federation = frozen("alder")()
    federation.clock.advance(TIME_LIMIT - 0.001)
    act(federation)
    assert len(federation.models) == 1
    federation.clock.advance(0.001)
    act(federation)
    assert federation.models[1:] == [MODEL_1]


def test_the_time_limit_runs_by_the_stores_clock_from_the_creation_of_the_cohort():
    federation = ready_to_close()
    federation.clock.advance(DEADLINE / 2)
    federation.parent_bucket.create("orchard/rounds/000000/cohort.json", _cohort(frozen("alder")()))
    federation.sweep_parent()
    assert len(federation.models) == 1


def _cohort(federation: Federation) -> bytes:
    return contents(federation.parent_bucket)["orchard/rounds/000000/cohort.json"]


def test_all_who_take_up_an_abandoned_cohort_write_the_same_bytes():
    def prepare() -> Federation:
        federation = frozen("alder")()
        federation.clock.advance(TIME_LIMIT)
        return federation

    for choose in schedules(prepare, aggregate("birch"), Federation.sweep_parent):
        federation = race(prepare, aggregate("birch"), Federation.sweep_parent, choose)
        digests = {d for key, d in federation.parent_bucket.attempts if "models/000001" in key or "summary" in key}
        assert federation.models[1:] == [MODEL_1]
        assert len(digests) == 2  # one model, one summary, whoever wrote them and how often


@pytest.mark.parametrize("moment", ["begin", "write", "commit"])
def test_a_store_may_say_at_any_time_that_the_model_is_there_already(moment: str):
    federation = ready_to_close()
    key = "orchard/public/models/000001.safetensors"

    def before(call: str) -> int:
        if call == f"{moment} {key}":
            federation.watch = lambda store: store
            federation.deliver(receipt_event("alder"))
            assert federation.models[1:] == [MODEL_1]
            raise AlreadyExists(key)
        return 0

    federation.watch = lambda store: WatchedStore(store, before, lambda number: None)
    federation.deliver(receipt_event("alder"))
    assert federation.models[1:] == [MODEL_1]


def test_a_model_that_is_there_with_other_bytes_is_an_error():
    federation = ready_to_close()
    key = "orchard/public/models/000001.safetensors"

    def before(call: str) -> int:
        if call == f"begin {key}":
            federation.parent_bucket.create(key, MODEL_1[:-1] + b"\xff")
        return 0

    federation.watch = lambda store: WatchedStore(store, before, lambda number: None)
    with pytest.raises(DifferentContent, match="000001"):
        federation.deliver(receipt_event("alder"))


def test_two_records_of_one_update_make_one_receipt():
    def prepare() -> Federation:
        federation = Federation(SETTINGS).start()
        federation.deliver_until(keys.Update("orchard", "alder", 0))
        return federation

    def record(federation: Federation) -> None:
        parent_rounds.record(federation.parent, keys.Update("orchard", "alder", 0))

    for choose in schedules(prepare, record, record):
        assert race(prepare, record, record, choose).receipt("alder", 0).outcome == "accepted"


def test_of_an_update_and_a_withdrawal_at_the_same_time_the_first_decision_stands():
    def prepare() -> Federation:
        federation = Federation(SETTINGS).start()
        federation.events.clear()
        federation.upload("alder", 0, update_file(trained(FIRST, "alder", 0), "alder", 0))
        federation.upload("alder", 0, None)
        return federation

    def record(withdrawn: bool) -> Act:
        key = keys.Update("orchard", "alder", 0, withdrawn)
        return lambda federation: parent_rounds.record(federation.parent, key)

    outcomes = {
        race(prepare, record(False), record(True), choose).receipt("alder", 0).outcome
        for choose in schedules(prepare, record(False), record(True))
    }
    assert outcomes == {"accepted", "withdrawn"}


def test_an_update_that_comes_while_the_round_closes_is_averaged_or_not_but_never_half():
    settings = federation_settings(rounds=1)
    with_cedar = reference(settings, [("alder", "birch", "cedar")])[1]
    without = reference(settings, [PAIR])[1]

    def prepare() -> Federation:
        federation = Federation(settings).start()
        federation.offline = {"cedar"}
        federation.deliver_all()
        federation.clock.advance(DEADLINE)
        federation.upload("cedar", 0, update_file(trained(FIRST, "cedar", 0), "cedar", 0))
        return federation

    def record(federation: Federation) -> None:
        parent_rounds.record(federation.parent, keys.Update("orchard", "cedar", 0))

    def close(federation: Federation) -> None:
        parent_rounds.aggregate(federation.parent, "orchard", 0, "timer:1")

    outcomes = set()
    for choose in schedules(prepare, record, close):
        federation = race(prepare, record, close, choose)
        averaged = federation.summary(0).averaged
        assert federation.models[1:] == [with_cedar if "cedar" in averaged else without]
        outcomes.add(averaged)
    assert len(outcomes) == 2


def test_two_publishers_make_one_ticket_each():
    def prepare() -> Federation:
        return Federation(SETTINGS).start()

    def publish(federation: Federation) -> None:
        parent_rounds.publish(federation.parent, "orchard", 0)

    for choose in schedules(prepare, publish, publish):
        federation = race(prepare, publish, publish, choose)
        assert [len(federation.tickets(client)) for client in PAIR] == [1, 1]


@pytest.mark.parametrize(
    "settings",
    [{}, {"inboxes": False}, {"privacy": PRIVATE}],
    ids=["by-ticket", "by-timer", "noised"],
)
def test_two_trainings_for_one_round_release_one_result_and_pay_once(settings: dict[str, Any]):
    ticket = ObjectCreated("alder", "orchard/inbox/000000.json", "alder:orchard/inbox/000000.json")

    def prepare() -> Federation:
        federation = Federation(federation_settings(PAIR, rounds=1, **settings), noisy=True).start()
        if federation.inboxes:
            federation.deliver_until(keys.Ticket("orchard", 0))
        return federation

    def train(federation: Federation) -> None:
        federation.deliver(ticket) if federation.inboxes else federation.sweep_client("alder")

    trained_twice = 0
    for choose in schedules(prepare, train, train):
        federation = race(prepare, train, train, choose)
        assert exists(federation.parent_bucket, "orchard/updates/alder/000000.safetensors")
        assert exists(federation.states["alder"], "orchard/releases/000000.safetensors")
        federation.assert_sound()
        trained_twice += len(federation.learners["alder"].calls) == 2
    assert trained_twice > 0


def test_a_round_that_closes_while_a_client_trains_is_closed_without_it():
    settings = federation_settings(rounds=1)
    without = reference(settings, [PAIR])[1]

    def prepare() -> Federation:
        federation = Federation(settings).start()
        federation.offline = {"cedar"}
        federation.deliver_all()
        federation.offline.clear()
        federation.clock.advance(DEADLINE)
        return federation

    def close(federation: Federation) -> None:
        parent_rounds.aggregate(federation.parent, "orchard", 0, "timer:1")

    def train(federation: Federation) -> None:
        key = "orchard/inbox/000000.json"
        federation.deliver(ObjectCreated("cedar", key, f"cedar:{key}"))

    for choose in schedules(prepare, train, close):
        federation = race(prepare, train, close, choose)
        federation.run()
        assert federation.models[1:] == [without]
        assert federation.receipt("cedar", 0) is None
        federation.assert_sound()
