"""An organisation takes part in what it agreed to, and in nothing else: whatever is outside is refused by name, and
nothing is created anywhere."""

from dataclasses import replace
from typing import Any

import pytest

from client import consent
from client import rounds as client_rounds
from exchange import keys
from exchange.errors import ConsentRefused
from exchange.spec import Budget, ClientSettings, FederationSettings
from tests.support.buckets import contents
from tests.support.federation import Federation
from tests.support.settings import PRIVATE, client_settings, federation_settings

PLAIN = federation_settings()
OPEN = federation_settings(metrics={"share": "open"})
NOISED = federation_settings(privacy=PRIVATE)
UNIT = {"unit": "client", "adjacency": "replace-one", "delta": 1e-5}


def asked(settings: FederationSettings, **agreement: Any) -> ClientSettings:
    return client_settings("birch", settings, **agreement)


OBJECTIONS = {
    "settings that changed": (PLAIN, asked(PLAIN, settings_sha256="0" * 64), "settings_sha256 is pinned to 00000"),
    "settings that were never pinned": (
        PLAIN,
        asked(PLAIN, settings_sha256=None),
        f"settings_sha256 is not pinned; to agree .* set it to {PLAIN.sha256}",
    ),
    "another mechanism": (
        PLAIN,
        asked(PLAIN, mechanisms=("dp-sgd",)),
        r"privacy.mechanism is 'none', agreed are \['dp-sgd'\]",
    ),
    "too many rounds": (PLAIN, asked(PLAIN, max_rounds=2), "rounds is 3, agreed are at most 2"),
    "too many examples": (PLAIN, asked(PLAIN, max_examples=49), "examples of birch is 50, agreed are at most 49"),
    "shared metrics": (OPEN, asked(OPEN, share_metrics=False), "metrics.share is 'open', share_metrics is not agreed"),
    "a roster without it": (
        federation_settings(("alder", "cedar")),
        asked(federation_settings(("alder", "cedar"))),
        r"birch is not on the roster: \['alder', 'cedar'\]",
    ),
    "more ε than it agreed to": (
        NOISED,
        asked(NOISED, max_epsilon=7.9),
        "privacy.epsilon is 8 .*unit: one client, replace-one.* agreed are at most 7.9",
    ),
    "an ε that it never limited": (NOISED, asked(NOISED, max_epsilon=None), "max_epsilon is not set.* ε = 8"),
    "spending without a budget": (
        NOISED,
        asked(NOISED).model_copy(update={"budget": None}),
        r"no \[budget\]: nothing may be spent",
    ),
    "another unit than that of its budget": (
        NOISED,
        asked(NOISED).model_copy(update={"budget": Budget(**UNIT | {"unit": "example"}, epsilon=9.0)}),
        r"protects one client .*budget is for one example",
    ),
}


def waiting(settings: FederationSettings) -> Federation:
    """Return a federation whose first round has opened, and in which nobody has answered."""
    federation = Federation(settings).start()
    federation.offline = set(settings.roster)
    federation.deliver_all()
    return federation


def everything(federation: Federation) -> list[dict[str, bytes]]:
    return [contents(bucket) for bucket in (federation.parent_bucket, *federation.inboxes.values())] + [
        contents(state) for state in federation.states.values()
    ]


@pytest.mark.parametrize("what", OBJECTIONS)
def test_whatever_is_outside_the_agreement_is_refused_by_name_and_nothing_is_created(what: str):
    settings, own, message = OBJECTIONS[what]
    federation = waiting(settings)
    before = everything(federation)
    known = "birch" if "birch" in settings.roster else "alder"
    client = replace(federation.client(known), settings=own)
    with pytest.raises(ConsentRefused, match=message):
        client_rounds.train(client, "orchard", 0)
    with pytest.raises(ExceptionGroup) as caught:
        client_rounds.sweep(client)
    assert caught.group_contains(ConsentRefused, match=message)
    assert everything(federation) == before
    assert federation.learners[known].calls == []


def test_a_federation_that_nothing_was_agreed_on_is_refused_before_its_bucket_is_opened():
    federation = waiting(PLAIN)
    opened = []
    client = replace(
        federation.client("birch"),
        settings=ClientSettings(id="birch", data="data"),
        open_parent=lambda agreement: opened.append(agreement),
    )
    ticket = federation.inboxes["birch"]
    assert "orchard/inbox/000000.json" in contents(ticket)
    with pytest.raises(ConsentRefused, match=r"birch has no \[\[agreement\]\] on 'orchard'"):
        client_rounds.train(client, "orchard", 0)
    client_rounds.sweep(client)
    assert opened == []


def test_all_objections_are_listed_at_once():
    own = asked(OPEN, share_metrics=False, max_rounds=1, max_examples=1, settings_sha256=None, mechanisms=())
    with pytest.raises(ConsentRefused) as caught:
        consent.check(own, "orchard", OPEN)
    assert len(str(caught.value).splitlines()) == 6
    assert str(caught.value).startswith("birch does not agree to orchard; nothing was sent:")


def test_settings_that_name_another_federation_than_the_agreement_are_refused():
    other = federation_settings(name="apiary")
    own = asked(other, federation="orchard")
    with pytest.raises(ConsentRefused, match="settings are of 'apiary', the agreement is on 'orchard'"):
        consent.check(own, "orchard", other)


@pytest.mark.parametrize("settings", [PLAIN, OPEN, NOISED])
def test_what_was_agreed_to_the_letter_is_taken_part_in(settings: FederationSettings):
    limits = {"max_rounds": 3, "max_examples": 50}
    own = asked(settings, **limits)
    assert consent.check(own, "orchard", settings) == own.agreement[0]
    federation = waiting(settings)
    client_rounds.train(replace(federation.client("birch"), settings=own), "orchard", 0)
    assert federation.uploads().keys() == {str(keys.Update("orchard", "birch", 0))}


def test_a_client_that_refused_takes_part_once_it_agrees():
    federation = waiting(PLAIN)
    refusing = replace(federation.client("birch"), settings=asked(PLAIN, max_rounds=1))
    with pytest.raises(ExceptionGroup):
        client_rounds.sweep(refusing)
    client_rounds.sweep(replace(refusing, settings=asked(PLAIN, max_rounds=3)))
    assert federation.uploads().keys() == {str(keys.Update("orchard", "birch", 0))}
