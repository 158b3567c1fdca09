"""The parent's side of the loop: each function is woken by one object and ends by creating the next.

    models/R ─publish─▶ inbox/R … updates/C/R ─record─▶ receipts/C ─aggregate─▶ models/R+1
    a timer ─sweep─▶ whatever successor is missing

Every function may run twice, at the same time, late, or die half-way: what it creates is created once, and what is
there already is taken as it is.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from aggregator.cohort import close
from aggregator.next_model import commit, read_summary
from aggregator.receipts import examine
from exchange import keys
from exchange.blocks import WeightFile, digest
from exchange.errors import AlreadyExists, FedbucketError, NotFound
from exchange.events import ObjectCreated
from exchange.public import final_reason, newest_model, open_model, read_settings
from exchange.records import Cohort, Finished, Receipt, Summary, Ticket
from exchange.spec import FederationSettings
from exchange.stores import ObjectInfo, Store, exists, put

log = logging.getLogger(__name__)

_KNOWN = 10_000  # receipts that one instance remembers: some ten megabytes


@dataclass(frozen=True)
class Parent:
    """What the parent's functions work with.

    Attributes:
        store: the parent bucket.
        open_inbox: returns a client's bucket for its URL in the settings.
        time_limit: seconds that a function may run; what somebody else began is left to him for so long.
        workers: threads of the mean.
        known: the receipts that were read, by key and version: each new one has all of its round looked at, and what
            one version says never changes.
        digests: of the models that were read, likewise: each firing of the timer compares the open round's tickets.
    """

    store: Store
    open_inbox: Callable[[str], Store]
    time_limit: float
    workers: int = 1
    known: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    digests: dict[tuple[str, str], str] = field(default_factory=dict)


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
    failures = []
    for client, inbox in inboxes:
        ticket = _ticket(settings, round_, client, model_sha256, before)
        try:
            put(parent.open_inbox(inbox), str(keys.Ticket(federation, round_)), ticket.to_bytes())
        except FedbucketError as error:
            error.add_note(f"while opening round {round_} of {federation} for {client}")
            failures.append(error)
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
    failures: list[Exception] = []
    for federation in parent.store.folders():
        try:
            sweep_federation(parent, federation, event_id)
        except Exception as error:  # noqa: BLE001 - a mistake of ours in one must not hold up the others either
            failures.append(error)
    if failures:
        raise ExceptionGroup("sweep", failures)


def sweep_federation(parent: Parent, federation: str, event_id: str) -> None:
    """Make whatever successor is missing in the open round: tickets, receipts, the next model; past a deadline, too."""
    newest = newest_model(parent.store, federation)
    if newest is None or exists(parent.store, str(keys.Finished(federation))):
        return
    failures: list[Exception] = []
    try:
        publish(parent, federation, newest)
    except ExceptionGroup as error:
        failures += error.exceptions  # an inbox out of reach must not hold up those who have answered
    if final_reason(open_model(parent.store, federation, newest)) is None:
        for client in read_settings(parent.store, federation).roster:
            try:
                _record_missing(parent, federation, client, newest)
            except FedbucketError as error:
                failures.append(error)  # nor must an update that cannot be read
        aggregate(parent, federation, newest, event_id)
    if failures:
        raise ExceptionGroup(f"{federation}: round {newest}", failures)


def _record_missing(parent: Parent, federation: str, client: str, round_: int) -> None:
    if exists(parent.store, str(keys.Receipt(federation, round_, client))):
        return
    for withdrawn in (False, True):
        key = keys.Update(federation, client, round_, withdrawn)
        if exists(parent.store, str(key)):
            record(parent, key)
            return


def _ticket(
    settings: FederationSettings, round_: int, client: str, model_sha256: str, before: Summary | None
) -> Ticket:
    return Ticket(
        federation=settings.name,
        round=round_,
        model=str(keys.Model(settings.name, round_)),
        sha256=model_sha256,
        settings_sha256=settings.sha256,
        last=_outcome(before, client),
    )


def _digest(parent: Parent, model: WeightFile) -> str:
    if (found := parent.digests.get((model.key, model.version))) is None:
        found = parent.digests[model.key, model.version] = digest(model)
    return found


def _outcome(summary: Summary | None, client: str) -> str | None:
    if summary is None:
        return None
    if client in summary.rejected:
        return f"rejected: {summary.rejected[client]}"
    if client in summary.withdrawn:
        return "withdrawn"
    if client in summary.absent:
        return "absent"
    if client in summary.left_out:
        return "left out"
    return "averaged" if client in summary.averaged else "void"


def _finish(parent: Parent, settings: FederationSettings, model: WeightFile, round_: int) -> None:
    finished = Finished.model_validate(
        {
            "federation": settings.name,
            "round": round_,
            "model": model.key,
            "sha256": digest(model),
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
    roster = set(settings.roster)
    found = {}
    for info in parent.store.list(keys.receipts(settings.name, round_)):
        key = keys.parse(info.key)
        if isinstance(key, keys.Receipt) and key.client in roster:
            found[key.client] = _receipt(parent, info)
    return found


def _receipt(parent: Parent, info: ObjectInfo) -> Receipt:
    if (receipt := parent.known.get((info.key, info.version))) is None:
        receipt = Receipt.from_bytes(parent.store.read(info.key, info.version), info.key)
        if len(parent.known) >= _KNOWN:
            parent.known.clear()
        parent.known[info.key, info.version] = receipt
    return receipt
