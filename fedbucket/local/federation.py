"""A whole federation on one machine: the very handlers of the functions, woken by events delivered in this process.

The parent's handlers run here, the clients' in worker processes. Nothing is remembered but what is in the buckets: a
run that was interrupted, at any point and however rudely, goes on where it was.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aggregator import rounds as parent_rounds
from aggregator.rounds import Parent
from client.privacy.ledger import Ledger
from exchange import keys
from exchange.errors import DifferentContent, FedbucketError, LedgerError, RunStopped
from exchange.events import ObjectCreated
from exchange.public import newest_model
from exchange.records import Metrics
from exchange.spec import ClientSettings
from exchange.stores import Store, exists, put
from fedbucket.local.delivery import MAX_ATTEMPTS, Delivery, Queue
from fedbucket.local.folder import FederationFolder, RunFolder
from fedbucket.local.journal import Journal
from fedbucket.local.notifying import NotifyingStore
from fedbucket.local.pool import Pool
from fedbucket.local.progress import Progress
from fedbucket.starting import noise_of

if TYPE_CHECKING:
    from fedbucket.local.workers import Outcome

_PARENT = "parent"  # the name of the parent bucket in events; a client's bucket is named for its client
_MAX_DEATHS = 20  # of workers in a row; one death ends all jobs that its pool had in hand
_TIMER = 0.5  # seconds between two sweeps while there is nothing to do but wait


class LocalFederation:
    """One run.

    Args:
        queue: delivers events.
        progress: is told how far it has come.
    """

    def __init__(
        self, federation: FederationFolder, run: RunFolder, pool: Pool, queue: Queue[ObjectCreated], progress: Progress
    ) -> None:
        self._settings = federation.settings
        self._clients = federation.clients
        self._has_test = federation.local.test is not None
        self._run = run
        self._pool = pool
        self._queue = queue
        self._progress = progress
        self._store = NotifyingStore(run.parent, partial(self._created, _PARENT))
        self._inboxes = {entry.inbox: entry.id for entry in self._settings.client if entry.inbox is not None}
        self._parent = Parent(self._store, self._open_inbox, time_limit=0)  # nobody else aggregates here
        self._journal = Journal(run.rounds, run.parent, self._settings, time.time())
        self._working: dict[Future[Outcome], Delivery[ObjectCreated] | str] = {}  # a str: a timer's client
        self._evaluating: dict[Future[Outcome], int] = {}
        self._answers: defaultdict[int, set[str]] = defaultdict(set)
        self._timer_due = 0.0
        self._timer_failures: Counter[str] = Counter()  # in a row
        self._deaths = 0

    def go(self, init: bytes | None) -> None:
        """Run until the final model is there.

        Args:
            init: global model 0; None takes the task's own.

        Raises:
            RunStopped: a person must act before the run can go on; run again, it goes on from its buckets.
        """
        self._begin(init)
        self._evaluate_missing()
        while self._evaluating or not exists(self._store, str(keys.Finished(self._settings.name))):
            for delivery in self._queue.due(time.monotonic()):
                self._deliver(delivery)
            if not self._working and self._queue.next_due is None and time.monotonic() >= self._timer_due:
                self._fire_timers()
            self._wait()
        self._progress.end()

    def _begin(self, init: bytes | None) -> None:
        settings = self._settings
        try:
            if (newest := newest_model(self._store, settings.name)) is None:
                model = init or self._pool.call("first_model")
                if sentence := noise_of(settings, model):
                    self._progress.note(sentence)
                open_accounts(self._clients, self._run.state)
                parent_rounds.start(self._store, settings, model)
            else:
                put(self._store, str(keys.Settings(settings.name)), settings.to_bytes())
                if init is not None:
                    put(self._store, str(keys.Model(settings.name, 0)), init)
                self._note_found(newest)
        except DifferentContent as error:
            raise RunStopped(
                f"{self._run.path} holds a run with other settings or another first model than these "
                f"(settings: SHA-256 {settings.sha256}); take another folder with --out, or remove that one"
            ) from error

    def _note_found(self, newest: int) -> None:
        """Say what was there before: whoever has changed the task or the data since may expect a new run."""
        if exists(self._store, str(keys.Finished(self._settings.name))):
            self._progress.note(
                f"{self._run.path} holds this run, finished: it is not run again; for a new one take another folder "
                "with --out, or remove that one"
            )
        else:
            self._progress.note(f"goes on at round {newest} with the run in {self._run.path}")

    def _deliver(self, delivery: Delivery[ObjectCreated]) -> None:
        event = delivery.event
        failing = self._queue.failure(delivery)
        if failing == "before":
            self._queue.retry(delivery, time.monotonic())
        elif event.bucket == _PARENT:
            self._handle(delivery, failing == "after")
        else:
            self._working[self._pool.submit("answer", event.bucket, event)] = replace(delivery, failing=failing)

    def _handle(self, delivery: Delivery[ObjectCreated], failing: bool) -> None:
        started = time.time()
        try:
            parent_rounds.handle(self._parent, delivery.event)
        except (FedbucketError, ExceptionGroup) as error:
            self._retry(delivery, str(error))
            return
        self._note(delivery.event.key, started, time.time())
        if failing:
            self._queue.retry(delivery, time.monotonic())

    def _note(self, key: str, started: float, ended: float) -> None:
        match keys.parse(key):
            case keys.Model(_, round_):
                self._journal.span(round_, "publish", None, started, ended)
            case keys.Update(_, client, round_):
                self._journal.span(round_, "record", client, started, ended)
            case keys.Receipt(_, round_, client):
                self._journal.span(round_, "aggregate", None, started, ended)

    def _created(self, bucket: str, key: str) -> None:
        """Take notice of a new object: deliver its event, and show what it means."""
        # The id is the same for the same object, so that a redelivery after a crash is known for one.
        self._queue.post(ObjectCreated(bucket, key, f"{bucket}:{key}"), time.monotonic())
        match keys.parse(key):
            case keys.Model(_, round_):
                self._timer_due = 0.0  # clients without an inbox find it by their timers; here nobody pays for firing
                if round_ > 0:
                    self._round_made(round_ - 1)
            case keys.Receipt(_, round_, client):
                self._answers[round_].add(client)
                self._progress.answered(round_, self._answers[round_])

    def _round_made(self, round_: int) -> None:
        if self._has_test:
            self._evaluating[self._pool.submit("evaluate", round_ + 1)] = round_
        else:
            self._close(round_, {})

    def _close(self, round_: int, metrics: Metrics) -> None:
        self._journal.close(round_, metrics)
        self._progress.evaluated(round_, metrics)

    def _evaluate_missing(self) -> None:
        """Take up the rounds that an interrupted process made and did not write down."""
        newest = newest_model(self._store, self._settings.name) or 0
        for round_ in range(self._journal.next_round, newest):
            self._round_made(round_)

    def _fire_timers(self) -> None:
        """Sweep on both sides: nothing is under way, so that whatever is missing is missing for good."""
        self._timer_due = time.monotonic() + _TIMER
        try:
            parent_rounds.sweep(self._parent, f"timer:{time.time()}")
        except ExceptionGroup as error:
            self._timer_ended("the parent", "; ".join(map(str, error.exceptions)))
        else:
            self._timer_ended("the parent", None)
        newest = newest_model(self._store, self._settings.name) or 0
        for client in self._settings.roster:
            if not exists(self._store, str(keys.Receipt(self._settings.name, newest, client))):
                self._working[self._pool.submit("answer", client, None)] = client

    def _wait(self) -> None:
        """Wait for the next job to end or the next event to be due, and take in what ended."""
        due = self._queue.next_due or self._timer_due
        futures = [*self._working, *self._evaluating]
        timeout = max(0.0, due - time.monotonic())
        if not futures:
            time.sleep(timeout)
            return
        done, _ = wait(futures, timeout if self._queue.next_due else None, FIRST_COMPLETED)
        for future in done:
            if future in self._evaluating:
                self._evaluated(future)
            else:
                self._worked(future)

    def _evaluated(self, future: "Future[Outcome]") -> None:
        round_ = self._evaluating.pop(future)
        if (outcome := self._outcome(future)) is None:
            self._round_made(round_)
            return
        if outcome.error is not None:
            raise RunStopped(outcome.error)
        self._journal.span(round_, "evaluate", None, outcome.started, outcome.ended)
        self._close(round_, outcome.value)

    def _worked(self, future: "Future[Outcome]") -> None:
        delivery = self._working.pop(future)
        outcome = self._outcome(future)
        if outcome is not None:
            self._take_in(outcome)
        if isinstance(delivery, str):
            self._timer_ended(delivery, outcome.error if outcome else None)
            return
        if outcome is None or outcome.error is not None:
            self._retry(delivery, outcome.error or "" if outcome else "its worker process died")
            return
        if delivery.failing == "after":
            self._queue.retry(delivery, time.monotonic())

    def _take_in(self, outcome: "Outcome") -> None:
        for key in outcome.created:
            self._created(_PARENT, key)
            if isinstance(update := keys.parse(key), keys.Update):
                self._journal.span(update.round, "train", update.client, outcome.started, outcome.ended)
        if outcome.permanent:
            raise RunStopped(outcome.error)

    def _timer_ended(self, party: str, error: str | None) -> None:
        """Leave a failure to the next firing, but not for ever: what fails so often waits for a person."""
        self._timer_failures[party] = self._timer_failures[party] + 1 if error else 0
        if self._timer_failures[party] >= MAX_ATTEMPTS:
            raise RunStopped(f"the timer of {party}: {MAX_ATTEMPTS} attempts failed: {error}")

    def _outcome(self, future: "Future[Outcome]") -> "Outcome | None":
        """Return what the job did; None if its worker died."""
        try:
            outcome = future.result()
        except BrokenProcessPool as error:
            self._deaths += 1
            if self._deaths > _MAX_DEATHS:
                raise RunStopped(
                    "worker processes die one after the other: for want of memory, or since the task ends them"
                ) from error
            return None
        self._deaths = 0
        return outcome

    def _retry(self, delivery: Delivery[ObjectCreated], error: str) -> None:
        if delivery.attempt >= MAX_ATTEMPTS:
            raise RunStopped(
                f"{delivery.event.key} in {delivery.event.bucket}: {delivery.attempt} attempts failed: {error}"
            )
        self._queue.retry(delivery, time.monotonic())

    def _open_inbox(self, url: str) -> Store:
        client = self._inboxes[url]
        return NotifyingStore(self._run.inbox(client), partial(self._created, client))


def open_accounts(clients: Mapping[str, ClientSettings], state: Callable[[str], Store]) -> None:
    """Begin a privacy account for each client that grants a budget: a run's data sets are new to the run.

    Args:
        state: returns a client's private state.
    """
    for client, settings in clients.items():
        if settings.budget is not None:
            with suppress(LedgerError):  # an earlier process began it, and died before the first model
                ledger = Ledger(state(client), settings.dataset)
                ledger.open(settings.budget.unit, settings.budget.adjacency, os.urandom(32))
