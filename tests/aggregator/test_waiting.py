"""What waiting costs: a firing of a timer makes the requests that docs/operations.md counts, however old the run is."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.rounds import sweep
from tests.support.federation import Federation
from tests.support.settings import federation_settings
from tests.support.watched import WatchedStore

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
CLIENTS = [f"client-{number:03d}" for number in range(100)]
# What a call comes to in a cloud. A read looks first how large the object is; folders are looked into, here one.
LISTS = {"list": 1, "folders": 2}
READS = {"read": 2, "read_into": 1, "stat": 1}


class Waiting:
    """A federation with a hundred inboxes, of which half have answered round `rounds`."""

    def __init__(self, rounds: int) -> None:
        self._calls: list[str] = []
        settings = federation_settings(CLIENTS, rounds=rounds + 1, quorum=len(CLIENTS))
        self.federation = Federation(settings, watch=lambda store: WatchedStore(store, self._note, lambda _: None))
        self.federation.start()
        for _ in range(rounds):
            self.answer(CLIENTS)
        self.answer(CLIENTS[:50])

    def answer(self, clients: list[str]) -> None:
        """Have these clients answer, and the parent do what follows; all by timer."""
        for client in clients:
            self.federation.sweep_client(client)
        self.federation.sweep_parent()
        self.federation.events.clear()

    def requests(self, firing: Callable[[], object]) -> tuple[int, int, int]:
        """Return how many requests a firing makes: lists, reads, and others."""
        self._calls.clear()
        firing()
        counted = Counter(call.split()[0] for call in self._calls)
        lists = sum(LISTS.get(kind, 0) * count for kind, count in counted.items())
        reads = sum(READS.get(kind, 0) * count for kind, count in counted.items())
        return lists, reads, sum(count for kind, count in counted.items() if kind not in LISTS | READS)

    def _note(self, call: str) -> int:
        self._calls.append(call)
        return 0


def counted(finds: str) -> tuple[int, int, int]:
    """Return what docs/operations.md counts for a firing that finds this."""
    ((total, lists, reads),) = re.findall(rf"^\| {finds} \| (\d+): (\d+) lists?, (\d+) reads? \|$", OPERATIONS, re.M)
    assert int(total) == int(lists) + int(reads)
    return int(lists), int(reads), 0


@pytest.mark.parametrize("rounds", [1, 4])
def test_waiting_costs_what_operators_read(rounds: int) -> None:
    waiting = Waiting(rounds)
    federation, instance = waiting.federation, waiting.federation.parent
    open_ = "parent: a round that half of the clients have answered, a new instance"
    assert waiting.requests(lambda: sweep(instance, "a firing")) == counted(open_)
    assert waiting.requests(lambda: sweep(instance, "the next")) == counted(
        "the same, an instance that has looked before"
    )
    assert waiting.requests(lambda: federation.sweep_client(CLIENTS[0])) == counted(
        "client: a round that it has answered"
    )
    waiting.answer(CLIENTS[50:])
    federation.sweep_parent()
    assert federation.finished
    assert waiting.requests(federation.sweep_parent) == counted("parent: a finished federation")
    assert waiting.requests(lambda: federation.sweep_client(CLIENTS[0])) == counted("client: a finished federation")
