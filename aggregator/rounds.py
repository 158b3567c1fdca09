"""The parent's side of the loop: each function is woken by one object and ends by creating the next.

    models/R ─publish─▶ inbox/R … updates/C/R ─record─▶ receipts/C ─aggregate─▶ models/R+1
    a timer ─sweep─▶ whatever successor is missing

Every function may run twice, at the same time, late, or die half-way: what it creates is created once, and what is
there already is taken as it is.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from aggregator.cohort import close
from aggregator.known import Known
from aggregator.next_model import commit, read_summary
from aggregator.receipts import examine
from aggregator.tickets import make_ticket, tell
from exchange import keys
from exchange.blocks import WeightFile, digest
from exchange.errors import AlreadyExists, NotFound
from exchange.events import ObjectCreated
from exchange.public import final_reason, newest_model, open_model, read_settings
from exchange.records import Cohort, Finished, Receipt
from exchange.spec import FederationSettings
from exchange.stores import ObjectInfo, Store, exists, put

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """What the parent's functions work with.

    Attributes:
        store: the parent bucket.
        open_inbox: returns a client's bucket for its URL in the settings.
        time_limit: seconds that a function may run; what somebody else began is left to him for so long.
        workers: threads of the mean.
        known: what this instance has read: every receipt and every sweep has all of a round looked at.
    """

    store: Store
    open_inbox: Callable[[str], Store]
    time_limit: float
    workers: int = 1
    known: Known = field(default_factory=Known)


def handle(parent: Parent, event: ObjectCreated) -> None:
    """Do what the creation of an object in the parent bucket asks for; most keys ask for nothing."""
    match keys.parse(event.key):
        case keys.Model(federation, round_):
            publish(parent, federation, round_)
        case keys.Update() as key:
            record(parent, key)
        case keys.Receipt(federation, round_, _):
            aggregate(parent, federation, round_, event.id)


def start(store: Store, settings: FederationSettings, model: bytes) -> None:
    """Begin a federation: publish what was agreed, then global model 0, whose event opens the first round.

    Raises:
        DifferentContent: the federation exists with other settings or another model 0.
    """
    put(store, str(keys.Settings(settings.name)), settings.to_bytes())
    put(store, str(keys.Model(settings.name, 0)), model)


def publish(parent: Parent, federation: str, round_: int) -> None:
    """Tell every client with an inbox that the round is open; after a final model, tell everyone that the run is over.

    Raises:
        ExceptionGroup: some inboxes failed; all others have their tickets.
    """
    if exists(parent.store, str(keys.Model(federation, round_ + 1))):
        return
    settings = read_settings(parent.store, federation)
    model = open_model(parent.store, federation, round_)
    if final_reason(model) is not None:
        _finish(parent, settings, model, round_)
        return
    inboxes = [(entry.id, entry.inbox) for entry in settings.client if entry.inbox is not None]
    model_sha256 = _digest(parent, model) if inboxes else ""
    before = read_summary(parent.store, federation, round_ - 1)
    failures: list[Exception] = []
    for client, inbox in inboxes:
        with _gathered(failures, f"while opening round {round_} of {federation} for {client}"):
            ticket = make_ticket(settings, round_, client, model_sha256, before)
            tell(parent.open_inbox(inbox), ticket, parent.known)
    if failures:
        raise ExceptionGroup(f"{federation}: round {round_} could not be opened for {len(failures)} clients", failures)


def record(parent: Parent, key: keys.Update) -> None:
    """Decide, once, on a client's answer to the open round; an answer to any other round is left alone."""
    settings = read_settings(parent.store, key.federation)
    if (entry := settings.entry(key.client)) is None:
        log.warning("%s: %s is not on the roster", key, key.client)
        return
    receipt_key = str(keys.Receipt(key.federation, key.round, key.client))
    if exists(parent.store, str(keys.Model(key.federation, key.round + 1))) or exists(parent.store, receipt_key):
        return
    try:
        model = open_model(parent.store, key.federation, key.round)
    except NotFound:
        log.warning("%s: round %d has not opened", key, key.round)
        return
    if final_reason(model) is not None:
        return
    receipt = examine(parent.store, settings, entry, key, model)
    if receipt.code is not None:
        log.warning("%s: rejected, %s: %s", key, receipt.code, receipt.detail)
    with suppress(AlreadyExists):  # a receipt is a decision: the first stands
        parent.store.create(receipt_key, receipt.to_bytes())


def aggregate(parent: Parent, federation: str, round_: int, event_id: str) -> None:
    """Close the round if it can close, and make the next global model.

    Raises:
        CohortUnreadable: a frozen update is no longer there as it was recorded.
    """
    if exists(parent.store, str(keys.Model(federation, round_ + 1))):
        return
    settings = read_settings(parent.store, federation)
    cohort = _freeze(parent, settings, round_, event_id)
    if cohort is not None:
        log.info("%s: round %d closes: the mean of %d updates begins", federation, round_, len(cohort.members))
        commit(parent.store, settings, cohort, parent.workers)


def sweep(parent: Parent, event_id: str) -> None:
    """For every federation in the bucket, make whatever successor is missing.

    Args:
        event_id: the id of this firing of the timer.

    Raises:
        ExceptionGroup: some federations failed; all others were swept.
    """
    federations = list(parent.store.folders())
    failures: list[Exception] = []
    for federation in federations:
        with _gathered(failures):
            _close_open_round(parent, federation, event_id)
    # Tickets last: a bucket that does not answer takes a minute, and a few of them all of a function's time.
    for federation in federations:
        with _gathered(failures):
            if (newest := _newest_if_unfinished(parent, federation)) is not None:
                publish(parent, federation, newest)
    if failures:
        raise ExceptionGroup("sweep", failures)


def _close_open_round(parent: Parent, federation: str, event_id: str) -> None:
    """Make the receipts that are missing in the open round; close it if it can close, past a deadline too."""
    round_ = _newest_if_unfinished(parent, federation)
    if round_ is None or final_reason(open_model(parent.store, federation, round_)) is not None:
        return
    failures: list[Exception] = []
    settings = read_settings(parent.store, federation)
    for client in sorted(set(settings.roster) - _recorded(parent, settings, round_).keys()):
        with _gathered(failures):
            _record_missing(parent, federation, client, round_)
    with _gathered(failures):
        aggregate(parent, federation, round_, event_id)
    if failures:
        raise ExceptionGroup(f"{federation}: round {round_}", failures)


def _newest_if_unfinished(parent: Parent, federation: str) -> int | None:
    """Return the number of the newest model; None before the first, and once it was said that the run is over."""
    if exists(parent.store, str(keys.Finished(federation))):
        return None
    return newest_model(parent.store, federation)


def _record_missing(parent: Parent, federation: str, client: str, round_: int) -> None:
    for withdrawn in (False, True):
        key = keys.Update(federation, client, round_, withdrawn)
        if exists(parent.store, str(key)):
            record(parent, key)
            return


@contextmanager
def _gathered(failures: list[Exception], note: str | None = None) -> Iterator[None]:
    """Add what fails within to `failures`, and go on: it must not hold up the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - nor must a mistake of ours
        if note is not None:
            error.add_note(note)
        failures.append(error)


def _digest(parent: Parent, model: WeightFile) -> str:
    return parent.known.find(parent.store.url, model.key, model.version, lambda: digest(model))


def _finish(parent: Parent, settings: FederationSettings, model: WeightFile, round_: int) -> None:
    finished = Finished.model_validate(
        {
            "federation": settings.name,
            "round": round_,
            "model": model.key,
            "sha256": _digest(parent, model),
            "settings_sha256": settings.sha256,
            "reason": final_reason(model),
        }
    )
    put(parent.store, str(keys.Finished(settings.name)), finished.to_bytes())


def _freeze(parent: Parent, settings: FederationSettings, round_: int, event_id: str) -> Cohort | None:
    """Return the cohort that this call is to aggregate; None if the round stays open or somebody else is at it."""
    key = str(keys.Cohort(settings.name, round_))
    if not exists(parent.store, key):
        age = parent.store.stat(str(keys.Model(settings.name, round_))).age
        cohort = close(settings, round_, _receipts(parent, settings, round_), age, event_id)
        if cohort is None:
            if age >= settings.round.deadline:
                log.warning("%s: round %d is past its deadline, without its quorum", settings.name, round_)
            return None
        with suppress(AlreadyExists):  # a cohort is a decision: the first stands
            parent.store.create(key, cohort.to_bytes())
    frozen = Cohort.from_bytes(parent.store.read(key), key)
    if frozen.frozen_by == event_id or parent.store.stat(key).age >= parent.time_limit:
        return frozen
    return None


def _receipts(parent: Parent, settings: FederationSettings, round_: int) -> dict[str, Receipt]:
    """Return the round's receipts by client; those that this instance has seen are not read again."""
    return {client: _receipt(parent, info) for client, info in _recorded(parent, settings, round_).items()}


def _recorded(parent: Parent, settings: FederationSettings, round_: int) -> dict[str, ObjectInfo]:
    """Return where the receipt of each client lies that has one in the round."""
    roster = set(settings.roster)
    found = {}
    for info in parent.store.list(keys.receipts(settings.name, round_)):
        key = keys.parse(info.key)
        if isinstance(key, keys.Receipt) and key.client in roster:
            found[key.client] = info
    return found


def _receipt(parent: Parent, info: ObjectInfo) -> Receipt:
    def read() -> Receipt:
        return Receipt.from_bytes(parent.store.read(info.key, info.version), info.key)

    return parent.known.find(parent.store.url, info.key, info.version, read)
