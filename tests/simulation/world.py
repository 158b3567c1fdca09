"""A federation, its functions, and what wakes them: as the clouds do, and more unkindly."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from aggregator import rounds as parent_rounds
from aggregator.known import Known
from aggregator.rounds import Parent
from client import rounds as client_rounds
from client.checkpoints import Checkpoint, Saves, pace_of_function
from client.privacy.ledger import Ledger
from client.privacy.plan import Plan
from client.rounds import Client
from client.update import Learned
from exchange import keys, tensors
from exchange.events import ObjectCreated
from exchange.spec import Agreement, FederationSettings
from exchange.stores import Store
from tests.simulation.buckets import Bucket
from tests.simulation.choices import Choices
from tests.simulation.faults import Faults
from tests.simulation.others import Others
from tests.simulation.scenario import draw, granted, own_settings
from tests.simulation.scheduler import BEGIN, Scheduler, Task, Violation
from tests.support.arithmetic import FIRST, Arrays, difference, model_file
from tests.support.settings import DEADLINE
from tests.support.watched import Killed

TIME_LIMIT = 20.0  # seconds that a function may run
TRAINING_STEPS = 2  # after each of which training may be saved
PARENT = "the parent bucket"
_TRIES = 5  # deliveries of an event whose handler fails; then it is dropped, as queues do
_BACKOFF = (5.0, 10.0, 20.0, 40.0)  # seconds before each of the others
_DELIVERY = ("lost", "twice", "twice, 3 s apart", "twice, 25 s apart", "late by 8 s", "late by 130 s", "late by 500 s")
_TIMER = ("next one early", "late", "twice", "left out")
_MODEL = {name: FIRST[name] for name in ("layer.bias", "steps")}  # the smallest with a tensor of either kind
_STEPS = 100_000  # calls to stores; a schedule takes about a thousand


@dataclass(frozen=True)
class Wake:
    """What woke a function: the object of `key`, or a timer.

    Attributes:
        actor: whose function; PARENT or a client.
    """

    actor: str
    key: keys.Key | None
    event_id: str


@dataclass(frozen=True)
class Learning:
    """A training that came to its end.

    Attributes:
        began, ended: at which step; `began_at`, in which second.
    """

    task: Task
    client: str
    round: int
    began: int
    began_at: float
    ended: int


Checker = Callable[["World", Task, Wake, BaseException | None], None]
Ended = Callable[[Task, BaseException | None], None]


class World:
    """One schedule.

    Args:
        seed: of the noise.
        checked: is told of each run of a function, once it has ended.
        calmed: is told when all is well from now on.

    Attributes:
        parent, inboxes, states: the buckets.
        learned: all trainings.
        quiet_at: the second from which on all was well; None before.
        duplicates: events that were delivered more than once.
        log: what happened: (second, words).
    """

    def __init__(self, choices: Choices, seed: int, checked: Checker, calmed: Callable[["World"], None]) -> None:
        self.choices = choices
        self.scenario = scenario = draw(choices)
        self.settings = scenario.settings
        self.scheduler = Scheduler(choices, choices.rate((0.0, 0.02, 0.1, 0.3)))
        self.faults = Faults(self.scheduler, choices, choices.rate((0.0, 0.002, 0.01, 0.04)))
        self.learned: list[Learning] = []
        self.quiet_at: float | None = None
        self.duplicates = 0
        self.log: list[tuple[float, str]] = []
        self._normals = np.random.default_rng(seed).standard_normal
        self._checked = checked
        self._calmed = calmed
        self._names: dict[str, int] = {}
        self._known = Known()  # one warm instance runs all of the parent's functions: so the most can be out of date
        self._on_their_way = 0
        self.parent = self._bucket(PARENT)
        self.inboxes = {entry.id: self._bucket(f"inbox of {entry.id}") for entry in self.settings.client if entry.inbox}
        self.states = {client: self._bucket(f"state of {client}") for client in scenario.clients}
        self.others = Others(self)

    # The whole of it.

    def run(self) -> None:
        """Start, and go on until the run is over and nothing is on its way; raise Violation if that never comes."""
        with patch.object(time, "time", self._function_clock):
            try:
                self._start()
                self.scheduler.run(lambda: self._over() or self._stuck())
                if not self.finished:
                    raise Violation("every run ends", self._where_it_stands())
            finally:
                self.scheduler.close()

    @property
    def finished(self) -> bool:
        """Whether the parent said that the run is over."""
        return self.parent.has(keys.Finished(self.settings.name))

    @property
    def seconds(self) -> float:
        """The true time since the start."""
        return self.scheduler.now - BEGIN

    def newest(self, step: int | None = None) -> int:
        """Return the number of the newest model, now or at a step."""
        prefix = keys.models(self.settings.name)
        made = [made.step for key, made in self.parent.first.items() if key.startswith(prefix)]
        return sum(step is None or at <= step for at in made) - 1

    def _start(self) -> None:
        for client, state in self.states.items():
            if (budget := granted(self.scenario, client)) is not None:
                Ledger(state, "data").open(budget.unit, budget.adjacency, bytes(32))
        self.others.plant_tickets()
        parent_rounds.start(self.parent, self.settings, model_file(self.settings, 0, _MODEL))
        for actor in (PARENT, *self.scenario.clients):
            self._set_timer(actor, self.scenario.period)
        for client, (begin, end) in self.scenario.unreachable.items():
            name = f"inbox of {client}"
            self.act(f"the {name} goes out of reach", begin, partial(self.faults.unreachable.add, name))
            self.act(f"the {name} is back", end, partial(self.faults.unreachable.discard, name))
        self.act("all is well from here", self.scenario.quiet_after, self._calm)

    def _over(self) -> bool:
        return self.quiet_at is not None and self._on_their_way == 0 and self.finished

    def _stuck(self) -> bool:
        if self.scheduler.step > _STEPS:
            raise Violation("every run ends", f"{_STEPS} calls to stores, and {self._where_it_stands()}")
        rounds = self.settings.rounds + 1
        patience = rounds * (2 * DEADLINE + 2 * self.scenario.period + 3 * TIME_LIMIT) + 600
        return self.quiet_at is not None and self.scheduler.now > self.quiet_at + patience

    def _where_it_stands(self) -> str:
        return f"after {self.seconds:g} s round {self.newest()} is open"

    def _calm(self) -> None:
        self._calmed(self)
        self.faults.calm()
        self.scheduler.switching = 0.0
        self.quiet_at = self.scheduler.now
        self.others.restore_all()

    # Functions, and what wakes them.

    def _created(self, bucket: str, key: str) -> None:
        """Tell of a new object, as unkindly as it comes; private state tells nobody."""
        name = f"the event of {short(key)} in {bucket}"
        if (times := self._count(name)) > 1:  # it was lost, and made again
            name = f"{name} ({times})"
        elif not self.faults.quiet:
            self.others.tempt(bucket, keys.parse(key))
        if bucket.startswith("state of"):
            return
        astray = None if self.faults.quiet else self.choices.departure(name, self.scenario.delivery, _DELIVERY)
        words = (astray or "").replace(",", "").split()
        event = ObjectCreated(bucket, key, f"{bucket}: {key}")
        if astray != "lost":
            self._deliver(event, float(words[2]) if words[:1] == ["late"] else 0)
        if words[:1] == ["twice"]:
            self.duplicates += 1
            self._deliver(event, float(words[1]) if len(words) > 1 else 0)

    def _deliver(self, event: ObjectCreated, delay: float, tries: int = 1) -> None:
        wake = Wake(event.bucket.removeprefix("inbox of "), keys.parse(event.key), event.id)

        def ended(task: Task, error: BaseException | None) -> None:
            self._on_their_way -= 1
            self.note(task, error)
            self._checked(self, task, wake, error)
            if error is not None and tries < _TRIES:
                self._deliver(event, _BACKOFF[tries - 1], tries + 1)

        self._on_their_way += 1
        self.begin(f"{short(event.key)} wakes {wake.actor}", event.id, partial(self._handle, wake, event), ended, delay)

    def _handle(self, wake: Wake, event: ObjectCreated) -> None:
        if wake.actor == PARENT:
            parent_rounds.handle(self._parent(), event)
        else:
            self._refuse_absent(wake.actor)
            client_rounds.handle(self._client(wake.actor), event)

    def _set_timer(self, actor: str, delay: float) -> None:
        self.begin(f"timer of {actor}", "", partial(self._fire, actor), lambda task, error: None, delay)

    def _fire(self, actor: str) -> None:
        """Fire a timer, and set it anew."""
        period, firing = self.scenario.period, self._count(f"firing of {actor}")
        astray = ""
        if not self.faults.quiet:
            astray = self.choices.departure(f"timer {firing} of {actor}", self.scenario.delivery, _TIMER) or ""
        self._set_timer(actor, 0.3 * period if astray == "next one early" else period)
        wake, late = Wake(actor, None, f"timer:{firing}"), period if astray == "late" else 0.0
        for _ in range({"twice": 2, "left out": 0}.get(astray, 1)):
            self.begin(f"sweep of {actor}", wake.event_id, partial(self._sweep, wake), partial(self._swept, wake), late)

    def _sweep(self, wake: Wake) -> None:
        if wake.actor == PARENT:
            parent_rounds.sweep(self._parent(), wake.event_id)
        else:
            self._refuse_absent(wake.actor)
            client_rounds.sweep(self._client(wake.actor))

    def _swept(self, wake: Wake, task: Task, error: BaseException | None) -> None:
        self.note(task, error)
        self._checked(self, task, wake, error)

    def begin(self, name: str, event_id: str, run: Callable[[], None], ended: Ended, delay: float = 0.0) -> None:
        """Let a function begin in `delay` seconds, on a machine whose clock is up to two minutes wrong."""
        name = f"{name} ({self._count(name)})"
        skew = hashlib.sha256(name.encode()).digest()[0] - 128.0
        self.scheduler.add(Task(name, run, ended, event_id, TIME_LIMIT, skew), delay)

    def act(self, name: str, delay: float, run: Callable[[], object]) -> None:
        """Let somebody who is no function act in `delay` seconds; never, if that is infinite."""

        def ended(task: Task, error: BaseException | None) -> None:
            self._on_their_way -= 1
            self.note(task, error)
            if error is not None:
                raise error

        def act() -> None:
            run()

        if delay < float("inf"):
            self._on_their_way += 1
            self.scheduler.add(Task(f"{name} ({self._count(name)})", act, ended), delay)

    def note(self, task: Task, error: BaseException | None) -> None:
        """Take down that a task has ended, and how."""
        self.log.append((self.scheduler.now, f"{task.name}{'' if error is None else f': {error!r}'}"))

    def _count(self, name: str) -> int:
        self._names[name] = self._names.get(name, 0) + 1
        return self._names[name]

    def _function_clock(self) -> float:
        task = self.scheduler.current
        return self.scheduler.now + (task.skew if task else 0.0)

    def _refuse_absent(self, client: str) -> None:
        begin, end = self.scenario.absent[client]
        if begin <= self.seconds < end and not (self.faults.quiet and end < float("inf")):
            raise Killed(f"{client} is not there")

    # What they work with.

    def _parent(self) -> Parent:
        def open_inbox(url: str) -> Store:
            return self.faults.watch(self.inboxes[url.removeprefix("gs://")])

        return Parent(self.faults.watch(self.parent), open_inbox, TIME_LIMIT, known=self._known)

    def _client(self, name: str) -> Client:
        inbox = self.inboxes.get(name)
        return Client(
            settings=own_settings(self.scenario, name, agrees=self.seconds >= self.scenario.agrees_after[name]),
            open_parent=lambda _: self.faults.watch(self.parent),
            inbox=self.faults.watch(inbox) if inbox is not None else None,
            state=self.faults.watch(self.states[name]),
            learn=partial(self._learn, name),
            normals=self._draw,
            time_limit=TIME_LIMIT,
            pace=pace_of_function(lambda: self.scheduler.now, TIME_LIMIT),
        )

    def _draw(self, count: int, /) -> NDArray[np.float64]:
        return self._normals(count)

    def _learn(
        self,
        client: str,
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: Plan | None,
        saves: Saves,
        /,
    ) -> Learned:
        task = self.scheduler.current
        assert task is not None
        if model != self.parent.bytes_of(keys.Model(settings.name, round_)):
            raise Violation("training starts from the round's model", f"{task.name} trained on another one")
        began, began_at = self.scheduler.step, self.scheduler.now
        self._train(saves)
        self.learned.append(Learning(task, client, round_, began, began_at, self.scheduler.step))
        return Learned(_difference(model, client, round_))

    def _train(self, saves: Saves) -> None:
        """Take the time of training, and save how far it has come, as the loops of training do."""
        left_off = saves.latest()
        for step in range(int(left_off.place["steps"]) if left_off else 0, TRAINING_STEPS):
            if not self.faults.quiet:
                self.scheduler.pause(self.scenario.duration / TRAINING_STEPS)
            saves.passed(lambda done=step + 1: Checkpoint({}, {"steps": done}))  # type: ignore[misc]

    def _bucket(self, name: str) -> Bucket:
        scenario = self.scenario
        return Bucket(
            name, self.scheduler, scenario.offsets[name], scenario.whole_seconds, partial(self._created, name)
        )


def short(key: str) -> str:
    """Return a key as a trace names it."""
    return key.removeprefix("orchard/").removesuffix(".safetensors").removesuffix(".json")


@lru_cache(maxsize=4096)
def _difference(model: bytes, client: str, round_: int) -> Arrays:
    return difference(tensors.load(model), client, round_)
