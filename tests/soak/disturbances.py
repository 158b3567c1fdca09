"""What befalls a run, drawn from a seed: two lanes at the same time, one of kills and one of what lasts longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["kill -9", "stall", "cut off", "unkind network", "full disk"]
_LASTS: dict[Kind, tuple[float, float]] = {  # seconds
    "kill -9": (0.0, 3.0),  # until it is started again
    "stall": (30.0, 30.0),  # three times a function's time limit here
    "cut off": (9.0, 18.0),  # longer than a store is asked again for one request: that is 6 s
    "unkind network": (5.0, 15.0),
    "full disk": (5.0, 15.0),
}


@dataclass(frozen=True)
class Disturbance:
    """One of them.

    Attributes:
        after: seconds since the one before it, in its lane, was over.
        seconds: how long it lasts.
    """

    kind: Kind
    whom: str
    after: float
    seconds: float


@dataclass(frozen=True)
class Victims:
    """Who may be disturbed, by name.

    Attributes:
        hosts: processes that run functions.
        kept: storage that keeps what it has acknowledged when it is killed.
        clouds: all storage.
        disks: those that may be full.
    """

    hosts: Sequence[str]
    kept: Sequence[str]
    clouds: Sequence[str]
    disks: Sequence[str]

    def of(self, kind: Kind) -> Sequence[str]:
        match kind:
            case "kill -9":
                return (*self.hosts, *self.kept, *self.kept)  # a storage is as worth killing as all hosts in its cloud
            case "stall":
                return (*self.hosts, *self.clouds)
            case "full disk":
                return self.disks
        return self.clouds


def kills(seed: int, victims: Victims, scale: float = 1.0) -> Iterator[Disturbance]:
    """Yield one after the other, without an end; `scale` makes them, and the pauses between them, shorter."""
    random = Random(f"{seed} kills")
    while True:
        yield _drawn(random, "kill -9", victims, longest_pause=6.0, scale=scale)


def troubles(seed: int, victims: Victims, scale: float = 1.0) -> Iterator[Disturbance]:
    """Yield all other kinds, in an order of the seed's, again and again; `scale` as for `kills`."""
    random = Random(f"{seed} troubles")
    kinds = [kind for kind in _LASTS if kind != "kill -9" and victims.of(kind)]
    while True:
        random.shuffle(kinds)
        for kind in kinds:
            yield _drawn(random, kind, victims, longest_pause=4.0, scale=scale)


def _drawn(random: Random, kind: Kind, victims: Victims, longest_pause: float, scale: float = 1.0) -> Disturbance:
    shortest, longest = _LASTS[kind]
    whom, after = random.choice(victims.of(kind)), scale * random.uniform(0.2, longest_pause)
    return Disturbance(kind, whom, round(after, 2), round(scale * random.uniform(shortest, longest), 2))
