"""From a frozen cohort to the next global model: written once, and the same bytes whoever writes them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from aggregator.strategies import Plan, Update, decide
from aggregator.stripes import Change, Out, discard, model_header, write_data
from aggregator.summary import summarise
from exchange import keys, tensors
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
from exchange.spec import FederationSettings, ServerOptimizer
from exchange.stores import Store, exists


@dataclass(frozen=True)
class NextModel:
    """The file of global model R+1, and that of the optimizer's state if there is one, ready to be written.

    Attributes:
        header: the model's first bytes.
        state_header: the state's; None without state.
        model, plan: what the data is made of.
        before: the summary of the round before; None for the first.
    """

    header: bytes
    state_header: bytes | None
    model: WeightFile
    plan: Plan
    before: Summary | None

    @property
    def size(self) -> int:
        """Bytes of the model's whole file."""
        return len(self.header) + self.model.layout.size - self.model.layout.data_begin

    def write(self, out: Out, workers: int, state_out: Out = discard) -> Change | None:
        """Write the files; return how far the model is from the one before, None for the same (a void round)."""
        out(self.header)
        state_out(self.state_header or b"")
        change = write_data(self.model, self.plan.rule, out, workers, state_out)
        return change if self.plan.rule else None

    def digests(self, workers: int) -> tuple[str, str | None, Change | None]:
        """Return the SHA-256 of the model, that of the state if there is one, and what `write` returns."""
        model, state = hashlib.sha256(), hashlib.sha256()
        change = self.write(model.update, workers, state.update)
        return model.hexdigest(), state.hexdigest() if self.state_header else None, change


def commit(store: Store, settings: FederationSettings, cohort: Cohort, workers: int) -> None:
    """Write the optimizer's state, the round's summary and the next global model; this ends the round.

    Raises:
        CohortUnreadable: a frozen update, the optimizer's state or the summary before is no longer there as recorded.
        DifferentContent: the next model exists with other bytes.
    """
    key = str(keys.Model(settings.name, cohort.round + 1))
    try:
        planned = plan(store, settings, cohort, workers)
        with store.writer(key, planned.size) as out:
            # Before the model is visible, so that no model is without its state and its summary.
            with _state_writer(store, settings, cohort, planned) as state_out:
                change = planned.write(out.write, workers, state_out)
            with suppress(AlreadyExists):
                summary = summarise(settings, cohort, change, planned.before, planned.plan.left_out)
                store.create(str(keys.Summary(settings.name, cohort.round)), summary.to_bytes())
    except AlreadyExists:
        if not exists(store, key):  # it was the state: somebody else is at the same round, or died there
            commit(store, settings, cohort, workers)
        elif digest(open_weights(store, key)) != planned.digests(workers)[0]:
            raise DifferentContent(f"{key} in {store.url} exists with other bytes than its cohort gives") from None
    except VersionMismatch as error:
        raise CohortUnreadable(f"round {cohort.round}: {error}; it was replaced while it was read") from error


@contextmanager
def _state_writer(store: Store, settings: FederationSettings, cohort: Cohort, planned: NextModel) -> Iterator[Out]:
    """Yield what takes the optimizer's state; where there is none, or it is there already, nothing is written."""
    key = str(keys.OptimizerState(settings.name, cohort.round))
    if planned.state_header is None or exists(store, key):
        yield discard
        return
    size = tensors.size_of(planned.state_header)
    with store.writer(key, size) as out:
        yield out.write


def plan(store: Store, settings: FederationSettings, cohort: Cohort, workers: int) -> NextModel:
    """Return what the cohort makes of the round's model.

    Raises:
        CohortUnreadable: a frozen update, the optimizer's state or the summary before is no longer there as recorded.
    """
    alike: tensors.Alike = {}
    model = open_model(store, settings.name, cohort.round, alike)
    before = _summary_before(store, settings.name, cohort.round)
    updates = [Update(member, open_member(store, member, alike)) for member in cohort.members]
    decided = decide(settings, model, updates, _last_state(store, settings, cohort.round, before), workers)
    change = None
    if settings.stop.tolerance is not None and decided.rule:
        # Whether the run ends here stands in the header, before the data that decides it: one pass more, to find out.
        change = write_data(model, decided.rule, discard, workers)
    finished = summarise(settings, cohort, change, before, decided.left_out).finished
    origin = {"federation": settings.name}
    metadata = origin | {"round": str(cohort.round + 1)} | ({FINAL: finished} if finished else {})
    state_header = decided.optimizer.header(origin | {"round": str(cohort.round)}) if decided.optimizer else None
    return NextModel(model_header(model, metadata), state_header, model, decided, before)


def open_state(store: Store, federation: str, round_: int) -> WeightFile:
    """Return what the optimizer remembers after a round; raises CohortUnreadable."""
    key = str(keys.OptimizerState(federation, round_))
    try:
        return open_weights(store, key)
    except (NotFound, InvalidTensorFile) as error:
        raise CohortUnreadable(f"{key}, the optimizer's state, is not there as it was written: {error}") from error


def read_summary(store: Store, federation: str, round_: int) -> Summary | None:
    """Return the summary of a round; None if there is none (yet)."""
    key = str(keys.Summary(federation, round_))
    try:
        return Summary.from_bytes(store.read(key), key)
    except NotFound:
        return None


def _summary_before(store: Store, federation: str, round_: int) -> Summary | None:
    """Return the summary of the round before, None for round 0.

    Void rounds in a row, patience and the optimizer's state go by it: if it is lost, the model would be another one.
    """
    if round_ == 0:
        return None
    if (before := read_summary(store, federation, round_ - 1)) is None:
        raise CohortUnreadable(
            f"{keys.Summary(federation, round_ - 1)} is not there, and was before the model: restore it"
        )
    return before


def _last_state(store: Store, settings: FederationSettings, round_: int, before: Summary | None) -> WeightFile | None:
    """Return the state of the last round that was not void; None before the first such, or if there is no optimizer."""
    last = round_ - 1 - (before.void_rounds if before else 0)
    if not isinstance(settings.strategy, ServerOptimizer) or last < 0:
        return None
    return open_state(store, settings.name, last)


def open_member(store: Store, member: StoredUpdate, alike: tensors.Alike | None = None) -> WeightFile:
    """Return a member's update, pinned to what the cohort recorded; raises CohortUnreadable."""
    try:
        return open_weights(store, member.key, member.version, alike=alike)
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
