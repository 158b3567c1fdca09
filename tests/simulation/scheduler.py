"""Functions at the same time, one call to a store at a time, on a clock that moves only when all of them wait."""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from greenlet import getcurrent, greenlet

from tests.simulation.choices import Choices
from tests.support.watched import Killed

BEGIN = 1_700_000_000.0  # seconds since 1970


class Violation(BaseException):
    """The code under test broke a law; nothing catches that."""

    def __init__(self, law: str, detail: str) -> None:
        super().__init__(f"{law}: {detail}")
        self.law = law


@dataclass(eq=False)
class Task:
    """One run of a function, or one act of somebody else.

    Attributes:
        name: says which, once in a schedule.
        event_id: the platform's id of what woke it; empty if it is no function.
        limit: seconds after which the platform ends it.
        ended: is told the error that it ended with, None if it returned.
        skew: seconds by which the clock of its machine is wrong.
        began, began_at: when it began, in steps and in true seconds.
        troubles: what was done to it, in words.
        calls: how often it made each call so far.
    """

    name: str
    run: Callable[[], None]
    ended: Callable[["Task", BaseException | None], None]
    event_id: str = ""
    limit: float = float("inf")
    skew: float = 0.0
    began: int = 0
    began_at: float = 0.0
    troubles: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    turns: int = 0
    context: greenlet | None = None


class Scheduler:
    """Runs tasks in turns.

    Attributes:
        now: the true time, in seconds since 1970.
        step: counts calls to stores; a finer clock.
        current: the task whose turn it is; None outside.
        switching: how often a task is interrupted at a call, or passed over.
    """

    def __init__(self, choices: Choices, switching: float) -> None:
        self.now = BEGIN
        self.step = 0
        self.current: Task | None = None
        self.switching = switching
        self._choices = choices
        self._order = count()
        self._ready: list[Task] = []
        self._later: list[tuple[float, int, Task]] = []
        self._urged: Task | None = None

    def add(self, task: Task, delay: float = 0.0) -> None:
        """Let `task` begin, or go on, in `delay` seconds."""
        if delay > 0:
            heappush(self._later, (self.now + delay, next(self._order), task))
        else:
            self._ready.append(task)

    def run(self, over: Callable[[], bool]) -> None:
        """Run tasks until `over`, or until none is left."""
        while not over() and (self._ready or self._later):
            while self._later and (not self._ready or self._later[0][0] <= self.now):
                due, _, task = heappop(self._later)
                self.now = max(self.now, due)
                self._ready.append(task)
            self._resume(self._pick())

    def pause(self, seconds: float) -> None:
        """Let the current task wait, while others go on; it is killed if its time is over by then."""
        task = self.current
        assert task is not None
        left = task.began_at + task.limit - self.now
        self.add(task, min(seconds, left))
        self._hub.switch()
        if seconds >= left:
            task.troubles.append("its time was over")
            raise Killed("its time was over")

    def interrupt(self, name: str, heat: int) -> None:
        """Let another task go first, if so chosen, `heat` times as often as elsewhere.

        Args:
            name: says where the current one stands.
        """
        if self._ready:
            others = {task.name: task for task in self._ready}
            if (
                chosen := self._choices.departure(f"{name}: first comes", self.switching * heat, list(others))
            ) is not None:
                self._urged = others[chosen]
                self.pause(0)

    def close(self) -> None:
        """Kill whatever still waits."""
        tasks, self._ready, self._later = [*self._ready, *(entry[2] for entry in self._later)], [], []
        for task in tasks:
            if task.context is not None:
                task.context.throw(Killed("the schedule is over"))

    def _pick(self) -> Task:
        chosen, self._urged = self._urged, None
        if chosen is None:
            chosen = self._ready[0]
            if len(self._ready) > 1:
                chosen.turns += 1
                others = {task.name: task for task in self._ready[1:]}
                name = f"turn {chosen.turns} of {chosen.name}: first comes"
                if (urged := self._choices.departure(name, self.switching, list(others))) is not None:
                    chosen = others[urged]
        self._ready.remove(chosen)
        return chosen

    def _resume(self, task: Task) -> None:
        self._hub = getcurrent()
        if task.context is None:
            task.began, task.began_at = self.step, self.now
            task.context = greenlet(lambda: self._run(task))
        self.current = task
        error = task.context.switch()
        self.current = None
        if task.context.dead:
            task.context = None
            if isinstance(error, Violation):
                raise error
            task.ended(task, error)

    def _run(self, task: Task) -> BaseException | None:
        try:
            task.run()
        except BaseException as error:  # noqa: BLE001 - whoever made the task looks at it
            return error
        return None
