"""What a function owes when it returns, for an event that is acknowledged does not come again; and how it may fail."""

from collections.abc import Iterator

from exchange import keys, tensors
from exchange.documents import sha256
from exchange.errors import (
    CohortUnreadable,
    ConsentRefused,
    DifferentContent,
    NotFound,
    TrainingPaused,
    VersionMismatch,
)
from exchange.records import Cohort, Receipt, Ticket
from tests.simulation.scheduler import Task, Violation
from tests.simulation.world import PARENT, TIME_LIMIT, Wake, World
from tests.support.settings import DEADLINE
from tests.support.watched import Killed, Unavailable

_SECOND = 1.0  # stores tell ages in whole seconds


def check(world: World, task: Task, wake: Wake, error: BaseException | None) -> None:
    """Raise Violation if a function that ended left undone what it was woken for, or failed without a reason."""
    if error is not None:
        _check_failure(world, task, wake, error)
        return
    match wake.key:
        case keys.Model(_, round_):
            _owes_tickets(world, task, round_)
        case keys.Update() as key:
            _owes_receipt(world, task, key)
        case keys.Receipt(_, round_, _):
            _owes_model(world, task, round_, wake.event_id)
        case keys.Ticket(_, round_):
            _owes_answer(world, task, wake.actor, round_)
        case None if wake.actor == PARENT:
            _owes_successors(world, task, wake.event_id)
        case None:
            _owes_answer_to_the_newest(world, task, wake.actor)


# How it may fail.


def _check_failure(world: World, task: Task, wake: Wake, error: BaseException) -> None:
    for cause in _leaves(error):
        if not _excused(world, task, wake, cause):
            raise Violation("functions fail for a reason only", f"{task.name} raised {cause!r}")
    if (
        wake.actor == PARENT
        and isinstance(error, ExceptionGroup)
        and all(" in inbox of " in trouble for trouble in task.troubles)
    ):
        # It failed at inboxes alone: it must have tried all others.
        round_ = wake.key.round if isinstance(wake.key, keys.Model) else world.newest(task.began)
        failed = {client for client in world.inboxes if any(f"inbox of {client}" in what for what in task.troubles)}
        _owes_tickets(world, task, round_, failed | {client for client, at in world.others.rogue if at == round_})


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _excused(world: World, task: Task, wake: Wake, error: BaseException) -> bool:
    others = world.others.by_hand | world.others.rogue
    match error:
        case Unavailable() | Killed():
            return True
        case TrainingPaused():
            return world.scheduler.now - task.began_at > TIME_LIMIT / 2
        case ConsentRefused():
            return world.scenario.agrees_after.get(wake.actor, 0) > 0
        case CohortUnreadable() | NotFound() | VersionMismatch():
            return bool(world.parent.tampered)
        case DifferentContent() if wake.actor == PARENT:
            return "/inbox/" in str(error) and bool(world.others.rogue)
        case DifferentContent():
            tampered = any(f"/{wake.actor}/" in key for key in world.parent.tampered)
            return tampered or any(client == wake.actor for client, _ in others)
    return False


# What the parent's owe.


def _owes_tickets(world: World, task: Task, round_: int, spared: set[str] | None = None) -> None:
    name, parent = world.settings.name, world.parent
    if parent.has(keys.Model(name, round_ + 1)):
        return
    if is_final(world, round_):
        if not parent.has(keys.Finished(name)):
            raise Violation("a final model ends the run", f"{task.name} left finished.json out")
        return
    model = parent.bytes_of(keys.Model(name, round_))
    for client, inbox in world.inboxes.items():
        key = keys.Ticket(name, round_)
        if client in (spared or ()):
            continue
        if not inbox.has(key):
            raise Violation("every client is told of a round", f"{task.name} left {client} without {key}")
        if Ticket.from_bytes(inbox.bytes_of(key), "ticket").sha256 != sha256(model):
            raise Violation("every client is told of a round", f"{task.name} took another's ticket for {client}'s")


def _owes_receipt(world: World, task: Task, key: keys.Update) -> None:
    parent, name = world.parent, world.settings.name
    if parent.has(keys.Receipt(name, key.round, key.client)) or parent.has(keys.Model(name, key.round + 1)):
        return
    if not parent.had(keys.Model(name, key.round), task.began) or not parent.had(key, task.began):
        return
    if str(key) not in parent.tampered and key.client in world.scenario.clients and not is_final(world, key.round):
        raise Violation("every answer to an open round has a receipt", f"{task.name} left {key} without")


def _owes_model(world: World, task: Task, round_: int, event_id: str) -> None:
    """A round that could be closed when the function began is closed, or somebody else is at it."""
    parent, name = world.parent, world.settings.name
    if parent.has(keys.Model(name, round_ + 1)):
        return
    if not parent.has(cohort := keys.Cohort(name, round_)):
        given = [receipt.outcome for step, receipt in receipts(world, round_) if step <= task.began]
        age = parent.age(keys.Model(name, round_), task.began_at) - _SECOND
        if closes(world, given, age)[0]:
            raise Violation("a round that can close is closed", f"{task.name} left round {round_} open")
    elif Cohort.from_bytes(parent.bytes_of(cohort), "cohort").frozen_by == event_id and (
        parent.had(cohort, task.began) or parent.first[str(cohort)].by == task.name
    ):  # not a redelivery that had looked before the first delivery of the event froze it
        raise Violation("whoever freezes a cohort makes the model", f"{task.name} left model {round_ + 1} out")
    elif parent.had(cohort, task.began) and parent.age(cohort, task.began_at) > TIME_LIMIT + _SECOND:
        raise Violation("an abandoned cohort is taken up", f"{task.name} left model {round_ + 1} out")


def _owes_successors(world: World, task: Task, event_id: str) -> None:
    name = world.settings.name
    if world.parent.had(keys.Finished(name), task.began):
        return
    round_ = world.newest(task.began)
    _owes_tickets(world, task, round_)
    for client in world.scenario.clients:
        for withdrawn in (False, True):
            _owes_receipt(world, task, keys.Update(name, client, round_, withdrawn))
    if not is_final(world, round_):
        _owes_model(world, task, round_, event_id)


# What a client's owe.


def _owes_answer(world: World, task: Task, client: str, round_: int) -> None:
    parent, name = world.parent, world.settings.name
    if parent.has(keys.Model(name, round_ + 1)) or not parent.had(keys.Model(name, round_), task.began):
        return  # it is over; or it has not opened, and the ticket was somebody else's
    found = [keys.Update(name, client, round_, withdrawn) for withdrawn in (False, True)]
    if not is_final(world, round_) and not any(parent.has(key) or str(key) in parent.tampered for key in found):
        raise Violation("every open round is answered", f"{task.name} left round {round_} without an answer")


def _owes_answer_to_the_newest(world: World, task: Task, client: str) -> None:
    """Unless an attempt is under way: one begun a short time ago, or meanwhile."""
    state, round_ = world.states[client], world.newest(task.began)
    begun = [key for key in state.first if key.startswith(marks_of_training(world, round_))]
    ages = [state.age(key, task.began_at) if state.had(key, task.began) else 0.0 for key in begun]
    if min(ages, default=float("inf")) > TIME_LIMIT + _SECOND:
        _owes_answer(world, task, client, round_)


# What the design says of rounds, in its words.


def closes(world: World, outcomes: list[str], age: float) -> tuple[bool, bool]:
    """Return whether a round with receipts of these outcomes closes at that age, and whether it is void then."""
    roster, quorum = len(world.settings.client), world.settings.round.quorum
    accepted, unanswered = outcomes.count("accepted"), roster - len(outcomes)
    if accepted + unanswered < quorum or (accepted < quorum and age >= 2 * DEADLINE):
        return True, True
    return accepted >= quorum and (unanswered == 0 or age >= DEADLINE), False


def receipts(world: World, round_: int) -> list[tuple[int, Receipt]]:
    """Return (step of creation, receipt) of a round, in the order of creation."""
    prefix = keys.receipts(world.settings.name, round_)
    return [
        (made.step, Receipt.from_bytes(made.data, key))
        for key, made in world.parent.first.items()
        if key.startswith(prefix)
    ]


def is_final(world: World, round_: int) -> bool:
    """Return whether a model says that it is the last."""
    model = world.parent.bytes_of(keys.Model(world.settings.name, round_))
    return "final" in tensors.layout_of(model).metadata


def marks_of_training(world: World, round_: int) -> tuple[str, str]:
    """Return what the keys begin with, in private state, that tell that training was begun or saved."""
    name = world.settings.name
    return keys.attempts(name, round_), keys.checkpoints(name, round_)
