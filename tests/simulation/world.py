"""A federation, whoever acts on it, and what may come between them."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from aggregator import rounds as parent_rounds
from aggregator.rounds import Parent
from client import rounds as client_rounds
from client.privacy.accounting import GaussianRelease
from client.privacy.ledger import Ledger, Spending
from client.privacy.plan import Plan
from client.rounds import Client
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import AlreadyExists, BudgetExceeded
from exchange.events import ObjectCreated
from exchange.records import Receipt
from exchange.spec import Agreement, FederationSettings
from exchange.stores import Store
from tests.simulation import answers
from tests.simulation.buckets import Bucket
from tests.simulation.choices import Choices
from tests.simulation.faults import Faults
from tests.simulation.scenario import draw, granted, own_settings
from tests.simulation.scheduler import BEGIN, Scheduler, Task, Violation
from tests.support.arithmetic import FIRST, Arrays, difference, model_file
from tests.support.settings import DEADLINE
from tests.support.watched import Killed

TIME_LIMIT = 20.0  # seconds that a function may run
PARENT = "the parent bucket"
_TRIES = 5  # deliveries of an event whose handler fails; then it is dropped, as queues do
_BACKOFF = (5.0, 10.0, 20.0, 40.0)  # seconds before each of the others
_DELIVERY = ("lost", "twice", "twice, 3 s apart", "twice, 25 s apart", "late by 8 s", "late by 130 s", "late by 500 s")
_TIMER = ("early", "late", "twice", "left out")
_STEPS = 100_000  # calls to stores; a schedule takes a few hundred
_NAMES: dict[str, str] = {}


@dataclass(frozen=True)
class Learning:
    """A training: by which task, for whom and which round, from which step to which."""

    task: Task
    client: str
    round: int
    began: int
    ended: int


@dataclass(frozen=True)
class Wake:
    """What woke a function: the object of `key`, or a timer.

    Attributes:
        actor: whose function; PARENT or a client.
    """

    actor: str
    key: keys.Key | None
    event_id: str


Checker = Callable[["World", Task, Wake, BaseException | None], None]


class World:
    """One schedule.

    Args:
        seed: of the noise.
        checked: is told of each run of a function, once it has ended.

    Attributes:
        parent, inboxes, states: the buckets.
        learned: all trainings that came to their end.
        by_hand: (client, round) that somebody answered with another tool, or tried to.
        rogue: inboxes that held somebody else's ticket, and for which round.
        quiet_at: the second from which on all was well; None before.
        duplicates: events that were delivered more than once.
        log: what happened: (second, words).
    """

    def __init__(self, choices: Choices, seed: int, checked: Checker) -> None:
        self.choices = choices
        self.scenario = scenario = draw(choices)
        self.settings = scenario.settings
        self.scheduler = Scheduler(choices, choices.rate((0.0, 0.02, 0.1, 0.3)))
        self.faults = Faults(self.scheduler, choices, choices.rate((0.0, 0.002, 0.01, 0.04)))
        self.learned: list[Learning] = []
        self.by_hand: set[tuple[str, int]] = set()
        self.rogue: set[tuple[str, int]] = set()
        self.quiet_at: float | None = None
        self.duplicates = 0
        self.log: list[tuple[float, str]] = []
        self._normals = np.random.default_rng(seed).standard_normal
        self._checked = checked
        self._names: dict[str, int] = {}
        self._delivered: dict[str, int] = {}
        self._pending = 0
        self.parent = self._bucket(PARENT)
        self.inboxes = {entry.id: self._bucket(f"inbox of {entry.id}") for entry in self.settings.client if entry.inbox}
        self.states = {client: self._bucket(f"state of {client}") for client in scenario.clients}

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
    def newest(self) -> int:
        """The number of the newest model."""
        return sum(key.startswith(keys.models(self.settings.name)) for key in self.parent.first) - 1

    def account(self, client: str) -> Ledger:
        """Return a client's account."""
        return Ledger(self.states[client], "data")

    def _start(self) -> None:
        for client, state in self.states.items():
            if (budget := granted(self.scenario, client)) is not None:
                Ledger(state, "data").open(budget.unit, budget.adjacency, bytes(32))
        for client, inbox in self.inboxes.items():
            self._plant_ticket(client, inbox)
        parent_rounds.start(self.parent, self.settings, model_file(self.settings, 0, FIRST))
        for actor in (PARENT, *self.scenario.clients):
            self._set_timer(actor, self.scenario.period)
        for client, (begin, end) in self.scenario.unreachable.items():
            self._act(
                f"the inbox of {client} goes out of reach",
                begin,
                partial(self.faults.unreachable.add, f"inbox of {client}"),
            )
            self._act(
                f"the inbox of {client} is back", end, partial(self.faults.unreachable.discard, f"inbox of {client}")
            )
        self._act("all is well from here", self.scenario.quiet_after, self._calm)

    def _over(self) -> bool:
        return self.finished and self._pending == 0 and self.quiet_at is not None

    def _stuck(self) -> bool:
        if self.scheduler.step > _STEPS:
            raise Violation("every run ends", f"{_STEPS} calls to stores, and {self._where_it_stands()}")
        rounds = self.settings.rounds + 1
        patience = rounds * (2 * DEADLINE + 2 * self.scenario.period + 3 * TIME_LIMIT) + 600
        return self.quiet_at is not None and self.scheduler.now > self.quiet_at + patience

    def _where_it_stands(self) -> str:
        return f"after {self.scheduler.now - BEGIN:g} s it is in round {self.newest} and waits"

    def _calm(self) -> None:
        self.faults.quiet = True
        self.scheduler.switching = 0.0
        self.faults.unreachable.clear()
        self.quiet_at = self.scheduler.now
        for key in sorted(self.parent.tampered):
            self._restore(key)

    # Functions, and who wakes them.

    def _created(self, bucket: str, key: str) -> None:
        """Tell of a new object, as unkindly as it comes; private state tells nobody."""
        if bucket.startswith("state"):
            if isinstance(attempt := keys.parse(key), keys.Attempt) and self.scenario.private and not self.faults.quiet:
                self._spend_elsewhere(bucket.removeprefix("state of "), attempt.round)
            return
        name = f"the event of {_short(key)} in {bucket}"
        astray = None if self.faults.quiet else self.choices.departure(name, self.scenario.delivery, _DELIVERY)
        event = ObjectCreated(bucket, key, f"{bucket}: {key}")
        if astray != "lost":
            late = astray.split()[2] if astray and astray.startswith("late") else 0
            self._deliver(event, float(late))
        if astray and astray.startswith("twice"):
            self.duplicates += 1
            self._deliver(event, float(astray.split()[1]) if "," in astray else 0)
        if bucket == PARENT and not self.faults.quiet:
            self._tempt(keys.parse(key))

    def _deliver(self, event: ObjectCreated, delay: float, tries: int = 1) -> None:
        run = partial(self._handle, event)
        wake = Wake(event.bucket.removeprefix("inbox of "), keys.parse(event.key), event.id)

        def ended(task: Task, error: BaseException | None) -> None:
            self._pending -= 1
            self._note(task, error)
            self._checked(self, task, wake, error)
            if error is not None and tries < _TRIES:
                self._deliver(event, _BACKOFF[tries - 1], tries + 1)

        self._pending += 1
        self._begin(f"{_short(event.key)} wakes {_WHO.get(event.bucket, event.bucket)}", event.id, run, ended, delay)

    def _handle(self, event: ObjectCreated) -> None:
        if event.bucket == PARENT:
            parent_rounds.handle(self._parent(), event)
        else:
            client = event.bucket.removeprefix("inbox of ")
            self._refuse_absent(client)
            client_rounds.handle(self._client(client), event)

    def _set_timer(self, actor: str, delay: float) -> None:
        self._begin(f"timer of {actor}", "", partial(self._fire, actor), lambda task, error: None, delay)

    def _fire(self, actor: str) -> None:
        """Fire a timer, and set it anew."""
        period, firing = self.scenario.period, self._count(f"firing of {actor}")
        astray = None
        if not self.faults.quiet:
            astray = self.choices.departure(f"timer {firing} of {actor}", self.scenario.delivery, _TIMER)
        self._set_timer(actor, period * {"early": 0.3, "late": 2.0}.get(astray or "", 1.0))
        for _ in range({"twice": 2, "left out": 0}.get(astray or "", 1)):
            self._sweep(actor, f"timer:{firing}")

    def _sweep(self, actor: str, event_id: str) -> None:
        def run() -> None:
            if actor == PARENT:
                parent_rounds.sweep(self._parent(), event_id)
            else:
                self._refuse_absent(actor)
                client_rounds.sweep(self._client(actor))

        def ended(task: Task, error: BaseException | None) -> None:
            self._note(task, error)
            self._checked(self, task, Wake(actor, None, event_id), error)

        self._begin(f"sweep of {actor}", event_id, run, ended)

    def _begin(
        self,
        name: str,
        event_id: str,
        run: Callable[[], None],
        ended: Callable[[Task, BaseException | None], None],
        delay: float = 0.0,
    ) -> None:
        number = self._count(name)
        name = f"{name} ({number})"
        skew = 0.0 if self.faults.quiet else float(hashlib.md5(name.encode()).digest()[0] - 128)
        self.scheduler.add(Task(name, run, ended, event_id, TIME_LIMIT, skew), delay)

    def _act(self, name: str, delay: float, run: Callable[[], object]) -> None:
        """Let somebody who is no function act."""

        def ended(task: Task, error: BaseException | None) -> None:
            self._pending -= 1
            self._note(task, error)
            if error is not None:
                raise error

        if delay < float("inf"):
            self._pending += 1
            self.scheduler.add(Task(f"{name} ({self._count(name)})", lambda: run() and None, ended), delay)

    def _count(self, name: str) -> int:
        self._names[name] = self._names.get(name, 0) + 1
        return self._names[name]

    def _note(self, task: Task, error: BaseException | None) -> None:
        self.log.append((self.scheduler.now, f"{task.name}{'' if error is None else f': {error!r}'}"))

    def _function_clock(self) -> float:
        task = self.scheduler.current
        return self.scheduler.now + (task.skew if task else 0.0)

    # What they work with.

    def _parent(self) -> Parent:
        def open_inbox(url: str) -> Store:
            name = f"inbox of {url.removeprefix('gs://')}"
            return self.faults.watch(self.inboxes[url.removeprefix("gs://")], name)

        return Parent(self.faults.watch(self.parent, PARENT), open_inbox, TIME_LIMIT)

    def _client(self, name: str) -> Client:
        inbox = self.inboxes.get(name)
        agrees = self.scheduler.now - BEGIN >= self.scenario.agrees_after[name]
        return Client(
            settings=own_settings(self.scenario, name, agrees),
            open_parent=lambda _: self.faults.watch(self.parent, PARENT),
            inbox=self.faults.watch(inbox, inbox.name) if inbox is not None else None,
            state=self.faults.watch(self.states[name], f"state of {name}"),
            learn=partial(self._learn, name),
            normals=self._draw_normals,
            time_limit=TIME_LIMIT,
        )

    def _draw_normals(self, number: int) -> NDArray[np.float64]:
        return self._normals(number)

    def _learn(
        self,
        client: str,
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: Plan | None,
    ) -> Learned:
        task = self.scheduler.current
        assert task is not None
        began = self.scheduler.step
        if model != self.parent.bytes_of(keys.Model(settings.name, round_)):
            raise Violation("training starts from the round's model", f"{task.name} trained on another one")
        if not self.faults.quiet:
            self.scheduler.pause(self.scenario.duration)
        self.learned.append(Learning(task, client, round_, began, self.scheduler.step))
        return Learned(_difference(model, client, round_))

    def _refuse_absent(self, client: str) -> None:
        begin, end = self.scenario.absent[client]
        if begin <= self.scheduler.now - BEGIN < end and not (self.faults.quiet and end < float("inf")):
            raise Killed(f"{client} is not there")

    # Others, who do what they should not, or what functions cannot know of.

    def _tempt(self, key: keys.Key | None) -> None:
        """Let others act upon a new object in the parent bucket."""
        scenario = self.scenario
        match key:
            case keys.Model(_, round_) if round_ < self.settings.rounds:
                for client in scenario.clients:
                    what = self.choices.departure(f"{client} in round {round_}", scenario.behaviour, answers.KINDS)
                    if what is not None:
                        self._answer_by_hand(client, round_, what)
            case keys.Update(_, client, round_, False):
                name = f"update of {client} in round {round_}"
                what = self.choices.departure(
                    name, scenario.tampering, ("replaced at once", "replaced later", "lost later")
                )
                if what is not None:
                    self._act(
                        f"the {name} is {what}",
                        0 if "once" in what else 9,
                        partial(self._tamper, str(key), "lost" in what),
                    )

    def _answer_by_hand(self, client: str, round_: int, what: str) -> None:
        self.by_hand.add((client, round_))
        model = self.parent.bytes_of(keys.Model(self.settings.name, round_))
        for delay, withdrawn, data in answers.files(self.settings, client, round_, model, what):
            key = str(keys.Update(self.settings.name, client, round_, withdrawn))
            self._act(f"{client} uploads {_short(key)} by hand", delay, partial(self._upload, key, data))

    def _upload(self, key: str, data: bytes) -> None:
        try:
            self.parent.create(key, data)
        except AlreadyExists:
            self.log.append((self.scheduler.now, f"{_short(key)} is there already"))

    def _spend_elsewhere(self, client: str, round_: int) -> None:
        """Let another federation charge the same data set's account while the client trains."""
        name = f"another federation charges {client} while it trains for round {round_}"
        if self.choices.departure(name, self.scenario.spending, ("a little",)) is None:
            return
        ledger = Ledger(self.faults.watch(self.states[client], f"state of {client}"), "data")
        spending = Spending("meadow", "e" * 64, self._count(f"meadow of {client}"), "test", (GaussianRelease(50.0),))

        def charge() -> None:
            budget = granted(self.scenario, client)
            assert budget is not None
            with suppress(BudgetExceeded):
                ledger.charge(budget, spending)

        self._begin(name, "", charge, self._note, self.scenario.duration)

    def _plant_ticket(self, client: str, inbox: Bucket) -> None:
        planted = self.choices.departure(
            f"somebody else's ticket in the inbox of {client}", self.scenario.tampering, ("0", "1")
        )
        if planted is not None:
            self.rogue.add((client, int(planted)))
            inbox.create(
                str(keys.Ticket(self.settings.name, int(planted))), answers.other_ticket(self.settings, int(planted))
            )

    def _tamper(self, key: str, lost: bool) -> None:
        if self.faults.quiet or not self.parent.has(key):
            return
        if lost:
            self.parent.lose(key)
        else:
            self.parent.replace(key, answers.altered(self.parent.read(key)))
        self._act(f"an operator restores {_short(key)}", 60, partial(self._restore, key))

    def _restore(self, key: str) -> None:
        """Put back what the receipt recorded, or else what was first there."""
        parsed = keys.parse(key)
        assert isinstance(parsed, keys.Update)
        receipt_key = str(keys.Receipt(parsed.federation, parsed.round, parsed.client))
        wanted = self.parent.first[key].sha256
        if self.parent.has(receipt_key):
            update = Receipt.from_bytes(self.parent.read(receipt_key), receipt_key).update
            wanted = update.sha256 if update is not None and update.key == key else wanted
        if not self.parent.has(key) or self.parent.read(key) != self.parent.known[wanted]:
            self.parent.replace(key, self.parent.known[wanted])

    def _bucket(self, name: str) -> Bucket:
        scenario = self.scenario
        return Bucket(
            name, self.scheduler, scenario.offsets[name], scenario.whole_seconds, partial(self._created, name)
        )


_WHO = {PARENT: "the parent"}


def _short(key: str) -> str:
    return key.removeprefix("orchard/").removesuffix(".safetensors").removesuffix(".json")


@lru_cache(maxsize=4096)
def _difference(model: bytes, client: str, round_: int) -> Arrays:
    return difference(tensors.load(model), client, round_)
