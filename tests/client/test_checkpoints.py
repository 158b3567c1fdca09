"""Training that is interrupted goes on: to the same bytes where it is a function of its arguments, and with fresh noise
where it is not."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from client import rounds as client_rounds
from client.checkpoints import Checkpoint, Checkpoints, Pace, pace_of_function, pace_of_machine
from client.learn import LocalTraining, initial_model
from client.privacy.plan import Plan, make_plan
from client.training import _batches
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import RoundClosed, StoreError, StoreUnavailable, TrainingPaused
from exchange.events import ObjectCreated
from exchange.spec import FederationSettings
from exchange.stores import Store
from exchange.stores.memory import MemoryStore
from tests.support.buckets import Bucket, Clock, contents
from tests.support.federation import TIME_LIMIT, Federation
from tests.support.settings import client_settings, federation_settings
from tests.support.tasks import task, write_data, write_task
from tests.support.watched import Crash, CrashingStore, Killed

# Whatever a loop has to carry over: running statistics, dropout, random augmentation, a buffer that is replaced and in
# no weight file, half-precision weights.
RICH = """
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.drop = torch.nn.Linear(2, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.3)
            self.last, self.gain = torch.nn.Linear(5, 3), torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, inputs):
            self.calls = self.calls + 1
            shift = torch.sin(self.calls) * self.gain.float()
            return self.last(self.drop(torch.relu(self.norm(self.first(inputs))))) + shift

    def model():
        return Net()

    class Shaken(torch.utils.data.Dataset):
        def __init__(self, inner):
            self.inner = inner

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, index):
            loaded.append(index)
            inputs, target = self.inner[index]
            return inputs + 0.1 * torch.rand(2), target

    whole, loaded = data, []

    def data(source, split):
        return Shaken(whole(source, split))
"""
EXAMPLE = {"mechanism": "ornstein-uhlenbeck", "unit": "example", "adjacency": "add-or-remove", "epsilon": 8.0}
EXAMPLE |= {"delta": 1e-5, "clip_norm": 1.0}
DP_SGD = {"mechanism": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0, "sampling_probability": 0.25}
TICKET = ObjectCreated("birch", str(keys.Ticket("orchard", 0)), "an event")


@dataclass
class Steps:
    """A clock that moves on by one second whenever somebody looks: once a step."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@dataclass
class Case:
    """A training, which any number of invocations may share."""

    folder: Path
    settings: FederationSettings
    more: tuple[str, ...] = ()
    normals: Callable[[int], np.ndarray] = np.zeros
    state: Store = field(default_factory=lambda: MemoryStore(lambda: 0.0))
    client: str = "birch"

    @property
    def plan(self) -> Plan | None:
        return make_plan(self.settings, self.client)

    @property
    def model(self) -> bytes:
        return initial_model(task(self.folder, *self.more), self.settings)

    def saves(self, pace: Pace, begun: float = 0.0, model: str = "m") -> Checkpoints:
        training = {"client": self.client, "model_sha256": model, "settings_sha256": self.settings.sha256}
        return Checkpoints(self.state, "orchard", 0, training, pace, begun, lambda: True)

    def learn(self, saves: Checkpoints) -> Learned:
        """Train as a new process does: nothing is left of earlier ones but what they saved."""
        torch.manual_seed(np.random.default_rng().integers(1000))
        own = client_settings(self.client, self.settings).model_copy(update={"data": "own.npz", "micro_batch": 5})
        training = LocalTraining(own, self.folder, self.normals, np.zeros)
        return training(own.agreement[0], self.settings, 0, self.model, self.plan, saves)

    def in_one_go(self) -> bytes:
        return packed(self.learn(replace_state(self).saves(Pace(Steps()))))

    def in_pieces(self, steps: int) -> tuple[bytes, int]:
        """Return what comes of invocations that take so many steps each, and how many it took."""
        for number in range(1, 1000):
            try:
                return packed(self.learn(self.saves(Pace(Steps(), stop_after=steps)))), number
            except TrainingPaused:
                continue
        raise AssertionError("it never ends")

    def checkpoints(self) -> list[str]:
        return [info.key for info in self.state.list(keys.checkpoints("orchard", 0))]


def replace_state(case: Case) -> Case:
    return replace(case, state=MemoryStore(lambda: 0.0))


def renewed(settings: FederationSettings, **changed: object) -> FederationSettings:
    return FederationSettings.from_bytes(settings.model_copy(update=changed).to_bytes(), "federation.json")


def packed(learned: Learned) -> bytes:
    return tensors.dump(learned.difference, {})


def case_of(folder: Path, name: str) -> tuple[Case, int]:
    """Return a training, and of how many steps it is."""
    write_data(folder / "own.npz", examples=22)
    rich = {"learning_rate": 0.1, "local_epochs": 3, "batch_size": 6}
    cases = {
        "momentum": (Case(folder, federation_settings(train=rich | {"momentum": 0.9}), (RICH,)), 12),
        "adam": (
            Case(folder, federation_settings(train=rich | {"optimizer": "adam", "proximal_mu": 0.5}), (RICH,)),
            12,
        ),
        "whole batches": (Case(folder, federation_settings(train={"learning_rate": 0.1, "local_epochs": 4})), 4),
        "one step": (Case(folder, federation_settings(privacy=EXAMPLE)), 5),
        "convex": (
            Case(folder, federation_settings(privacy=EXAMPLE, train={"learning_rate": 0.1, "local_epochs": 4})),
            4,
        ),
        "dp-sgd": (
            Case(folder, federation_settings(privacy=DP_SGD, train={"learning_rate": 0.1, "momentum": 0.9})),
            4,
        ),
        "dp-sgd with adam": (
            Case(folder, federation_settings(privacy=DP_SGD, train={"learning_rate": 0.1, "optimizer": "adam"})),
            4,
        ),
    }
    case, steps = cases[name]
    write_task(folder, *case.more)
    return case, steps


every_loop = pytest.mark.parametrize(
    "name", ["momentum", "adam", "whole batches", "one step", "convex", "dp-sgd", "dp-sgd with adam"]
)


# The same bytes.


@every_loop
def test_training_stopped_at_any_save_point_comes_to_the_same_bytes(tmp_path: Path, name: str):
    case, steps = case_of(tmp_path, name)
    whole = case.in_one_go()
    for piece in range(1, steps + 1):
        found, invocations = replace_state(case).in_pieces(piece)
        assert found == whole
        assert invocations == steps // piece + 1


@every_loop
def test_training_that_dies_goes_on_from_what_was_saved(tmp_path: Path, name: str):
    case, steps = case_of(tmp_path, name)
    whole = case.in_one_go()
    clock = Steps()

    def dying() -> float:
        if clock() == steps:
            raise Killed
        return clock.now

    with pytest.raises(Killed):
        case.learn(case.saves(Pace(dying, save_every=2)))
    saved = len(case.checkpoints())
    assert saved >= 1
    again = Steps()
    assert packed(case.learn(case.saves(Pace(again)))) == whole
    assert again.now < steps


def test_examples_that_were_used_before_are_not_loaded_again(tmp_path: Path):
    case, _ = case_of(tmp_path, "momentum")
    with pytest.raises(TrainingPaused):
        case.learn(case.saves(Pace(Steps(), stop_after=7)))  # an epoch has 4 batches
    own = client_settings("birch", case.settings).model_copy(update={"data": "own.npz"})
    training = LocalTraining(own, tmp_path, np.zeros, np.zeros)
    training(own.agreement[0], case.settings, 0, case.model, None, case.saves(Pace(Steps())))
    (loaded,) = {id(each.module.loaded): each.module.loaded for each in training._tasks.values()}.values()
    assert len(loaded) == 1 + 3 * 22 - (22 + 18)  # one to see that examples are pairs


def test_the_order_of_batches_is_that_of_torch():
    dataset = TensorDataset(torch.arange(11))
    theirs, ours = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    loader = DataLoader(dataset, 4, shuffle=True, generator=theirs)
    for skip in (0, 0, 2, 3, 0):
        expected = [batch[0].tolist() for batch in loader]
        assert [batch[0].tolist() for batch in _batches(dataset, 4, ours, skip)] == expected[skip:]


# Noise.


def test_resumed_dp_sgd_takes_each_step_once_with_noise_of_its_own_and_lost_steps_leave_no_trace(tmp_path: Path):
    drawn: list[np.ndarray] = []

    def normals(count: int) -> np.ndarray:
        drawn.append(np.random.default_rng(len(drawn)).standard_normal(count))
        return drawn[-1]

    case, steps = case_of(tmp_path, "dp-sgd")
    case = replace(case, settings=federation_settings(privacy=DP_SGD), normals=normals)
    clock = Steps()

    def dying() -> float:
        if clock() == 5:  # saving looks at the clock, too
            raise Killed
        return clock.now

    with pytest.raises(Killed):
        case.learn(case.saves(Pace(dying, save_every=3)))  # saved after the third step, died after the fourth
    assert len(drawn) == 2 * steps
    assert len(case.checkpoints()) == 1
    resumed = case.learn(case.saves(Pace(Steps()))).difference
    calls = len(drawn) // (steps + 1)
    kept = [array for at, array in enumerate(drawn) if at // calls != 3]  # all but the lost step
    replayed: Iterator[np.ndarray] = iter(kept)
    whole = replace(replace_state(case), normals=lambda _: next(replayed))
    assert packed(whole.learn(whole.saves(Pace(Steps())))) == tensors.dump(resumed, {})
    assert next(replayed, None) is None
    assert len({array.tobytes() for array in drawn}) == len(drawn)


# Whose checkpoint it is.


def test_a_checkpoint_of_another_training_is_never_gone_on_with(tmp_path: Path):
    case, steps = case_of(tmp_path, "momentum")
    with pytest.raises(TrainingPaused):
        case.learn(case.saves(Pace(Steps(), stop_after=8)))

    def steps_of(other: Case, model: str = "m") -> float:
        clock = Steps()
        other.learn(other.saves(Pace(clock), model=model))
        return clock.now

    assert steps_of(case) == steps - 8
    assert steps_of(case, model="another") == steps
    assert steps_of(replace(case, client="alder")) == steps
    assert steps_of(replace(case, settings=renewed(case.settings, rounds=9))) == steps
    assert steps_of(replace(case, more=(RICH, "# mended"))) == steps
    write_data(tmp_path / "own.npz", examples=24)  # as many batches
    assert steps_of(case) == steps


def test_a_sum_over_examples_begins_anew_when_they_have_changed_places(tmp_path: Path):
    """Otherwise a row that was summed and moved behind the place that was reached would count twice."""
    case, _ = case_of(tmp_path, "one step")
    with pytest.raises(TrainingPaused):
        case.learn(case.saves(Pace(Steps(), stop_after=2)))
    with np.load(tmp_path / "own.npz") as arrays:
        np.savez(tmp_path / "own.npz", **{name: array[::-1] for name, array in arrays.items()})
    turned = case.in_one_go()
    assert packed(case.learn(case.saves(Pace(Steps())))) == turned


def test_of_several_the_newest_that_is_whole_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    case, steps = case_of(tmp_path, "momentum")
    whole = case.in_one_go()
    for _ in range(2):
        with pytest.raises(TrainingPaused):
            case.learn(case.saves(Pace(Steps(), stop_after=3)))
    case.state.create(str(keys.Checkpoint("orchard", 0, 2)), b"\x08\0\0\0\0\0\0\0{}")
    case.state.create(str(keys.Checkpoint("orchard", 1, 0)), b"of another round")
    clock = Steps()
    assert packed(case.learn(case.saves(Pace(clock)))) == whole
    assert clock.now == steps - 6
    assert "000000/0002.safetensors in memory:// is no checkpoint" in caplog.text


def test_two_invocations_that_train_for_one_round_do_each_other_no_harm(tmp_path: Path):
    case, _ = case_of(tmp_path, "momentum")
    whole = case.in_one_go()
    found = []

    class Overlapped(Steps):
        def __call__(self) -> float:
            if self.now == 4:
                with torch.random.fork_rng():  # the other one is another process
                    found.append(packed(case.learn(case.saves(Pace(Steps(), save_every=2)))))
            return super().__call__()

    found.append(packed(case.learn(case.saves(Pace(Overlapped(), save_every=1)))))
    assert found == [whole, whole]
    assert [keys.parse(key) for key in case.checkpoints()] == [
        keys.Checkpoint("orchard", 0, number) for number in range(len(case.checkpoints()))
    ]
    assert case.in_pieces(100) == (whole, 1)


def test_a_number_that_another_takes_at_this_moment_is_left_to_it():
    state = MemoryStore(lambda: 0.0)

    class Raced(MemoryStore):
        def create(self, key: str, data: bytes) -> str:
            if not list(state.list("")):
                state.create(key, b"another's")
            return state.create(key, data)

        def list(self, prefix: str):
            return state.list(prefix)

    saves = Checkpoints(Raced(lambda: 0.0), "orchard", 0, {}, Pace(Steps(), save_every=0), 0.0, lambda: True)
    saves.passed(lambda: Checkpoint({}, {"steps": 1}))
    assert list(contents(state)) == [str(keys.Checkpoint("orchard", 0, number)) for number in (0, 1)]
    assert state.read(str(keys.Checkpoint("orchard", 0, 0))) == b"another's"


# When it saves, and when it stops.


@pytest.mark.parametrize(
    ("paced", "saved", "stopped"), [(pace_of_function, [25, 50, 75], 75), (pace_of_machine, [25, 50, 75, 100], None)]
)
def test_a_function_saves_every_quarter_of_its_time_and_stops_before_the_last(
    paced: Callable[..., Pace], saved: list[int], stopped: int | None
):
    clock, state = Clock(0.0), MemoryStore(lambda: 0.0)
    saves = Checkpoints(state, "orchard", 0, {}, paced(clock, 100), 0.0, lambda: True)
    for _ in range(110):
        clock.advance(1)
        try:
            saves.passed(lambda: Checkpoint({}, {"second": int(clock.now)}))
        except TrainingPaused:
            assert clock.now == stopped
            break
    else:
        assert stopped is None
    places = [json.loads(tensors.layout_of(state.read(info.key)).metadata["place"]) for info in state.list("")]
    assert [place["second"] for place in places] == saved


def test_a_checkpoint_that_cannot_be_kept_does_not_end_training(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    case, _ = case_of(tmp_path, "momentum")
    whole = case.in_one_go()
    crash = Crash(at="create " + str(keys.Checkpoint("orchard", 0, 1)))
    case = replace(case, state=CrashingStore(MemoryStore(lambda: 0.0), crash))
    assert packed(case.learn(case.saves(Pace(Steps(), save_every=2)))) == whole
    assert crash.crashed
    assert "training goes on unsaved" in caplog.text


@pytest.mark.parametrize(
    ("pace", "expected"), [({"save_every": 0}, None), ({"stop_after": 0}, "no number is left; a longer time_limit")]
)
def test_after_the_last_number_nothing_more_is_saved(pace: dict[str, float], expected: str | None):
    state = MemoryStore(lambda: 0.0)
    state.create(str(keys.Checkpoint("orchard", 0, 9999)), b"")
    saves = Checkpoints(state, "orchard", 0, {}, Pace(Steps(), **pace), 0.0, lambda: True)
    with pytest.raises(StoreError, match=expected) if expected else nullcontext():
        saves.passed(lambda: Checkpoint({}, {}))
    assert len(contents(state)) == 1


def test_a_function_whose_last_checkpoint_cannot_be_kept_says_so(tmp_path: Path):
    case, _ = case_of(tmp_path, "momentum")
    crash = Crash(at="create " + str(keys.Checkpoint("orchard", 0, 0)))
    case = replace(case, state=CrashingStore(MemoryStore(lambda: 0.0), crash))
    with pytest.raises(StoreUnavailable):
        case.learn(case.saves(Pace(Steps(), stop_after=2)))


# In the loop.


class Stepping:
    """A client's `Learn` of six steps, each of which takes so many seconds."""

    def __init__(self, federation: Federation, seconds: float) -> None:
        self.steps = 0
        self.during: Callable[[], None] = lambda: None
        self._federation = federation
        self._seconds = seconds

    def __call__(self, agreement, settings, round_, model, plan, saves) -> Learned:
        found = saves.latest()
        for step in range(found.place["steps"] if found else 0, 6):
            self.steps += 1
            self._federation.clock.advance(self._seconds)
            self.during()
            saves.passed(partial(Checkpoint, {}, {"steps": step + 1}))
        return Learned({})


def stepping(seconds: float) -> tuple[Federation, Stepping]:
    federation = Federation(federation_settings()).start()
    federation.offline = set(federation.settings.roster)
    federation.deliver_all()
    federation.offline.clear()
    federation.learners["birch"] = learn = Stepping(federation, seconds)
    return federation, learn


def uploaded(federation: Federation) -> bool:
    return str(keys.Update("orchard", "birch", 0)) in contents(federation.parent_bucket)


def test_what_outlives_the_time_limit_is_gone_on_with_when_the_event_comes_again():
    federation, learn = stepping(seconds=TIME_LIMIT * 0.3)
    with pytest.raises(TrainingPaused, match=r"round 0 of orchard: training is saved after 18 s; the next invocation"):
        federation.deliver(TICKET)
    assert learn.steps == 3
    with pytest.raises(TrainingPaused):
        federation.deliver(TICKET)
    federation.deliver(TICKET)
    assert learn.steps == 6
    assert uploaded(federation)


def test_a_sweep_leaves_a_fresh_checkpoint_alone_and_goes_on_with_an_old_one():
    federation, learn = stepping(seconds=TIME_LIMIT * 0.3)
    with pytest.raises(TrainingPaused):
        federation.deliver(TICKET)
    federation.clock.advance(TIME_LIMIT - 1)  # the attempt is older than that
    federation.sweep_client("birch")
    assert learn.steps == 3
    federation.clock.advance(1)
    with pytest.raises(ExceptionGroup) as caught:
        client_rounds.sweep(federation.client("birch"))
    assert [type(error) for error in caught.value.exceptions] == [TrainingPaused]
    assert learn.steps == 6


def test_a_training_whose_round_closes_stops_at_its_next_checkpoint_and_nothing_is_kept():
    federation, learn = stepping(seconds=TIME_LIMIT * 0.3)
    learn.during = lambda: learn.steps == 1 and federation.parent_bucket.create(str(keys.Finished("orchard")), b"{}")
    federation.deliver(TICKET)
    assert learn.steps == 1
    assert not uploaded(federation)
    state = contents(federation.states["birch"])
    assert [key for key in state if "releases" in key or "checkpoints" in key] == []


def test_a_checkpoint_is_made_nowhere_but_in_private_state():
    federation, _ = stepping(seconds=TIME_LIMIT * 0.3)
    with pytest.raises(TrainingPaused):
        federation.deliver(TICKET)
    elsewhere = [federation.parent_bucket, *federation.inboxes.values()]
    attempted = {key for bucket in elsewhere for key, _ in bucket.attempts}
    assert not [key for key in attempted if isinstance(keys.parse(key), keys.Checkpoint)]
    assert any("checkpoints" in key for key in contents(federation.states["birch"]))


def test_all_that_one_sweep_trains_shares_its_time():
    federation, learn = stepping(seconds=TIME_LIMIT * 0.3)
    client = federation.client("birch")
    own = client.settings.agreement[0]
    learn_as: list[str] = []

    def twice(agreement, settings, *arguments) -> Learned:
        learn_as.append(settings.name)
        return learn(agreement, settings, *arguments)

    # A second federation in a bucket of its own, whose settings differ by the name only.
    apiary = Federation(renewed(federation.settings, name="apiary")).start()
    other = own.model_copy(update={"federation": "apiary", "settings_sha256": apiary.settings.sha256})
    buckets = {"orchard": federation.parent_bucket, "apiary": apiary.parent_bucket}
    both = client.settings.model_copy(update={"agreement": (own, other)})
    with pytest.raises(ExceptionGroup) as caught:
        client_rounds.sweep(
            replace(client, settings=both, open_parent=lambda agreement: buckets[agreement.federation], learn=twice)
        )
    assert [type(error) for error in caught.value.exceptions] == [TrainingPaused, TrainingPaused]
    assert learn_as == ["orchard", "apiary"]
    assert learn.steps == 3 + 1  # the second one's first step is its last


def test_the_round_is_over_for_checkpoints_too():
    saves = Checkpoints(Bucket(lambda: 0.0), "orchard", 0, {}, Pace(Steps(), save_every=0), 0.0, lambda: False)
    with pytest.raises(RoundClosed, match="round 0 of orchard closed"):
        saves.passed(lambda: Checkpoint({}, {}))
