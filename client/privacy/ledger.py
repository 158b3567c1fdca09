"""The privacy account of one data set: durable, append-only, exact, and closed to whoever tampers with it.

Entry n + 1 is created create-only and holds the SHA-256 of entry n, so that two charges cannot take the same place and
no entry can be changed without breaking the chain. What was spent is computed from all entries each time, never stored.
The account begins with an explicit genesis: an empty state bucket is an error, not a fresh budget.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from client.privacy.accounting import Event, GaussianRelease, SampledSteps, epsilon
from client.privacy.entries import Entries
from exchange import keys
from exchange.documents import Document, sha256
from exchange.errors import AlreadyExists, BudgetExceeded, InvalidDocument, LedgerError
from exchange.spec import Budget, Count, DpSgdPrivacy, Identifier, OrnsteinUhlenbeckPrivacy, Positive, Sha256
from exchange.stores import Store

ENTRY = "ledger"  # metadata of a release: the SHA-256 of the entry that it was charged by


class Genesis(Document):
    """Entry 0.

    Attributes:
        nonce: random, so that the hashes, of which updates name one, tell nothing about the account.
    """

    kind: Literal["genesis"] = "genesis"
    dataset: Identifier
    unit: Literal["example", "client"]
    adjacency: Literal["add-or-remove", "replace-one"]
    nonce: Sha256


class GaussianCharge(Document):
    """A release with noise multiplier z: `accounting.GaussianRelease`."""

    kind: Literal["gaussian"] = "gaussian"
    noise_multiplier: Positive


class SampledCharge(Document):
    """Steps of DP-SGD: `accounting.SampledSteps`."""

    kind: Literal["sampled-steps"] = "sampled-steps"
    sampling_probability: Annotated[float, Field(gt=0, le=1)]
    noise_multiplier: Positive
    steps: Count


class Charge(Document):
    """Entry n > 0: one round of one federation.

    Attributes:
        previous: the SHA-256 of entry n − 1.
        events: what is released, in the accountant's terms.
    """

    kind: Literal["charge"] = "charge"
    previous: Sha256
    federation: Identifier
    settings_sha256: Sha256
    round: Annotated[int, Field(ge=0)]
    mechanism: str
    events: tuple[Annotated[GaussianCharge | SampledCharge, Field(discriminator="kind")], ...]


@dataclass(frozen=True)
class Spending:
    """What one round of one federation is to cost."""

    federation: str
    settings_sha256: str
    round: int
    mechanism: str
    events: tuple[Event, ...]


class Ledger:
    """The account of `dataset` in a client's private state.

    Attributes:
        entries: of this account and all others there.
    """

    def __init__(self, state: Store, dataset: str) -> None:
        self.entries = Entries(state)
        self._state = state
        self._dataset = dataset

    def open(self, unit: str, adjacency: str, nonce: bytes) -> None:
        """Begin the account; the one act that may find nothing there.

        Args:
            nonce: 32 random bytes.

        Raises:
            LedgerError: there is an account already.
        """
        genesis = Genesis.model_validate(
            {"dataset": self._dataset, "unit": unit, "adjacency": adjacency, "nonce": nonce.hex()}
        )
        try:
            self._state.create(self._key(0), genesis.to_bytes())
        except AlreadyExists as error:
            raise LedgerError(f"data set {self._dataset!r} has an account already; it goes on with that one") from error

    def read(self) -> tuple[Genesis, list[Charge], list[str]]:
        """Return the genesis, all charges in order, and the SHA-256 of every entry, genesis first.

        Raises:
            LedgerError: there is no account, an entry is missing, or the chain is broken.
        """
        prefix = keys.ledger(self._dataset)
        found = self.entries.under(prefix)
        if not found:
            raise LedgerError(
                f"data set {self._dataset!r} has no account in {self._state.url}; if it never had one, begin it with "
                "`fedbucket privacy open`; if it had, restore it: nothing is released without it"
            )
        if list(found) != [self._key(number) for number in range(len(found))]:
            raise LedgerError(f"the account under {prefix} in {self._state.url} lacks entries; restore it")
        try:
            return self._checked(list(found.values()))
        except InvalidDocument as error:
            raise LedgerError(f"the account under {prefix} in {self._state.url} was changed: {error}") from error

    def check(self, budget: Budget, spending: Spending) -> None:
        """Raise what `charge` would raise; write nothing."""
        self._next(budget, spending)

    def charge(self, budget: Budget, spending: Spending) -> str:
        """Charge a round, once, if the budget allows, and return the SHA-256 of its entry.

        Raises:
            BudgetExceeded: with this charge the account would exceed `budget`; nothing was written.
            LedgerError: the account is missing or broken, or kept for another unit or adjacency than the budget.
        """
        while True:
            match self._next(budget, spending):
                case str(done):
                    return done
                case number, charge:
                    with suppress(AlreadyExists):  # somebody else charged at this moment: read again, check again
                        self._state.create(self._key(number), charge.to_bytes())

    def charges(self, settings_sha256: str) -> list[Charge]:
        """Return the charges of one federation, by its settings; raises LedgerError."""
        return [charge for charge in self.read()[1] if charge.settings_sha256 == settings_sha256]

    def _next(self, budget: Budget, spending: Spending) -> str | tuple[int, Charge]:
        """Return the hash of the entry that charges `spending`, or the number and content it is to have."""
        genesis, charges, hashes = self.read()
        refuse_other_unit(genesis, "the budget", budget)
        events = tuple(map(charged, spending.events))
        for earlier, hash_ in zip(charges, hashes[1:], strict=True):
            if (earlier.settings_sha256, earlier.round) == (spending.settings_sha256, spending.round):
                if earlier.events != events:  # the same settings, calibrated otherwise: another version of this program
                    raise LedgerError(
                        f"round {spending.round} of {spending.federation} is charged as {earlier.events}, and would be "
                        f"released as {events}; finish the federation with the version that began it"
                    )
                return hash_
        charge = Charge(
            previous=hashes[-1],
            federation=spending.federation,
            settings_sha256=spending.settings_sha256,
            round=spending.round,
            mechanism=spending.mechanism,
            events=events,
        )
        _check_budget(budget, [*charges, charge])
        return len(hashes), charge

    def _checked(self, entries: list[bytes]) -> tuple[Genesis, list[Charge], list[str]]:
        genesis = Genesis.from_bytes(entries[0], self._key(0))
        charges = [Charge.from_bytes(data, self._key(number)) for number, data in enumerate(entries[1:], start=1)]
        hashes = [sha256(data) for data in entries]
        for number, (charge, previous) in enumerate(zip(charges, hashes, strict=False), start=1):
            if charge.previous != previous:
                raise LedgerError(f"{self._key(number)} does not follow the entry before it: the account was changed")
        return genesis, charges, hashes

    def _key(self, number: int) -> str:
        return str(keys.LedgerEntry(self._dataset, number))


def refuse_other_unit(genesis: Genesis, what: str, other: Budget | OrnsteinUhlenbeckPrivacy | DpSgdPrivacy) -> None:
    """Raise LedgerError unless `other`, named as `what`, protects what the account is kept for: they never add up."""
    if (genesis.unit, genesis.adjacency) != (other.unit, other.adjacency):
        raise LedgerError(
            f"the account of {genesis.dataset!r} is kept for unit {genesis.unit} ({genesis.adjacency}), {what} "
            f"is for unit {other.unit} ({other.adjacency}); give the other unit a dataset name of its own"
        )


def events_of(charges: list[Charge]) -> list[Event]:
    """Return all events of `charges` in the accountant's terms."""
    return [_event(event) for charge in charges for event in charge.events]


def charged(event: Event) -> GaussianCharge | SampledCharge:
    """Return an event of the accountant as the ledger writes it."""
    match event:
        case GaussianRelease(multiplier):
            return GaussianCharge(noise_multiplier=multiplier)
        case SampledSteps(rate, multiplier, steps):
            return SampledCharge(sampling_probability=rate, noise_multiplier=multiplier, steps=steps)


def _event(event: GaussianCharge | SampledCharge) -> Event:
    match event:
        case GaussianCharge():
            return GaussianRelease(event.noise_multiplier)
        case SampledCharge():
            return SampledSteps(event.sampling_probability, event.noise_multiplier, event.steps)


def _check_budget(budget: Budget, charges: list[Charge]) -> None:
    spent = epsilon(events_of(charges), budget.delta)
    if spent > budget.epsilon:
        raise BudgetExceeded(
            f"round {charges[-1].round} of {charges[-1].federation} would take the account to ε = {spent:.4g}, granted "
            f"are {budget.epsilon:g} (unit: one {budget.unit}, {budget.adjacency}; δ = {budget.delta:g})"
        )
