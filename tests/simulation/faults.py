"""What may happen to a function at each of its calls to a store."""

from exchange.errors import AlreadyExists
from exchange.stores import Store
from tests.simulation.buckets import Bucket
from tests.simulation.choices import Choices
from tests.simulation.scheduler import Scheduler
from tests.support.watched import Killed, Unavailable, WatchedStore

BEFORE = ("fails before", "dies before", "waits 3 s before", "waits 15 s before", "waits 40 s before")
AFTER = ("fails after", "dies after", "waits 3 s after", "waits 15 s after", "waits 40 s after")
CREATED = ("succeeds, is retried by the SDK, and told that it is there already",)
_OPTIONS = (BEFORE + AFTER, BEFORE + AFTER + CREATED)
_WRITES = ("create", "commit")
_HEAT = 3  # so much more often does something come between a function and its write: there the races are


class Faults:
    """Lets functions fail, die, wait, or be overtaken, at their calls to stores.

    Attributes:
        rate: how often, at each call.
        crashes: how many calls failed or ended the function.
        quiet: whether nothing goes wrong any more.
        unreachable: buckets that no function gets through to.
    """

    def __init__(self, scheduler: Scheduler, choices: Choices, rate: float) -> None:
        self.rate = rate
        self.crashes = 0
        self.quiet = False
        self.unreachable: set[str] = set()
        self._scheduler = scheduler
        self._choices = choices
        self._pending: list[tuple[str, str]] = []

    def watch(self, bucket: Bucket) -> Store:
        """Return a bucket as functions see it."""
        name = bucket.name
        return WatchedStore(bucket, lambda call: self._before(f"{call} in {name}", name), self._after)

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self.quiet = True
        self.unreachable.clear()

    def _before(self, call: str, bucket: str) -> int:
        scheduler, task = self._scheduler, self._scheduler.current
        if task is None:
            return -1
        scheduler.step += 1
        if bucket in self.unreachable:
            self._fail(f"{call}: {bucket} is out of reach")
        if self.quiet:
            return -1
        task.calls[call] = number = task.calls.get(call, 0) + 1
        name = f"{task.name}: {call} ({number})"
        writes = call.startswith(_WRITES)
        scheduler.interrupt(name, _HEAT if writes else 1)
        fault = self._choices.departure(name, self.rate * (_HEAT if writes else 1), _OPTIONS[writes])
        if fault in BEFORE:
            self._strike(fault, name)
        elif fault is not None:
            self._pending.append((fault, name))
            return len(self._pending) - 1
        return -1

    def _after(self, number: int) -> None:
        if number >= 0 and self._scheduler.current is not None:
            self._strike(*self._pending[number])

    def _strike(self, fault: str, name: str) -> None:
        verb, _, rest = fault.partition(" ")
        if verb == "waits":
            self._scheduler.pause(float(rest.split()[0]))
        elif verb == "fails":
            self._fail(f"{name} {fault}")
        elif verb == "dies":
            self._trouble(f"{name} {fault}")
            raise Killed(f"{name} {fault}")
        else:
            self._trouble(f"{name} {fault}")
            raise AlreadyExists(name)

    def _fail(self, what: str) -> None:
        self._trouble(what)
        raise Unavailable(what)

    def _trouble(self, what: str) -> None:
        self.crashes += 1
        assert self._scheduler.current is not None
        self._scheduler.current.troubles.append(what)
