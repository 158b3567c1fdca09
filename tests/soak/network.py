"""What lies between processes: connections that fail, and notifications that are lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from fedbucket.emulators.processes import Created
from tests.support.faulty import CUT, DELAYED, LOST, REFUSED, Fault, Faulty

_FAULTS = (REFUSED, LOST, CUT, DELAYED, 503)
_LOST = 1 / 10  # of notifications; clouds lose fewer, but here one is hardly ever under way when its sender is killed


class Line(Faulty):
    """The only way to a cloud's storage.

    Attributes:
        state: what befalls requests: nothing, all are dropped, or each third has one of several faults.
    """

    def __init__(self, upstream: str, seed: int) -> None:
        super().__init__(upstream)
        self.state: str = "well"
        self._random = Random(seed)

    def next(self) -> Fault:
        if self.state == "cut off":
            return REFUSED
        if self.state == "unkind network" and self._random.random() < 1 / 3:
            return self._random.choice(_FAULTS)
        return None


def lossy(deliver: Created, seed: int, lost: list[Mapping[str, Any]]) -> Created:
    """Return what delivers most notifications, and adds the others to `lost`."""
    random = Random(seed)

    def deliver_most(payload: Mapping[str, Any]) -> None:
        if random.random() < _LOST:
            lost.append(payload)
        else:
            deliver(payload)

    return deliver_most
