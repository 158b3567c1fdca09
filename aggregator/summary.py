"""What came of a round, and whether the run is over with the model that it made."""

from typing import Literal

from aggregator.stripes import Change
from exchange.records import Cohort, Metrics, Summary
from exchange.spec import FederationSettings

VOID_ROUNDS = 3  # so many in a row finish a run: nobody is there any more

Reason = Literal["rounds", "tolerance", "patience", "void"]


def summarise(
    settings: FederationSettings,
    cohort: Cohort,
    change: Change | None,
    before: Summary | None,
    left_out: tuple[str, ...] = (),
) -> Summary:
    """Return the summary of the cohort's round: a pure function of the arguments.

    Args:
        change: how far the round moved the model; None for a void round.
        before: the summary of the round before; None for round 0.
        left_out: the members that the strategy did not average, sorted.
    """
    metrics = _mean_metrics(cohort)
    best, stale = _progress(metrics.get(settings.stop.metric), before, cohort.void)
    void_rounds = (before.void_rounds if before else 0) + 1 if cohort.void else 0
    relative = change.relative if change else None
    return Summary(
        federation=cohort.federation,
        round=cohort.round,
        averaged=tuple(member.client for member in cohort.members if member.client not in left_out),
        left_out=left_out,
        rejected=cohort.rejected,
        withdrawn=cohort.withdrawn,
        absent=cohort.absent,
        num_examples=sum(member.num_examples for member in cohort.members),
        norms={member.client: member.norm for member in cohort.members},
        relative_change=relative,
        metrics=metrics,
        client_metrics={member.client: member.metrics for member in cohort.members if member.metrics},
        best=best,
        stale_rounds=stale,
        void_rounds=void_rounds,
        finished=_finished(settings, cohort.round, relative, stale, void_rounds),
    )


def _finished(
    settings: FederationSettings, round_: int, relative: float | None, stale: int, void_rounds: int
) -> Reason | None:
    stop = settings.stop
    if void_rounds >= VOID_ROUNDS:
        return "void"
    if stop.tolerance is not None and relative is not None and relative < stop.tolerance:
        return "tolerance"
    if stop.patience is not None and stale >= stop.patience:
        return "patience"
    return "rounds" if round_ + 1 >= settings.rounds else None


def _mean_metrics(cohort: Cohort) -> Metrics:
    weighted: dict[str, list[tuple[int, float]]] = {}
    for member in cohort.members:
        for name, value in sorted(member.metrics.items()):
            weighted.setdefault(name, []).append((member.num_examples, value))
    return {name: _mean(values) for name, values in sorted(weighted.items())}


def _mean(values: list[tuple[int, float]]) -> float:
    return sum(weight * value for weight, value in values) / sum(weight for weight, _ in values)


def _progress(value: float | None, before: Summary | None, void: bool) -> tuple[float | None, int]:
    best, stale = (before.best, before.stale_rounds) if before else (None, 0)
    if value is None or void:
        return best, stale  # nobody said anything: no sign of progress, nor of its end
    return (value, 0) if best is None or value > best else (best, stale + 1)
