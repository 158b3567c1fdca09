"""Two clients, two rounds, two functions at the same time: every interleaving of their calls to stores, and every place
where one of them may die.

States that are the same (what is in the buckets, and what each function has seen so far) are visited once; that is
complete, since a function is a function of what it sees.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet

from exchange import keys
from exchange.errors import FedbucketError
from exchange.events import ObjectCreated
from exchange.stores import READ_LIMIT, ObjectInfo, Store, Writer
from tests.support.arithmetic import reference
from tests.support.buckets import Bucket
from tests.support.federation import Federation
from tests.support.settings import DEADLINE, PRIVATE, federation_settings
from tests.support.watched import Killed

PAIR = ("alder", "birch")
Act = Callable[[Federation], object]
Step = tuple[int, bool]  # which function goes on, or dies
State = tuple[Any, ...]


@dataclass(frozen=True)
class Race:
    """Two functions that are about to run at the same time.

    Attributes:
        prepare: makes the federation as it stands before.
        check: is handed the federation after each way to its end; raises AssertionError.
    """

    name: str
    prepare: Callable[[], Federation]
    functions: Sequence[Act]
    check: Callable[[Federation], None]


@dataclass
class Explored:
    """How much there was to see: different states, and different ends."""

    states: int = 0
    ends: int = 0


def explore(race: Race) -> Explored:
    """Visit every state of a race, and let the run go on to its end from each of its ends."""
    federation = race.prepare()
    restore = _snapshot(federation)
    seen: set[State] = set()
    found = Explored()
    paths: list[list[Step]] = [[]]
    while paths:
        restore()
        run = _Run(federation, race.functions)
        for step in paths.pop():
            run.go(*step)
        while (state := run.state()) not in seen:
            seen.add(state)
            if not (steps := run.steps()):
                found.ends += 1
                _check_end(race, federation, run)
                break
            paths += [[*run.taken, step] for step in steps[1:]]
            run.go(*steps[0])
        run.close()
    found.states = len(seen)
    return found


def _check_end(race: Race, federation: Federation, run: "_Run") -> None:
    federation.watch = lambda store: store
    try:
        for function, error in zip(race.functions, run.errors, strict=True):
            assert error is None or isinstance(error, Killed), error
            if error is not None:  # whoever died is woken again
                function(federation)
        federation.run()
        federation.assert_sound()
        race.check(federation)
    except (AssertionError, FedbucketError) as failure:
        steps = " ".join(f"{number} dies" if dies else str(number) for number, dies in run.taken)
        failure.add_note(f"{race.name}, in the order {steps}")
        raise


@dataclass
class _Run:
    """One way through a race, so far.

    Attributes:
        taken: the steps.
        seen: by function, what its calls to stores came to.
    """

    federation: Federation
    functions: Sequence[Act]
    taken: list[Step] = field(default_factory=list)
    errors: list[BaseException | None] = field(default_factory=list)
    seen: list[list[Any]] = field(default_factory=list)
    _contexts: list[greenlet] = field(default_factory=list)
    _current: int = -1

    def __post_init__(self) -> None:
        self.errors = [None] * len(self.functions)
        self.seen = [[] for _ in self.functions]
        draws = [np.random.default_rng(number).standard_normal for number in range(len(self.functions))]
        self.federation.watch = lambda store: _Stepped(store, self)
        self.federation._normals = lambda count: draws[self._current](count)
        self._contexts = [greenlet(partial(self._run, number)) for number in range(len(self.functions))]
        for number in range(len(self.functions)):
            self._switch(number)  # up to its first call

    def steps(self) -> list[Step]:
        """Return what may happen next; one death is enough."""
        alive = [number for number, context in enumerate(self._contexts) if not context.dead]
        may_die = not any(died for _, died in self.taken)
        return [(number, False) for number in alive] + [(number, True) for number in alive if may_die]

    def go(self, number: int, dies: bool) -> None:
        """Let a function go on to its next call, or die before it."""
        self.taken.append((number, dies))
        self._switch(number, Killed("here") if dies else None)

    def state(self) -> State:
        """Return all that the future depends on."""
        return (
            *(frozenset((key, at.data) for key, at in bucket._objects.items()) for bucket in _buckets(self.federation)),
            *(tuple(seen) for seen in self.seen),
            *(type(error) for error in self.errors),
            *(context.dead for context in self._contexts),
        )

    def stop(self) -> None:
        """Stop the function whose turn it is, before a call."""
        if self._current >= 0:
            getcurrent().parent.switch()

    def note(self, what: Any) -> None:
        """Take down what a call came to."""
        self.seen[self._current].append(what)

    def close(self) -> None:
        """End whatever still waits."""
        for number, context in enumerate(self._contexts):
            if not context.dead:
                self._switch(number, Killed("over"))

    def _switch(self, number: int, error: BaseException | None = None) -> None:
        self._current = number
        context = self._contexts[number]
        context.parent = getcurrent()
        context.throw(error) if error is not None else context.switch()
        self._current = -1

    def _run(self, number: int) -> None:
        try:
            self.functions[number](self.federation)
        except BaseException as error:  # noqa: BLE001 - the end of the race looks at it
            self.errors[number] = error


class _Stepped:
    """A store whose every visible call is a step of a run; ranges of a pinned version are the same at any time."""

    def __init__(self, inner: Store, run: _Run) -> None:
        self.url = inner.url
        self._inner = inner
        self._run = run

    def create(self, key: str, data: bytes) -> str:
        return self._step(lambda: self._inner.create(key, data), ("create", key))

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        return self._step(lambda: self._inner.read(key, version, limit), ("read", key))

    def stat(self, key: str) -> ObjectInfo:
        return self._step(lambda: self._inner.stat(key), ("stat", key))

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        self._inner.read_into(key, offset, buffer, version)

    @contextmanager
    def writer(self, key: str, size: int) -> Iterator[Writer]:
        try:
            with self._inner.writer(key, size) as out:
                yield out
                self._run.stop()
        finally:
            self._run.note(("commit", key, sys.exc_info()[0]))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self._step(lambda: tuple(self._inner.list(prefix)), ("list", prefix)))

    def folders(self) -> Iterator[str]:
        return iter(self._step(lambda: tuple(self._inner.folders()), ("folders",)))

    def _step(self, call: Callable[[], Any], name: tuple[str, ...]) -> Any:
        self._run.stop()
        try:
            found = call()
        except FedbucketError as error:
            self._run.note((*name, type(error)))
            raise
        self._run.note((*name, found))
        return found


def _buckets(federation: Federation) -> list[Bucket]:
    return [federation.parent_bucket, *federation.inboxes.values(), *federation.states.values()]


def _snapshot(federation: Federation) -> Callable[[], None]:
    """Return what puts the federation back to where it is now."""
    objects = [(bucket, dict(bucket._objects), bucket._versions) for bucket in _buckets(federation)]
    now, firings = federation.clock.now, federation._firings

    def restore() -> None:
        federation.events.clear()
        federation.clock.now, federation._firings = now, firings
        for bucket, found, versions in objects:
            bucket._objects, bucket._versions = dict(found), versions
            bucket.attempts.clear()

    return restore


# The races.


def races() -> list[Race]:
    """Return all races."""
    found = []
    for round_ in (0, 1):
        at = f"in round {round_}"
        both = partial(_ready_to_close, round_)
        found += [
            Race(f"two aggregates {at}", both, [_receipt("alder", round_), _receipt("birch", round_)], _all_averaged),
            Race(f"an aggregate and its redelivery {at}", both, [_receipt("alder", round_)] * 2, _all_averaged),
            Race(
                f"sweep and aggregate {at}", both, [Federation.sweep_parent, _receipt("alder", round_)], _all_averaged
            ),
            Race(
                f"sweep and aggregate past the deadline {at}",
                partial(_past_the_deadline, round_),
                [Federation.sweep_parent, _receipt("alder", round_)],
                _alder_averaged,
            ),
            Race(
                f"train and its redelivery {at}", partial(_ticketed, round_, {}), [_ticket(round_)] * 2, _all_averaged
            ),
            Race(
                f"train and its redelivery, with noise, {at}",
                partial(_ticketed, round_, {"privacy": PRIVATE}),
                [_ticket(round_)] * 2,
                lambda federation: None,
            ),
        ]
    return found


def _receipt(client: str, round_: int) -> Act:
    key = str(keys.Receipt("orchard", round_, client))
    return lambda federation: federation.deliver(ObjectCreated("parent", key, f"parent:{key}"))


def _ticket(round_: int) -> Act:
    key = str(keys.Ticket("orchard", round_))
    return lambda federation: federation.deliver(ObjectCreated("alder", key, f"alder:{key}"))


def _ready_to_close(round_: int) -> Federation:
    """Return a federation in which both have their receipts, and nobody has acted on these."""
    federation = Federation(federation_settings(PAIR, rounds=2, quorum=2)).start()
    _until_both(federation, lambda client: keys.Receipt("orchard", round_, client))
    return federation


def _past_the_deadline(round_: int) -> Federation:
    """Return a federation in which alder has its receipt, birch's update has none, and the deadline has passed."""
    federation = Federation(federation_settings(PAIR, rounds=2, quorum=1)).start()
    federation.deliver_until(keys.Update("orchard", "birch", round_))
    federation.events.clear()
    federation.clock.advance(DEADLINE)
    return federation


def _ticketed(round_: int, sections: dict[str, Any]) -> Federation:
    """Return a federation in which alder has its ticket, and has not acted on it."""
    federation = Federation(federation_settings(PAIR, rounds=2, quorum=2, **sections)).start()
    _until_both(federation, lambda client: keys.Ticket("orchard", round_))
    return federation


def _until_both(federation: Federation, key: Callable[[str], keys.Key]) -> None:
    federation.deliver_until(key("alder"))
    federation.events.clear()


def _all_averaged(federation: Federation) -> None:
    assert federation.models == reference(federation.settings, [PAIR, PAIR])


def _alder_averaged(federation: Federation) -> None:
    averaged = [summary.averaged for summary in map(federation.summary, range(2)) if summary is not None]
    assert all("alder" in clients for clients in averaged)
    assert federation.models == reference(federation.settings, averaged)
