"""What holds of the buckets when a run is over, whatever happened."""

from aggregator.inspection import status, verify
from exchange import keys, tensors
from exchange.documents import sha256
from exchange.records import Cohort, Finished, Receipt, Summary, Ticket
from tests.simulation import releases
from tests.simulation.buckets import Creation
from tests.simulation.duties import closes, receipts
from tests.simulation.scheduler import BEGIN, Violation
from tests.simulation.world import TIME_LIMIT, World
from tests.support.arithmetic import mean, model_file
from tests.support.settings import DEADLINE, EXAMPLES

_VOID_ROUNDS = 3  # in a row, that finish a run


def check(world: World) -> None:
    """Raise Violation if anything is not as it must be."""
    _keys_are_written_once(world)
    cohorts = [_cohort(world, round_) for round_ in range(world.newest())]
    _models_follow_from_their_cohorts(world, cohorts)
    for round_, cohort in enumerate(cohorts):
        _cohort_is_legal(world, round_, cohort)
        _summary_is_of_the_cohort(world, round_, cohort)
        _who_lost_left_the_work(world, round_, cohort)
        _nobody_was_left_out(world, round_, cohort)
        _tickets_tell_how_it_ended(world, round_, cohort)
    _nothing_follows_the_final_model(world)
    _everybody_wrote_the_same(world)
    for client in world.scenario.clients:
        releases.check(world, client)
    for verdict in verify(world.parent, world.settings.name) if world.parent.tampered else ():
        if verdict.verdict != "good":
            raise Violation("what was restored is good", f"round {verdict.round}: {verdict.detail}")


def check_status(world: World) -> None:
    """Raise Violation if a run that goes on does not say for whom it waits."""
    if not world.parent.tampered and not world.finished:
        found = status(world.parent, world.settings.name)
        for answer in found.answers:
            updates = [keys.Update(found.federation, answer.client, found.round, w) for w in (False, True)]
            told = world.parent.has(keys.Receipt(found.federation, found.round, answer.client))
            waiting = not told and not any(map(world.parent.has, updates))
            state = "waited for" if waiting else "decided" if told else "uploaded"
            said = {"waiting": "waited for", "late": "waited for", "uploaded": "uploaded"}.get(answer.state, "decided")
            if said != state:
                raise Violation("a run says for whom it waits", f"of {answer.client} it says {answer.state}")


def _keys_are_written_once(world: World) -> None:
    for bucket in [world.parent, *world.inboxes.values(), *world.states.values()]:
        if bucket.twice:
            raise Violation("every key is written once", f"{bucket.twice[0]} in {bucket.name} was written again")
        if foreign := [key for key in bucket.first if keys.parse(key) is None]:
            raise Violation("no key is outside the grammar", f"{foreign[0]} in {bucket.name}")


def _made(world: World, key: keys.Key) -> Creation:
    return world.parent.first[str(key)]


def _cohort(world: World, round_: int) -> Cohort:
    key, model = keys.Cohort(world.settings.name, round_), keys.Model(world.settings.name, round_ + 1)
    if not world.parent.had(key, _made(world, model).step - 1):
        raise Violation("a cohort is frozen before it is averaged", f"{model} was there before {key}")
    return Cohort.from_bytes(_made(world, key).data, str(key))


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
        final = "void" if void_rounds >= _VOID_ROUNDS else "rounds" if round_ + 1 == settings.rounds else None
        model = mean(members, model) if members else model
        found = world.parent.bytes_of(keys.Model(settings.name, round_ + 1))
        if found != model_file(settings, round_ + 1, model, final):
            said = tensors.layout_of(found).metadata
            raise Violation("a model is the pure function of its cohort", f"model {round_ + 1} is not; it says {said}")
        summary = _summary(world, round_)
        if (summary.void_rounds, summary.finished) != (void_rounds, final):
            raise Violation("a summary is true", f"of round {round_}: {summary.void_rounds}, {summary.finished}")
    ending = Finished.from_bytes(world.parent.bytes_of(keys.Finished(settings.name)), "ending")
    if (ending.round, ending.sha256, ending.reason) != (len(cohorts), sha256(found), final):
        raise Violation("a run says how it ended", f"{ending}")


def _summary(world: World, round_: int) -> Summary:
    key, model = keys.Summary(world.settings.name, round_), keys.Model(world.settings.name, round_ + 1)
    if not world.parent.had(key, _made(world, model).step - 1):
        raise Violation("no model is without its summary", f"{model} was there before {key}")
    return Summary.from_bytes(_made(world, key).data, str(key))


def _cohort_is_legal(world: World, round_: int, cohort: Cohort) -> None:
    """Hold a cohort against the receipts that were there, by the store's clock."""
    frozen = _made(world, keys.Cohort(world.settings.name, round_))
    age = frozen.at - _made(world, keys.Model(world.settings.name, round_)).at
    answers = [member.client for member in cohort.members]
    if answers != sorted(set(answers)):
        raise Violation("a cohort is sorted", f"round {round_}: {answers}")
    given = [receipt for step, receipt in receipts(world, round_) if step < frozen.step]
    if not any(_follows(world, cohort, given[:number], age) for number in range(len(given) + 1)):
        told = {receipt.client: receipt.outcome for receipt in given}
        raise Violation(
            "every cohort is legal by the store's clock",
            f"round {round_}, {age:g} s old, quorum {world.settings.round.quorum}: the receipts say {told}, the "
            f"cohort averages {answers}, void: {cohort.void}, rejected {list(cohort.rejected)}, "
            f"withdrawn {list(cohort.withdrawn)}, absent {list(cohort.absent)}",
        )


def _follows(world: World, cohort: Cohort, given: list[Receipt], age: float) -> bool:
    """Return whether a cohort is what these receipts and that age make."""
    closed, void = closes(world, [receipt.outcome for receipt in given], age)
    accepted = [] if void else [receipt.update for receipt in given if receipt.outcome == "accepted"]
    return (
        (closed, void) == (True, cohort.void)
        and {member.client: member for member in cohort.members} == {update.client: update for update in accepted}
        and cohort.rejected == {receipt.client: receipt.code for receipt in given if receipt.outcome == "rejected"}
        and set(cohort.withdrawn) == {receipt.client for receipt in given if receipt.outcome == "withdrawn"}
        and set(cohort.absent) == set(world.scenario.clients) - {receipt.client for receipt in given}
    )


def _summary_is_of_the_cohort(world: World, round_: int, cohort: Cohort) -> None:
    summary = _summary(world, round_)
    told = (summary.averaged, summary.rejected, summary.withdrawn, summary.absent, summary.num_examples)
    averaged = tuple(member.client for member in cohort.members)
    examples = sum(member.num_examples for member in cohort.members)
    if told != (averaged, cohort.rejected, cohort.withdrawn, cohort.absent, examples):
        raise Violation("a summary is true", f"of round {round_}: {told}")


def _tickets_tell_how_it_ended(world: World, round_: int, cohort: Cohort) -> None:
    told = {member.client: "averaged" for member in cohort.members}
    told |= {client: f"rejected: {code}" for client, code in cohort.rejected.items()}
    told |= dict.fromkeys(cohort.withdrawn, "withdrawn") | dict.fromkeys(cohort.absent, "absent")
    for client, inbox in world.inboxes.items():
        key = keys.Ticket(world.settings.name, round_ + 1)
        if inbox.has(key) and (client, round_ + 1) not in world.others.rogue:
            last = Ticket.from_bytes(inbox.bytes_of(key), "ticket").last
            if last != told.get(client, "void"):
                raise Violation("a ticket tells how the last round ended", f"{key} of {client} says {last}")


def _who_lost_left_the_work(world: World, round_: int, cohort: Cohort) -> None:
    frozen = _made(world, keys.Cohort(world.settings.name, round_))
    model = str(keys.Model(world.settings.name, round_ + 1))
    for made in world.parent.attempts:
        if made.key == model and made.event_id != cohort.frozen_by and made.at - frozen.at < TIME_LIMIT:
            raise Violation("who lost the race leaves the work", f"{made.by} made {model} all the same")


def _nobody_was_left_out(world: World, round_: int, cohort: Cohort) -> None:
    """In a round that opened when all was well, whoever is there takes part, if it is not void at once."""
    opened = _made(world, keys.Model(world.settings.name, round_)).at
    hopeless = cohort.void and _made(world, keys.Cohort(world.settings.name, round_)).at - opened < 2 * DEADLINE
    if hopeless or world.quiet_at is None or opened < world.quiet_at:
        return
    for client in world.scenario.clients:
        astray = (client, round_) in world.others.by_hand | world.others.rogue
        there = world.scenario.absent[client] != (0.0, float("inf"))
        agreed = opened >= BEGIN + world.scenario.agrees_after[client]
        if not astray and there and agreed and (client in cohort.absent or client in cohort.rejected):
            raise Violation("whoever is there takes part", f"{client} is left out of round {round_}")


def _nothing_follows_the_final_model(world: World) -> None:
    name, last = world.settings.name, world.newest()
    for bucket in [world.parent, *world.inboxes.values(), *world.states.values()]:
        for key, made in bucket.first.items():
            parsed = keys.parse(key)
            if getattr(parsed, "federation", None) != name or not made.event_id or isinstance(parsed, keys.Model):
                continue
            if getattr(parsed, "round", -1) >= last:
                raise Violation("a final model opens no round", f"{made.by} made {key} in {bucket.name}")


def _everybody_wrote_the_same(world: World) -> None:
    """Whoever writes a model, a summary or the end writes the same bytes."""
    found: dict[str, set[str]] = {}
    for made in world.parent.attempts:
        if isinstance(keys.parse(made.key), keys.Model | keys.Summary | keys.Finished):
            found.setdefault(made.key, set()).add(made.sha256)
    for key, digests in found.items():
        if len(digests) > 1:
            raise Violation("whoever makes a model makes the same bytes", f"{key}: {len(digests)} different ones")
