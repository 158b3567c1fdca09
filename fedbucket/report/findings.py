"""What there is to see in a run, one sentence a section; and for what is missing, why."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fedbucket.report.facts import Round, Run
from fedbucket.report.wording import LEVEL, SPACE, all_of, beside, count, duration, percent, ranges, series, size, some


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
        text += f". It ends {beside(end - run.pooled)} one model on all data pooled{_price(run, end - run.pooled)}"
    return text + "." + _void_note(run.void_rounds)


def _price(run: Run, difference: float) -> str:
    """What a difference from pooled data is made of."""
    if abs(difference) >= LEVEL and run.by_chance(difference):
        return ", which may be chance"
    return " and without noise: what noise and training apart cost together" if run.private and difference < 0 else ""


def _crossing(scored: Sequence[tuple[int, float]], level: float, whose: str) -> str:
    if scored[-1][1] <= level:
        return f", {beside(scored[-1][1] - level)} {whose} alone"
    below = [index for index, (_, value) in enumerate(scored) if value <= level]
    if not below:
        return f"; it is above {whose} alone from the start"
    return f"; from round {scored[below[-1] + 1][0]} on it stays above {whose} alone"


def _void_note(void: Sequence[int]) -> str:
    if not void:
        return ""
    plural = len(void) > 1
    leave = "rounds, which leave" if plural else "round, which leaves"
    return f" Shaded: void {leave} the model as it was ({'rounds' if plural else 'round'} {ranges(void)})."


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
    once = "clients at the same step count once, but steps may overlap"
    return f"Of {duration(end)}: {', '.join(share)}; {once}.{typical}{gap if untimed else ''}"


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
    answers = [(each, len(each.cohort) + len(each.left_out) + len(each.rejected)) for each in run.rounds if each.bytes]
    shares = [sum(each.bytes.values()) / amount for each, amount in answers if amount]
    each = f", {size(median(shares))} for each client that answered" if shares and len(run.clients) > 1 else ""
    return f"{size(sum(totals))} in all; {size(median(totals))} in a typical round{each}."


def rounds_reading(run: Run) -> str:
    """How whole the cohorts were."""
    rounds, everybody = run.rounds, len(run.clients)
    full = sum(1 for each in rounds if everybody and len(each.cohort) == everybody)
    parts = [count(len(run.void_rounds), "void round")] if run.void_rounds else []
    parts += [count(amount, word) for amount, word in incidents(rounds) if amount]
    if left_out := sum(len(each.left_out) for each in rounds):
        parts.append(count(left_out, "update left out", "updates left out"))
    which = f"{full or 'None'} of {count(len(rounds), 'round')}" if full < len(rounds) else "Every round"
    begin = f"{which} averaged the update{'s' if everybody > 1 else ''} of {all_of(everybody, 'client')}"
    averaged = {client for each in rounds for client in each.cohort}
    never = [client for client in run.clients if client not in averaged]
    told = begin + (f"; {series(parts)}." if parts else ".")
    return f"{told} Never averaged: {some(never)}." if never else told


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
    if run.scores:
        return f"There is no accuracy by round: the task measures {series(sorted(run.scores))}, and no accuracy."
    if run.bucket_only:
        return "There is no accuracy by round: clients shared none, and the parent’s bucket holds no test set."
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


def no_time(run: Run) -> str:
    """Why there is no time line."""
    return f"There is no time line: {'the steps were not timed' if run.rounds else 'no round has closed'}."
