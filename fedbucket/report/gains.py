"""Who gains from the federation and who does not, and how much of it may be chance."""

from __future__ import annotations

from collections.abc import Sequence

from fedbucket.report.facts import Run
from fedbucket.report.wording import LEVEL, all_of, beside, count, points, sentence, some


def clients_reading(run: Run) -> str:
    """Who gains from the federation, who does not, and how much of it may be chance."""
    gains = sorted(((run.federated - value, name) for name, value in run.alone.items() if run.federated is not None))
    return _gains(gains[::-1]) + _chance_note(run, [gain for gain, _ in gains])


def _gains(gains: Sequence[tuple[float, str]]) -> str:
    """Gains come in falling order."""
    if len(gains) == 1:
        return f"The federated model is {beside(gains[0][0])} what {gains[0][1]} reaches alone."
    losers = [name for gain, name in reversed(gains) if gain <= -LEVEL]  # who loses most comes first
    level = sorted(name for gain, name in gains if abs(gain) < LEVEL)
    rest = len(gains) - len(losers) - len(level)
    if not losers and not level:
        (most, winner), (least, last) = gains[0], gains[-1]
        told = f"{winner} the most ({points(most)} points), {last} the least ({points(least)})"
        return f"{sentence(all_of(len(gains), 'client'))} gain: {told}."
    told = "The other one gains." if rest == 1 else f"The other {rest} of {len(gains)} gain." if rest else ""
    if level:
        told = f"{sentence(count(len(level), 'client is', 'clients are'))} level with it: {some(level)}. {told}"
    if losers:
        who = sentence(count(len(losers), "client does", "clients do"))
        told = f"{who} better alone: {some(losers)}. {told}"
    return told.rstrip()


def _chance_note(run: Run, gains: Sequence[float]) -> str:
    near = sum(run.by_chance(gain) for gain in gains if abs(gain) >= LEVEL)
    if not near or run.margin is None:
        return ""
    size = f"smaller than {100 * run.margin:.1f} points on {run.test_examples} test examples"
    if near < len(gains):
        return f" {sentence(count(near, 'difference'))} of {len(gains)} may be chance: {size}."
    return f" {sentence(all_of(near, 'difference'))} may be chance: {size}."


def no_clients(run: Run) -> str:
    """Why there is no comparison."""
    if not run.rounds:
        return "There is no comparison: no round has closed."
    if run.scores and run.federated is None:
        return "There is no comparison of accuracies: the task measures none. What it measures is in the table."
    if run.federated is None:
        return "There is no comparison: the run had no common test set, so neither side was scored."
    return "There is no comparison: no client was trained alone in this run."
