"""From a frozen cohort to the next global model: written once, and the same bytes whoever writes them."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from aggregator.mean import Change, Member, average, model_header
from aggregator.summary import summarise
from exchange import keys
from exchange.blocks import WeightFile, digest, open_weights
from exchange.errors import (
    AlreadyExists,
    CohortUnreadable,
    DifferentContent,
    InvalidTensorFile,
    NotFound,
    VersionMismatch,
)
from exchange.public import FINAL, open_model
from exchange.records import Cohort, StoredUpdate, Summary
from exchange.spec import FederationSettings
from exchange.stores import Store


@dataclass(frozen=True)
class NextModel:
    """The file of global model R+1, ready to be written.

    Attributes:
        header: its first bytes.
        model, members: what its data is made of.
    """

    header: bytes
    model: WeightFile
    members: list[Member]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + self.model.layout.size - self.model.layout.data_begin

    def write(self, out: Callable[[bytes], object], workers: int) -> Change | None:
        """Write the file; return how far it is from the model before, None where it is the same (a void round)."""
        out(self.header)
        change = average(self.model, self.members, out, workers)
        return change if self.members else None

    def digest(self, workers: int) -> str:
        """Return the SHA-256 of the file, computed without writing it."""
        computed = hashlib.sha256()
        self.write(computed.update, workers)
        return computed.hexdigest()


def commit(store: Store, settings: FederationSettings, cohort: Cohort, workers: int) -> None:
    """Write the round's summary and the next global model; this ends the round.

    Raises:
        CohortUnreadable: a frozen update is no longer there as it was recorded.
        DifferentContent: the next model exists with other bytes.
    """
    before = read_summary(store, settings.name, cohort.round - 1)
    key = str(keys.Model(settings.name, cohort.round + 1))
    try:
        planned = plan(store, settings, cohort, workers)
        with store.writer(key, planned.size) as out:
            change = planned.write(out.write, workers)
            with suppress(AlreadyExists):  # before the model is visible, so that no model is without its summary
                summary = summarise(settings, cohort, change, before)
                store.create(str(keys.Summary(settings.name, cohort.round)), summary.to_bytes())
    except AlreadyExists:
        if digest(open_weights(store, key)) != planned.digest(workers):
            raise DifferentContent(f"{key} in {store.url} exists with other bytes than its cohort gives") from None
    except VersionMismatch as error:
        raise CohortUnreadable(f"round {cohort.round}: {error}; it was replaced while it was read") from error


def plan(store: Store, settings: FederationSettings, cohort: Cohort, workers: int) -> NextModel:
    """Return what the cohort makes of the round's model.

    Raises:
        CohortUnreadable: a frozen update is no longer there as it was recorded.
    """
    model = open_model(store, settings.name, cohort.round)
    members = [(open_member(store, member), member.num_examples) for member in cohort.members]
    change = None
    if settings.stop.tolerance is not None and members:
        # Whether the run ends here stands in the header, before the data that decides it: one pass more, to find out.
        change = average(model, members, lambda _: None, workers)
    before = read_summary(store, settings.name, cohort.round - 1)
    finished = summarise(settings, cohort, change, before).finished
    metadata = {"federation": settings.name, "round": str(cohort.round + 1)} | ({FINAL: finished} if finished else {})
    return NextModel(model_header(model, metadata), model, members)


def read_summary(store: Store, federation: str, round_: int) -> Summary | None:
    """Return the summary of a round; None if there is none (yet)."""
    key = str(keys.Summary(federation, round_))
    try:
        return Summary.from_bytes(store.read(key), key)
    except NotFound:
        return None


def open_member(store: Store, member: StoredUpdate) -> WeightFile:
    """Return a member's update, pinned to what the cohort recorded; raises CohortUnreadable."""
    try:
        return open_weights(store, member.key, member.version)
    except VersionMismatch:
        return _open_restored(store, member)
    except (NotFound, InvalidTensorFile) as error:
        raise CohortUnreadable(f"{member.key} is not there as the cohort recorded it: {error}") from error


def _open_restored(store: Store, member: StoredUpdate) -> WeightFile:
    """Open an object that is no longer the recorded version: in a bucket that was copied or restored, all are new."""
    try:
        update = open_weights(store, member.key)
        found = digest(update)
    except (NotFound, VersionMismatch, InvalidTensorFile) as error:
        raise CohortUnreadable(f"{member.key} is not there as the cohort recorded it: {error}") from error
    if found != member.sha256:
        raise CohortUnreadable(f"{member.key} has SHA-256 {found}, the cohort recorded {member.sha256}: restore it")
    return update
