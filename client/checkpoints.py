"""Where the training for a round stands, kept in private state: after a time limit, a crash or a reboot it goes on.

    checkpoints/R/N.safetensors     created once, numbered; the newest that is sound and of this very training counts

A checkpoint holds weights without the noise that a release gets. It is as private as the data, and stays with them.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from exchange import keys, tensors
from exchange.blocks import open_weights
from exchange.errors import AlreadyExists, InvalidTensorFile, RoundClosed, StoreError, TrainingPaused
from exchange.stores import Store

log = logging.getLogger(__name__)

_SAVE_EVERY = 1 / 4  # of the time limit: so much is lost with a function that is killed, and the step that it was in
_STOP_AFTER = 3 / 4  # of it: the last quarter is for a cold start, for the step under way, and for saving
_FORM = "1"  # of what the training loops save: another version of this program is not to go on with it
_PLACE = "place"
_ANY_SIZE = 2**62  # the weights, and up to two more of their size for the optimizer


@dataclass(frozen=True)
class Pace:
    """How often training is saved, and when it stops for another to go on.

    Attributes:
        clock: seconds, from any origin; never goes back.
        save_every: seconds between two checkpoints.
        stop_after: seconds, counted from when the invocation began.
    """

    clock: Callable[[], float]
    save_every: float = math.inf
    stop_after: float = math.inf


def pace_of_function(clock: Callable[[], float], time_limit: float) -> Pace:
    """Return the pace of a function that is killed after `time_limit` seconds."""
    return Pace(clock, _SAVE_EVERY * time_limit, _STOP_AFTER * time_limit)


def pace_of_machine(clock: Callable[[], float], time_limit: float) -> Pace:
    """Return the pace of a process that nobody stops: what it saves tells others for `time_limit` that it is alive."""
    return Pace(clock, _SAVE_EVERY * time_limit)


class Checkpoint(NamedTuple):
    """Where training stands.

    Attributes:
        arrays: weights, the optimizer's state, and so on, by name.
        place: what else it takes to go on, as JSON has it.
    """

    arrays: Mapping[str, NDArray[Any]]
    place: Mapping[str, Any]


class Saves(Protocol):
    """What a training loop has to do with checkpoints."""

    def bound(self, **training: str) -> "Saves":
        """Return the same for a training that is told from others by `training`, too."""

    def latest(self) -> Checkpoint | None:
        """Return where this training was left off; None if it was not begun."""

    def passed(self, now: Callable[[], Checkpoint]) -> None:
        """Take note that a step is done: if it is time, save `now()`, and stop.

        Raises:
            TrainingPaused: it is saved, and the time is up.
            RoundClosed: there is nothing left to train for.
        """


class _Unsaved:
    def bound(self, **training: str) -> Saves:
        return self

    def latest(self) -> None:
        return None

    def passed(self, now: Callable[[], Checkpoint]) -> None:
        pass


UNSAVED: Saves = _Unsaved()  # of training that nobody interrupts, or that is soon done again


class Checkpoints:
    """The checkpoints of one client's training for one round.

    Args:
        state: the client's private state.
        training: what this training is told by: a checkpoint that says anything else is left alone.
        begun: when this invocation began, by the clock of `pace`.
        is_open: whether the round still takes answers.
    """

    def __init__(
        self,
        state: Store,
        federation: str,
        round_: int,
        training: Mapping[str, str],
        pace: Pace,
        begun: float,
        is_open: Callable[[], bool],
    ) -> None:
        self._state = state
        self._federation = federation
        self._round = round_
        self._training = {"form": _FORM, "federation": federation, "round": str(round_), **training}
        self._pace = pace
        self._begun = self._saved = begun
        self._is_open = is_open

    def bound(self, **training: str) -> "Checkpoints":
        return Checkpoints(
            self._state,
            self._federation,
            self._round,
            self._training | training,
            self._pace,
            self._begun,
            self._is_open,
        )

    def latest(self) -> Checkpoint | None:
        for key in reversed(list(self._listed())):
            try:
                if (found := self._read(str(key))) is not None:
                    log.info("round %d of %s goes on from checkpoint %d", self._round, self._federation, key.number)
                    return found
            except InvalidTensorFile as error:
                log.warning("%s in %s is no checkpoint, and is left alone: %s", key, self._state.url, error)
        return None

    def passed(self, now: Callable[[], Checkpoint]) -> None:
        time = self._pace.clock()
        stop = time - self._begun >= self._pace.stop_after
        if not stop and time - self._saved < self._pace.save_every:
            return
        try:
            self._save(now)
        except StoreError as error:
            if stop:
                raise
            log.warning("training goes on unsaved: %s", error)
        if stop:
            raise TrainingPaused(
                f"round {self._round} of {self._federation}: training is saved after {time - self._begun:.0f} s; "
                "the next invocation goes on with it"
            )
        self._saved = self._pace.clock()

    def _save(self, now: Callable[[], Checkpoint]) -> None:
        if not self._is_open():
            raise RoundClosed(f"round {self._round} of {self._federation} closed; what was learned so far is dropped")
        arrays, place = now()
        data = tensors.dump(arrays, self._training | {_PLACE: json.dumps(place)})
        while True:
            number = max((key.number for key in self._listed()), default=-1) + 1
            if number > keys.MAX_NUMBER:
                raise StoreError(
                    f"round {self._round} of {self._federation}: {number} checkpoints, and no number is left; "
                    "a longer time_limit makes fewer"
                )
            try:
                self._state.create(str(keys.Checkpoint(self._federation, self._round, number)), data)
                return
            except AlreadyExists:
                continue  # another invocation trains for the same round: it has its numbers, this one has others

    def _listed(self) -> Iterator[keys.Checkpoint]:
        for info in self._state.list(keys.checkpoints(self._federation, self._round)):
            if isinstance(key := keys.parse(info.key), keys.Checkpoint):
                yield key

    def _read(self, key: str) -> Checkpoint | None:
        file = open_weights(self._state, key)
        metadata = dict(file.layout.metadata)
        place = metadata.pop(_PLACE, "")
        if metadata != self._training:
            return None
        return Checkpoint(tensors.load(self._state.read(key, file.version, _ANY_SIZE)), json.loads(place))
