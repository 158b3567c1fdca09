"""Looking at a federation from outside, without touching it: where it stands, and whether its history is true."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aggregator.next_model import open_member, open_state, plan, read_summary
from aggregator.summary import summarise
from exchange import keys
from exchange.blocks import digest
from exchange.errors import CohortUnreadable, FedbucketError, NotFound
from exchange.public import final_reason, newest_model, open_model, read_settings
from exchange.records import Cohort, Pruned, Receipt, RemovedUpdate
from exchange.spec import FederationSettings
from exchange.stores import Store, exists


@dataclass(frozen=True)
class Answer:
    """How one client stands in the open round.

    Attributes:
        state: accepted, rejected, withdrawn; uploaded (its update is there, its receipt not yet); waiting, or late
            once the deadline has passed.
        detail: why an update was rejected.
    """

    client: str
    state: Literal["accepted", "rejected", "withdrawn", "uploaded", "waiting", "late"]
    detail: str | None = None


@dataclass(frozen=True)
class Status:
    """Where a federation stands.

    Attributes:
        round: the open round; once finished, the number of the final model.
        age, deadline: seconds since the round opened, and after which a quorum closes it.
        finished: why it ended; None while it runs.
        answers: by client, sorted; empty once finished.
    """

    federation: str
    round: int
    rounds: int
    quorum: int
    age: float
    deadline: int
    settings_sha256: str
    finished: str | None
    answers: list[Answer]


@dataclass(frozen=True)
class Verdict:
    """Whether a round's model, optimizer's state and summary are what its cohort makes of those before.

    Attributes:
        verdict: pruned, if that can no longer be told, because updates were removed and a record says which.
    """

    round: int
    verdict: Literal["good", "bad", "pruned"]
    detail: str


def status(store: Store, federation: str) -> Status:
    """Return where `federation` stands; raises NotFound if it has not been started."""
    settings = read_settings(store, federation)
    if (newest := newest_model(store, federation)) is None:
        raise NotFound(f"{federation} in {store.url} has settings, and no model yet: it was not started")
    age = store.stat(str(keys.Model(federation, newest))).age
    finished = final_reason(open_model(store, federation, newest))
    late = age >= settings.round.deadline
    answers = [] if finished else [_answer(store, settings, client, newest, late) for client in settings.roster]
    return Status(
        federation,
        newest,
        settings.rounds,
        settings.round.quorum,
        age,
        settings.round.deadline,
        settings.sha256,
        finished,
        answers,
    )


def verify(store: Store, federation: str, workers: int = 1) -> Iterator[Verdict]:
    """Yield, round by round, whether what it made is what its cohort gives, computed anew: the model, to the byte."""
    settings = read_settings(store, federation)
    for round_ in range(newest_model(store, federation) or 0):
        try:
            yield _verify_round(store, settings, round_, workers)
        except FedbucketError as error:
            yield Verdict(round_, "bad", str(error))


def _verify_round(store: Store, settings: FederationSettings, round_: int, workers: int) -> Verdict:
    key = str(keys.Cohort(settings.name, round_))
    cohort = Cohort.from_bytes(store.read(key), key)
    found = digest(open_model(store, settings.name, round_ + 1))
    try:
        planned = plan(store, settings, cohort, workers)
        computed, computed_state, change = planned.digests(workers)
    except CohortUnreadable:
        if not (gone := _pruned(store, cohort)):
            raise
        detail = f"{gone} of {len(cohort.members)} updates were removed, as {keys.Pruned(settings.name, round_)} says"
        return Verdict(round_, "pruned", f"{detail}; the model has SHA-256 {found}")
    if computed != found:
        return Verdict(round_, "bad", f"the model has SHA-256 {found}, its cohort gives {computed}")
    if computed_state is not None:
        state = digest(open_state(store, settings.name, round_))
        if computed_state != state:
            return Verdict(round_, "bad", f"the optimizer's state has SHA-256 {state}, expected {computed_state}")
    # Pages and tickets repeat it, and the next round goes by it.
    summary = summarise(settings, cohort, change, planned.before, planned.plan.left_out)
    if read_summary(store, settings.name, round_) != summary:
        key = str(keys.Summary(settings.name, round_))
        return Verdict(round_, "bad", f"{key} is not as its cohort gives it from the model and the summary before")
    return Verdict(round_, "good", f"{len(cohort.members)} updates give {found}")


def _pruned(store: Store, cohort: Cohort) -> int:
    """Return how many of a cohort's updates were removed, on record.

    Raises:
        CohortUnreadable: another one is gone, or is no longer as the cohort recorded it.
    """
    key = str(keys.Pruned(cohort.federation, cohort.round))
    named = set(Pruned.from_bytes(store.read(key), key).removed) if exists(store, key) else set()
    gone = 0
    for member in cohort.members:
        as_recorded = RemovedUpdate(key=member.key, size=member.size, sha256=member.sha256)
        if as_recorded in named and not exists(store, member.key):
            gone += 1
        else:
            open_member(store, member)
    return gone


def _answer(store: Store, settings: FederationSettings, client: str, round_: int, late: bool) -> Answer:
    key = str(keys.Receipt(settings.name, round_, client))
    if exists(store, key):
        receipt = Receipt.from_bytes(store.read(key), key)
        return Answer(client, receipt.outcome, f"{receipt.code}: {receipt.detail}" if receipt.code else None)
    if any(exists(store, str(keys.Update(settings.name, client, round_, withdrawn))) for withdrawn in (False, True)):
        return Answer(client, "uploaded")
    return Answer(client, "late" if late else "waiting")
