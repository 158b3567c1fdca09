"""The rights that `docs/architecture.md` grants are enough for everybody who keeps the rules, and for nothing else."""

from dataclasses import replace

import pytest

from aggregator.rounds import Parent
from client.rounds import Client
from exchange import keys
from tests.support.arithmetic import FIRST, reference, trained, update_file
from tests.support.federation import Federation
from tests.support.permitted import (
    Forbidden,
    inbox_of_client,
    inbox_of_parent,
    parent_bucket_of_client,
    parent_bucket_of_parent,
)
from tests.support.settings import CLIENTS, PRIVATE, federation_settings


class Granted(Federation):
    """A federation in which everybody has the rights of the table, and no others."""

    @property
    def parent(self) -> Parent:
        parent = super().parent
        return replace(
            parent,
            store=parent_bucket_of_parent(parent.store),
            open_inbox=lambda url: inbox_of_parent(parent.open_inbox(url)),
        )

    def client(self, name: str) -> Client:
        client = super().client(name)
        return replace(
            client,
            open_parent=lambda agreement: parent_bucket_of_client(client.open_parent(agreement), name),
            inbox=inbox_of_client(client.inbox) if client.inbox is not None else None,
        )


def test_a_run_needs_no_right_beyond_one_prefix_each():
    federation = Granted().run(duplicates=True)
    assert federation.models == reference(federation.settings, [CLIENTS] * 3)
    without_events = Granted(federation_settings(privacy=PRIVATE)).run(lossy=True)
    assert [without_events.summary(round_).averaged for round_ in range(3)] == [CLIENTS] * 3
    without_events.assert_sound()


@pytest.mark.parametrize(
    "key",
    [
        keys.Update("orchard", "alder", 0),
        keys.Update("orchard", "alder", 0, withdrawn=True),
        keys.Receipt("orchard", 0, "birch"),
        keys.Cohort("orchard", 0),
        keys.Model("orchard", 1),
        keys.Finished("orchard"),
        keys.Update("meadow", "birch", 0),
    ],
    ids=str,
)
def test_an_object_in_anothers_place_cannot_be_made_and_the_run_is_as_it_would_be(key: keys.Key):
    federation = Granted()

    def forge() -> None:
        birch = federation.client("birch")
        store = birch.open_parent(birch.settings.agreement[0])
        with pytest.raises(Forbidden):
            store.create(str(key), update_file(trained(FIRST, "alder", 0), "alder", 0))
        store.create(str(keys.Update("orchard", "birch", 0)), update_file(trained(FIRST, "birch", 0), "birch", 0))

    federation.instead[("birch", 0)] = forge
    assert federation.run().models == reference(federation.settings, [CLIENTS] * 3)


@pytest.mark.parametrize("key", [keys.Update("orchard", "alder", 0), keys.Receipt("orchard", 0, "birch")], ids=str)
def test_what_others_sent_and_what_was_decided_on_oneself_cannot_be_read(key: keys.Key):
    federation = Federation().run()
    assert str(key) in federation.folder("")
    store = parent_bucket_of_client(federation.parent_bucket, "birch")
    for look in (store.read, store.stat, lambda key: list(store.list(key))):
        with pytest.raises(Forbidden):
            look(str(key))
