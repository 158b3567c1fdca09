"""What holds of the buckets when a run is over, whatever happened."""

from collections.abc import Iterator

import numpy as np

from client.privacy.ledger import ENTRY, events_of
from exchange import keys, tensors
from exchange.documents import sha256
from exchange.records import Cohort, Receipt, Summary
from exchange.spec import NoPrivacy
from tests.simulation.duties import closes, receipts
from tests.simulation.price import epsilon_of
from tests.simulation.scenario import granted
from tests.simulation.scheduler import BEGIN, Violation
from tests.simulation.world import TIME_LIMIT, World
from tests.support.arithmetic import mean, model_file, trained
from tests.support.settings import DEADLINE, EXAMPLES

VOID_ROUNDS = 3  # in a row, that finish a run


def check(world: World) -> None:
    """Raise Violation if anything is not as it must be."""
    _keys_are_written_once(world)
    cohorts = [_cohort(world, round_) for round_ in range(world.newest)]
    _models_follow_from_their_cohorts(world, cohorts)
    for round_, cohort in enumerate(cohorts):
        _cohort_is_legal(world, round_, cohort)
        _summary_came_first(world, round_, cohort)
        _who_lost_left_the_work(world, round_, cohort)
        _nobody_was_left_out(world, round_, cohort)
    _nothing_follows_the_final_model(world)
    for client in world.scenario.clients:
        _one_release_a_round(world, client)
        _training_was_not_doubled(world, client)
        if not isinstance(world.settings.privacy, NoPrivacy):
            _account_is_true(world, client)
    _everybody_wrote_the_same(world)


def _keys_are_written_once(world: World) -> None:
    for bucket in [world.parent, *world.inboxes.values(), *world.states.values()]:
        if bucket.twice:
            raise Violation("every key is written once", f"{bucket.twice[0]} in {bucket.name} was written again")
        if foreign := [key for key in bucket.first if keys.parse(key) is None]:
            raise Violation("no key is outside the grammar", f"{foreign[0]} in {bucket.name}")


def _cohort(world: World, round_: int) -> Cohort:
    key, model = keys.Cohort(world.settings.name, round_), keys.Model(world.settings.name, round_ + 1)
    if not world.parent.has(key):
        raise Violation("a cohort is frozen before it is averaged", f"{model} has no cohort")
    if world.parent.first[str(model)].step <= world.parent.first[str(key)].step:
        raise Violation("a cohort is frozen before it is averaged", f"{model} was there first")
    return Cohort.from_bytes(world.parent.bytes_of(key), str(key))


def _models_follow_from_their_cohorts(world: World, cohorts: list[Cohort]) -> None:
    """Compute all models anew, with NumPy, from the bytes that the cohorts name."""
    settings, void_rounds = world.settings, 0
    model = tensors.load(world.parent.bytes_of(keys.Model(settings.name, 0)))
    for round_, cohort in enumerate(cohorts):
        members = [
            (tensors.load(world.parent.known[member.sha256]), EXAMPLES.get(member.client, 10))
            for member in cohort.members
        ]
        void_rounds = 0 if members else void_rounds + 1
        final = "void" if void_rounds >= VOID_ROUNDS else "rounds" if round_ + 1 == settings.rounds else None
        model = mean(members, model) if members else model
        found = world.parent.bytes_of(keys.Model(settings.name, round_ + 1))
        if found != model_file(settings, round_ + 1, model, final):
            said = tensors.layout_of(found).metadata
            raise Violation("a model is the pure function of its cohort", f"model {round_ + 1} is not; it says {said}")


def _cohort_is_legal(world: World, round_: int, cohort: Cohort) -> None:
    """Hold a cohort against the receipts that were there, by the store's clock."""
    frozen = world.parent.first[str(keys.Cohort(world.settings.name, round_))]
    opened = world.parent.first[str(keys.Model(world.settings.name, round_))]
    answers = [member.client for member in cohort.members]
    if answers != sorted(set(answers)):
        raise Violation("a cohort is sorted", f"round {round_}: {answers}")
    given = [receipt for step, receipt in receipts(world, round_) if step < frozen.step]
    for number in range(len(given) + 1):
        if _follows(world, cohort, given[:number], frozen.at - opened.at):
            return
    told = {receipt.client: receipt.outcome for receipt in given}
    raise Violation(
        "every cohort is legal by the store's clock",
        f"round {round_}, {frozen.at - opened.at:g} s old, quorum {world.settings.round.quorum}: the receipts say {told}, "
        f"the cohort averages {answers}, void: {cohort.void}, rejected {list(cohort.rejected)}, "
        f"withdrawn {list(cohort.withdrawn)}, absent {list(cohort.absent)}",
    )


def _follows(world: World, cohort: Cohort, given: list[Receipt], age: float) -> bool:
    by_client = {receipt.client: receipt for receipt in given}
    closed, void = closes(world, [receipt.outcome for receipt in given], age)
    accepted = {client: receipt.update for client, receipt in by_client.items() if receipt.outcome == "accepted"}
    return (
        closed
        and cohort.void == void
        and {member.client: member for member in cohort.members} == ({} if void else accepted)
        and cohort.rejected == {client: r.code for client, r in by_client.items() if r.outcome == "rejected"}
        and set(cohort.withdrawn) == {client for client, r in by_client.items() if r.outcome == "withdrawn"}
        and set(cohort.absent) == set(world.scenario.clients) - by_client.keys()
    )


def _summary_came_first(world: World, round_: int, cohort: Cohort) -> None:
    model, key = keys.Model(world.settings.name, round_ + 1), keys.Summary(world.settings.name, round_)
    if not world.parent.had(key, world.parent.first[str(model)].step - 1):
        raise Violation("no model is without its summary", f"{model} was there before {key}")
    summary = Summary.from_bytes(world.parent.bytes_of(key), str(key))
    if summary.averaged != tuple(member.client for member in cohort.members):
        raise Violation("no model is without its summary", f"{key} is of another cohort")


def _who_lost_left_the_work(world: World, round_: int, cohort: Cohort) -> None:
    frozen = world.parent.first[str(keys.Cohort(world.settings.name, round_))]
    for made in world.parent.attempts:
        if made.key == str(keys.Model(world.settings.name, round_ + 1)) and made.event_id != cohort.frozen_by:
            if (age := made.at - frozen.at) < TIME_LIMIT:
                raise Violation("who lost the race leaves the work", f"{made.by} made {made.key} {age:g} s later")


def _nobody_was_left_out(world: World, round_: int, cohort: Cohort) -> None:
    """In a round that opened when all was well, whoever is there takes part."""
    opened = world.parent.first[str(keys.Model(world.settings.name, round_))]
    frozen = world.parent.first[str(keys.Cohort(world.settings.name, round_))]
    hopeless = cohort.void and frozen.at - opened.at < 2 * DEADLINE
    if hopeless or world.quiet_at is None or opened.at < world.quiet_at:
        return
    for client in world.scenario.clients:
        gone = world.scenario.absent[client] == (0.0, float("inf"))
        agreed = opened.at >= BEGIN + world.scenario.agrees_after[client]
        if agreed and not gone and (client, round_) not in world.rogue | world.by_hand and client in cohort.absent:
            raise Violation("whoever is there takes part", f"{client} is absent from round {round_}")
        if (client, round_) not in world.by_hand and client in cohort.rejected:
            raise Violation("whoever is there takes part", f"{client} was rejected: {cohort.rejected[client]}")


def _nothing_follows_the_final_model(world: World) -> None:
    name, last = world.settings.name, world.newest
    for bucket in [world.parent, *world.inboxes.values(), *world.states.values()]:
        for key, made in bucket.first.items():
            parsed = keys.parse(key)
            if (
                made.by
                and "by hand" not in made.by
                and not isinstance(parsed, keys.Model)
                and getattr(parsed, "round", -1) >= last
            ):
                planted = (
                    isinstance(parsed, keys.Ticket) and (bucket.name.removeprefix("inbox of "), last) in world.rogue
                )
                if getattr(parsed, "federation", None) == name and not planted:
                    raise Violation("a final model opens no round", f"{key} in {bucket.name}")


def _one_release_a_round(world: World, client: str) -> None:
    """Hold what a client released against what it uploaded, and that against what was learned."""
    state, parent, name = world.states[client], world.parent, world.settings.name
    for round_ in range(world.settings.rounds):
        found = [keys.Release(name, round_, withdrawn) for withdrawn in (False, True)]
        kept = [key for key in found if state.has(key)]
        if len(kept) > 1:
            raise Violation("one release a client and round", f"{client} released and withdrew from round {round_}")
        uploads = [made for made in _uploads(world, client, round_)]
        if len({made.sha256 for made in uploads}) > 1:
            raise Violation("one release a client and round", f"{client} uploaded different bytes for round {round_}")
        for made in uploads:
            if not kept or state.bytes_of(kept[0]) != made.data:
                raise Violation("what is uploaded was kept", f"{client} uploaded {made.key}, which is not what it kept")
            if state.first[str(kept[0])].step >= made.step:
                raise Violation("what is uploaded was kept", f"{client} uploaded {made.key} before it was kept")
            if isinstance(world.settings.privacy, NoPrivacy) and made.key.endswith(".safetensors"):
                weights = trained(tensors.load(parent.bytes_of(keys.Model(name, round_))), client, round_)
                if any(np.any(tensors.load(made.data)[tensor] != weights[tensor]) for tensor in weights):
                    raise Violation("an update is what was learned", f"{made.key} is not")


def _uploads(world: World, client: str, round_: int) -> list:
    prefix = keys.updates(world.settings.name, client)
    return [
        made
        for made in world.parent.attempts
        if made.key.startswith(prefix) and f"/{round_:06d}." in made.key and "by hand" not in made.by
    ]


def _training_was_not_doubled(world: World, client: str) -> None:
    name, state = world.settings.name, world.states[client]
    for learning in world.learned:
        if learning.client != client:
            continue
        task = learning.task
        if world.parent.had(keys.Model(name, learning.round + 1), task.began - 1):
            raise Violation("only the newest model is trained on", f"{task.name} trained for round {learning.round}")
        if not task.name.startswith("sweep"):
            continue
        young = [
            key
            for key in state.first
            if key.startswith(keys.attempts(name, learning.round))
            and state.had(key, task.began - 1)
            and state.age(key, task.began_at) < TIME_LIMIT
        ]
        if young:
            raise Violation("a sweep does not double what is under way", f"{task.name} trained in spite of {young[0]}")


def _account_is_true(world: World, client: str) -> None:
    """Hold an account against what was released, and ε against what is computed by other means."""
    state, parent, settings, budget = (
        world.states[client],
        world.parent,
        world.settings,
        granted(world.scenario, client),
    )
    try:
        _, charges, hashes = world.account(client).read()
    except Exception as error:
        raise Violation("an account is a whole chain", f"{client}: {error}") from error
    own = [(charge.round, number) for number, charge in enumerate(charges) if charge.settings_sha256 == settings.sha256]
    if len(own) != len(dict(own)):
        raise Violation("a round is paid for once", f"{client} paid for rounds {[round_ for round_, _ in own]}")
    multipliers = [[event.noise_multiplier for event in events_of([charge])] for charge in charges]
    assert budget is not None
    if (spent := epsilon_of(sum(multipliers, []), budget.delta)) > budget.epsilon * (1 + 1e-9):
        raise Violation("no budget is exceeded", f"{client} spent ε = {spent}, granted are {budget.epsilon}")
    for round_, number in own:
        _charge_was_due(world, client, round_, state.first[str(keys.LedgerEntry("data", number + 1))])
    for key, made in state.first.items():
        release = keys.parse(key)
        if not isinstance(release, keys.Release):
            continue
        if release.withdrawn:
            if release.round in dict(own):
                raise Violation("what is paid for is released", f"{client} withdrew from round {release.round}")
            _withdrawal_was_due(world, client, made, multipliers)
            continue
        entry = tensors.layout_of(made.data).metadata.get(ENTRY)
        number = dict(own).get(release.round)
        if number is None or hashes[number + 1] != entry:
            raise Violation("a release names its entry", f"{key} of {client} names {entry}")
        if state.first[str(keys.LedgerEntry("data", number + 1))].step >= made.step:
            raise Violation("a release is paid for before it is kept", f"{key} of {client}")
        _statement_is_true(world, client, made.data, release.round, own, multipliers)


def _statement_is_true(world: World, client: str, data: bytes, round_: int, own: list, multipliers: list) -> None:
    import json

    said = json.loads(tensors.layout_of(data).metadata["privacy"])
    place = [r for r, _ in own].index(round_)
    sums = [
        epsilon_of(sum((multipliers[number] for _, number in own[:upto]), []), said["delta"])
        for upto in range(place + 1, len(own) + 1)
    ]
    if not any(abs(said["epsilon_federation"] - spent) < 1e-6 * spent for spent in sums):
        raise Violation(
            "an update says what was spent", f"{client}, round {round_}: {said['epsilon_federation']}, not {sums}"
        )


def _charge_was_due(world: World, client: str, round_: int, entry) -> None:
    """Privacy is not spent on a round that had closed when training ended."""
    trainings = [l for l in world.learned if l.client == client and l.round == round_ and l.task.name == entry.by]
    if not trainings:
        raise Violation("privacy is spent on what was learned", f"{entry.by} charged round {round_} of {client}")
    model = keys.Model(world.settings.name, round_ + 1)
    if all(world.parent.had(model, learning.ended - 1) for learning in trainings):
        raise Violation(
            "no privacy is spent on a round that has closed", f"{entry.by} charged round {round_} of {client}"
        )


def _withdrawal_was_due(world: World, client: str, made, multipliers: list) -> None:
    """A client withdraws by itself only where its budget does not pay for one more round."""
    state, budget = world.states[client], granted(world.scenario, client)
    paid = sum(
        keys.parse(key).number > 0 and m.step < made.step for key, m in state.first.items() if key.startswith("ledger/")
    )
    from client.privacy.plan import make_plan

    plan = make_plan(world.settings, client)
    price = [event.noise_multiplier for event in plan.events]
    if epsilon_of(sum(multipliers[:paid], price), budget.delta) <= budget.epsilon:
        raise Violation("a client withdraws only if it cannot pay", f"{made.by} withdrew")


def _everybody_wrote_the_same(world: World) -> None:
    """Whoever writes a model, a summary or the end writes the same bytes."""
    found: dict[str, set[str]] = {}
    for made in world.parent.attempts:
        if isinstance(keys.parse(made.key), (keys.Model, keys.Summary, keys.Finished)):
            found.setdefault(made.key, set()).add(made.sha256)
    for key, digests in found.items():
        if len(digests) > 1:
            raise Violation("whoever makes a model makes the same bytes", f"{key}: {len(digests)} different ones")
