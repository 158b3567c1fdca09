"""Whole runs of the production handlers: three clients, three rounds, and every way in which delivery may be unkind.

What must come of them is computed with NumPy alone (tests/support/arithmetic.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from aggregator.rounds import aggregate, handle, record, start, sweep
from client import rounds as client_rounds
from exchange import keys
from exchange.documents import sha256
from exchange.errors import DifferentContent, InvalidDocument, StoreUnavailable
from exchange.events import ObjectCreated
from exchange.stores import exists, put
from tests.support.arithmetic import FIRST, drift, file_of, model_file, reference, trained, update_file
from tests.support.buckets import contents
from tests.support.federation import Federation
from tests.support.settings import CLIENTS, DEADLINE, federation_settings
from tests.support.watched import Crash, CrashingStore, Killed, WatchedStore, tolerated

ALL = [CLIENTS, CLIENTS, CLIENTS]


def assert_outcome(federation: Federation, cohorts: Sequence[Sequence[str]]) -> None:
    """Hold a finished run against the reference: its models, to the byte, and who was averaged in each round."""
    assert federation.models == reference(federation.settings, cohorts)
    for round_, clients in enumerate(cohorts):
        assert federation.summary(round_).averaged == tuple(sorted(clients))
    federation.assert_sound()


def test_a_run_makes_one_model_a_round_with_the_bytes_that_the_mean_gives():
    federation = Federation().run()
    assert_outcome(federation, ALL)
    assert list(federation.folder("public/models/")) == [f"orchard/public/models/{n:06d}.safetensors" for n in range(4)]
    assert all(learner.calls == [0, 1, 2] for learner in federation.learners.values())


def test_the_end_of_a_run_is_said_once_and_for_all():
    federation = Federation().run()
    last = federation.models[-1]
    ending = federation.ending()
    assert (ending.federation, ending.round, ending.reason) == ("orchard", 3, "rounds")
    assert ending.model == "orchard/public/models/000003.safetensors"
    assert ending.sha256 == sha256(last)
    assert ending.settings_sha256 == federation.settings.sha256 == sha256(federation.settings.to_bytes())


def test_nothing_happens_after_the_end():
    federation = Federation().run()
    before = contents(federation.parent_bucket)
    federation.upload("alder", 3, update_file(trained(FIRST, "alder", 3), "alder", 3))
    federation.deliver_all()
    federation.clock.advance(10 * DEADLINE)
    federation.sweep()
    federation.deliver_all()
    update = "orchard/updates/alder/000003.safetensors"
    assert contents(federation.parent_bucket).keys() == before.keys() | {update}
    assert all("orchard/inbox/000003.json" not in contents(inbox) for inbox in federation.inboxes.values())


def test_starting_twice_is_starting_once():
    federation = Federation().start().start()
    assert len(contents(federation.parent_bucket)) == 2
    assert_outcome(federation.run(), ALL)


def test_every_event_may_come_twice():
    federation = Federation().run(duplicates=True)
    assert_outcome(federation, ALL)
    assert all(learner.calls == [0, 1, 2] for learner in federation.learners.values())


@pytest.mark.parametrize("seed", range(30))
def test_events_may_come_in_any_order_twice_and_among_sweeps(seed: int):
    federation = Federation(federation_settings(quorum=3))
    federation.run(order=Random(seed), duplicates=True, sweeps=Random(seed))
    assert_outcome(federation, ALL)


@pytest.mark.parametrize("seed", range(5))
def test_under_noise_a_client_uploads_one_result_a_round_whatever_the_delivery(seed: int):
    federation = Federation(federation_settings(quorum=3), noisy=True)
    federation.run(order=Random(seed), duplicates=True, sweeps=Random(seed))
    assert len(federation.uploads()) == 9
    federation.assert_sound()


def test_clients_without_inboxes_see_the_model_by_themselves():
    federation = Federation(federation_settings(inboxes=False, quorum=3)).run()
    assert_outcome(federation, ALL)


def test_clients_with_and_without_inboxes_take_part_together():
    federation = Federation(federation_settings(quorum=3, inboxes=("alder", "cedar"))).run(duplicates=True)
    assert_outcome(federation, ALL)


@pytest.mark.parametrize("inboxes", [True, False])
def test_a_run_in_which_every_event_is_lost_goes_on_by_its_timers(inboxes: bool):
    federation = Federation(federation_settings(inboxes=inboxes, quorum=3)).run(lossy=True)
    assert_outcome(federation, ALL)


def test_a_withdrawal_and_a_rejection_whose_events_are_lost_are_recorded_by_the_timer():
    federation = Federation()
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, None)
    federation.instead[("cedar", 1)] = lambda: federation.upload("cedar", 1, b"garbage")
    began = federation.clock.now
    assert_outcome(federation.run(lossy=True), [("alder", "cedar"), ("alder", "birch"), CLIENTS])
    assert federation.clock.now - began < DEADLINE


def test_a_store_may_list_its_objects_in_any_order():
    class Backwards(WatchedStore):
        def list(self, prefix):
            return reversed(list(super().list(prefix)))

    federation = Federation(federation_settings(quorum=3))
    federation.watch = lambda store: Backwards(store, lambda call: 0, lambda number: None)
    assert_outcome(federation.run(), ALL)


def test_a_run_started_by_hand_needs_nothing_but_its_two_objects():
    federation = Federation()
    put(federation.parent_bucket, "orchard/public/federation.json", federation.settings.to_bytes())
    first = file_of(FIRST, {"made-by": "another tool"}, ["steps", "layer.bias", "layer.weight"])
    put(federation.parent_bucket, "orchard/public/models/000000.safetensors", first)
    assert federation.run().models[1:] == reference(federation.settings, ALL)[1:]


def test_a_round_without_one_client_closes_at_its_deadline_by_the_stores_clock():
    federation = Federation()
    federation.offline = {"cedar"}
    federation.run()
    assert_outcome(federation, [("alder", "birch")] * 3)
    assert all(federation.summary(round_).absent == ("cedar",) for round_ in range(3))
    for round_ in range(3):
        opened = federation.parent_bucket.stat(str(keys.Model("orchard", round_))).created
        closed = federation.parent_bucket.stat(str(keys.Cohort("orchard", round_))).created
        assert closed - opened == DEADLINE


def test_a_client_that_missed_a_round_is_back_in_the_next():
    federation = Federation()
    federation.instead[("cedar", 1)] = lambda: None
    assert_outcome(federation.run(), [CLIENTS, ("alder", "birch"), CLIENTS])


def test_a_round_that_everyone_answered_does_not_wait_for_its_deadline():
    federation = Federation()
    federation.instead[("birch", 1)] = lambda: federation.upload("birch", 1, None)
    began = federation.clock.now
    assert_outcome(federation.run(), [CLIENTS, ("alder", "cedar"), CLIENTS])
    assert federation.clock.now == began
    assert federation.summary(1).withdrawn == ("birch",)
    assert federation.receipt("birch", 1).outcome == "withdrawn"


def test_a_rejected_update_does_not_hold_up_the_others():
    federation = Federation()
    broken = trained(FIRST, "alder", 0) | {"layer.bias": FIRST["layer.bias"] * float("nan")}
    federation.instead[("alder", 0)] = lambda: federation.upload("alder", 0, update_file(broken, "alder", 0))
    assert_outcome(federation.run(), [("birch", "cedar"), CLIENTS, CLIENTS])
    assert federation.summary(0).rejected == {"alder": "non-finite"}


def test_an_update_that_comes_after_the_freeze_is_not_averaged():
    federation = Federation().start()
    federation.offline = {"cedar"}
    federation.deliver_all()
    federation.clock.advance(DEADLINE)
    plan = Crash("create orchard/rounds/000000/cohort.json", "after")
    federation.watch = lambda store: CrashingStore(store, plan)
    with tolerated():
        federation.sweep_parent()
    assert plan.crashed
    federation.offline.clear()
    federation.upload("cedar", 0, update_file(trained(FIRST, "cedar", 0), "cedar", 0))
    federation.deliver_all()
    assert federation.receipt("cedar", 0).outcome == "accepted"
    assert len(federation.models) == 1
    assert_outcome(federation.run(), [("alder", "birch"), CLIENTS, CLIENTS])
    assert federation.summary(0).absent == ("cedar",)


def test_an_update_that_comes_after_the_commit_is_left_alone():
    federation = Federation()
    late = update_file(trained(FIRST, "cedar", 0), "cedar", 0)
    federation.instead[("cedar", 0)] = lambda: None
    federation.instead[("cedar", 1)] = lambda: federation.upload("cedar", 0, late)
    assert_outcome(federation.run(), [("alder", "birch"), ("alder", "birch"), CLIENTS])
    assert exists(federation.parent_bucket, "orchard/updates/cedar/000000.safetensors")
    assert federation.receipt("cedar", 0) is None


def test_an_upload_made_with_any_tool_is_an_upload():
    federation = Federation()
    by_hand = trained(FIRST, "cedar", 0)
    federation.instead[("cedar", 0)] = lambda: federation.upload(
        "cedar", 0, file_of(by_hand, {"client": "cedar", "round": "0", "federation": "orchard", "tool": "notebook"})
    )
    assert_outcome(federation.run(), ALL)


def test_tickets_tell_each_client_how_the_last_round_ended_for_it():
    federation = Federation(federation_settings(rounds=4, quorum=2))
    unsound = update_file({"layer.bias": drift("birch", 1, (3,))}, "birch", 1)
    federation.instead = {
        ("alder", 0): lambda: federation.upload("alder", 0, None),
        ("birch", 1): lambda: federation.upload("birch", 1, unsound),
        ("cedar", 1): lambda: None,
        ("alder", 2): lambda: federation.upload("alder", 2, None),
        ("birch", 2): lambda: federation.upload("birch", 2, None),
    }
    federation.run()
    assert {client: [ticket.last for ticket in federation.tickets(client)] for client in CLIENTS} == {
        "alder": [None, "withdrawn", "void", "withdrawn"],
        "birch": [None, "averaged", "rejected: missing-tensor", "withdrawn"],
        "cedar": [None, "averaged", "absent", "void"],
    }


@pytest.mark.parametrize("error", [StoreUnavailable, RuntimeError])
def test_an_inbox_out_of_reach_holds_up_nobody_else_and_is_served_once_it_is_back(error: type[Exception]):
    federation = Federation()
    reachable = False

    def watch(store):
        if store is federation.inboxes.get("birch") and not reachable:
            raise error("no answer")
        return store

    federation.watch = watch
    federation.start()
    with pytest.raises(ExceptionGroup) as caught:
        federation.deliver_all()
    (failure,) = caught.value.exceptions
    assert failure.__notes__ == ["while opening round 0 of orchard for birch"]
    assert [bool(contents(federation.inboxes[client])) for client in CLIENTS] == [True, False, True]
    federation.deliver_all()
    federation.clock.advance(DEADLINE)
    with pytest.raises(ExceptionGroup):
        federation.sweep_parent()
    assert federation.summary(0).averaged == ("alder", "cedar")
    reachable = True
    federation.deliver(ObjectCreated("parent", "orchard/public/models/000000.safetensors", "a redelivery"))
    assert contents(federation.inboxes["birch"]) == {}  # that round is over
    assert_outcome(federation.run(), [("alder", "cedar"), CLIENTS, CLIENTS])


def test_inboxes_that_take_a_sweep_all_its_time_hold_up_no_round_of_any_federation():
    federation = Federation().start()
    second = federation_settings(name="apiary")  # the first that a sweep comes to
    start(federation.parent_bucket, second, model_file(second, 0, FIRST))
    for settings in (federation.settings, second):
        for client in ("alder", "birch"):
            update = update_file(trained(FIRST, client, 0), client, 0, federation=settings.name)
            federation.parent_bucket.create(str(keys.Update(settings.name, client, 0)), update)
    federation.clock.advance(DEADLINE)

    def watch(store):
        if store in federation.inboxes.values():
            raise Killed("a function's time is over")
        return store

    federation.watch = watch
    with pytest.raises(Killed):
        federation.sweep_parent()
    for settings in (federation.settings, second):
        assert exists(federation.parent_bucket, str(keys.Model(settings.name, 1)))


@pytest.mark.parametrize("error", [StoreUnavailable, RuntimeError])
def test_an_update_that_cannot_be_read_holds_up_nobody_else(error: type[Exception]):
    federation = Federation()

    def before(call: str) -> int:
        if call.startswith("read_into orchard/updates/birch/000000"):
            raise error("uploaded under a key of its own")
        return 0

    federation.watch = lambda store: WatchedStore(store, before, lambda number: None)
    federation.start()
    event = federation.deliver_until(keys.Update("orchard", "birch", 0))
    with pytest.raises(error):
        federation.deliver(event)
    federation.deliver_all()
    federation.clock.advance(DEADLINE)
    with pytest.raises(ExceptionGroup):
        federation.sweep_parent()
    assert_outcome(federation.run(), [("alder", "cedar"), CLIENTS, CLIENTS])


def test_one_bucket_serves_many_federations_and_one_that_fails_holds_up_no_other():
    federation = Federation().start()
    put(federation.parent_bucket, "apiary/public/federation.json", b"not settings")
    put(federation.parent_bucket, "apiary/public/models/000000.safetensors", b"not a model")
    put(federation.parent_bucket, "zoo/notes.txt", b"not ours")
    federation.events.clear()
    with pytest.raises(ExceptionGroup, match="sweep"):
        federation.sweep_parent()
    assert contents(federation.inboxes["alder"]).keys() == {"orchard/inbox/000000.json"}


def test_a_mistake_of_ours_in_one_federation_holds_up_no_other():
    federation = Federation().start()
    put(federation.parent_bucket, "apiary/public/federation.json", b"any")
    federation.events.clear()

    def before(call: str) -> int:
        if "apiary/" in call:
            raise RuntimeError("a bug")
        return 0

    federation.watch = lambda store: WatchedStore(store, before, lambda _: None)
    with pytest.raises(ExceptionGroup, match="sweep"):
        federation.sweep_parent()
    assert contents(federation.inboxes["alder"]).keys() == {"orchard/inbox/000000.json"}


def test_a_second_federation_of_the_same_name_is_refused():
    federation = Federation().start()
    with pytest.raises(DifferentContent, match=r"federation\.json"):
        start(federation.parent_bucket, federation_settings(rounds=5), federation.models[0])
    with pytest.raises(DifferentContent, match=r"000000\.safetensors"):
        start(federation.parent_bucket, federation.settings, model_file(federation.settings, 0, {}))


def test_an_instance_reads_each_receipt_once_however_many_events_have_it_look():
    federation = Federation(federation_settings(rounds=1)).start()
    reads: Counter[str] = Counter()

    def note(call: str) -> int:
        reads.update([call])
        return 0

    instance = replace(federation.parent, store=WatchedStore(federation.parent_bucket, note, lambda _: None))
    for client in CLIENTS:
        client_rounds.train(federation.client(client), "orchard", 0)
    while federation.events:
        if (event := federation.events.pop(0)).bucket == "parent":
            handle(instance, event)
    assert {reads[f"read {keys.Receipt('orchard', 0, client)}"] for client in CLIENTS} == {1}
    assert federation.finished


def test_a_sweep_looks_once_at_each_inbox_and_reads_again_neither_model_nor_ticket_nor_receipt():
    federation = Federation().start()
    calls: list[str] = []

    def note(call: str) -> int:
        calls.append(call)
        return 0

    federation.watch = lambda store: WatchedStore(store, note, lambda _: None)
    federation.offline = {"birch", "cedar"}
    federation.deliver_all()
    instance = federation.parent
    for firing in ("the first", "the second"):
        calls.clear()
        sweep(instance, firing)
    assert [call for call in calls if "/inbox/" in call] == ["stat orchard/inbox/000000.json"] * len(CLIENTS)
    assert not [call for call in calls if call.startswith("create") or "receipts/alder" in call]
    assert Counter(calls)["read_into orchard/public/models/000000.safetensors"] == 4  # its header, by either half


def test_a_ticket_that_is_not_the_rounds_is_told_by_every_sweep_until_it_is_replaced():
    federation = Federation().start()
    key = str(keys.Ticket("orchard", 0))
    federation.inboxes["birch"].create(key, b"somebody else's")
    instance = federation.parent
    for firing in range(2):
        with pytest.raises(ExceptionGroup) as caught:
            sweep(instance, f"firing {firing}")
        assert caught.group_contains(DifferentContent, match="exists with other content")
    federation.inboxes["birch"].replace(key, federation.inboxes["alder"].read(key))
    sweep(instance, "the last firing")


def test_a_sweep_of_a_federation_that_is_over_asks_whether_it_is_over_and_nothing_else():
    federation = Federation(federation_settings(rounds=1)).run()
    calls: list[str] = []

    def note(call: str) -> int:
        calls.append(call)
        return 0

    federation.watch = lambda store: WatchedStore(store, note, lambda _: None)
    federation.sweep_parent()
    assert calls == ["folders", *["stat orchard/public/finished.json"] * 2]


def test_a_receipt_that_was_replaced_is_read_anew():
    federation = Federation(federation_settings(rounds=1)).start()
    instance = federation.parent
    client_rounds.train(federation.client("alder"), "orchard", 0)
    record(instance, keys.Update("orchard", "alder", 0))
    aggregate(instance, "orchard", 0, "an event")
    federation.parent_bucket.replace(str(keys.Receipt("orchard", 0, "alder")), b"no receipt")
    with pytest.raises(InvalidDocument, match=r"receipts/alder\.json"):
        aggregate(instance, "orchard", 0, "another event")
