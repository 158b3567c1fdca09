"""`rounds.jsonl`: what each round did and how long it took; a log, where the buckets are the truth."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.next_model import read_summary
from exchange import keys
from exchange.errors import RunStopped
from exchange.records import Metrics, Summary
from exchange.spec import FederationSettings
from exchange.stores import Store

Span = tuple[str, str | None, float, float]  # step, client, start and end in seconds since the run began


@dataclass
class Journal:
    """Writes a line a round, in order, each once.

    Attributes:
        began: seconds since 1970 at which this process began; spans count from there.
        offset: seconds that earlier, interrupted, processes took.
    """

    path: Path
    store: Store
    settings: FederationSettings
    began: float
    offset: float = 0.0
    _spans: dict[int, list[Span]] = field(default_factory=dict)
    _waiting: dict[int, Metrics] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        lines = read_rounds(self.path)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in lines))  # a torn last line goes
        self._next = len(lines)
        self.offset = max((span[3] for line in lines for span in line["spans"]), default=0.0)

    @property
    def next_round(self) -> int:
        """The first round without a line."""
        return self._next

    def span(self, round_: int, step: str, client: str | None, started: float, ended: float) -> None:
        """Note that a step of a round took from `started` to `ended`, seconds since 1970."""
        shift = self.offset - self.began
        self._spans.setdefault(round_, []).append((step, client, round(started + shift, 4), round(ended + shift, 4)))

    def close(self, round_: int, metrics: Metrics) -> None:
        """Write the round's line, now or once those before it are written.

        Args:
            metrics: of the model that the round made, on the test set; empty if there is none.
        """
        self._waiting[round_] = metrics
        with self.path.open("a") as file:
            while self._next in self._waiting:
                file.write(json.dumps(self._line(self._next, self._waiting.pop(self._next))) + "\n")
                self._next += 1

    def _line(self, round_: int, metrics: Metrics) -> dict[str, Any]:
        summary = read_summary(self.store, self.settings.name, round_)
        if summary is None:
            raise AssertionError(f"round {round_} has a model and no summary")
        return round_line(summary, metrics, self._bytes(round_, summary), self._spans.pop(round_, []))

    def _bytes(self, round_: int, summary: Summary) -> dict[str, int]:
        name = self.settings.name
        model = self.store.stat(str(keys.Model(name, round_))).size
        updates = [client for client in self.settings.roster if client not in {*summary.absent, *summary.withdrawn}]
        sizes = [info.size for client in updates for info in self.store.list(str(keys.Update(name, client, round_)))]
        return moved(model, sizes)


def round_line(
    summary: Summary, metrics: Metrics, bytes_moved: dict[str, int], spans: Sequence[Span]
) -> dict[str, Any]:
    """Return what rounds.jsonl says of a round."""
    spans = sorted(spans, key=lambda span: span[2])
    return {
        "round": summary.round,
        "void": summary.void_rounds > 0,
        "cohort": list(summary.averaged),
        "left_out": list(summary.left_out),
        "absent": list(summary.absent),
        "withdrawn": list(summary.withdrawn),
        "rejected": dict(summary.rejected),
        "accuracy": metrics.get("accuracy"),
        "metrics": metrics,
        "shared_metrics": summary.client_metrics,
        "shared_mean": summary.metrics,
        "norms": summary.norms,
        "relative_change": summary.relative_change,
        "bytes": bytes_moved,
        "seconds": _seconds(spans),
        "spans": spans,
    }


def moved(model: int, updates: Sequence[int]) -> dict[str, int]:
    """Return the bytes of a round, given those of its model and of each update: who uploads has downloaded."""
    return {"model_down": model * len(updates), "updates_up": sum(updates)}


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """Return the lines of rounds.jsonl that are whole, in order; none if there is no such file.

    Raises:
        RunStopped: a line is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last newline was torn off by a crash
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise RunStopped(
            f"{path}: expected a line of JSON for each round: {error}; remove it: `fedbucket run` writes it anew"
        ) from error


def _seconds(spans: list[Span]) -> dict[str, float]:
    """Return seconds of work by step, and the time from the first step to the end of the last."""
    found: dict[str, float] = {}
    for step, _, start, end in spans:
        found[step] = round(found.get(step, 0.0) + end - start, 4)
    if spans:
        found["total"] = round(max(span[3] for span in spans) - min(span[2] for span in spans), 4)
    return found
