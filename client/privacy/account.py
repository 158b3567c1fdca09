"""One round's place in the privacy account: checked before training, charged before anything is kept."""

from dataclasses import dataclass
from functools import cached_property

from client.privacy.accounting import epsilon
from client.privacy.ledger import Ledger, Spending, events_of
from client.privacy.noise import Source
from client.privacy.plan import OuPlan, Plan
from client.privacy.releases import check_releases, check_uploads
from exchange.errors import LedgerError, PrivacyError
from exchange.spec import Budget, ClientSettings, FederationSettings
from exchange.stores import Store


@dataclass(frozen=True)
class Account:
    """What a client's account has to do with one round."""

    client: ClientSettings
    state: Store
    settings: FederationSettings
    round: int
    plan: Plan

    def check(self, parent: Store) -> None:
        """Raise BudgetExceeded or LedgerError if the round cannot be charged; write nothing.

        Args:
            parent: the parent bucket, whose copies of earlier uploads must be in the account.
        """
        check_releases(self.state, self._ledger.entries)
        check_uploads(self._ledger.entries, parent, self.settings.name, self.client.id)
        self._ledger.check(self._budget, self._spending)

    def charge(self) -> str:
        """Charge the round, unless it is charged already, and return its entry's SHA-256; raises as `check`."""
        return self._ledger.charge(self._budget, self._spending)

    def spent(self) -> dict[str, float]:
        """Return what the update says of its price: ε of this round, and of this federation so far, at its δ."""
        delta = self.plan.privacy.delta
        charges = self._ledger.charges(self._spending.settings_sha256)
        return {
            "delta": delta,
            "epsilon_round": epsilon(self.plan.events, delta),
            "epsilon_federation": epsilon(events_of(charges), delta),
        }

    def accuracy(self, correct: int, normals: Source) -> float:
        """Return the accuracy with noise; its price is part of the round's charge."""
        declared = next(entry.validation_examples for entry in self.settings.client if entry.id == self.client.id)
        if not isinstance(self.plan, OuPlan) or declared is None:
            raise PrivacyError(f"the settings of {self.settings.name} share no accuracy with noise")
        return self.plan.release_accuracy(correct, declared, normals)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self.state, self.client.dataset)

    @property
    def _budget(self) -> Budget:
        if self.client.budget is None:
            raise LedgerError(f"{self.client.id} has no [budget] in its settings: nothing may be spent")
        return self.client.budget

    @cached_property
    def _spending(self) -> Spending:
        mechanism = self.plan.privacy.mechanism
        return Spending(self.settings.name, self.settings.sha256, self.round, mechanism, self.plan.events)
