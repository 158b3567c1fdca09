"""The soak: a short one, and that it can fail."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from exchange import keys
from exchange.stores.memory import MemoryStore
from fedbucket import emulators
from tests.soak.disturbances import Victims, kills, troubles
from tests.soak.run import NAME, disturbed, models_in, undisturbed, what_is_wrong
from tests.support.buckets import Clock

VICTIMS = Victims(["parent 0", "hospital-a 0"], ["azure", "gcs"], ["azure", "gcs", "s3"], ["own hardware"])


@pytest.mark.slow
@pytest.mark.skipif(emulators.find_azurite() is None, reason="Azurite is not installed: make azurite")
def test_a_federation_whose_parts_are_killed_makes_the_models_of_one_left_alone(tmp_path: Path) -> None:
    result = disturbed(undisturbed(tmp_path, rounds_=3), tmp_path / "disturbed", "gcp", seed=3, scale=0.2)
    assert result["wrong"] == []
    assert "kill -9" in {each["kind"] for each in result["done"]}


def test_a_seed_draws_the_same_disturbances_again_and_another_seed_others() -> None:
    for lane in (kills, troubles):
        assert list(islice(lane(7, VICTIMS), 20)) == list(islice(lane(7, VICTIMS), 20))
        assert list(islice(lane(7, VICTIMS), 20)) != list(islice(lane(8, VICTIMS), 20))


def test_every_kind_befalls_a_long_run_and_a_missing_disk_is_not_filled() -> None:
    kinds = {each.kind for each in islice(troubles(7, VICTIMS), 4)}
    assert kinds == {"stall", "cut off", "unkind network", "full disk"}
    without = Victims(VICTIMS.hosts, VICTIMS.kept, VICTIMS.clouds, [])
    assert "full disk" not in {each.kind for each in islice(troubles(7, without), 20)}


def test_another_model_a_foreign_key_and_a_run_that_stands_still_are_wrong() -> None:
    store, other = MemoryStore(Clock()), MemoryStore(Clock())
    for each, data in ((store, b"model 1"), (other, b"model one")):
        each.create(str(keys.Model(NAME, 0)), b"model 0")
        each.create(str(keys.Model(NAME, 1)), data)
    expected = models_in(store, rounds_=1)
    assert "stands still: model 1 of 1" in what_is_wrong(store, expected, newest=1)[0]
    for each in (store, other):
        each.create(str(keys.Finished(NAME)), b"{}")
    assert what_is_wrong(store, expected, newest=1) == []
    assert what_is_wrong(other, expected, newest=1) == ["model 1 is another"]
    store.create(f"{NAME}/stray", b"")
    assert what_is_wrong(store, expected, newest=1) == [f"{NAME}/stray is no key of ours"]
