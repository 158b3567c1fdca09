"""Runs to make report pages of, the usual and the odd ones; and a reader for the pages."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

from fedbucket.report import render

Json = dict[str, Any]
VOID_ELEMENTS = {"meta", "br", "hr", "img", "link", "input"}
UNSCORED: Json = dict.fromkeys(["federated_accuracy", "alone_accuracy", "alone", "pooled_accuracy", "ratio"])
SPLIT = "each client holds five of the ten classes"
DP = {"mechanism": "ornstein-uhlenbeck", "unit": "example", "adjacency": "add-or-remove"}


def names(amount: int) -> list[str]:
    return [f"client-{index:02d}" for index in range(1, amount + 1)]


def make_rounds(
    clients: Sequence[str], amount: int, seed: int = 0, size: int = 2624, void: Sequence[int] = ()
) -> list[Json]:
    """Lines of rounds.jsonl as a run on two cores leaves them."""
    rng, clock, rounds = random.Random(seed), 0.2, []
    moved = {"model_down": size, "updates_up": size, "receipts": 900}
    for number in range(amount):
        spans, clock = make_spans(clients, clock, rng)
        accuracy = 0.931 - 0.6 * math.exp(-6 * (number + 1) / amount) + rng.uniform(-0.006, 0.006)
        rounds.append(
            {
                "round": number, "void": number in void, "cohort": [] if number in void else list(clients),
                "absent": [], "withdrawn": [], "rejected": {}, "accuracy": accuracy, "metrics": {"accuracy": accuracy},
                "shared_metrics": {}, "norms": {client: rng.uniform(0.3, 0.6) for client in clients},
                "relative_change": 0.4 / (number + 1),
                "bytes": {kind: each * len(clients) for kind, each in moved.items()},
                "seconds": {"train": 1.2, "total": spans[-1][3] - spans[0][2]}, "spans": spans,
            }
        )  # fmt: skip
    rounds[-1] |= {"accuracy": 0.931}
    for number in void:
        rounds[number] |= {"accuracy": rounds[number - 1]["accuracy"], "relative_change": 0.0}
    return rounds


def make_spans(clients: Sequence[str], clock: float, rng: random.Random) -> tuple[list[list[Any]], float]:
    """One round: publish, two clients train at a time, each is recorded, then the parent averages and scores."""
    spans: list[list[Any]] = [["publish", None, clock, clock + 0.02]]
    lanes = [clock + 0.03, clock + 0.03]
    for client in clients:
        lane = lanes.index(min(lanes))
        end = lanes[lane] + rng.uniform(0.08, 0.22)
        spans += [["train", client, lanes[lane], end], ["record", client, end, end + 0.01]]
        lanes[lane] = end
    clock = max(lanes) + 0.01
    spans += [["aggregate", None, clock, clock + 0.05], ["evaluate", None, clock + 0.05, clock + 0.12]]
    return spans, clock + 0.13


def make_summary(clients: Sequence[str], rounds: Sequence[Mapping[str, Any]], **changed: Any) -> Json:
    rng = random.Random(1)
    alone = {client: rng.uniform(0.41, 0.55) for client in clients}
    summary: Json = {
        "name": "digits", "rounds": len(rounds), "clients": list(clients), "federated_accuracy": 0.931,
        "alone_accuracy": 0.486, "alone": alone, "pooled_accuracy": 0.95, "ratio": 1.91,
        "metrics": {
            "federated": {"accuracy": 0.931, "auc": 0.994}, "pooled": {"accuracy": 0.95, "auc": 0.997},
            "alone": {client: {"accuracy": value, "auc": 0.81} for client, value in alone.items()},
        },
        "privacy": {"mechanism": "none"}, "seconds": 41.2, "settings_sha256": "5e" * 32, "model_sha256": "a7" * 32,
        "finished": {"reason": "rounds", "round": len(rounds)}, "data_split": SPLIT, "seed": 0,
    }  # fmt: skip
    return summary | changed


def make_privacy(clients: Sequence[str], epsilon: float = 4.0, spent: Sequence[float] = (3.991,)) -> Json:
    by_client = {
        client: {"epsilon_spent": spent[index % len(spent)], "epsilon_budget": epsilon, "delta": 1e-5}
        for index, client in enumerate(clients)
    }
    return DP | {"epsilon": epsilon, "delta": 1e-5, "clip_norm": 1.0, "by_client": by_client}


def plain() -> tuple[Json, list[Json]]:
    rounds = make_rounds(names(10), 40)
    return make_summary(names(10), rounds), rounds


def private() -> tuple[Json, list[Json]]:
    rounds = make_rounds(names(10), 40, void=(7, 12, 13))
    rounds[3] |= {"absent": ["client-03"], "cohort": names(10)[:2] + names(10)[3:]}
    rounds[9] |= {"withdrawn": ["client-02"], "rejected": {"client-05": "non-finite"}, "cohort": names(10)[5:]}
    rounds[9] |= {"left_out": ["client-04"]}
    rounds[11] |= {"seconds": {}, "spans": []}
    for each in rounds:
        each["shared_metrics"] = {"client-01": {"accuracy": 0.7}, "client-02": {"accuracy": 0.6}}
    return make_summary(names(10), rounds, privacy=make_privacy(names(10))), rounds


def unscored() -> tuple[Json, list[Json]]:
    clients = names(3)
    rounds = [each | {"accuracy": None, "metrics": None} for each in make_rounds(clients, 12)]
    metrics: Json = {"federated": None, "pooled": None, "alone": {}}
    return make_summary(clients, rounds, **UNSCORED, metrics=metrics, data_split=None), rounds


def hostile() -> tuple[Json, list[Json]]:
    clients = [
        "<script>alert(1)</script>",
        'x" onload="alert(2)',
        "university-hospital-of-the-far-north-campus-b",
        "&amp;",
    ]
    rounds = make_rounds(clients, 6)
    rounds[1] |= {"rejected": {clients[0]: "<b>bad</b>"}, "cohort": clients[1:]}
    split = "<img src=x onerror=alert(3)>"
    return make_summary(
        clients, rounds, name="<script>alert(0)</script>", data_split=split, privacy=make_privacy(clients)
    ), rounds


def crowd() -> tuple[Json, list[Json]]:
    rounds = make_rounds(names(100), 100, size=4_000_000, void=(50,))
    spent = [1.2, 2.4, 3.3, 3.991]
    return make_summary(names(100), rounds, privacy=make_privacy(names(100), spent=spent)), rounds


def single() -> tuple[Json, list[Json]]:
    rounds = make_rounds(names(1), 1)
    return make_summary(names(1), rounds, alone={"client-01": 0.929}, alone_accuracy=0.929, ratio=1.0), rounds


def unstarted() -> tuple[Json, list[Json]]:
    return make_summary(names(4), []) | {"rounds": 30, "metrics": {}, "finished": None, "seconds": None} | UNSCORED, []


def other_metrics() -> tuple[Json, list[Json]]:
    """A task that measures an error, and no accuracy."""
    clients = names(3)
    rounds = [each | {"accuracy": None, "metrics": {"rmse": 0.53}} for each in make_rounds(clients, 12)]
    alone = {client: {"rmse": 0.7 + 0.01 * index} for index, client in enumerate(clients)}
    metrics: Json = {"federated": {"rmse": 0.53}, "pooled": {"rmse": 0.5}, "alone": alone}
    return make_summary(clients, rounds, **UNSCORED | {"alone": {}}, metrics=metrics, test_examples=449), rounds


def level() -> tuple[Json, list[Json]]:
    """Data spread evenly: what is gained may be chance."""
    clients = names(10)
    alone = {client: 0.9 + 0.003 * index for index, client in enumerate(clients)}
    rounds = make_rounds(clients, 40)
    scores = {"federated_accuracy": 0.926, "alone_accuracy": 0.912, "ratio": 0.926 / 0.912, "pooled_accuracy": 0.94}
    return make_summary(clients, rounds, alone=alone, test_examples=449, **scores), rounds


RUNS = {
    "plain": plain, "private": private, "unscored": unscored, "hostile": hostile,
    "crowd": crowd, "single": single, "unstarted": unstarted, "other metrics": other_metrics, "level": level,
}  # fmt: skip


class Page(HTMLParser):
    """What a reader gets: text, tables and figures; and whether every element is closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None], int]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), sum(1 for each in self.open if each == "svg")))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)
        if tag == "dd":
            self.texts.append(" ")
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> is out of order"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        if "tr" in self.open and data.strip():
            self.rows[-1].append(data.strip())

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    @property
    def figures(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs, depth in self.elements if tag == "svg" and not depth]

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs, _ in self.elements if name in attrs]


def page(run: tuple[Json, list[Json]]) -> Page:
    return Page(render(*run))


def changed(run: tuple[Json, list[Json]], **values: Any) -> Page:
    return page((run[0] | values, run[1]))
