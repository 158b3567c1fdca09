"""The facts of a run, read leniently: the report page draws what is there, and names what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fedbucket.report.chance import margin


@dataclass(frozen=True)
class Span:
    """One step of one party, in seconds since the run began; the parent's own steps have no client."""

    step: str
    client: str | None
    start: float
    end: float


@dataclass(frozen=True)
class Round:
    """One line of `rounds.jsonl`.

    Accuracy is that of the model which this round made; shared metrics are of the model from which it started.
    """

    number: int
    void: bool
    cohort: tuple[str, ...]
    absent: tuple[str, ...]
    withdrawn: tuple[str, ...]
    left_out: tuple[str, ...]
    rejected: Mapping[str, str]
    accuracy: float | None
    relative_change: float | None
    shared_metrics: Mapping[str, Mapping[str, Any]]
    shared_mean: Mapping[str, float]
    norms: Mapping[str, float]
    bytes: Mapping[str, float]
    seconds: float | None
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Run:
    """`summary.json` and all rounds. Accuracies are shares between 0 and 1, on one common test set.

    Attributes:
        test_examples: how many the test set has, if that is known.
        margin: a difference from the federated accuracy that may be chance on so many test examples.
        bucket_only: all this was read from the parent bucket, which holds no test set, baseline or private account.
    """

    name: str
    planned_rounds: int | None
    clients: tuple[str, ...]
    rounds: tuple[Round, ...]
    federated: float | None
    alone: Mapping[str, float]
    alone_mean: float | None
    pooled: float | None
    ratio: float | None
    test_examples: int | None
    margin: float | None
    metrics: Mapping[str, Any]
    privacy: Mapping[str, Any]
    seconds: float | None
    finished: str | None
    data_split: str | None
    bucket_only: bool

    @property
    def void_rounds(self) -> list[int]:
        return [each.number for each in self.rounds if each.void]

    @property
    def private(self) -> bool:
        return self.privacy.get("mechanism") not in {None, "none"}

    @property
    def scores(self) -> Mapping[str, float]:
        """The last model's metrics on the test set, by name; a task may measure no accuracy."""
        return numbers(self.metrics.get("federated"))

    def by_chance(self, difference: float) -> bool:
        """Whether a difference from the federated accuracy may be chance; False if the test set's size is unknown."""
        return self.margin is not None and abs(difference) <= self.margin


def number(value: object) -> float | None:
    """A finite number, or None: a diverged model's NaN is as absent as a null."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def numbers(values: object) -> dict[str, float]:
    """The finite numbers of a mapping, by name."""
    found = {str(key): number(value) for key, value in mapping(values).items()}
    return {key: value for key, value in found.items() if value is not None}


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def read(summary: Mapping[str, Any], rounds: Iterable[Mapping[str, Any]]) -> Run:
    """Everything that the page is made of; what is null, missing or not finite becomes None or empty."""
    lines = tuple(_round(index, line) for index, line in enumerate(rounds))
    alone = numbers(summary.get("alone"))
    federated, pooled = number(summary.get("federated_accuracy")), number(summary.get("pooled_accuracy"))
    alone_mean = number(summary.get("alone_accuracy"))
    if alone_mean is None and alone:
        alone_mean = fmean(alone.values())
    tested = number(summary.get("test_examples"))
    planned = number(summary.get("planned_rounds", summary.get("rounds")))
    return Run(
        name=str(summary.get("name") or "unnamed"),
        planned_rounds=None if planned is None else int(planned),
        clients=_clients(summary, lines),
        rounds=lines,
        federated=federated,
        alone=alone,
        alone_mean=alone_mean,
        pooled=pooled,
        ratio=_ratio(number(summary.get("ratio")), federated, alone_mean),
        test_examples=int(tested) if tested else None,
        margin=margin(federated, int(tested)) if tested and federated is not None else None,
        metrics=mapping(summary.get("metrics")),
        privacy=mapping(summary.get("privacy")),
        seconds=number(summary.get("seconds")),
        finished=_text(mapping(summary.get("finished")).get("reason")),
        data_split=_text(summary.get("data_split")),
        bucket_only=summary.get("source") == "parent bucket",
    )


def _round(index: int, line: Mapping[str, Any]) -> Round:
    at = number(line.get("round"))
    return Round(
        number=index if at is None else int(at),
        void=bool(line.get("void")),
        cohort=_names(line.get("cohort")),
        absent=_names(line.get("absent")),
        withdrawn=_names(line.get("withdrawn")),
        left_out=_names(line.get("left_out")),
        rejected={str(client): str(reason) for client, reason in mapping(line.get("rejected")).items()},
        accuracy=number(line.get("accuracy")),
        relative_change=number(line.get("relative_change")),
        shared_metrics={str(client): mapping(shared) for client, shared in mapping(line.get("shared_metrics")).items()},
        shared_mean=numbers(line.get("shared_mean")),
        norms=numbers(line.get("norms")),
        bytes=numbers(line.get("bytes")),
        seconds=number(mapping(line.get("seconds")).get("total")),
        spans=tuple(_spans(line.get("spans") or ())),
    )


def _spans(spans: Iterable[Sequence[Any]]) -> Iterable[Span]:
    for step, client, start, end in spans:
        begin, finish = number(start), number(end)
        if begin is not None and finish is not None and finish >= begin:
            yield Span(str(step), None if client is None else str(client), begin, finish)


def _clients(summary: Mapping[str, Any], rounds: Sequence[Round]) -> tuple[str, ...]:
    named = _names(summary.get("clients"))
    return named or tuple(sorted({client for each in rounds for client in (*each.cohort, *each.absent)}))


def _ratio(given: float | None, federated: float | None, alone: float | None) -> float | None:
    if given is not None or federated is None or not alone:
        return given
    return federated / alone


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _text(value: object) -> str | None:
    return str(value) if value else None
