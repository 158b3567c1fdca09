"""What holds of each client when a run is over: what it learned, released, uploaded and paid."""

import json
from itertools import chain

import numpy as np

from client.privacy.ledger import ENTRY, Charge, Ledger, events_of
from client.privacy.plan import make_plan
from exchange import keys, tensors
from exchange.errors import FedbucketError
from tests.simulation.buckets import Creation
from tests.simulation.duties import marks_of_training
from tests.simulation.price import epsilon_of
from tests.simulation.scenario import granted
from tests.simulation.scheduler import Violation
from tests.simulation.world import TIME_LIMIT, Learning, World
from tests.support.arithmetic import trained


def check(world: World, client: str) -> None:
    """Raise Violation if anything about `client` is not as it must be."""
    for round_ in range(world.settings.rounds):
        _one_release_a_round(world, client, round_)
    _training_was_due(world, client)
    if world.scenario.private:
        _account_is_true(world, client)


def _one_release_a_round(world: World, client: str, round_: int) -> None:
    """Hold what a client released against what it uploaded, and that against what it learned."""
    state, name = world.states[client], world.settings.name
    kept = [key for withdrawn in (False, True) if state.has(key := keys.Release(name, round_, withdrawn))]
    if len(kept) > 1:
        raise Violation("one release a client and round", f"{client} released and withdrew from round {round_}")
    uploads = _uploads(world, client, round_)
    if len({made.sha256 for made in uploads}) > 1:
        raise Violation("one release a client and round", f"{client} uploaded different bytes for round {round_}")
    for made in uploads:
        if not kept or not state.had(kept[0], made.step - 1) or state.bytes_of(kept[0]) != made.data:
            raise Violation("what is uploaded was kept", f"{made.by} uploaded {made.key}, which {client} did not keep")
        if not world.scenario.private:
            weights = trained(tensors.load(world.parent.bytes_of(keys.Model(name, round_))), client, round_)
            found = tensors.load(made.data)
            if any(np.any(found[tensor] != weights[tensor]) for tensor in weights):
                raise Violation("an update is what was learned", f"{made.key} is not")


def _uploads(world: World, client: str, round_: int) -> list[Creation]:
    """Return all that the client's functions tried to upload for a round."""
    wanted = [str(keys.Update(world.settings.name, client, round_, withdrawn)) for withdrawn in (False, True)]
    return [made for made in world.parent.attempts if made.key in wanted and made.event_id]


def _training_was_due(world: World, client: str) -> None:
    """Training is for the newest round only, if that has no answer, and a sweep does not double what is under way."""
    name, parent = world.settings.name, world.parent
    for learning in world.learned:
        if learning.client != client:
            continue
        task, round_ = learning.task, learning.round
        if parent.had(keys.Model(name, round_ + 1), task.began - 1):
            raise Violation("only the newest model is trained on", f"{task.name} trained for round {round_}")
        for answer in (keys.Update(name, client, round_), keys.Update(name, client, round_, withdrawn=True)):
            if parent.had(answer, task.began - 1) and str(answer) not in parent.tampered:
                raise Violation("what is answered is not trained for", f"{task.name} trained for round {round_}")
        if task.event_id.startswith("timer:") and _is_under_way(world, learning):
            raise Violation("a sweep does not double what is under way", f"{task.name} trained for round {round_}")


def _is_under_way(world: World, learning: Learning) -> bool:
    """Return whether another attempt, begun before the task of `learning`, was young when that trained all the same."""
    began, state = learning.task.began, world.states[learning.client]
    marks = [key for key in state.first if key.startswith(marks_of_training(world, learning.round))]
    ages = [state.age(key, learning.began_at) for key in marks if state.had(key, began - 1)]
    trainings = [
        learning.began_at - other.task.began_at
        for other in world.learned
        if (other.client, other.round) == (learning.client, learning.round) and other.began < began
    ]
    return min(ages + trainings, default=TIME_LIMIT) < TIME_LIMIT


def _account_is_true(world: World, client: str) -> None:
    """Hold an account against what was released, and ε against what is computed by other means."""
    state, budget = world.states[client], granted(world.scenario, client)
    try:
        _, charges, hashes = Ledger(state, "data").read()
    except FedbucketError as error:
        raise Violation("an account is a whole chain", f"{client}: {error}") from error
    paid = [charge.round for charge in charges if charge.settings_sha256 == world.settings.sha256]
    if len(paid) != len(set(paid)):
        raise Violation("a round is paid for once", f"{client} paid for rounds {paid}")
    assert budget is not None
    if (spent := _epsilon(charges, budget.delta)) > budget.epsilon * (1 + 1e-9):
        raise Violation("no budget is exceeded", f"{client} spent ε = {spent} of {budget.epsilon}, {budget.unit}")
    entries = {charge.round: number for number, charge in enumerate(charges) if charge.federation != "meadow"}
    for round_, number in entries.items():
        _charge_was_due(world, client, round_, state.first[str(keys.LedgerEntry("data", number + 1))])
    for key, made in state.first.items():
        match keys.parse(key):
            case keys.Release(_, round_, True):
                _withdrawal_was_due(world, client, made, charges, round_ in paid)
            case keys.Release(_, round_, False):
                _release_is_paid(world, client, round_, made, charges, hashes)


def _epsilon(charges: list[Charge], delta: float) -> float:
    return epsilon_of(_multipliers(charges), delta)


def _multipliers(charges: list[Charge]) -> list[float]:
    return list(chain.from_iterable((event.noise_multiplier for event in events_of([charge])) for charge in charges))


def _charge_was_due(world: World, client: str, round_: int, entry: Creation) -> None:
    """Privacy is spent on what was learned, in a round that had not closed when training ended."""
    ended = [learning.ended for learning in world.learned if learning.task.name == entry.by]
    if not ended:
        raise Violation("privacy is spent on what was learned", f"{entry.by} charged round {round_} of {client}")
    if world.parent.had(keys.Model(world.settings.name, round_ + 1), ended[0] - 1):
        raise Violation("no privacy is spent on a round that has closed", f"{entry.by} charged round {round_}")


def _withdrawal_was_due(world: World, client: str, made: Creation, charges: list[Charge], paid: bool) -> None:
    """A client withdraws by itself only where its budget does not pay for one more round."""
    if paid:
        raise Violation("what is paid for is released", f"{made.by} withdrew all the same")
    state, budget, plan = world.states[client], granted(world.scenario, client), make_plan(world.settings, client)
    before = [
        charge
        for number, charge in enumerate(charges)
        if state.had(keys.LedgerEntry("data", number + 1), made.step - 1)
    ]
    assert budget is not None
    assert plan is not None
    one_more = [event.noise_multiplier for event in plan.events]
    if epsilon_of(_multipliers(before) + one_more, budget.delta) <= budget.epsilon:
        raise Violation("a client withdraws only if it cannot pay", f"{made.by} withdrew")


def _release_is_paid(
    world: World, client: str, round_: int, made: Creation, charges: list[Charge], hashes: list[str]
) -> None:
    """A release names the entry that it was charged by before, and says truly what was spent with it."""
    metadata = tensors.layout_of(made.data).metadata
    own = [number for number, charge in enumerate(charges) if charge.settings_sha256 == world.settings.sha256]
    number = next((number for number in own if hashes[number + 1] == metadata.get(ENTRY)), None)
    if number is None or charges[number].round != round_:
        raise Violation("a release names its entry", f"{made.key} of {client} names {metadata.get(ENTRY)}")
    if not world.states[client].had(keys.LedgerEntry("data", number + 1), made.step - 1):
        raise Violation("a release is paid for before it is kept", f"{made.key} of {client}")
    said = json.loads(metadata["privacy"])
    upto = range(own.index(number) + 1, len(own) + 1)  # others may have been charged since
    sums = [_epsilon([charges[number] for number in own[:count]], said["delta"]) for count in upto]
    if not any(abs(said["epsilon_federation"] - spent) < 1e-6 * spent for spent in sums):
        raise Violation("an update says what was spent", f"{made.key} of {client}: not one of {sums}")
