"""Brings events from buckets to function hosts, as Eventarc and Event Grid do it: at least once, unordered.

    with Router(Chaos(seed=7)) as router, gcs(router.gcs_object) as environment, gcp_function(…) as host:
        router.subscribe(Eventarc("parent", host))
        router.timer(host, "/", period=2.0)

Each notification is posted until the function has answered with a status below 300, or its subscription gives it up:
that is a dead letter. Everything happens in threads of the calling process.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Literal

from exchange.events import ObjectCreated
from fedbucket.emulators.calls import Caller, Failed, Request
from fedbucket.emulators.hosts import Host
from fedbucket.emulators.notifications import Notification, event_grid, eventarc
from fedbucket.emulators.subscriptions import Subscription
from fedbucket.local.delivery import Chaos, Delivery, Queue


@dataclass(frozen=True)
class Attempt:
    """One try to have a function handle a notification.

    Attributes:
        subscription: its name.
        number: 1 for the first try of this copy.
        started: seconds since the epoch.
        seconds: how long it took.
        status: the function's; 0 without an answer.
        outcome: what becomes of the notification; `dead` is for good.
    """

    subscription: str
    created: ObjectCreated
    number: int
    started: float
    seconds: float
    status: int
    outcome: Literal["done", "again", "dead"]


@dataclass(frozen=True)
class DeadLetter:
    """A notification that was given up.

    Attributes:
        where: the poison queue's name, or "dropped".
        attempts: how often it was tried.
        body: as it came from the cloud.
    """

    subscription: str
    where: str
    created: ObjectCreated
    attempts: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class _Posted:
    subscription: Subscription
    workers: ThreadPoolExecutor
    notification: Notification
    at: float


class Router:
    """Threads that deliver; a context, out of which nothing is delivered any more.

    Args:
        chaos: None delivers each notification once, if nothing fails. Else some come twice, late, out of order, or fail
            though the function has done its work.
        tell: called after each attempt, from several threads.
        dead_letters: a file to which dead letters are appended, one JSON line each.

    Attributes:
        dead_letters: what was given up, in that order.
    """

    def __init__(
        self,
        chaos: Chaos | None = None,
        tell: Callable[[Attempt], None] = lambda attempt: None,
        dead_letters: Path | None = None,
    ) -> None:
        self.dead_letters: list[DeadLetter] = []
        self._file = dead_letters
        self._tell = tell
        self._queue: Queue[_Posted] = Queue(chaos)
        self._subscribed: list[tuple[Subscription, ThreadPoolExecutor]] = []
        self._caller = Caller()
        self._in_flight = 0
        self._changed = Condition()
        self._stopping = Event()
        self._threads: list[Thread] = []

    def __enter__(self) -> "Router":
        self._start(self._dispatch)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._caller.break_off()
        for thread in self._threads:
            thread.join()
        for _subscription, workers in self._subscribed:
            workers.shutdown(cancel_futures=True)

    @property
    def idle(self) -> bool:
        """Whether no notification is known that is still to be handled, and no function is being called.

        An emulator may be about to tell of an object that has just been created.
        """
        with self._changed:
            return self._in_flight == 0 and self._queue.next_due is None

    def subscribe(self, subscription: Subscription) -> None:
        """Deliver what is created in the subscription's bucket from now on."""
        with self._changed:
            self._subscribed.append((subscription, ThreadPoolExecutor(subscription.concurrency)))

    def timer(self, host: Host, path: str, period: float) -> None:
        """Call a function `period` seconds from now, and again that long after each time that it has ended.

        Args:
            path: "/" of a GCP function; "/admin/functions/NAME" of an Azure function.
        """
        self._start(lambda: self._tick(host, path, period))

    def gcs_object(self, resource: Mapping[str, Any]) -> None:
        """Take the resource of an object that was created in GCS; give this to `gcs`."""
        self._post(eventarc(resource))

    def blob(self, event: Mapping[str, Any]) -> None:
        """Take Event Grid's event of a blob that was created; give this to `azure`."""
        self._post(event_grid(event))

    def _post(self, notification: Notification) -> None:
        with self._changed:
            now = time.monotonic()
            for subscription, workers in self._subscribed:
                if subscription.bucket == notification.created.bucket:
                    self._queue.post(_Posted(subscription, workers, notification, now), now)
            self._changed.notify_all()

    def _dispatch(self) -> None:
        with self._changed:
            while not self._stopping.is_set():
                for delivery in self._queue.due(time.monotonic()):
                    self._in_flight += 1
                    failing = self._queue.failure(delivery)
                    delivery.event.workers.submit(self._deliver, replace(delivery, failing=failing))
                due = self._queue.next_due
                self._changed.wait(None if due is None else max(0.0, due - time.monotonic()))

    def _deliver(self, delivery: Delivery[_Posted]) -> None:
        """Call the function; then forget the notification, or have it called again, or give up."""
        try:
            started, clock = time.time(), time.monotonic()
            status, failed = self._try(delivery)
            if not self._stopping.is_set():
                self._settle(delivery, started, time.monotonic() - clock, status, failed)
        except Exception:
            logging.exception("delivery of %s", delivery.event.notification.created)
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _try(self, delivery: Delivery[_Posted]) -> tuple[int, Failed | None]:
        if delivery.failing == "before":
            return 0, "raised"
        posted = delivery.event
        request = posted.subscription.request(posted.notification, delivery.copy, delivery.attempt)
        status, failed = self._caller.post(posted.subscription.host, request)
        return status, "raised" if delivery.failing == "after" else failed

    def _settle(
        self, delivery: Delivery[_Posted], started: float, seconds: float, status: int, failed: Failed | None
    ) -> None:
        posted, now = delivery.event, time.monotonic()
        wait = posted.subscription.wait(delivery.attempt, now - posted.at, failed) if failed else None
        outcome: Literal["done", "again", "dead"] = "again" if wait is not None else "dead" if failed else "done"
        created = posted.notification.created
        try:
            self._tell(Attempt(posted.subscription.name, created, delivery.attempt, started, seconds, status, outcome))
        finally:  # whatever becomes of the telling, nothing is lost
            with self._changed:
                if outcome == "dead":
                    self._bury(delivery)
                elif wait is not None and failed == "nobody" and posted.subscription.pulled:
                    self._queue.postpone(delivery, now + wait)
                elif wait is not None:
                    self._queue.retry(delivery, now, wait)

    def _bury(self, delivery: Delivery[_Posted]) -> None:
        subscription, notification = delivery.event.subscription, delivery.event.notification
        letter = DeadLetter(
            subscription.name, subscription.dead, notification.created, delivery.attempt, notification.body
        )
        self.dead_letters.append(letter)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps(asdict(letter)) + "\n")

    def _tick(self, host: Host, path: str, period: float) -> None:
        while not self._stopping.wait(period):
            with self._changed:
                self._in_flight += 1
            self._caller.post(host, Request(path, {"Content-Type": "application/json"}, {}, timeout=1800.0))
            with self._changed:
                self._in_flight -= 1

    def _start(self, work: Callable[[], None]) -> None:
        thread = Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
