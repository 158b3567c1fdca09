"""The privacy account of a data set: begun once, added to and never changed, and never overdrawn, whoever charges it at
the same time. Whatever is wrong with it is an error, and never a fresh budget."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest

from client.privacy.account import Account
from client.privacy.accounting import Event, GaussianRelease, SampledSteps
from client.privacy.ledger import ENTRY, Genesis, Ledger, Spending, events_of
from client.privacy.plan import make_plan
from client.privacy.releases import check_releases
from exchange import keys, tensors
from exchange.errors import BudgetExceeded, LedgerError
from exchange.spec import Budget
from exchange.stores import Store
from exchange.stores.file import FileStore
from tests.client.privacy import charging_process
from tests.support.buckets import Bucket, Clock, contents
from tests.support.private import DELTA, gaussian_epsilon, oracle_epsilon
from tests.support.settings import PRIVATE, client_settings, federation_settings
from tests.support.turns import Turns, interruptions
from tests.support.watched import Crash, CrashingStore, WatchedStore

PARENT = Bucket(Clock())  # a parent bucket that has nothing of this client
NONCE = bytes(range(32))
RICH = Budget(unit="example", adjacency="add-or-remove", epsilon=50.0, delta=DELTA)
SAMPLED = SampledSteps(0.5, 1.0, 4)


def spending(round_: int, *events: Event, federation: str = "orchard", settings: str = "a" * 64) -> Spending:
    return Spending(federation, settings, round_, "test", events or (GaussianRelease(5.0),))


def granted(epsilon: float) -> Budget:
    return RICH.model_copy(update={"epsilon": epsilon})


def opened(store: Store | None = None, dataset: str = "data") -> Ledger:
    ledger = Ledger(store if store is not None else Bucket(Clock()), dataset)
    ledger.open("example", "add-or-remove", NONCE)
    return ledger


def bucket_of(objects: Mapping[str, bytes]) -> Bucket:
    bucket = Bucket(Clock())
    for key, data in objects.items():
        bucket.create(key, data)
    return bucket


def entry(number: int, dataset: str = "data") -> str:
    return str(keys.LedgerEntry(dataset, number))


# How it begins.


def test_an_account_begins_with_a_genesis_that_says_what_it_protects():
    state = Bucket(Clock())
    Ledger(state, "admissions").open("client", "replace-one", NONCE)
    assert contents(state).keys() == {"ledger/admissions/000000.json"}
    assert json.loads(state.read(entry(0, "admissions"))) == {
        "kind": "genesis",
        "dataset": "admissions",
        "unit": "client",
        "adjacency": "replace-one",
        "nonce": NONCE.hex(),
    }


def test_a_missing_account_is_an_error_and_not_a_fresh_budget():
    state = Bucket(Clock())
    ledger = Ledger(state, "data")
    for act in (ledger.read, lambda: ledger.check(RICH, spending(0)), lambda: ledger.charge(RICH, spending(0))):
        with pytest.raises(LedgerError, match=r"'data' has no account in memory://; .*begin.*`fedbucket privacy open`"):
            act()
    assert contents(state) == {}


def test_an_account_is_begun_once():
    state = Bucket(Clock())
    opened(state).charge(RICH, spending(0))
    before = contents(state)
    for unit, adjacency in (("example", "add-or-remove"), ("client", "replace-one")):
        with pytest.raises(LedgerError, match="'data' has an account already; it goes on with that one"):
            Ledger(state, "data").open(unit, adjacency, bytes(32))
    assert contents(state) == before


def test_the_hash_that_an_update_names_tells_nothing_of_an_account_whose_nonce_is_not_known():
    hashes = set()
    for nonce in (bytes(32), NONCE):
        ledger = Ledger(Bucket(Clock()), "data")
        ledger.open("example", "add-or-remove", nonce)
        hashes.add(ledger.charge(RICH, spending(0)))
    assert len(hashes) == 2


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_an_account_is_not_begun_without_all_of_its_nonce(nonce: bytes):
    state = Bucket(Clock())
    with pytest.raises(ValueError, match="nonce"):
        Ledger(state, "data").open("example", "add-or-remove", nonce)
    assert contents(state) == {}


@pytest.mark.parametrize(
    ("unit", "adjacency", "came"),
    [
        ("client", "replace-one", r"unit client \(replace-one\)"),
        ("example", "replace-one", r"unit example \(replace-one\)"),
    ],
)
def test_a_budget_for_another_unit_or_adjacency_than_the_account_is_refused(unit: str, adjacency: str, came: str):
    state = Bucket(Clock())
    ledger, other = opened(state), RICH.model_copy(update={"unit": unit, "adjacency": adjacency})
    ledger.charge(RICH, spending(0))
    before = contents(state)
    for act in (ledger.check, ledger.charge):
        for round_ in (0, 1):  # also where the round is paid for
            with pytest.raises(
                LedgerError, match=rf"kept for unit example \(add-or-remove\), the budget is for {came}"
            ):
                act(other, spending(round_))
    assert contents(state) == before


# A charge.


def test_a_charge_is_the_next_entry_and_names_the_one_before():
    state = Bucket(Clock())
    ledger = opened(state)
    first = ledger.charge(RICH, spending(0))
    second = ledger.charge(RICH, spending(1, GaussianRelease(4.0), SAMPLED))
    assert contents(state).keys() == {entry(0), entry(1), entry(2)}
    assert (first, second) == tuple(sha256(state.read(entry(number))).hexdigest() for number in (1, 2))
    assert json.loads(state.read(entry(1)))["previous"] == sha256(state.read(entry(0))).hexdigest()
    assert json.loads(state.read(entry(2))) == {
        "kind": "charge",
        "previous": first,
        "federation": "orchard",
        "settings_sha256": "a" * 64,
        "round": 1,
        "mechanism": "test",
        "events": [
            {"kind": "gaussian", "noise_multiplier": 4.0},
            {"kind": "sampled-steps", "sampling_probability": 0.5, "noise_multiplier": 1.0, "steps": 4},
        ],
    }
    genesis, charges, hashes = ledger.read()
    assert isinstance(genesis, Genesis)
    assert [charge.round for charge in charges] == [0, 1]
    assert hashes[1:] == [first, second]


def test_a_round_is_charged_once_though_the_budget_is_cut_or_the_federation_is_called_otherwise():
    state = Bucket(Clock())
    ledger = opened(state)
    done = [ledger.charge(RICH, spending(round_)) for round_ in range(3)]
    before, attempts = contents(state), len(state.attempts)
    poor = granted(1e-6)  # what is paid for is not weighed again
    for budget in (RICH, poor):
        for round_, hash_ in enumerate(done):
            assert ledger.charge(budget, spending(round_)) == hash_
            assert ledger.charge(budget, spending(round_, federation="by-another-name")) == hash_
            ledger.check(budget, spending(round_))
    assert contents(state) == before
    assert len(state.attempts) == attempts


def test_a_round_that_is_charged_is_not_released_as_something_else():
    """The same settings may be calibrated otherwise by another version of this program."""
    ledger = opened()
    ledger.charge(RICH, spending(0, GaussianRelease(4.0)))
    with pytest.raises(LedgerError, match=r"is charged as .* and would be released as"):
        ledger.charge(RICH, spending(0, GaussianRelease(3.0)))


def test_the_same_round_under_other_settings_is_another_charge():
    ledger = opened()
    assert ledger.charge(RICH, spending(0)) != ledger.charge(RICH, spending(0, settings="b" * 64))
    assert [len(ledger.charges(settings)) for settings in ("a" * 64, "b" * 64, "c" * 64)] == [1, 1, 0]


def test_an_event_is_read_back_to_its_last_bit():
    ledger = opened()
    events = (GaussianRelease(math.nextafter(7.0, 8)), SampledSteps(1 / 3, math.pi, 7), SampledSteps(1.0, 2.5, 1))
    ledger.charge(RICH, spending(0, *events[:2]))
    ledger.charge(RICH, spending(1, events[2]))
    assert events_of(ledger.read()[1]) == list(events)


# What it allows.


def test_a_charge_beyond_the_budget_says_what_it_would_cost_and_writes_nothing():
    state = Bucket(Clock())
    ledger = opened(state)
    ledger.charge(granted(1.5), spending(3, GaussianRelease(4.0)))
    before, attempts = contents(state), len(state.attempts)
    cost = gaussian_epsilon([4.0, 2.5])
    message = (
        f"round 4 of orchard would take the account to ε = {cost:.4g}, granted are 1.5 "
        "(unit: one example, add-or-remove; δ = 1e-05)"
    )
    for act in (ledger.check, ledger.charge):
        with pytest.raises(BudgetExceeded) as caught:
            act(granted(1.5), spending(4, GaussianRelease(2.5)))
        assert str(caught.value) == message
    assert contents(state) == before
    assert len(state.attempts) == attempts


def test_a_budget_is_enough_for_exactly_what_it_pays_for():
    budget = granted(gaussian_epsilon([5.0] * 3) * (1 + 1e-9))
    ledger = opened()
    for round_ in range(3):
        ledger.charge(budget, spending(round_))
    with pytest.raises(BudgetExceeded):
        ledger.charge(budget, spending(3, GaussianRelease(1000.0)))
    ledger = opened()
    with pytest.raises(BudgetExceeded):
        ledger.charge(granted(gaussian_epsilon([5.0]) * (1 - 1e-9)), spending(0))


def test_gaussian_releases_and_sampled_steps_are_weighed_together():
    ledger = opened()
    ledger.charge(RICH, spending(0, SAMPLED, GaussianRelease(4.0)))
    ledger.charge(RICH, spending(0, GaussianRelease(5.0), settings="b" * 64))
    truth = oracle_epsilon([4.0, 5.0], [(0.5, 1.0, 8)])
    with pytest.raises(BudgetExceeded) as caught:
        ledger.check(granted(0.999 * truth), spending(1, SAMPLED))
    assert f"ε = {truth:.4g}, " in str(caught.value)
    ledger.check(granted(1.001 * truth), spending(1, SAMPLED))


def test_a_budget_is_for_the_data_set_over_all_federations():
    ledger, budget = opened(), granted(gaussian_epsilon([5.0] * 3) * 1.0001)
    ledger.charge(budget, spending(0, settings="a" * 64))
    ledger.charge(budget, spending(0, settings="b" * 64, federation="apiary"))
    ledger.charge(budget, spending(1, settings="a" * 64))
    for settings in ("a" * 64, "b" * 64, "c" * 64):
        with pytest.raises(BudgetExceeded):
            ledger.charge(budget, spending(7, settings=settings))


def test_data_sets_have_accounts_of_their_own():
    state, budget = Bucket(Clock()), granted(gaussian_epsilon([5.0]) * 1.0001)
    opened(state, "data").charge(budget, spending(0))
    with pytest.raises(LedgerError, match="'data-2' has no account"):
        Ledger(state, "data-2").charge(budget, spending(0))
    opened(state, "data-2").charge(budget, spending(0))
    for dataset in ("data", "data-2"):
        with pytest.raises(BudgetExceeded):
            Ledger(state, dataset).charge(budget, spending(1))


# Whoever tampers with it. Three rounds were released, each under its entry; the client is about to answer a fourth.

NOISED = federation_settings(rounds=4, privacy=PRIVATE | {"unit": "example"})


def account_of(state: Store) -> Account:
    plan = make_plan(NOISED, "birch")
    assert plan is not None
    return Account(client_settings("birch", NOISED), state, NOISED, 3, plan)


@pytest.fixture(scope="module")
def released() -> Mapping[str, bytes]:
    state = Bucket(Clock())
    opened(state)
    for round_ in range(3):
        hash_ = replace(account_of(state), round=round_).charge()
        state.create(str(keys.Release("orchard", round_)), tensors.dump({}, {ENTRY: hash_}))
    return contents(state)


def test_a_sound_account_with_its_releases_is_gone_on_with(released: Mapping[str, bytes]):
    account = account_of(bucket_of(released))
    account.check(PARENT)
    charged = account.charge()
    account.check(PARENT)
    assert account.charge() == charged


def test_any_byte_that_is_changed_in_any_entry_is_an_error(released: Mapping[str, bytes]):
    state = bucket_of(released)
    account = account_of(state)
    for number in range(4):
        data = released[entry(number)]
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 1
            state.replace(entry(number), bytes(changed))
            with pytest.raises(LedgerError):
                account.check(PARENT)
        state.replace(entry(number), data)
    account.check(PARENT)


def rewritten(data: bytes) -> bytes:
    return json.dumps(json.loads(data)).encode()  # the same content in other bytes


def cheaper(data: bytes) -> bytes:
    content = json.loads(data)
    content |= {"events": []} if content["kind"] == "charge" else {"adjacency": "replace-one"}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def without(number: int) -> Callable[[dict[str, bytes]], None]:
    def tamper(objects: dict[str, bytes]) -> None:
        del objects[entry(number)]

    return tamper


def exchanged(one: int, other: int) -> Callable[[dict[str, bytes]], None]:
    def tamper(objects: dict[str, bytes]) -> None:
        objects[entry(one)], objects[entry(other)] = objects[entry(other)], objects[entry(one)]

    return tamper


def written(number: int, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def tamper(objects: dict[str, bytes]) -> None:
        objects[entry(number)] = change(objects[entry(number)])

    return tamper


def moved_up(objects: dict[str, bytes]) -> None:
    objects[entry(2)] = objects.pop(entry(3))


def moved_away(objects: dict[str, bytes]) -> None:
    objects[entry(7)] = objects.pop(entry(3))


def said_twice(objects: dict[str, bytes]) -> None:
    objects[entry(4)] = objects[entry(3)]


def of_another_account(objects: dict[str, bytes]) -> None:
    other = Bucket(Clock())
    ledger = Ledger(other, "data")
    ledger.open("example", "add-or-remove", bytes(32))
    for round_ in range(3):
        ledger.charge(RICH, spending(round_))
    objects |= contents(other)


def of_no_kind(objects: dict[str, bytes]) -> None:
    objects["ledger/data/notes.txt"] = b"do not look here"


def begun_anew(objects: dict[str, bytes]) -> None:
    for number in range(1, 4):
        del objects[entry(number)]


def all_gone(objects: dict[str, bytes]) -> None:
    for number in range(4):
        del objects[entry(number)]


TAMPERINGS: dict[str, Callable[[dict[str, bytes]], None]] = {
    **{f"entry {number} removed": without(number) for number in range(4)},
    **{f"entries {one} and {other} exchanged": exchanged(one, other) for one, other in ((0, 1), (1, 2), (2, 3))},
    **{f"entry {number} rewritten": written(number, rewritten) for number in range(4)},
    **{f"entry {number} made cheaper": written(number, cheaper) for number in range(4)},
    **{f"entry {number} emptied": written(number, lambda data: b"") for number in range(4)},
    "an entry moved into a gap": moved_up,
    "the last entry under another number": moved_away,
    "an entry said twice": said_twice,
    "the entries of another account": of_another_account,
    "an object that is no entry": of_no_kind,
    "only the genesis left": begun_anew,
    "no entry left": all_gone,
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_an_account_that_was_tampered_with_is_an_error(released: Mapping[str, bytes], what: str):
    objects = dict(released)
    TAMPERINGS[what](objects)
    state = bucket_of(objects)
    with pytest.raises(LedgerError):
        account_of(state).check(PARENT)
    assert contents(state) == objects


def test_an_account_whose_releases_are_of_an_entry_that_was_lost_is_to_be_restored(released: Mapping[str, bytes]):
    objects = dict(released)
    lost = sha256(objects.pop(entry(3))).hexdigest()
    state = bucket_of(objects)
    with pytest.raises(LedgerError, match=rf"orchard/releases/000002.safetensors .*{lost}.* in no account; restore"):
        check_releases(state)
    state.create(entry(3), released[entry(3)])
    check_releases(state)


def test_an_entry_that_was_lost_before_anything_was_released_is_charged_again(released: Mapping[str, bytes]):
    lost = {entry(3), str(keys.Release("orchard", 2))}
    state = bucket_of({key: data for key, data in released.items() if key not in lost})
    account = replace(account_of(state), round=2)
    account.check(PARENT)
    assert account.charge() == sha256(released[entry(3)]).hexdigest()


def test_every_federations_newest_release_is_held_against_the_accounts(released: Mapping[str, bytes]):
    state = bucket_of(released)
    state.create(str(keys.Release("apiary", 0)), tensors.dump({}, {"federation": "apiary"}))  # without privacy
    state.create(str(keys.Release("meadow", 5, withdrawn=True)), b"{}")
    check_releases(state)
    state.create(str(keys.Release("meadow", 4)), tensors.dump({}, {ENTRY: "f" * 64}))
    with pytest.raises(LedgerError, match="meadow/releases/000004"):
        check_releases(state)


# Whoever charges it at the same time.


def test_a_release_made_while_the_accounts_are_looked_through_is_not_taken_for_a_lost_entry(
    released: Mapping[str, bytes],
):
    counted = Crash()
    check_releases(CrashingStore(bucket_of(released), counted))
    for at in range(len(counted.calls)):
        state, calls = bucket_of(released), count()

        def before(call: str, at: int = at, state: Bucket = state, calls: Iterator[int] = calls) -> int:
            if next(calls) == at:
                hash_ = account_of(state).charge()
                state.create(str(keys.Release("orchard", 3)), tensors.dump({}, {ENTRY: hash_}))
            return 0

        check_releases(WatchedStore(state, before, lambda number: None))


def test_two_charges_of_consecutive_rounds_never_share_an_entry_and_never_slip_under_the_budget():
    """In every order of their calls to the store in which one is interrupted by the other."""
    prices = {1: granted(gaussian_epsilon([5.0]) * 1.0001), 2: granted(gaussian_epsilon([5.0] * 2) * 1.0001)}

    def race(paid: int, turns: Turns, store: Store) -> list[Callable[[], object]]:
        ledger = Ledger(turns.watch(store), "data")
        return [lambda round_=round_: ledger.charge(prices[paid], spending(round_)) for round_ in range(2)]

    alone = Turns()
    store = Bucket(Clock())
    opened(store)
    for charge in race(2, alone, store):
        alone.run([charge], lambda waiting: waiting[0])
    schedules = list(interruptions([alone.calls[0]] * 2))
    assert len(schedules) > 10
    for paid in (1, 2):
        for schedule in schedules:
            turns, store = Turns(), Bucket(Clock())
            opened(store)
            turns.run(race(paid, turns, store), schedule)
            failed = [error for error in turns.errors if error is not None]
            assert [type(error) for error in failed] == [BudgetExceeded] * (2 - paid), turns.steps
            _, charges, _ = Ledger(store, "data").read()
            assert len(charges) == paid
            assert len({charge.round for charge in charges}) == paid


def overtaken(store: Bucket, act: Callable[[], object]) -> Store:
    """Return `store`, on which `act` comes first wherever entry 1 is about to be created."""

    def before(call: str) -> int:
        if call == f"create {entry(1)}" and entry(1) not in contents(store):
            act()
        return 0

    return WatchedStore(store, before, lambda number: None)


def test_a_charge_that_was_overtaken_is_weighed_again():
    store = Bucket(Clock())
    opened(store)
    budget = granted(gaussian_epsilon([5.0]) * 1.0001)
    late = Ledger(overtaken(store, lambda: Ledger(store, "data").charge(budget, spending(1))), "data")
    with pytest.raises(BudgetExceeded):
        late.charge(budget, spending(0))
    assert [charge.round for charge in late.read()[1]] == [1]


def test_a_charge_that_was_overtaken_by_itself_is_paid_once():
    store = Bucket(Clock())
    opened(store)
    hashes = []
    late = Ledger(overtaken(store, lambda: hashes.append(Ledger(store, "data").charge(RICH, spending(0)))), "data")
    assert [late.charge(RICH, spending(0))] == hashes
    assert len(late.read()[1]) == 1


def at_once(store: Store, rounds: list[int], budget: Budget) -> list[str | None]:
    """Charge all `rounds` at the same time; return their entries' hashes, None where the budget was exceeded."""
    barrier = Barrier(len(rounds))

    def charge(round_: int) -> str | None:
        barrier.wait(10)
        try:
            return Ledger(store, "data").charge(budget, spending(round_))
        except BudgetExceeded:
            return None

    with ThreadPoolExecutor(len(rounds)) as pool:
        return list(pool.map(charge, rounds))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_twenty_charges_at_once_never_overdraw_the_account(tmp_path: Path, kind: str):
    store = Bucket(Clock()) if kind == "memory" else FileStore(tmp_path)
    opened(store)
    hashes = at_once(store, list(range(20)), granted(gaussian_epsilon([5.0] * 7) * 1.0001))
    _, charges, found = Ledger(store, "data").read()
    assert sorted(filter(None, hashes)) == sorted(found[1:])
    assert len(charges) == len({charge.round for charge in charges}) == 7


def test_one_round_charged_by_twenty_at_once_is_paid_once():
    store = Bucket(Clock())
    opened(store)
    assert len(set(at_once(store, [0] * 20, granted(gaussian_epsilon([5.0]) * 1.0001)))) == 1
    assert len(Ledger(store, "data").read()[1]) == 1


def test_four_processes_never_overdraw_an_account_that_they_share(tmp_path: Path):
    store = FileStore(tmp_path)
    opened(store)
    budget = gaussian_epsilon([charging_process.MULTIPLIER] * 9) * 1.0001
    command = [sys.executable, "-m", charging_process.__name__, store.url, str(budget)]
    rounds = [map(str, [*range(first, 24, 4), 0]) for first in range(4)]  # and all of them round 0
    processes = [
        subprocess.Popen([*command, *own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for own in rounds
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        answers = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    _, charges, _ = Ledger(store, "data").read()
    assert len(charges) == 9
    paid = [charge.round for charge in charges]
    assert sorted({round_ for answer in answers for round_ in json.loads(answer)}) == sorted(paid)
    assert len(set(paid)) == 9
