"""The report page of a run: one HTML file that holds everything it shows, and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedbucket.report import findings, gains, opening, wording
from fedbucket.report.charts import accuracy_chart, bytes_chart, clients_chart, shared_chart
from fedbucket.report.facts import Round, Run, mapping, numbers, read
from fedbucket.report.pledge import pledge
from fedbucket.report.svg import Chart
from fedbucket.report.timeline import steps_of, timeline_chart, typical

TRAFFIC = {
    "model_down": ("Models", "down, to the clients"),
    "updates_up": ("Updates", "up, from the clients"),
    "receipts": ("Receipts", "the parent's own records"),
}
LONG_LIST = 12  # accounts or clients beyond which a table waits behind a click


@dataclass(frozen=True)
class Flow:
    """All bytes of one kind."""

    name: str
    direction: str
    total: str
    share: float


@dataclass(frozen=True)
class Line:
    """A row of the table of rounds, in words."""

    round: Round
    averaged: str
    missing: list[tuple[str, str]]
    accuracy: str
    shared: dict[str, str]
    norms: str
    change: str
    moved: str
    seconds: str


def render(summary: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML, from a run's parsed `summary.json` and the lines of its `rounds.jsonl`.

    Whatever is null or missing is named on the page as missing, with the reason; nothing but a wrong shape raises.
    """
    run = read(summary, rounds)
    loader = PackageLoader("fedbucket.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["whole"] = wording.whole
    scores = _scores(run)
    return environment.get_template("report.html").render(
        run=run,
        words=wording,
        findings=findings,
        gains=gains,
        opening=opening,
        pledge=pledge(run),
        accuracy=_accuracy(run),
        shared=_shared(run),
        shared_names=sorted({name for each in run.rounds for name in each.shared_mean}),
        clients=_clients(run),
        scores=scores,
        metric_names=sorted({name for values in scores.values() for name in values}),
        timelines=_timelines(run),
        steps=steps_of(span for each in run.rounds for span in each.spans),
        traffic=_traffic(run),
        flows=_flows(run),
        lines=[_line(each, run) for each in run.rounds],
        facts=_facts(run, summary),
        long_list=LONG_LIST,
    )


def _accuracy(run: Run) -> Chart | None:
    scored = [(each.number, each.accuracy) for each in run.rounds]
    if all(accuracy is None for _, accuracy in scored):
        return None
    return accuracy_chart(scored, run.void_rounds, run.alone_mean, run.pooled, findings.accuracy_reading(run))


def _shared(run: Run) -> Chart | None:
    """The clients' own measurements, where no common test set says more."""
    scored = [(each.number, each.shared_mean.get("accuracy")) for each in run.rounds]
    if run.federated is not None or all(accuracy is None for _, accuracy in scored):
        return None
    return shared_chart(scored, run.void_rounds, findings.shared_reading(run))


def _clients(run: Run) -> Chart | None:
    if not run.alone or run.federated is None:
        return None
    return clients_chart(run.alone, run.federated, run.margin, gains.clients_reading(run))


def _scores(run: Run) -> dict[str, dict[str, str]]:
    """Every metric of every model on the common test set, by model and metric."""
    alone = mapping(run.metrics.get("alone"))
    models = {"federated": run.metrics.get("federated"), "pooled": run.metrics.get("pooled")}
    models |= {f"{client}, alone": {"accuracy": accuracy} for client, accuracy in sorted(run.alone.items())}
    models |= {f"{client}, alone": values for client, values in sorted(alone.items())}
    return {
        model: {name: wording.metric(name, value) for name, value in numbers(values).items()}
        for model, values in models.items()
        if numbers(values)
    }


def _timelines(run: Run) -> list[tuple[str, Chart]]:
    """The whole run, and one typical round of it close up."""
    one = typical(run.rounds)
    if one is None:
        return []
    steps = steps_of(span for each in run.rounds for span in each.spans)
    whole = timeline_chart("Time line of the whole run", findings.time_reading(run), run.rounds, run.clients, steps)
    said = f"Round {one.number}, the one of median length."
    close = timeline_chart("Time line of one round", said, [one], run.clients, steps)
    if sum(1 for each in run.rounds if each.spans) == 1:
        return [(f"Round {one.number}", whole)]
    return [
        ("The whole run (paler: shorter than drawn)", whole),
        (f"Round {one.number}, of median length, close up", close),
    ]


def _kinds(run: Run) -> list[str]:
    """The kinds of traffic that occur, the known ones first."""
    seen = {kind for each in run.rounds for kind in each.bytes}
    return [kind for kind in TRAFFIC if kind in seen] + sorted(seen - set(TRAFFIC))


def _traffic(run: Run) -> Chart | None:
    moved = [(each.number, each.bytes) for each in run.rounds]
    if not any(sum(by_kind.values()) for _, by_kind in moved):
        return None
    return bytes_chart(moved, _kinds(run), findings.bytes_reading(run))


def _flows(run: Run) -> list[Flow]:
    totals = {kind: sum(each.bytes.get(kind, 0.0) for each in run.rounds) for kind in _kinds(run)}
    whole = sum(totals.values()) or 1.0
    named = {kind: TRAFFIC.get(kind, (wording.sentence(kind.replace("_", " ")), "")) for kind in totals}
    return [Flow(*named[kind], wording.size(total), 100 * total / whole) for kind, total in totals.items()]


def _line(each: Round, run: Run) -> Line:
    missing = [("absent", wording.some(each.absent)), ("withdrawn", wording.some(each.withdrawn))]
    missing.append(("left out", wording.some(each.left_out)))
    reasons = [f"{client} ({reason.replace('_', ' ')})" for client, reason in sorted(each.rejected.items())]
    return Line(
        round=each,
        averaged=f"{len(each.cohort)}/{len(run.clients)}",
        missing=[(why, who) for why, who in (*missing, ("rejected", wording.some(reasons))) if who],
        accuracy=wording.percent(each.accuracy),
        shared={name: wording.metric(name, value) for name, value in each.shared_mean.items()},
        norms=_span(list(each.norms.values())),
        change=wording.change(each.relative_change),
        moved=wording.size(sum(each.bytes.values())) if each.bytes else wording.DASH,
        seconds=wording.duration(each.seconds),
    )


def _span(values: Sequence[float]) -> str:
    """The smallest and the largest."""
    if not values:
        return wording.DASH
    low, high = (wording.significant(value, 2) for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _facts(run: Run, summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What identifies the run: name, value, and what it is good for."""
    seed, settings, model = (summary.get(key) for key in ("seed", "settings_sha256", "model_sha256"))
    return [
        ("Ended", opening.ending(run), ""),
        ("Duration", wording.duration(run.seconds), "of all rounds, from the first step to the last"),
        ("Settings, SHA-256", str(settings or wording.DASH), "what every client agreed to"),
        ("Last model, SHA-256", str(model or wording.DASH), "the same updates give the same bytes"),
        ("Seed", wording.DASH if seed is None else str(seed), "of the training; privacy noise is never seeded"),
    ]
