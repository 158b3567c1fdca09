"""What the report page says about privacy: the promise, what is spent and left, and what stands outside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedbucket.report.facts import Run, mapping, number
from fedbucket.report.findings import incidents
from fedbucket.report.wording import count, grouped, series, short, some

MECHANISMS = {"ornstein-uhlenbeck": "Ornstein-Uhlenbeck noise", "gaussian": "Gaussian noise", "dp-sgd": "DP-SGD"}
UNITS = {"example": "one example", "client": "one client"}
CHANGES = {
    ("example", "add-or-remove"): "Adding or removing one example (say, one patient's row) of one client",
    ("example", "replace-one"): "Replacing one example (say, one patient's row) of one client by another",
}
NOTHING = "0.000"  # left of a budget, to the three digits that are shown
WEAK = 10.0  # above this, an ε is worth a warning: it lets an outcome become thousands of times as likely


REFUSED = (
    "Its budget is not printed: the summary lacks the number, its unit or its δ, and it means nothing without them."
)


@dataclass(frozen=True)
class Account:
    """One client's ledger, in the unit and adjacency of the pledge."""

    client: str
    spent: str
    left: str
    budget: str
    delta: str
    used: int  # percent of the budget


@dataclass(frozen=True)
class Pledge:
    """The privacy part of the page; without a mechanism only `statement` says something."""

    statement: str
    private: bool = False
    meaning: str = ""
    noise: str = ""
    warning: str = ""
    unit: str = ""
    summary: str = ""
    accounts: list[Account] = field(default_factory=list)
    outside: list[tuple[str, str]] = field(default_factory=list)


def pledge(run: Run) -> Pledge:
    mechanism = run.privacy.get("mechanism")
    if mechanism is None:
        return Pledge("The summary of this run says nothing about privacy: assume that there was none.")
    if mechanism == "none":
        return Pledge("No differential privacy: the updates reveal what they reveal.")
    stated = epsilon(number(run.privacy.get("epsilon")), run.privacy)
    how = MECHANISMS.get(str(mechanism), str(mechanism))
    clip = number(run.privacy.get("clip_norm"))
    clipped = f", clip norm {short(clip)}" if clip is not None else ""
    accounts = _accounts(run)
    return Pledge(
        statement=f"{stated}, by {how}{clipped}." if stated else f"{how}{clipped}. {REFUSED}",
        private=True,
        meaning=_meaning(run.privacy) if stated else "",
        noise=str(run.privacy.get("noise") or ""),
        warning=_warning(run),
        unit=_unit(run.privacy),
        summary=_summary(run, accounts),
        accounts=accounts,
        outside=outside(run),
    )


def _unit(privacy: Mapping[str, Any]) -> str:
    unit = privacy.get("unit")
    adjacency = privacy.get("adjacency")
    named = UNITS.get(str(unit), str(unit)) if unit else ""
    return f"{named}, {adjacency}" if named and adjacency else named


def epsilon(value: float | None, privacy: Mapping[str, Any], delta: float | None = None) -> str:
    """An ε with its unit, adjacency and δ; empty where one of these is missing, for alone it means nothing."""
    unit, delta = _unit(privacy), number(privacy.get("delta")) if delta is None else delta
    if value is None or delta is None or not unit:
        return ""
    return f"ε = {short(value)} (unit: {unit}; δ = {short(delta)})"


def _meaning(privacy: Mapping[str, Any]) -> str:
    value, delta = number(privacy.get("epsilon")), number(privacy.get("delta"))
    unit = str(privacy.get("unit"))
    who = CHANGES.get((unit, str(privacy.get("adjacency"))))
    who = who or f"Changing {'the whole data set' if unit == 'client' else 'one example'} of one client"
    factor = _no_less(math.exp(value)) if value is not None and value <= WEAK else "exp(ε)"
    chance = f", plus 1 in {grouped(round(1 / delta))}" if delta else ""
    return f"{who} changes the chance of whatever is seen in its updates by a factor of at most {factor}{chance}."


def _no_less(factor: float) -> str:
    """A bound, rounded up: three digits below 10, else a whole number."""
    return f"{math.ceil(100 * factor) / 100:.2f}" if factor < 10 else grouped(math.ceil(factor))


def _warning(run: Run) -> str:
    accounts = mapping(run.privacy.get("by_client")).values()
    stated = [run.privacy.get("epsilon"), *(mapping(account).get("epsilon_spent") for account in accounts)]
    largest = max((number(value) or 0.0 for value in stated), default=0.0)
    return "A budget above 10 is a weak promise in the worst case." if largest > WEAK else ""


def _accounts(run: Run) -> list[Account]:
    """By client, where unit and δ are known; spent is rounded up, so that left is never flattered."""
    accounts = []
    for client, entry in mapping(run.privacy.get("by_client")).items():
        spent = number(mapping(entry).get("epsilon_spent"))
        delta = number(mapping(entry).get("delta"))
        delta = number(run.privacy.get("delta")) if delta is None else delta
        if spent is None or delta is None or not _unit(run.privacy):
            continue
        accounts.append(_account(str(client), spent, number(mapping(entry).get("epsilon_budget")), delta))
    return sorted(accounts, key=lambda account: account.client)


def _account(client: str, spent: float, budget: float | None, delta: float) -> Account:
    shown = math.ceil(1000 * spent - 1e-6) / 1000
    return Account(
        client=client,
        spent=f"{shown:.3f}",
        left="not limited" if budget is None else f"{max(0.0, budget - shown):.3f}",
        budget="none" if budget is None else f"{budget:.3f}",
        delta=short(delta),
        used=round(100 * min(1.0, spent / budget)) if budget else 0,
    )


def _summary(run: Run, accounts: list[Account]) -> str:
    """One sentence over all ledgers."""
    if not accounts:
        if run.bucket_only:
            return "What each client has spent is in its own ledger: the parent's bucket does not hold it."
        return "No client's account was recorded in this run."
    order = sorted(accounts, key=lambda account: float(account.spent))
    low, high = (epsilon(float(each.spent), run.privacy, float(each.delta)) for each in (order[0], order[-1]))
    whole = [account.client for account in accounts if account.left == NOTHING]
    if low != high:
        rest = f" {some(whole)} {'has' if len(whole) == 1 else 'have'} nothing left." if whole else ""
        return f"Clients have spent from {low} to {high}.{rest}"
    who = "The client" if len(accounts) == 1 else "Each client"
    if len(whole) == len(accounts):
        return f"{who} has spent its whole budget: {low}."
    left = {account.left for account in accounts}
    rest = f"; {left.pop()} of its budget is left" if len(left) == 1 and "not limited" not in left else ""
    return f"{who} has spent {low}{rest}."


def outside(run: Run) -> list[tuple[str, str]]:
    """What the guarantee does not cover, with what of it happened in this run."""
    (absences, _), (withdrawals, _), (rejections, _) = incidents(run.rounds)
    codes = sorted({reason for each in run.rounds for reason in each.rejected.values()})
    gone = [count(amount, word) for amount, word in ((absences, "absence"), (withdrawals, "withdrawal")) if amount]
    refused = f"{count(rejections, 'rejection')} ({some(codes)})" if rejections else "none in this run"
    listed = [
        ("Metrics shared openly", _shared(run)),
        ("Timing", "when each client answered, and how long it took"),
        ("Drop-outs and withdrawals", f"{series(gone)} in this run" if gone else "none in this run"),
        ("Rejections and their reasons", refused),
        ("Settings chosen by trial", "what was learned from earlier trials on the same data that no ledger charged"),
    ]
    baselines = [name for name, there in (("alone", run.alone_mean), ("pooled", run.pooled)) if there is not None]
    if baselines:
        what = f"{series(baselines)}: computed from the data itself, for comparison"
        listed.append(("The baselines on this page", what))
    return listed


def _shared(run: Run) -> str:
    clients = {client for each in run.rounds for client, shared in each.shared_metrics.items() if shared}
    names = sorted({str(name) for each in run.rounds for shared in each.shared_metrics.values() for name in shared})
    rounds = sum(1 for each in run.rounds if any(each.shared_metrics.values()))
    if not names:
        return "none in this run"
    return f"{some(names)}, by {count(len(clients), 'client')} in {count(rounds, 'round')}"
