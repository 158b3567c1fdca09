"""The keys of every object in every bucket: the only place that knows them.

A key is formatted by `str()` of one of the classes below and parsed back by `parse`, both by the one pattern of its
class. That is exact: a string is a key of this grammar, or it is nothing. Rounds have six digits, so listings sort.
Identifiers hold no separator, no dot and no capital letter, so that no key can be mistaken for another, on any store.

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
from dataclasses import dataclass
from string import Formatter
from typing import Any, ClassVar, get_args

IDENTIFIER = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
FEDERATION = rf"(?!ledger(?:/|\Z)){IDENTIFIER}"  # or else a ledger's entry could be mistaken for a federation's object
MAX_ROUND = 999_999
MAX_NUMBER = 9999  # of attempts and checkpoints
LEDGERS = "ledger/"
_ANSWERS = {False: "safetensors", True: "withdrawn.json"}


class _Key:
    pattern: ClassVar[str]

    def __str__(self) -> str:
        fields = vars(self)
        if "withdrawn" in fields:
            fields = fields | {"withdrawn": _ANSWERS[fields["withdrawn"]]}
        return self.pattern.format(**fields)

    @classmethod
    def prefix(cls, **fields: str | int) -> str:
        """Return the beginning that all keys of this kind with these first fields share: up to the field after them."""
        after = next(name for _, name, _, _ in Formatter().parse(cls.pattern) if name and name not in fields)
        return cls.pattern.partition("{" + after)[0].format(**fields)


@dataclass(frozen=True, order=True)
class Settings(_Key):
    """What the parties agreed on, as the parent published it."""

    pattern = "{federation}/public/federation.json"
    federation: str


@dataclass(frozen=True, order=True)
class Model(_Key):
    """Global model `round`: what round `round` starts from."""

    pattern = "{federation}/public/models/{round:06d}.safetensors"
    federation: str
    round: int


@dataclass(frozen=True, order=True)
class Finished(_Key):
    """The run is over; says why."""

    pattern = "{federation}/public/finished.json"
    federation: str


@dataclass(frozen=True, order=True)
class Ticket(_Key):
    """The parent's word to one client that a round has opened."""

    pattern = "{federation}/inbox/{round:06d}.json"
    federation: str
    round: int


@dataclass(frozen=True, order=True)
class Update(_Key):
    """A client's answer to a round: its noised weights, or that it withdraws from the round."""

    pattern = "{federation}/updates/{client}/{round:06d}.{withdrawn}"
    federation: str
    client: str
    round: int
    withdrawn: bool = False


@dataclass(frozen=True, order=True)
class Receipt(_Key):
    """The parent's decision on one client's answer to a round."""

    pattern = "{federation}/rounds/{round:06d}/receipts/{client}.json"
    federation: str
    round: int
    client: str


@dataclass(frozen=True, order=True)
class Cohort(_Key):
    """The updates that a round averages, frozen."""

    pattern = "{federation}/rounds/{round:06d}/cohort.json"
    federation: str
    round: int


@dataclass(frozen=True, order=True)
class Summary(_Key):
    """What came of a round."""

    pattern = "{federation}/rounds/{round:06d}/summary.json"
    federation: str
    round: int


@dataclass(frozen=True, order=True)
class Pruned(_Key):
    """Which updates of a closed round the retention command has removed."""

    pattern = "{federation}/rounds/{round:06d}/pruned.json"
    federation: str
    round: int


@dataclass(frozen=True, order=True)
class OptimizerState(_Key):
    """What the server's optimizer remembers after a round; only of strategies that have one."""

    pattern = "{federation}/rounds/{round:06d}/optimizer.safetensors"
    federation: str
    round: int


@dataclass(frozen=True, order=True)
class Agreed(_Key):
    """In private state: the settings that the client answered to under this name; it belongs to them from then on."""

    pattern = "{federation}/agreed.json"
    federation: str


@dataclass(frozen=True, order=True)
class Release(_Key):
    """In private state: the bytes of an `Update`, kept before they are uploaded."""

    pattern = "{federation}/releases/{round:06d}.{withdrawn}"
    federation: str
    round: int
    withdrawn: bool = False


@dataclass(frozen=True, order=True)
class Attempt(_Key):
    """In private state: training for a round was begun for the `number`-th time, from 0."""

    pattern = "{federation}/attempts/{round:06d}/{number:04d}.json"
    federation: str
    round: int
    number: int


@dataclass(frozen=True, order=True)
class Checkpoint(_Key):
    """In private state: where training for a round stood when it was saved for the `number`-th time, from 0."""

    pattern = "{federation}/checkpoints/{round:06d}/{number:04d}.safetensors"
    federation: str
    round: int
    number: int


@dataclass(frozen=True, order=True)
class LedgerEntry(_Key):
    """In private state: the `number`-th entry of the privacy account of a data set, whatever the federation."""

    pattern = "ledger/{dataset}/{number:06d}.json"
    dataset: str
    number: int


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
    return Model.prefix(federation=federation)


def updates(federation: str, client: str) -> str:
    """The prefix of all of a client's answers."""
    return Update.prefix(federation=federation, client=client)


def all_updates(federation: str) -> str:
    """The prefix of all answers of all clients."""
    return Update.prefix(federation=federation)


def receipts(federation: str, round_: int) -> str:
    """The prefix of all receipts of a round."""
    return Receipt.prefix(federation=federation, round=round_)


def attempts(federation: str, round_: int) -> str:
    """The prefix, in private state, of all attempts to train for a round."""
    return Attempt.prefix(federation=federation, round=round_)


def checkpoints(federation: str, round_: int) -> str:
    """The prefix, in private state, of all that was saved of the training for a round."""
    return Checkpoint.prefix(federation=federation, round=round_)


def releases(federation: str) -> str:
    """The prefix, in private state, of all that was released to a federation."""
    return Release.prefix(federation=federation)


def ledger(dataset: str) -> str:
    """The prefix, in private state, of the privacy account of a data set."""
    return LedgerEntry.prefix(dataset=dataset)


_NAMES = {"federation": FEDERATION, "client": IDENTIFIER, "dataset": IDENTIFIER}
_ANSWER = "|".join(map(re.escape, _ANSWERS.values()))


def _expression(pattern: str) -> re.Pattern[str]:
    """Return what matches the keys of a pattern, with a group for each field."""
    expression = ""
    for literal, name, digits, _ in Formatter().parse(pattern):
        expression += re.escape(literal)
        if name is not None:
            number = rf"[0-9]{{{int(digits[:-1])}}}" if digits else ""  # 06d: six digits
            expression += f"(?P<{name}>{number or _NAMES.get(name, _ANSWER)})"
    return re.compile(expression, re.ASCII)


def _value(name: str, text: str) -> Any:
    if name == "withdrawn":
        return text == _ANSWERS[True]
    return text if name in _NAMES else int(text)


_GRAMMAR: list[tuple[re.Pattern[str], type[Key]]] = [(_expression(kind.pattern), kind) for kind in get_args(Key)]


def parse(key: str) -> Key | None:
    """Return what `key` names, or None if it is not a key of this grammar."""
    for expression, kind in _GRAMMAR:
        if match := expression.fullmatch(key):
            return kind(**{name: _value(name, text) for name, text in match.groupdict().items()})
    return None
