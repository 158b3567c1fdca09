"""How each cloud brings a bucket's notifications to a function, and what it does where that fails.

Only waits are shorter here, all by one factor (`SCALE`): how long a function may run is not.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from fedbucket.emulators.calls import Failed, Request
from fedbucket.emulators.hosts import Host
from fedbucket.emulators.notifications import Notification, queue_message

SCALE = 1 / 200  # of a cloud's waits: Eventarc's first, 10 s, becomes 50 ms. Nobody shares this machine
_DAY = 24 * 3600.0


class Subscription(Protocol):
    """One bucket's way to one function."""

    @property
    def name(self) -> str:
        """What it is called in logs."""

    @property
    def bucket(self) -> str:
        """As `ObjectCreated` has it."""

    @property
    def host(self) -> Host:
        """Who runs the function."""

    @property
    def concurrency(self) -> int:
        """How many calls at the same time."""

    @property
    def dead(self) -> str:
        """Where what was given up is."""

    @property
    def pulled(self) -> bool:
        """Whether the host fetches: where it is away nothing has been tried."""

    def request(self, notification: Notification, copy: int, attempt: int) -> Request:
        """Return what is posted, at the first (1) attempt or a later one."""

    def wait(self, attempt: int, age: float, failed: Failed) -> float | None:
        """Return the seconds until the next attempt, or None to give up; `age` is the notification's, in seconds."""


@dataclass(frozen=True)
class Eventarc:
    """GCS to a Cloud Run function, retried with exponential backoff.

    Attributes:
        tries: after so many it is given up; None for no limit, as Eventarc has none of its own.
        kept: seconds after which it is given up.
    """

    bucket: str
    host: Host
    first: float = 10 * SCALE
    longest: float = 600 * SCALE
    tries: int | None = None
    kept: float = _DAY * SCALE
    timeout: float = 540.0  # an event function's limit
    pulled = False
    dead = "dropped"

    @property
    def name(self) -> str:
        return f"gs://{self.bucket} → {self.host.name}"

    @property
    def concurrency(self) -> int:
        return self.host.instances

    def request(self, notification: Notification, copy: int, attempt: int) -> Request:
        return Request("/", notification.headers, notification.body, self.timeout)

    def wait(self, attempt: int, age: float, failed: Failed) -> float | None:
        if age > self.kept or (self.tries is not None and attempt >= self.tries):
            return None
        return min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))


@dataclass(frozen=True)
class StorageQueue:
    """Azure Blob to an Azure function: Event Grid puts each event into a storage queue; the host fetches from there.

    What the host does is said in its host.json: `maxDequeueCount` (5) tries, `visibilityTimeout` (0) between them,
    `batchSize` (16) + `newBatchThreshold` (half of it) calls at the same time. After the last try a message is in the
    poison queue.

    Attributes:
        queue: the queue's name, as the function's trigger has it.
    """

    bucket: str
    host: Host
    queue: str
    timeout: float = 1800.0  # the default on Flex Consumption
    lease: float = 600 * SCALE  # a message whose function was lost is visible again after ten minutes
    poll: float = 60 * SCALE  # an idle host looks once a minute
    pulled = True

    @property
    def name(self) -> str:
        return f"az://{self.bucket} → {self.host.name}"

    @property
    def dead(self) -> str:
        return f"{self.queue}-poison"

    @property
    def concurrency(self) -> int:
        batch = int(self._settings.get("batchSize", 16))
        return batch + int(self._settings.get("newBatchThreshold", batch // 2))

    def request(self, notification: Notification, copy: int, attempt: int) -> Request:
        message = queue_message(notification.body, copy, attempt)
        if self._settings.get("messageEncoding", "base64") == "none":
            message["MessageText"] = json.dumps(notification.body)
        return Request(f"/queue/{self.queue}", {"Content-Type": "application/json"}, message, self.timeout)

    def wait(self, attempt: int, age: float, failed: Failed) -> float | None:
        if failed == "nobody":
            return self.poll
        if attempt >= int(self._settings.get("maxDequeueCount", 5)):
            return None
        return self.lease if failed == "lost" else _seconds(self._settings.get("visibilityTimeout", "0:0:0")) * SCALE

    @cached_property
    def _settings(self) -> dict[str, Any]:
        path = self.host.folder / "host.json"
        settings: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return dict(settings.get("extensions", {}).get("queues", {}))


def _seconds(text: str) -> float:
    hours, minutes, seconds = map(float, text.split(":"))
    return hours * 3600 + minutes * 60 + seconds
