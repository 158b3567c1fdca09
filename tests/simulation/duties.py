"""What a function owes when it returns, and how it may fail: an event that is acknowledged does not come again."""

from collections.abc import Iterator

from aggregator.rounds import Parent
from client.rounds import Client
from exchange import keys, tensors
from exchange.documents import sha256
from exchange.errors import CohortUnreadable, ConsentRefused, DifferentContent, NotFound, VersionMismatch
from exchange.records import Cohort, Receipt, Ticket
from tests.simulation.scheduler import Task, Violation
from tests.simulation.world import PARENT, TIME_LIMIT, Wake, World
from tests.support.settings import DEADLINE
from tests.support.watched import Killed, Unavailable

__all__ = ["Client", "Parent", "check"]


def check(world: World, task: Task, wake: Wake, error: BaseException | None) -> None:
    """Raise Violation if a function that ended left undone what it was woken for, or failed without a reason."""
    if error is not None:
        _check_failure(world, task, wake, error)
        return
    match wake.key:
        case keys.Model(_, round_):
            _owes_tickets(world, task, round_, spared=set())
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
        if not _excused(world, wake, cause):
            raise Violation("functions fail for a reason only", f"{task.name} raised {cause!r}")
    if wake.actor == PARENT and isinstance(error, ExceptionGroup):
        _check_other_inboxes(world, task, wake)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _excused(world: World, wake: Wake, error: BaseException) -> bool:
    match error:
        case Unavailable() | Killed():
            return True
        case ConsentRefused():
            return world.scenario.agrees_after.get(wake.actor, 0) > 0
        case CohortUnreadable() | NotFound() | VersionMismatch():
            return bool(world.parent.tampered)
        case DifferentContent():
            return bool(world.rogue or world.by_hand or world.parent.tampered)
    return False


def _check_other_inboxes(world: World, task: Task, wake: Wake) -> None:
    """Hold a publication that failed to having tried every inbox."""
    if any(not trouble.count("inbox of") for trouble in task.troubles):
        return  # the parent bucket failed, too
    spared = {client for client in world.inboxes if any(f"inbox of {client}" in trouble for trouble in task.troubles)}
    round_ = wake.key.round if isinstance(wake.key, keys.Model) else _newest(world, task.began)
    spared |= {client for client in world.inboxes if (client, round_) in world.rogue}
    _owes_tickets(world, task, round_, spared)


# The parent's.


def _owes_tickets(world: World, task: Task, round_: int, spared: set[str]) -> None:
    name, parent = world.settings.name, world.parent
    if parent.has(keys.Model(name, round_ + 1)):
        return
    model = parent.bytes_of(keys.Model(name, round_))
    if "final" in tensors.layout_of(model).metadata:
        if not parent.has(keys.Finished(name)):
            raise Violation("a final model ends the run", f"{task.name} left finished.json out")
        return
    for client, inbox in world.inboxes.items():
        key = keys.Ticket(name, round_)
        if client in spared:
            continue
        if not inbox.has(key):
            raise Violation("every client is told of a round", f"{task.name} left {client} without {key}")
        if Ticket.from_bytes(inbox.bytes_of(key), "ticket").sha256 != sha256(model):
            raise Violation(
                "every client is told of a round", f"{task.name} took another ticket of {client} for its own"
            )


def _owes_receipt(world: World, task: Task, key: keys.Update) -> None:
    parent, name = world.parent, world.settings.name
    if parent.has(keys.Receipt(name, key.round, key.client)) or parent.has(keys.Model(name, key.round + 1)):
        return
    if not parent.had(model := keys.Model(name, key.round), task.began) or not parent.had(key, task.began):
        return
    if "final" not in tensors.layout_of(parent.bytes_of(model)).metadata:
        raise Violation("every answer to an open round has a receipt", f"{task.name} left {key} without")


def _owes_model(world: World, task: Task, round_: int, event_id: str) -> None:
    """A round that could be closed when the function began is closed, or somebody else is at it."""
    parent, name = world.parent, world.settings.name
    if parent.has(keys.Model(name, round_ + 1)) or not parent.has(keys.Model(name, round_)):
        return
    cohort = keys.Cohort(name, round_)
    if parent.has(cohort):
        frozen = Cohort.from_bytes(parent.bytes_of(cohort), "cohort")
        if frozen.frozen_by == event_id:
            raise Violation("whoever freezes a cohort makes the model", f"{task.name} left model {round_ + 1} out")
        # Stores tell their time in whole seconds.
        if parent.had(cohort, task.began) and parent.age(cohort, task.began_at) > TIME_LIMIT + 1:
            raise Violation("an abandoned cohort is taken up", f"{task.name} left model {round_ + 1} out")
    elif can_close(world, round_, task.began, parent.age(keys.Model(name, round_), task.began_at) - 1):
        raise Violation("a round that can close is closed", f"{task.name} left round {round_} open")


def can_close(world: World, round_: int, step: int, age: float) -> bool:
    """Return whether the receipts that were there at `step` close the round at that age; by the words of the design."""
    found = [receipt for made, receipt in receipts(world, round_) if made <= step]
    return closes(world, [receipt.outcome for receipt in found], age)[0]


def closes(world: World, outcomes: list[str], age: float) -> tuple[bool, bool]:
    """Return whether a round with these receipts closes at that age, and whether it is void."""
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


def _owes_successors(world: World, task: Task, event_id: str) -> None:
    if world.parent.had(keys.Finished(world.settings.name), task.began):
        return
    round_ = _newest(world, task.began)
    _owes_tickets(world, task, round_, spared=set())
    for client in world.scenario.clients:
        for withdrawn in (False, True):
            _owes_receipt(world, task, keys.Update(world.settings.name, client, round_, withdrawn))
    if not world.parent.has(keys.Finished(world.settings.name)):
        _owes_model(world, task, round_, event_id)


def _newest(world: World, step: int) -> int:
    prefix = keys.models(world.settings.name)
    return sum(key.startswith(prefix) and made.step <= step for key, made in world.parent.first.items()) - 1


# The client's.


def _owes_answer(world: World, task: Task, client: str, round_: int) -> None:
    parent, name = world.parent, world.settings.name
    if parent.has(keys.Model(name, round_ + 1)) or parent.has(keys.Finished(name)):
        return
    if not parent.had(keys.Model(name, round_), task.began):
        return  # somebody else's ticket
    if "final" in tensors.layout_of(parent.bytes_of(keys.Model(name, round_))).metadata:
        return
    found = [keys.Update(name, client, round_, withdrawn) for withdrawn in (False, True)]
    if not any(parent.has(key) or str(key) in parent.tampered for key in found):
        raise Violation("every round that is open is answered", f"{task.name} left round {round_} without an answer")


def _owes_answer_to_the_newest(world: World, task: Task, client: str) -> None:
    name, state = world.settings.name, world.states[client]
    round_ = _newest(world, task.began)
    begun = [
        state.age(key, task.began_at)
        for key in state.first
        if key.startswith(keys.attempts(name, round_)) and state.had(key, task.began)
    ]
    if not any(key.startswith(keys.attempts(name, round_)) and not state.had(key, task.began) for key in state.first):
        if not begun or min(begun) > TIME_LIMIT + 1:
            _owes_answer(world, task, client, round_)
