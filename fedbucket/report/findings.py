"""What there is to see in a run, one sentence a section; and for what is missing, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from markupsafe import Markup

from fedbucket.endings import REASONS
from fedbucket.report.facts import Round, Run
from fedbucket.report.wording import SPACE, count, duration, percent, points, ranges, sentence, series, size, some


def ending(run: Run) -> str:
    """How the run ended, in a clause."""
    done, planned = len(run.rounds), run.planned_rounds
    of = f"{done} of {planned} rounds" if planned and planned != done else count(done, "round")
    if run.finished is None:
        return f"Not finished: {of} so far" if done else "Not finished: no round has closed yet"
    if run.finished == "rounds":
        return f"Finished: {'its one round is' if done == 1 else f'all {done} rounds are'} done"
    return f"Stopped after {of}: {REASONS.get(run.finished, run.finished)}"


def headline(run: Run) -> Markup:
    """The one sentence with the numbers that matter."""
    who = sentence(count(len(run.clients), "client")) if run.clients else "The clients"
    alone_in_it = len(run.clients) == 1
    if run.federated is None:
        what = "a model" if alone_in_it else "one model together"
        if not run.rounds:
            return Markup("{} will train {}. No round has closed yet.").format(who, what)
        trained = "trained" if run.finished else "is training" if alone_in_it else "are training"
        return Markup("{} {} {}. {}").format(who, trained, what, _unscored(run))
    reaches = "reaches" if alone_in_it else "together reach"
    text = Markup("{} {} {}").format(who, reaches, _figure("federated", percent(run.federated)))
    if run.alone_mean is not None:
        text += _against_alone(run, alone_in_it)
    if run.pooled is not None:
        text += Markup("; one model on all data pooled would reach {}").format(_figure("pooled", percent(run.pooled)))
    if run.alone_mean is None and run.pooled is None:
        text += Markup(". No baseline was trained to compare it with")
    return text + Markup(".")


def _unscored(run: Run) -> Markup:
    scored = [(each.number, each.shared_mean["accuracy"]) for each in run.rounds if "accuracy" in each.shared_mean]
    if not scored:
        return Markup("The run had no common test set, so there is no accuracy to report.")
    last, accuracy = scored[-1]
    return Markup("On the clients’ own validation data model {} reaches {}; there was no common test set.").format(
        last, _figure("federated", percent(accuracy))
    )


def _against_alone(run: Run, alone_in_it: bool) -> Markup:
    who = "; trained outside the loop it reaches {}" if alone_in_it else "; alone they reach {} on average"
    text = Markup(who).format(_figure("alone", percent(run.alone_mean)))
    if run.ratio is None:
        return text
    verdict = ", so on average federation does not pay here" if run.ratio < 1 and not alone_in_it else ""
    return text + Markup(": {}").format(_figure("ratio", f"{run.ratio:.2f}×")) + verdict


def _figure(kind: str, text: str) -> Markup:
    return Markup('<strong class="{}">{}</strong>').format(kind, text)


def accuracy_reading(run: Run) -> str:
    """What to see in the curve."""
    scored = [(each.number, each.accuracy) for each in run.rounds if each.accuracy is not None]
    (first, start), (last, end) = scored[0], scored[-1]
    text = f"The federated model goes from {percent(start)} after round {first} to {percent(end)} after round {last}"
    if first == last:
        text = f"The federated model reaches {percent(end)} after round {last}"
    if run.alone_mean is not None:
        text += _crossing(
            scored, run.alone_mean, "the client" if len(run.clients) == 1 else "the average of the clients"
        )
    if run.pooled is not None:
        text += f". It ends {_beside(end - run.pooled)} one model on all data pooled"
    return text + "." + _void_note(run.void_rounds)


def _crossing(scored: Sequence[tuple[int, float]], level: float, whose: str) -> str:
    if scored[-1][1] <= level:
        return f", {_beside(scored[-1][1] - level)} {whose} alone"
    below = [index for index, (_, value) in enumerate(scored) if value <= level]
    if not below:
        return f"; it is above {whose} alone from the start"
    return f"; from round {scored[below[-1] + 1][0]} on it stays above {whose} alone"


def _beside(difference: float) -> str:
    if abs(difference) < 5e-4:
        return "level with"
    return f"{abs(100 * difference):.1f} points {'above' if difference > 0 else 'below'}"


def _void_note(void: Sequence[int]) -> str:
    if not void:
        return ""
    plural = len(void) > 1
    leave = "rounds, which leave" if plural else "round, which leaves"
    return f" Shaded: void {leave} the model as it was ({'rounds' if plural else 'round'} {ranges(void)})."


def clients_reading(alone: Mapping[str, float], federated: float) -> str:
    """Who gains from the federation, and who does not."""
    gains = sorted(((federated - value, name) for name, value in alone.items()), reverse=True)
    losers = [name for gain, name in gains if gain < 0]
    if len(gains) == 1:
        return f"The federated model is {_beside(gains[0][0])} what {gains[0][1]} reaches alone."
    if losers:
        who = sentence(count(len(losers), "client does", "clients do"))
        return f"{who} better alone: {some(losers)}. The other {len(gains) - len(losers)} of {len(gains)} gain."
    (most, winner), (least, last) = gains[0], gains[-1]
    return f"{_every(len(gains))} gain: {winner} the most ({points(most)} points), {last} the least ({points(least)})."


def _every(amount: int) -> str:
    return "Both clients" if amount == 2 else f"All {count(amount, 'client')}"


def time_reading(run: Run) -> str:
    """Where the seconds went, as wall-clock time in which at least one party was at a step."""
    spans = [span for each in run.rounds for span in each.spans]
    end = max(span.end for span in spans) - min(span.start for span in spans)
    busy: dict[str, list[tuple[float, float]]] = {}
    for span in spans:
        busy.setdefault(span.step, []).append((span.start, span.end))
    covered = sorted(((_covered(times), step) for step, times in busy.items()), reverse=True)
    idle = end - _covered([(span.start, span.end) for span in spans])
    listed = [*covered, (idle, "nobody at work")] if idle > 0.01 * end else covered
    share = [f"{step} {duration(length)} ({_part(length, end)})" for length, step in listed]
    timed = [each.seconds for each in run.rounds if each.seconds is not None]
    typical = f" A typical round takes {duration(median(timed))}." if timed else ""
    untimed = [each.number for each in run.rounds if not each.spans]
    gap = f" Not timed, because resumed after a crash: {'rounds' if len(untimed) > 1 else 'round'} {ranges(untimed)}."
    return (
        f"Of {duration(end)}: {', '.join(share)}; what runs side by side counts once.{typical}{gap if untimed else ''}"
    )


def _part(length: float, whole: float) -> str:
    share = 100 * length / whole if whole else 0.0
    return f"{'<1' if 0 < share < 1 else f'{share:.0f}'}{SPACE}%"


def _covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    ordered = sorted(intervals)
    reach = [ordered[0][0]]
    for _, end in ordered:
        reach.append(max(reach[-1], end))
    return sum(max(0.0, end - max(start, before)) for (start, end), before in zip(ordered, reach, strict=False))


def bytes_reading(run: Run) -> str:
    """How much moved, in all and in a typical round."""
    totals = [sum(each.bytes.values()) for each in run.rounds if each.bytes]
    typical = median(totals)
    each = f", {size(typical / len(run.clients))} for each client" if len(run.clients) > 1 else ""
    return f"{size(sum(totals))} in all; {size(typical)} in a typical round{each}."


def rounds_reading(run: Run) -> str:
    """How whole the cohorts were."""
    rounds, everybody = run.rounds, len(run.clients)
    full = sum(1 for each in rounds if everybody and len(each.cohort) == everybody)
    parts = [count(len(run.void_rounds), "void round")] if run.void_rounds else []
    parts += [count(amount, word) for amount, word in incidents(rounds) if amount]
    begin = (
        f"{full} of {count(len(rounds), 'round')} averaged every client"
        if full < len(rounds)
        else ("Every round averaged every client")
    )
    return begin + (f"; {series(parts)}." if parts else ".")


def incidents(rounds: Sequence[Round]) -> list[tuple[int, str]]:
    """How often somebody's update was missing, by why."""
    return [
        (sum(len(each.absent) for each in rounds), "absence"),
        (sum(len(each.withdrawn) for each in rounds), "withdrawal"),
        (sum(len(each.rejected) for each in rounds), "rejection"),
    ]


def no_accuracy(run: Run) -> str:
    """Why there is no curve."""
    if not run.rounds:
        return "There is no accuracy by round: no round has closed."
    return "There is no accuracy by round: the run had no common test set, so no model was scored."


def shared_reading(run: Run) -> str:
    """What the clients' own measurements say, and what they are."""
    scored = [(each.number, each.shared_mean["accuracy"]) for each in run.rounds if "accuracy" in each.shared_mean]
    (first, start), (last, end) = scored[0], scored[-1]
    text = f"What clients measured goes from {percent(start)} for model {first} to {percent(end)} for model {last}"
    if first == last:
        text = f"Clients measured {percent(end)} for model {last}"
    return f"{text}: the mean over those who shared it, weighted by their declared examples." + _void_note(
        run.void_rounds
    )


def no_baseline(run: Run) -> str:
    """Which line is missing from the curve."""
    lacking = [
        name
        for name, value in (("each client alone", run.alone_mean), ("all data pooled", run.pooled))
        if value is None
    ]
    return f"Not shown, because this run did not train it: a baseline on {series(lacking)}."


def no_clients(run: Run) -> str:
    """Why there is no comparison."""
    if not run.rounds:
        return "There is no comparison: no round has closed."
    if run.federated is None:
        return "There is no comparison: the run had no common test set, so neither side was scored."
    return "There is no comparison: no client was trained alone in this run."


def no_time(run: Run) -> str:
    """Why there is no time line."""
    return f"There is no time line: {'the steps were not timed' if run.rounds else 'no round has closed'}."
