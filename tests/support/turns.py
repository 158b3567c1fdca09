"""Two functions at the same time, one call to a store at a time, in the order that a test chooses: a race, replayed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Semaphore, Thread, local

from exchange.stores import Store
from tests.support.watched import WatchedStore

Chooser = Callable[[list[int]], int]

_UNSEEN = {"read_into", "begin", "write"}
_SEEN = {"create", "commit"}
_TO_THE_END = 1000  # calls; more than any handler makes here
_TIMEOUT = 20  # seconds; only a test that is broken waits so long


@dataclass
class Turns:
    """Lets functions run in turns: each stops before its calls to watched stores, and goes on when it is chosen.

    It does not stop where nobody could see a difference: before it reads bytes at a pinned version, or writes bytes
    that are not visible yet.

    Attributes:
        errors: what the functions raised, by number; None for those that returned.
        steps: which function was chosen, step by step.
        calls: the names of the calls before which each function stopped.
    """

    errors: list[BaseException | None] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    _mine: local = field(default_factory=local)
    _arrived: "SimpleQueue[tuple[int, bool]]" = field(default_factory=SimpleQueue)
    _go: list[Semaphore] = field(default_factory=list)

    def watch(self, store: Store) -> Store:
        """Return `store` with a stop before every call."""
        return WatchedStore(store, self._stop, lambda number: None)

    def run(self, functions: Sequence[Callable[[], object]], choose: Chooser) -> None:
        """Run all functions to their ends; `choose` picks, among the numbers of those not done, whose turn it is."""
        self.errors = [None] * len(functions)
        self.calls = [[] for _ in functions]
        self._go = [Semaphore(0) for _ in functions]
        threads = [Thread(target=self._run, args=pair, daemon=True) for pair in enumerate(functions)]
        waiting = set()
        for number, thread in enumerate(threads):
            thread.start()
            waiting |= self._arrival(number)
        while waiting:
            chosen = choose(sorted(waiting))
            self.steps.append(chosen)
            waiting.remove(chosen)
            self._go[chosen].release()
            waiting |= self._arrival(chosen)
        for thread in threads:
            thread.join(_TIMEOUT)

    def _arrival(self, number: int) -> set[int]:
        arrived, done = self._arrived.get(timeout=_TIMEOUT)
        assert arrived == number, "a function ran out of turn"
        return set() if done else {arrived}

    def _run(self, number: int, function: Callable[[], object]) -> None:
        self._mine.number = number
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors[number] = error
        self._arrived.put((number, True))

    def _stop(self, call: str) -> int:
        number = getattr(self._mine, "number", None)
        if number is not None and call.split()[0] not in _UNSEEN:
            self.calls[number].append(call)
            self._arrived.put((number, False))
            assert self._go[number].acquire(timeout=_TIMEOUT)
        return 0


def after(*runs: tuple[int, int]) -> Chooser:
    """Return a chooser: function A makes its next N calls, for each (A, N) in order; then each runs to its end."""
    left = iter([number for number, count in runs for _ in range(count)])

    def choose(waiting: list[int]) -> int:
        return next((number for number in left if number in waiting), waiting[0])

    return choose


def interruptions(calls: Sequence[Sequence[str]]) -> Iterator[Chooser]:
    """Yield all schedules of two functions in which one is interrupted, anywhere, by a part or all of the other.

    The part ends just before or just after something that others can see, or at the end: all others come to the same.

    Args:
        calls: the names of the calls that each makes when it is alone.
    """
    for leader, other in ((0, 1), (1, 0)):
        seen = [at for at, call in enumerate(calls[other]) if call.split()[0] in _SEEN]
        parts = {at for visible in seen for at in (visible, visible + 1)} | {len(calls[other])}
        for before in range(len(calls[leader]) + 1):
            for part in sorted(parts - {0}):
                yield after((leader, before), (other, part), (leader, _TO_THE_END), (other, _TO_THE_END))
