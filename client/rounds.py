"""An organisation's side of the loop: woken by a ticket or by its own timer, it ends by uploading one update.

    inbox/R ─train─▶ ledger entry ─▶ releases/R (private state, kept and read back) ─▶ updates/<client>/R
    a timer ─sweep─▶ the same, for the newest model

What was once released for a round is what is uploaded for it, however often this runs and wherever it dies: the charge
is durable before the noised result is kept, and that is kept and read back before it leaves.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from client import consent
from client.checkpoints import Checkpoints, Pace, Saves
from client.privacy.account import Account
from client.privacy.noise import Source
from client.privacy.plan import Plan, make_plan, refuse_impossible_release
from client.privacy.releases import check_releases
from client.update import Learned, update_file
from exchange import keys, tensors
from exchange.documents import Document, sha256
from exchange.errors import (
    AlreadyExists,
    BudgetExceeded,
    ConsentRefused,
    DifferentContent,
    RoundClosed,
)
from exchange.events import ObjectCreated
from exchange.public import final_reason, newest_model, open_model, read_settings
from exchange.records import Ticket, Withdrawal
from exchange.spec import Agreement, ClientSettings, FederationSettings, NoPrivacy
from exchange.stores import Store, exists, put

log = logging.getLogger(__name__)

_ANY_SIZE = 2**62  # a model is as large as the parties agreed to make it


class Learn(Protocol):
    """Local training: a function of its arguments and of the client's data."""

    def __call__(
        self,
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: Plan | None,
        saves: Saves,
        /,
    ) -> Learned:
        """Return what the client's data make of global model `round_`, the safetensors file `model`, under `plan`.

        What was begun earlier is in `saves`; raises what `saves` raises.
        """


@dataclass(frozen=True)
class Client:
    """What an organisation's functions work with.

    Attributes:
        settings: its own settings.
        open_parent: returns the parent bucket of an agreement.
        inbox: its bucket for tickets, if it has one.
        state: its private state.
        learn: trains.
        normals: standard normals for the noise; `client.privacy.noise.system_normals` in production.
        time_limit: seconds that a function may run; an attempt younger than that may still be under way.
        pace: how often training is saved, and when it stops for the next invocation to go on.
    """

    settings: ClientSettings
    open_parent: Callable[[Agreement], Store]
    inbox: Store | None
    state: Store
    learn: Learn
    normals: Source
    time_limit: float
    pace: Pace


class Agreed(Document):
    """In private state: what the client answered to under this federation's name."""

    federation: str
    settings_sha256: str


class Attempt(Document):
    """In private state: training for a round was begun."""

    federation: str
    round: int
    number: int


def handle(client: Client, event: ObjectCreated) -> None:
    """Do what the creation of an object in the client's bucket asks for: a ticket asks for training."""
    match keys.parse(event.key):
        case keys.Ticket(federation, round_) if client.inbox is not None:
            ticket = Ticket.from_bytes(client.inbox.read(event.key), event.key)
            if ticket.last is not None and ticket.last != "averaged":
                log.warning("%s: round %d ended for %s: %s", federation, round_ - 1, client.settings.id, ticket.last)
            train(client, federation, round_, ticket.sha256)


def train(
    client: Client, federation: str, round_: int, model_sha256: str | None = None, begun: float | None = None
) -> keys.Update | None:
    """Answer a round, unless it is over or already answered.

    Args:
        model_sha256: the digest that the ticket names.
        begun: when this invocation began, by the clock of the client's pace; None for now.

    Returns:
        What was uploaded; None if there was nothing to answer, or the round closed meanwhile.

    Raises:
        ConsentRefused: the federation is outside what was agreed; nothing was created.
        LedgerError: the privacy account is missing or was changed; nothing was released.
        PrivacyError: for these settings and this model there is no release; nothing was charged.
        TaskError: the task failed; the next event or sweep tries again.
        TrainingPaused: the time is nearly up; training is saved, and the next invocation goes on with it.
    """
    begun = client.pace.clock() if begun is None else begun
    parent = client.open_parent(consent.agreed(client.settings, federation))
    settings = read_settings(parent, federation)
    agreement = consent.check(client.settings, federation, settings)
    if not _open(parent, federation, round_):
        return None
    consent.check_round(client.settings, settings, round_)
    _hold_to(client, settings)
    kept = _kept(client, settings, round_)
    if kept is None and not _answered(client, parent, federation, round_):
        kept = _answer(client, agreement, settings, round_, parent, model_sha256, begun)
    if kept is None:
        return None
    release, data = kept
    update = keys.Update(federation, client.settings.id, round_, release.withdrawn)
    put(parent, str(update), data)
    return update


def sweep(client: Client) -> None:
    """For every agreement, answer the newest model if that is missing and no attempt is under way.

    Raises:
        ExceptionGroup: some federations failed; all others were swept.
    """
    begun = client.pace.clock()
    failures: list[Exception] = []
    for agreement in client.settings.agreement:
        try:
            sweep_federation(client, agreement, begun)
        except Exception as error:  # noqa: BLE001 - a mistake of ours in one must not hold up the others either
            failures.append(error)
    if failures:
        raise ExceptionGroup("sweep", failures)


def sweep_federation(client: Client, agreement: Agreement, begun: float | None = None) -> keys.Update | None:
    """Answer the newest model of one federation, as `sweep` does; returns, and raises, what `train` does.

    Most sweeps find a run that is over, or a round that is answered: these they find out first, at the least cost.
    """
    parent, federation = client.open_parent(agreement), agreement.federation
    newest = None if exists(parent, str(keys.Finished(federation))) else newest_model(parent, federation)
    if newest is None or _answered(client, parent, federation, newest):
        return None
    if final_reason(open_model(parent, federation, newest)) is not None:
        return None
    if _under_way(client, federation, newest):
        log.info(
            "%s: round %d: begun or saved less than %d s (time_limit) ago: left alone, for it may be under way",
            federation,
            newest,
            client.time_limit,
        )
        return None
    return train(client, federation, newest, begun=begun)


def _under_way(client: Client, federation: str, round_: int) -> bool:
    """Return whether training was begun, or saved, so lately that it may be going on."""
    marks = (keys.attempts(federation, round_), keys.checkpoints(federation, round_))
    return any(info.age < client.time_limit for mark in marks for info in client.state.list(mark))


def _hold_to(client: Client, settings: FederationSettings) -> None:
    """Refuse a federation that bears the name of an earlier one: what was released to that would pass for its own."""
    agreed = Agreed(federation=settings.name, settings_sha256=settings.sha256)
    try:
        put(client.state, str(keys.Agreed(settings.name)), agreed.to_bytes())
    except DifferentContent as error:
        raise ConsentRefused(
            f"{client.settings.id} has answered to other settings under the name {settings.name!r}; nothing was sent: "
            "a new federation takes a new name"
        ) from error


def _open(parent: Store, federation: str, round_: int) -> bool:
    """Return whether the round still takes answers: its model is the newest, and not the last."""
    if newest_model(parent, federation) != round_ or exists(parent, str(keys.Finished(federation))):
        return False
    return final_reason(open_model(parent, federation, round_)) is None


def _answered(client: Client, parent: Store, federation: str, round_: int) -> bool:
    """Return whether the round has this client's answer, by whatever tool it was uploaded."""
    answers = (keys.Update(federation, client.settings.id, round_, withdrawn) for withdrawn in (False, True))
    return any(exists(parent, str(answer)) for answer in answers)


def _kept(client: Client, settings: FederationSettings, round_: int) -> tuple[keys.Release, bytes] | None:
    """Return what is released for the round, if anything is; raises LedgerError if that is in no account."""
    for release in (keys.Release(settings.name, round_), keys.Release(settings.name, round_, withdrawn=True)):
        if exists(client.state, str(release)):
            if not release.withdrawn and not isinstance(settings.privacy, NoPrivacy):
                check_releases(client.state)
            return release, client.state.read(str(release), limit=_ANY_SIZE)
    return None


def _answer(
    client: Client,
    agreement: Agreement,
    settings: FederationSettings,
    round_: int,
    parent: Store,
    model_sha256: str | None,
    begun: float,
) -> tuple[keys.Release, bytes] | None:
    """Train, and keep what is to be uploaded; None if the round closed meanwhile, and then nothing was charged."""
    plan = make_plan(settings, client.settings.id)
    account = Account(client.settings, client.state, settings, round_, plan) if plan else None
    try:
        if account:
            account.check(parent)  # before training: nothing is computed that could not be released
        model = _read_model(parent, settings.name, round_, model_sha256)
        if plan:
            refuse_impossible_release(plan, tensors.load(model))
        _begin_attempt(client, settings.name, round_)
        saves = _checkpoints(client, settings, round_, parent, model, begun)
        learned = client.learn(agreement, settings, round_, model, plan, saves)
        if not _open(parent, settings.name, round_):
            raise RoundClosed(f"round {round_} of {settings.name} closed; what was learned is dropped")
        update = update_file(client.settings.id, client.normals, account, settings.name, round_, model, learned)
    except RoundClosed as closed:
        log.info("%s: nothing is charged, nothing is kept", closed)
        return None
    except BudgetExceeded as error:
        log.error(
            "BudgetExceeded: %s withdraws from round %d of %s: %s", client.settings.id, round_, settings.name, error
        )
        withdrawal = Withdrawal(federation=settings.name, round=round_, client=client.settings.id)
        return _keep(client, keys.Release(settings.name, round_, withdrawn=True), withdrawal.to_bytes())
    return _keep(client, keys.Release(settings.name, round_), update)


def _begin_attempt(client: Client, federation: str, round_: int) -> None:
    number = sum(1 for _ in client.state.list(keys.attempts(federation, round_)))
    attempt = Attempt(federation=federation, round=round_, number=number)
    with suppress(AlreadyExists):  # somebody else begins at this moment: his marker serves as well
        client.state.create(str(keys.Attempt(federation, round_, number)), attempt.to_bytes())


def _checkpoints(
    client: Client, settings: FederationSettings, round_: int, parent: Store, model: bytes, begun: float
) -> Checkpoints:
    training = {"client": client.settings.id, "settings_sha256": settings.sha256, "model_sha256": sha256(model)}
    is_open = partial(_open, parent, settings.name, round_)
    return Checkpoints(client.state, settings.name, round_, training, client.pace, begun, is_open)


def _read_model(parent: Store, federation: str, round_: int, model_sha256: str | None) -> bytes:
    key = str(keys.Model(federation, round_))
    model = parent.read(key, limit=_ANY_SIZE)
    if model_sha256 is not None and sha256(model) != model_sha256:
        raise DifferentContent(f"{key} in {parent.url} has SHA-256 {sha256(model)}, the ticket names {model_sha256}")
    return model


def _keep(client: Client, release: keys.Release, data: bytes) -> tuple[keys.Release, bytes]:
    """Keep `data` as what is released for the round and return what is kept, read back: the first stands."""
    with suppress(AlreadyExists):
        client.state.create(str(release), data)
    return release, client.state.read(str(release), limit=_ANY_SIZE)
