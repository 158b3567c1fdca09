"""Whatever the parent may put before a client: a ticket, settings or a model that are not what they should be make an
error of ours, or nothing; nothing is released on their account."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import rounds as client_rounds
from client.checkpoints import Saves
from client.privacy.plan import Plan
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import FedbucketError, TaskError
from exchange.events import ObjectCreated
from exchange.spec import Agreement, FederationSettings
from tests.support import hostile
from tests.support.arithmetic import FIRST
from tests.support.buckets import contents
from tests.support.federation import Federation
from tests.support.settings import PRIVATE, federation_settings

TICKET = str(keys.Ticket("orchard", 0))
SETTINGS = str(keys.Settings("orchard"))
MODEL = str(keys.Model("orchard", 0))
SHAPES = {name: array.shape for name, array in FIRST.items()}
METADATA = {"federation": "orchard", "round": "0"}


def ticketed() -> Federation:
    """Return a federation in which alder has its ticket and has not acted on it."""
    federation = Federation(federation_settings(("alder",), rounds=1, quorum=1, privacy=PRIVATE)).start()
    federation.deliver_until(keys.Ticket("orchard", 0))
    federation.learners = {"alder": learn}
    return federation


@cache
def sound(of: Callable[[Federation], bytes]) -> bytes:
    return of(ticketed())


def learn(
    agreement: Agreement, settings: FederationSettings, round_: int, model: bytes, plan: Plan | None, saves: Saves, /
) -> Learned:
    """Learn nothing, from a model of the task's shapes."""
    if {name: array.shape for name, array in tensors.load(model).items()} != SHAPES:
        raise TaskError("the task's model() is not the federation's global model")
    return Learned({name: np.zeros(array.shape) for name, array in FIRST.items() if array.dtype.kind == "f"})


def wake(federation: Federation) -> bool:
    """Wake alder by its ticket; return whether it failed, which is with an error of ours only."""
    try:
        client_rounds.handle(federation.client("alder"), ObjectCreated("alder", TICKET, "event"))
    except FedbucketError:
        return True
    return False


@settings(max_examples=60)
@given(hostile.documents(sound(lambda federation: contents(federation.inboxes["alder"])[TICKET])) | st.binary())
def test_any_ticket_is_answered_or_refused(data: bytes):
    federation = ticketed()
    model = federation.parent_bucket.read(MODEL)
    federation.inboxes["alder"].replace(TICKET, data)
    failed = wake(federation)
    assert failed == (federation.uploads() == {})
    assert federation.parent_bucket.read(MODEL) == model
    federation.assert_sound()


@settings(max_examples=60)
@given(hostile.documents(sound(lambda federation: contents(federation.parent_bucket)[SETTINGS])) | st.binary())
def test_any_settings_but_those_that_were_pinned_are_refused_and_nothing_is_kept(data: bytes):
    federation = ticketed()
    agreed = federation.parent_bucket.read(SETTINGS)
    before = contents(federation.states["alder"])
    federation.parent_bucket.replace(SETTINGS, data)
    failed = wake(federation)
    assert failed == (data != agreed)
    if failed:
        assert contents(federation.states["alder"]) == before
        assert federation.uploads() == {}


@pytest.mark.parametrize("event", [True, False], ids=["by-ticket", "by-timer"])
def test_any_model_is_trained_on_or_refused(event: bool):
    @settings(max_examples=60)
    @given(hostile.weight_files(SHAPES, METADATA) | st.binary(max_size=300))
    def refused(data: bytes) -> None:
        federation = ticketed()
        federation.parent_bucket.replace(MODEL, data)
        if event:
            assert wake(federation), "the ticket names another digest"
            assert federation.uploads() == {}
        else:
            try:
                with np.errstate(all="ignore"):  # a model of NaN makes updates of NaN, which the parent rejects
                    client_rounds.sweep(federation.client("alder"))
            except* FedbucketError:
                assert federation.uploads() == {}
        federation.assert_sound()

    refused()
