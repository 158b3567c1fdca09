"""The keys of every object in every bucket: the only place that knows them.

A key is formatted by `str()` of one of the classes below and parsed back by `parse`, which is exact: a string is a key
of this grammar, or it is nothing. Rounds have six digits, so that listings sort. Identifiers hold no separator, no dot
and no capital letter, so that no key can be mistaken for another, on any store.

    parent bucket        readmission/public/federation.json
                         readmission/public/models/000007.safetensors
                         readmission/public/finished.json
                         readmission/updates/hospital-a/000007.safetensors
                         readmission/updates/hospital-a/000007.withdrawn.json
                         readmission/rounds/000007/receipts/hospital-a.json
                         readmission/rounds/000007/cohort.json
                         readmission/rounds/000007/summary.json
                         readmission/rounds/000007/optimizer.safetensors
                         readmission/rounds/000007/pruned.json
    client bucket        readmission/inbox/000007.json
    private state        readmission/agreed.json
                         readmission/releases/000007.safetensors
                         readmission/releases/000007.withdrawn.json
                         readmission/attempts/000007/0003.json
                         readmission/checkpoints/000007/0003.safetensors
                         ledger/admissions-2024/000012.json
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

IDENTIFIER = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
FEDERATION = rf"(?!ledger(?:/|\Z)){IDENTIFIER}"  # or else a ledger's entry could be mistaken for a federation's object
MAX_ROUND = 999_999
MAX_NUMBER = 9999  # of attempts and checkpoints
LEDGERS = "ledger/"


@dataclass(frozen=True, order=True)
class Settings:
    """What the parties agreed on, as the parent published it."""

    federation: str

    def __str__(self) -> str:
        return f"{self.federation}/public/federation.json"


@dataclass(frozen=True, order=True)
class Model:
    """Global model `round`: what round `round` starts from."""

    federation: str
    round: int

    def __str__(self) -> str:
        return f"{models(self.federation)}{self.round:06d}.safetensors"


@dataclass(frozen=True, order=True)
class Finished:
    """The run is over; says why."""

    federation: str

    def __str__(self) -> str:
        return f"{self.federation}/public/finished.json"


@dataclass(frozen=True, order=True)
class Ticket:
    """The parent's word to one client that a round has opened."""

    federation: str
    round: int

    def __str__(self) -> str:
        return f"{self.federation}/inbox/{self.round:06d}.json"


@dataclass(frozen=True, order=True)
class Update:
    """A client's answer to a round: its noised weights, or that it withdraws from the round."""

    federation: str
    client: str
    round: int
    withdrawn: bool = False

    def __str__(self) -> str:
        return f"{updates(self.federation, self.client)}{self.round:06d}.{_answer(self.withdrawn)}"


@dataclass(frozen=True, order=True)
class Receipt:
    """The parent's decision on one client's answer to a round."""

    federation: str
    round: int
    client: str

    def __str__(self) -> str:
        return f"{receipts(self.federation, self.round)}{self.client}.json"


@dataclass(frozen=True, order=True)
class Cohort:
    """The updates that a round averages, frozen."""

    federation: str
    round: int

    def __str__(self) -> str:
        return f"{self.federation}/rounds/{self.round:06d}/cohort.json"


@dataclass(frozen=True, order=True)
class Summary:
    """What came of a round."""

    federation: str
    round: int

    def __str__(self) -> str:
        return f"{self.federation}/rounds/{self.round:06d}/summary.json"


@dataclass(frozen=True, order=True)
class Pruned:
    """Which updates of a closed round the retention command has removed."""

    federation: str
    round: int

    def __str__(self) -> str:
        return f"{self.federation}/rounds/{self.round:06d}/pruned.json"


@dataclass(frozen=True, order=True)
class OptimizerState:
    """What the server's optimizer remembers after a round; only of strategies that have one."""

    federation: str
    round: int

    def __str__(self) -> str:
        return f"{self.federation}/rounds/{self.round:06d}/optimizer.safetensors"


@dataclass(frozen=True, order=True)
class Agreed:
    """In private state: the settings that the client answered to under this name; it belongs to them from then on."""

    federation: str

    def __str__(self) -> str:
        return f"{self.federation}/agreed.json"


@dataclass(frozen=True, order=True)
class Release:
    """In private state: the bytes of an `Update`, kept before they are uploaded."""

    federation: str
    round: int
    withdrawn: bool = False

    def __str__(self) -> str:
        return f"{releases(self.federation)}{self.round:06d}.{_answer(self.withdrawn)}"


@dataclass(frozen=True, order=True)
class Attempt:
    """In private state: training for a round was begun for the `number`-th time, from 0."""

    federation: str
    round: int
    number: int

    def __str__(self) -> str:
        return f"{attempts(self.federation, self.round)}{self.number:04d}.json"


@dataclass(frozen=True, order=True)
class Checkpoint:
    """In private state: where training for a round stood when it was saved for the `number`-th time, from 0."""

    federation: str
    round: int
    number: int

    def __str__(self) -> str:
        return f"{checkpoints(self.federation, self.round)}{self.number:04d}.safetensors"


@dataclass(frozen=True, order=True)
class LedgerEntry:
    """In private state: the `number`-th entry of the privacy account of a data set, whatever the federation."""

    dataset: str
    number: int

    def __str__(self) -> str:
        return f"{ledger(self.dataset)}{self.number:06d}.json"


Key = (
    Settings
    | Model
    | Finished
    | Ticket
    | Update
    | Receipt
    | Cohort
    | Summary
    | Pruned
    | OptimizerState
    | Agreed
    | Release
    | Attempt
    | Checkpoint
    | LedgerEntry
)


def everything(federation: str) -> str:
    """The prefix of all that a bucket holds of a federation."""
    return f"{federation}/"


def models(federation: str) -> str:
    """The prefix of all global models."""
    return f"{federation}/public/models/"


def updates(federation: str, client: str) -> str:
    """The prefix of all of a client's answers."""
    return f"{all_updates(federation)}{client}/"


def all_updates(federation: str) -> str:
    """The prefix of all answers of all clients."""
    return f"{federation}/updates/"


def receipts(federation: str, round_: int) -> str:
    """The prefix of all receipts of a round."""
    return f"{federation}/rounds/{round_:06d}/receipts/"


def attempts(federation: str, round_: int) -> str:
    """The prefix, in private state, of all attempts to train for a round."""
    return f"{federation}/attempts/{round_:06d}/"


def checkpoints(federation: str, round_: int) -> str:
    """The prefix, in private state, of all that was saved of the training for a round."""
    return f"{federation}/checkpoints/{round_:06d}/"


def releases(federation: str) -> str:
    """The prefix, in private state, of all that was released to a federation."""
    return f"{federation}/releases/"


def ledger(dataset: str) -> str:
    """The prefix, in private state, of the privacy account of a data set."""
    return f"{LEDGERS}{dataset}/"


def _answer(withdrawn: bool) -> str:
    return "withdrawn.json" if withdrawn else "safetensors"


_ANSWER = r"(?P<answer>safetensors|withdrawn\.json)"
_ROUND = r"(?P<round>[0-9]{6})"
_NUMBER = r"(?P<number>[0-9]{4})"
_FEDERATION = rf"(?P<federation>{FEDERATION})"
_CLIENT = rf"(?P<client>{IDENTIFIER})"


def _withdrawn(found: dict[str, str]) -> bool:
    return found["answer"] == _answer(withdrawn=True)


_GRAMMAR: list[tuple[str, Callable[[dict[str, str]], Key]]] = [
    (rf"{_FEDERATION}/public/federation\.json", lambda found: Settings(found["federation"])),
    (
        rf"{_FEDERATION}/public/models/{_ROUND}\.safetensors",
        lambda found: Model(found["federation"], int(found["round"])),
    ),
    (rf"{_FEDERATION}/public/finished\.json", lambda found: Finished(found["federation"])),
    (rf"{_FEDERATION}/inbox/{_ROUND}\.json", lambda found: Ticket(found["federation"], int(found["round"]))),
    (
        rf"{_FEDERATION}/updates/{_CLIENT}/{_ROUND}\.{_ANSWER}",
        lambda found: Update(found["federation"], found["client"], int(found["round"]), _withdrawn(found)),
    ),
    (
        rf"{_FEDERATION}/rounds/{_ROUND}/receipts/{_CLIENT}\.json",
        lambda found: Receipt(found["federation"], int(found["round"]), found["client"]),
    ),
    (rf"{_FEDERATION}/rounds/{_ROUND}/cohort\.json", lambda found: Cohort(found["federation"], int(found["round"]))),
    (rf"{_FEDERATION}/rounds/{_ROUND}/summary\.json", lambda found: Summary(found["federation"], int(found["round"]))),
    (rf"{_FEDERATION}/rounds/{_ROUND}/pruned\.json", lambda found: Pruned(found["federation"], int(found["round"]))),
    (
        rf"{_FEDERATION}/rounds/{_ROUND}/optimizer\.safetensors",
        lambda found: OptimizerState(found["federation"], int(found["round"])),
    ),
    (rf"{_FEDERATION}/agreed\.json", lambda found: Agreed(found["federation"])),
    (
        rf"{_FEDERATION}/releases/{_ROUND}\.{_ANSWER}",
        lambda found: Release(found["federation"], int(found["round"]), _withdrawn(found)),
    ),
    (
        rf"{_FEDERATION}/attempts/{_ROUND}/{_NUMBER}\.json",
        lambda found: Attempt(found["federation"], int(found["round"]), int(found["number"])),
    ),
    (
        rf"{_FEDERATION}/checkpoints/{_ROUND}/{_NUMBER}\.safetensors",
        lambda found: Checkpoint(found["federation"], int(found["round"]), int(found["number"])),
    ),
    (
        rf"ledger/(?P<dataset>{IDENTIFIER})/(?P<number>[0-9]{{6}})\.json",
        lambda found: LedgerEntry(found["dataset"], int(found["number"])),
    ),
]
_COMPILED = [(re.compile(pattern, re.ASCII), build) for pattern, build in _GRAMMAR]


def parse(key: str) -> Key | None:
    """Return what `key` names, or None if it is not a key of this grammar."""
    for pattern, build in _COMPILED:
        if match := pattern.fullmatch(key):
            return build(match.groupdict())
    return None
