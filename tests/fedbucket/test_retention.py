"""The retention command: what it removes, what it leaves, and what happens if it dies on the way."""

import pytest

from aggregator.inspection import verify
from aggregator.rounds import Parent, aggregate
from client.rounds import train
from exchange import keys
from exchange.documents import sha256
from exchange.errors import LedgerError, NotFound
from exchange.records import Pruned, RemovedUpdate
from exchange.stores import ObjectInfo, PrunableStore, Store, open_store
from exchange.stores.memory import MemoryStore
from fedbucket.bucket_report import read_bucket
from fedbucket.retention import prune, read_pruned, removable
from tests.exchange.stores.behind import behind
from tests.support import emulators
from tests.support.arithmetic import FIRST, trained, update_file
from tests.support.buckets import Bucket, contents
from tests.support.federation import Federation
from tests.support.settings import CLIENTS, PRIVATE, federation_settings


def eventful() -> Federation:
    """Return a finished run of three rounds: in round 0 one update was rejected, in round 1 a client withdrew."""
    federation = Federation()
    federation.instead = {
        ("alder", 0): lambda: federation.upload("alder", 0, b"garbage"),
        ("birch", 1): lambda: federation.upload("birch", 1, None),
    }
    return federation.run()


def prune_all(bucket: PrunableStore, before: int) -> dict[int, list[ObjectInfo]]:
    found = removable(bucket, "orchard", before)
    for round_, updates in found.items():
        prune(bucket, "orchard", round_, updates)
    return found


def verdicts(bucket: Store) -> list[str]:
    return [found.verdict for found in verify(bucket, "orchard")]


def test_updates_of_earlier_rounds_are_removed_and_nothing_else() -> None:
    bucket = eventful().parent_bucket
    before = contents(bucket)
    prune_all(bucket, 2)
    after = contents(bucket)
    gone = {f"orchard/updates/{client}/{round_:06d}.safetensors" for client in CLIENTS for round_ in (0, 1)}
    gone -= {"orchard/updates/birch/000001.safetensors"}  # it withdrew, and its withdrawal stays
    assert before.keys() - after.keys() == gone
    assert after.keys() - before.keys() == {"orchard/rounds/000000/pruned.json", "orchard/rounds/000001/pruned.json"}
    assert {key: after[key] for key in before.keys() & after.keys()} == {
        key: before[key] for key in before.keys() - gone
    }
    assert verdicts(bucket) == ["pruned", "pruned", "good"]


def test_the_record_says_of_each_update_what_it_was_also_of_a_rejected_one() -> None:
    bucket = eventful().parent_bucket
    before = contents(bucket)
    prune_all(bucket, 1)
    record = read_pruned(bucket, "orchard", 0)
    assert record is not None
    assert (record.federation, record.round) == ("orchard", 0)
    assert {each.key: (each.size, each.sha256) for each in record.removed} == {
        key: (len(data), sha256(data))
        for key, data in before.items()
        if key.endswith("/000000.safetensors") and "updates" in key
    }


def test_the_digest_is_that_of_the_bytes_where_they_are_not_those_that_the_cohort_recorded() -> None:
    """So that `verify` still finds a bucket that was tampered with before it was pruned."""
    bucket = Federation().run().parent_bucket
    changed = bytearray(bucket.read("orchard/updates/birch/000001.safetensors"))
    changed[-1] ^= 1
    bucket.replace("orchard/updates/birch/000001.safetensors", bytes(changed))
    prune_all(bucket, 3)
    assert verdicts(bucket) == ["pruned", "bad", "pruned"]


def test_an_open_round_is_left_alone_however_late_the_limit() -> None:
    federation = Federation().start()
    federation.deliver_until(keys.Model("orchard", 2))
    federation.upload("alder", 2, update_file(trained(FIRST, "alder", 2), "alder", 2))
    federation.upload("alder", 9, b"of a round that is far away: the other is not its newest")
    assert list(removable(federation.parent_bucket, "orchard", 99)) == [0]
    prune_all(federation.parent_bucket, 99)
    assert federation.run().finished
    assert verdicts(federation.parent_bucket) == ["pruned", "good", "good"]


def test_a_round_that_is_frozen_and_not_yet_committed_is_left_alone() -> None:
    federation = Federation().run()
    bucket = Bucket(federation.clock)
    for key, data in contents(federation.parent_bucket).items():
        if key not in (str(keys.Model("orchard", 3)), str(keys.Finished("orchard"))):
            bucket.create(key, data)
    assert list(removable(bucket, "orchard", 99)) == [0, 1]


def test_a_client_still_notices_after_pruning_that_its_private_state_was_set_back() -> None:
    """Its own newest upload tells it, also where it is one of an earlier round than the others'."""
    federation = Federation(federation_settings(rounds=4, privacy=PRIVATE)).start()
    earlier = contents(federation.states["alder"])
    federation.instead = {("alder", r): lambda r=r: federation.upload("alder", r, None) for r in (1, 2)}
    federation.deliver_until(keys.Model("orchard", 3))
    prune_all(federation.parent_bucket, 99)
    assert verdicts(federation.parent_bucket) == ["good", "pruned", "good"]
    federation.states["alder"] = Bucket(federation.clock)
    for key, data in earlier.items():
        federation.states["alder"].create(key, data)
    with pytest.raises(LedgerError, match=r"updates/alder/000000.* in no account"):
        train(federation.client("alder"), "orchard", 3)


def test_of_a_finished_run_every_round_may_go() -> None:
    bucket = eventful().parent_bucket
    prune_all(bucket, 99)
    assert verdicts(bucket) == ["pruned"] * 3
    assert not [key for key in contents(bucket) if "/updates/" in key and key.endswith(".safetensors")]


class Dying(MemoryStore):
    """The same objects; after so many removals the process is gone."""

    def __init__(self, bucket: MemoryStore, lives: int) -> None:
        super().__init__(bucket._clock)
        self._objects, self._lives = bucket._objects, lives

    def remove(self, key: str) -> None:
        if not self._lives:
            raise KeyboardInterrupt
        self._lives -= 1
        super().remove(key)


@pytest.mark.parametrize("lives", range(6))
def test_interrupted_it_goes_on_and_verify_is_never_wrong(lives: int) -> None:
    bucket = Federation().run().parent_bucket
    with pytest.raises(KeyboardInterrupt):
        prune_all(Dying(bucket, lives), 2)
    assert "bad" not in verdicts(bucket)
    first = {round_: read_pruned(bucket, "orchard", round_) for round_ in (0, 1)}
    prune_all(bucket, 2)
    assert verdicts(bucket) == ["pruned", "pruned", "good"]
    for round_, record in first.items():
        assert record in (None, read_pruned(bucket, "orchard", round_))
    assert removable(bucket, "orchard", 2) == {}


def test_an_update_that_comes_after_the_record_stays() -> None:
    federation = Federation()
    federation.instead = {("cedar", 0): lambda: None}
    bucket = federation.run().parent_bucket
    prune_all(bucket, 1)
    federation.upload("cedar", 0, b"late")
    assert removable(bucket, "orchard", 1) == {}
    assert bucket.read("orchard/updates/cedar/000000.safetensors") == b"late"


def test_a_record_can_have_nothing_removed_but_updates_of_its_round() -> None:
    bucket = Federation().run().parent_bucket
    models = tuple(
        RemovedUpdate(key=info.key, size=info.size, sha256="0" * 64) for info in bucket.list("orchard/public/models/")
    )
    record = Pruned(federation="orchard", round=1, removed=models)
    bucket.create("orchard/rounds/000001/pruned.json", record.to_bytes())
    before = contents(bucket)
    prune_all(bucket, 2)
    assert {key for key in before if key not in contents(bucket)} == {
        f"orchard/updates/{client}/000000.safetensors" for client in CLIENTS
    }


def test_without_the_cohort_nothing_is_removed() -> None:
    bucket = Federation().run().parent_bucket
    bucket.remove("orchard/rounds/000000/cohort.json")
    before = contents(bucket)
    with pytest.raises(NotFound, match="cohort"):
        prune_all(bucket, 1)
    assert contents(bucket) == before


def test_a_late_event_of_a_pruned_round_does_nothing() -> None:
    federation = Federation(federation_settings(rounds=2)).run()
    bucket = federation.parent_bucket
    prune_all(bucket, 2)
    before = contents(bucket)
    aggregate(Parent(bucket, lambda _: bucket, time_limit=0), "orchard", 0, "a late event")
    federation.sweep_parent()
    assert contents(bucket) == before


@pytest.mark.parametrize("cloud", ["gcs", "azure", "s3"])
def test_a_clouds_bucket_is_reported_on_pruned_and_verified(cloud: str) -> None:
    with emulators.running(cloud) as url:
        behind(url).make()
        store = open_store(url)
        for key, data in contents(eventful().parent_bucket).items():
            store.create(key, data)
        before = read_bucket(store, "orchard")
        prune_all(store, 2)
        assert verdicts(store) == ["pruned", "pruned", "good"]
        assert removable(store, "orchard", 2) == {}
        after = read_bucket(store, "orchard")
        assert [line["bytes"] for line in after[1]] == [line["bytes"] for line in before[1]]
        assert [line["cohort"] for line in after[1]] == [["birch", "cedar"], ["alder", "cedar"], list(CLIENTS)]
