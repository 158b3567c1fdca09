"""An organisation's side of the loop: woken by a ticket or by its own timer, it ends by uploading one update.

    inbox/R ─train─▶ releases/R (private state, kept and read back) ─▶ updates/<client>/R (parent bucket)
    a timer ─sweep─▶ the same, for the newest model

What was once released for a round is what is uploaded for it, however often this runs and wherever it dies.
"""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from client import consent
from exchange import keys, tensors
from exchange.documents import Document, sha256
from exchange.errors import AlreadyExists, DifferentContent, FedbucketError, NotFound
from exchange.events import ObjectCreated
from exchange.public import final_reason, newest_model, open_model, read_settings
from exchange.records import Metrics, Ticket
from exchange.spec import Agreement, ClientSettings, FederationSettings
from exchange.stores import Store, exists, put

log = logging.getLogger(__name__)

_ANY_SIZE = 2**62  # a model is as large as the parties agreed to make it


@dataclass(frozen=True)
class Learned:
    """What local training found.

    Attributes:
        weights: every floating tensor of the model by name, in the model's shapes.
        metrics: the global model's, on the client's own validation split; empty unless sharing was agreed.
    """

    weights: Mapping[str, NDArray[Any]]
    metrics: Metrics = field(default_factory=dict)


class Learn(Protocol):
    """Local training: a pure function of its arguments and of the client's data."""

    def __call__(self, agreement: Agreement, settings: FederationSettings, round_: int, model: bytes) -> Learned:
        """Return the weights that the client's data make of global model `round_`, the safetensors file `model`."""


@dataclass(frozen=True)
class Client:
    """What an organisation's functions work with.

    Attributes:
        settings: its own settings.
        open_parent: returns the parent bucket of an agreement.
        inbox: its bucket for tickets, if it has one.
        state: its private state.
        learn: trains.
        time_limit: seconds that a function may run; an attempt younger than that may still be under way.
    """

    settings: ClientSettings
    open_parent: Callable[[Agreement], Store]
    inbox: Store | None
    state: Store
    learn: Learn
    time_limit: float


class Attempt(Document):
    """In private state: training for a round was begun."""

    federation: str
    round: int
    number: int


def handle(client: Client, event: ObjectCreated) -> None:
    """Do what the creation of an object in the client's bucket asks for: a ticket asks for training."""
    match keys.parse(event.key):
        case keys.Ticket(federation, round_) if client.inbox is not None:
            ticket = Ticket.from_bytes(client.inbox.read(event.key), event.key)
            if ticket.last is not None and ticket.last != "averaged":
                log.warning("%s: round %d ended for %s: %s", federation, round_ - 1, client.settings.id, ticket.last)
            train(client, federation, round_, ticket.sha256)


def train(client: Client, federation: str, round_: int, model_sha256: str | None = None) -> None:
    """Answer a round, unless it is over or already answered.

    Args:
        model_sha256: the digest that the ticket names.

    Raises:
        ConsentRefused: the federation is outside what was agreed; nothing was created.
        TaskError: the task failed; the next event or sweep tries again.
    """
    parent = client.open_parent(consent.agreed(client.settings, federation))
    settings = read_settings(parent, federation)
    agreement = consent.check(client.settings, federation, settings)
    if not _open(parent, federation, round_):
        return
    if (released := _released(client, federation, round_)) is None:
        _begin_attempt(client, federation, round_)
        model = _read_model(parent, federation, round_, model_sha256)
        learned = client.learn(agreement, settings, round_, model)
        if not _open(parent, federation, round_):
            return  # closed meanwhile: what was learned is dropped, nothing of it was kept
        released = _release(client, keys.Release(federation, round_), _update_file(client, federation, round_, learned))
    put(parent, str(keys.Update(federation, client.settings.id, round_)), released)


def sweep(client: Client) -> None:
    """For every agreement, answer the newest model if that is missing and no attempt is under way.

    Raises:
        ExceptionGroup: some federations failed; all others were swept.
    """
    failures: list[Exception] = []
    for agreement in client.settings.agreement:
        try:
            _sweep_federation(client, agreement)
        except FedbucketError as error:
            failures.append(error)
    if failures:
        raise ExceptionGroup("sweep", failures)


def _sweep_federation(client: Client, agreement: Agreement) -> None:
    parent = client.open_parent(agreement)
    newest = newest_model(parent, agreement.federation)
    if newest is None or not _open(parent, agreement.federation, newest):
        return
    if exists(parent, str(keys.Update(agreement.federation, client.settings.id, newest))):
        return
    ages = [info.age for info in client.state.list(keys.attempts(agreement.federation, newest))]
    if not ages or min(ages) >= client.time_limit:
        train(client, agreement.federation, newest)


def _open(parent: Store, federation: str, round_: int) -> bool:
    """Return whether the round still takes answers: its model is the newest, and not the last."""
    if newest_model(parent, federation) != round_ or exists(parent, str(keys.Finished(federation))):
        return False
    return final_reason(open_model(parent, federation, round_)) is None


def _released(client: Client, federation: str, round_: int) -> bytes | None:
    try:
        return client.state.read(str(keys.Release(federation, round_)), limit=_ANY_SIZE)
    except NotFound:
        return None


def _begin_attempt(client: Client, federation: str, round_: int) -> None:
    number = sum(1 for _ in client.state.list(keys.attempts(federation, round_)))
    attempt = Attempt(federation=federation, round=round_, number=number)
    with suppress(AlreadyExists):  # somebody else begins at this moment: his marker serves as well
        client.state.create(str(keys.Attempt(federation, round_, number)), attempt.to_bytes())


def _read_model(parent: Store, federation: str, round_: int, model_sha256: str | None) -> bytes:
    key = str(keys.Model(federation, round_))
    model = parent.read(key, limit=_ANY_SIZE)
    if model_sha256 is not None and sha256(model) != model_sha256:
        raise DifferentContent(f"{key} in {parent.url} has SHA-256 {sha256(model)}, the ticket names {model_sha256}")
    return model


def _update_file(client: Client, federation: str, round_: int, learned: Learned) -> bytes:
    metadata = {"federation": federation, "round": str(round_), "client": client.settings.id}
    if learned.metrics:
        metadata["metrics"] = json.dumps(learned.metrics, sort_keys=True)
    return tensors.dump(learned.weights, metadata)


def _release(client: Client, key: keys.Release, data: bytes) -> bytes:
    """Keep `data` as what is released for the round and return what is kept: the first stands."""
    with suppress(AlreadyExists):
        client.state.create(str(key), data)
    return client.state.read(str(key), limit=_ANY_SIZE)
