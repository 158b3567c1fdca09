"""The code under test, broken on purpose: each way of breaking it must be found by the laws."""

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any


class StaleMutant(Exception):
    """The code is no longer what the mutant changes: it must be written anew."""


@dataclass(frozen=True)
class Edit:
    """One change: in the function `where` (module:name), `old`, which stands there once, becomes `new`."""

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One way of breaking the code.

    Attributes:
        name: what it gets wrong.
    """

    name: str
    edits: tuple[Edit, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the broken code within the context; raises StaleMutant."""
        places = dict.fromkeys(edit.where for edit in self.edits)
        broken = [(_function(where), _compiled(where, self.edits)) for where in places]
        originals = [function.__code__ for function, _ in broken]
        for function, code in broken:
            function.__code__ = code
        try:
            yield
        finally:
            for (function, _), original in zip(broken, originals, strict=True):
                function.__code__ = original


def _function(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    function = inspect.unwrap(found)
    assert isinstance(function, FunctionType)
    return function


def _compiled(where: str, edits: Sequence[Edit]) -> CodeType:
    function = _function(where)
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if edit.where == where:
            if source.count(edit.old) != 1:
                raise StaleMutant(f"{where}: expected once\n{edit.old}\nin\n{source}")
            source = source.replace(edit.old, edit.new)
    namespace: dict[str, Any] = dict(function.__globals__)
    exec(compile(source, where, "exec"), namespace)
    return inspect.unwrap(namespace[function.__name__]).__code__


def _mutant(name: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(name, tuple(Edit(*edit) for edit in edits))


_PARENT, _CLIENT = "aggregator.rounds", "client.rounds"
_CLOSE, _LEDGER = "aggregator.cohort:close", "client.privacy.ledger:Ledger"
_COMMIT = "aggregator.next_model:commit"

_SUMMARY = """\
            with suppress(AlreadyExists):
                summary = summarise(settings, cohort, change, planned.before, planned.plan.left_out)
                store.create(str(keys.Summary(settings.name, cohort.round)), summary.to_bytes())
"""
_CHARGE = """\
                with suppress(AlreadyExists):  # somebody else charged at this moment: read again, check again
                    self._state.create(self._key(number), charge.to_bytes())
"""
_THE_CHARGE = """Charge(previous=hashes[-1], federation=spending.federation, settings_sha256=spending.settings_sha256,
            round=spending.round, mechanism=spending.mechanism, events=events)"""

MUTANTS = (
    _mutant(
        "create-only condition dropped",
        ("exchange.stores.memory:MemoryStore.create", "if check_key(key) in self._objects:", "if False:"),
    ),
    _mutant(
        "aggregate before freezing",
        (
            f"{_PARENT}:_freeze",
            "        with suppress(AlreadyExists):",
            "        commit(parent.store, settings, cohort, parent.workers)\n        with suppress(AlreadyExists):",
        ),
    ),
    _mutant(
        "list again after freezing",
        (
            f"{_PARENT}:_freeze",
            "frozen = Cohort.from_bytes(parent.store.read(key), key)",
            "frozen = Cohort.from_bytes(parent.store.read(key), key)\n"
            "    again = close(settings, round_, _receipts(parent, settings, round_), 1e9, event_id)\n"
            "    frozen = frozen if frozen.void else frozen.model_copy(update={'members': again.members})",
        ),
    ),
    _mutant(
        "cohort unsorted",
        (
            _CLOSE,
            "[receipts[client].update for client in accepted]",
            "sorted((receipts[client].update for client in accepted), key=lambda update: update.sha256)",
        ),
    ),
    _mutant(
        "time in the output",
        (
            "aggregator.next_model:plan",
            '"round": str(cohort.round + 1)}',
            '"round": str(cohort.round + 1), "made": str(__import__("time").time())}',
        ),
    ),
    _mutant(
        "commit before summary",
        (_COMMIT, _SUMMARY, "            pass\n" + textwrap.indent(textwrap.dedent(_SUMMARY), " " * 8)),
    ),
    _mutant(
        "version pin forgotten",
        (
            "aggregator.next_model:open_member",
            "open_weights(store, member.key, member.version, alike=alike)",
            "open_weights(store, member.key, alike=alike)",
        ),
    ),
    _mutant(
        "the drawn bytes uploaded in place of those read back",
        (f"{_CLIENT}:_keep", "client.state.read(str(release), limit=_ANY_SIZE)", "data"),
    ),
    _mutant(
        'budget checked before "already released"',
        (
            f"{_LEDGER}._next",
            "    for earlier, hash_ in",
            f"    _check_budget(budget, [*charges, {_THE_CHARGE}])\n    for earlier, hash_ in",
        ),
    ),
    _mutant(
        "two trains of consecutive rounds that read one ledger and both charge",
        (
            f"{_LEDGER}.charge",
            _CHARGE,
            """\
                while True:
                    try:
                        self._state.create(self._key(number), charge.to_bytes())
                        return sha256(charge.to_bytes())
                    except AlreadyExists:
                        previous = sha256(self._state.read(self._key(number)))
                        number, charge = number + 1, charge.model_copy(update={"previous": previous})
""",
        ),
    ),
    _mutant(
        "a ledger collision taken for success",
        (f"{_LEDGER}.charge", _CHARGE, _CHARGE + "                return sha256(charge.to_bytes())\n"),
    ),
    _mutant(
        "charge after upload",
        (
            "client.update:update_file",
            "account.charge()",
            "(lambda due: due if isinstance(due, str) else __import__('hashlib').sha256(due[1].to_bytes()).hexdigest())"
            "(account._ledger._next(account._budget, account._spending))",
        ),
        (
            f"{_CLIENT}:train",
            "    put(parent, str(update), data)\n",
            "    put(parent, str(update), data)\n"
            "    if (plan := make_plan(settings, client.settings.id)) and not release.withdrawn:\n"
            "        Account(client.settings, client.state, settings, round_, plan).charge()\n",
        ),
    ),
    _mutant(
        "train on an old model",
        (f"{_CLIENT}:train", "if not _open(parent, federation, round_):", "if False:"),
    ),
    _mutant(
        "train from the model before",
        (
            f"{_CLIENT}:_read_model",
            "model = parent.read(key, limit=_ANY_SIZE)",
            "model = parent.read(str(keys.Model(federation, max(0, round_ - 1))), limit=_ANY_SIZE)\n"
            "    model_sha256 = None",
        ),
    ),
    _mutant(
        "charge for a round that closed meanwhile",
        (f"{_CLIENT}:_answer", "if not _open(parent, settings.name, round_):", "if False:"),
    ),
    _mutant(
        "train in spite of an answer by another tool",
        (
            f"{_CLIENT}:train",
            "if kept is None and not _answered(client, parent, federation, round_):",
            "if kept is None:",
        ),
    ),
    _mutant(
        "no attempt marker",
        (f"{_CLIENT}:_answer", "_begin_attempt(client, settings.name, round_)", "pass"),
    ),
    _mutant(
        "rejection without a receipt",
        (
            f"{_PARENT}:record",
            "    with suppress(AlreadyExists):",
            "    if receipt.code is not None:\n        return\n    with suppress(AlreadyExists):",
        ),
    ),
    _mutant(
        "a void round that does not pass its model on",
        (f"{_PARENT}:aggregate", "if cohort is not None:", "if cohort is not None and not cohort.void:"),
    ),
    _mutant(
        "void rounds without an end",
        ("aggregator.summary:_finished", "if void_rounds >= VOID_ROUNDS:", "if False:"),
    ),
    _mutant(
        "withdrawal ignored",
        (
            f"{_PARENT}:record",
            "    settings = read_settings",
            "    if key.withdrawn:\n        return\n    settings = read_settings",
        ),
    ),
    _mutant(
        "withdrawal taken for absence",
        (_CLOSE, "if client not in receipts]", "if client not in receipts or receipts[client].outcome == 'withdrawn']"),
    ),
    _mutant(
        "loser of the race never retried",
        (
            f"{_PARENT}:_freeze",
            "    if not exists(parent.store, key):",
            "    if exists(parent.store, key):\n        return None\n    else:",
        ),
    ),
    _mutant(
        "abandoned cohort never taken up",
        (f"{_PARENT}:_freeze", " or parent.store.stat(key).age >= parent.time_limit", ""),
    ),
    _mutant(
        "sweep of the parent absent",
        (f"{_PARENT}:sweep", "federations = list(parent.store.folders())", "federations: list[str] = []"),
    ),
    _mutant(
        "sweep of the client absent",
        (f"{_CLIENT}:sweep_federation", "if newest is None or", "if True or"),
    ),
    _mutant(
        "sweep doubling what is under way for ever",
        (
            f"{_CLIENT}:_under_way",
            "return any(info.age < client.time_limit for mark in marks for info in client.state.list(mark))",
            "ages = [info.age for mark in marks for info in client.state.list(mark)]\n"
            "    return bool(ages) and max(ages) < client.time_limit",
        ),
    ),
    _mutant(
        "aggregation doubled by whoever lost the race",
        (f"{_PARENT}:_freeze", ".age >= parent.time_limit", ".age >= 0"),
    ),
    _mutant(
        "deadline by the function's clock",
        (
            f"{_PARENT}:_freeze",
            "age = parent.store.stat(str(keys.Model(settings.name, round_))).age",
            "age = __import__('time').time() - parent.store.stat(str(keys.Model(settings.name, round_))).created",
        ),
    ),
    _mutant("quorum off by one: more than it", (_CLOSE, "len(accepted) >= quorum", "len(accepted) > quorum")),
    _mutant("quorum off by one: less than it", (_CLOSE, "len(accepted) >= quorum", "len(accepted) >= quorum - 1")),
    _mutant(
        "a cohort below quorum when all have answered",
        (_CLOSE, "void = len(accepted) + len(absent) < quorum or (", "void = ("),
        (
            _CLOSE,
            "(has_quorum and (not absent or age >= deadline))",
            "(not absent or (has_quorum and age >= deadline))",
        ),
    ),
    _mutant(
        "a round opened after the final model",
        (
            f"{_PARENT}:publish",
            "        _finish(parent, settings, model, round_)\n        return\n",
            "        _finish(parent, settings, model, round_)\n",
        ),
    ),
    _mutant(
        "a receipt overwritten in effect by a second answer",
        (
            f"{_PARENT}:_receipts",
            "return {",
            "second = {client: keys.Update(settings.name, client, round_, True) for client in settings.roster}\n"
            "    return {client: Receipt(federation=settings.name, round=round_, client=client, outcome='withdrawn')"
            " if exists(parent.store, str(second[client])) else receipt for client, receipt in {",
        ),
        (f"{_PARENT}:_receipts", "round_).items()}", "round_).items()}.items()}"),
    ),
    _mutant(
        "publish stopping at the first failing inbox",
        (
            f"{_PARENT}:publish",
            "            tell(parent.open_inbox(inbox), ticket, parent.known)\n",
            "            tell(parent.open_inbox(inbox), ticket, parent.known)\n"
            "        if failures:\n            break\n",
        ),
    ),
    _mutant(
        '"already there" taken for success though the bytes differ',
        ("exchange.stores:put", "if store.read(key, limit=max(READ_LIMIT, len(data))) != data:", "if False:"),
        ("aggregator.tickets:tell", "!= data:", "!= data and False:"),
    ),
    _mutant(
        "a receipt for somebody who is not on the roster",
        (
            f"{_PARENT}:record",
            '        log.warning("%s: %s is not on the roster", key, key.client)\n        return\n',
            "        entry = settings.client[0]\n",
        ),
        (f"{_PARENT}:_recorded", "if isinstance(key, keys.Receipt) and key.client in roster:", "if key:"),
    ),
    _mutant(
        "a ticket that tells of another round",
        (
            f"{_PARENT}:publish",
            "before = read_summary(parent.store, federation, round_ - 1)",
            "before = read_summary(parent.store, federation, max(0, round_ - 2))",
        ),
    ),
)
