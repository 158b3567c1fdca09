"""Taking part from a machine of one's own: no event wakes it, so it looks for new models, and says what it does."""

import logging
import time
from dataclasses import replace

from client.checkpoints import Saves
from client.privacy.accounting import epsilon
from client.privacy.ledger import Ledger, events_of
from client.privacy.plan import Plan
from client.rounds import Client, Learn, sweep_federation
from client.update import Learned
from exchange import keys
from exchange.errors import ConsentRefused, FedbucketError, PrivacyError, SettingsError, StoreUnavailable
from exchange.public import newest_model, read_settings
from exchange.records import Finished
from exchange.spec import Agreement, FederationSettings, NoPrivacy
from exchange.stores import Store, exists
from fedbucket.endings import ending

log = logging.getLogger(__name__)

_PERMANENT = (ConsentRefused, PrivacyError, SettingsError)  # a person must act before trying again can help


class Participation:
    """A client's part in all federations that it agreed to.

    Args:
        alone: whether no other process acts for the client, so that what was begun was left behind by one that died.
    """

    def __init__(self, client: Client, alone: bool) -> None:
        self._client = replace(client, learn=_announced(client.learn))
        self._alone = alone
        self._waiting = {agreement.federation: agreement for agreement in client.settings.agreement}
        self._failed: set[str] = set()
        self._refused: set[str] = set()
        self._said: set[str] = set()
        self._account_found = False

    def go_on(self, every: float) -> bool:
        """Take part until each federation is finished or refused; return whether all are finished.

        Args:
            every: seconds between two looks.
        """
        self.look()
        while self._waiting:
            time.sleep(every)
            self.look()
        return not self._refused

    def look(self) -> bool:
        """Do in each federation what is to be done now; return whether nothing failed."""
        well = True
        for name, agreement in list(self._waiting.items()):
            try:
                if self._take_part(agreement):
                    del self._waiting[name]
            except _PERMANENT as error:
                log.error(
                    "%s: %s\n%s: it is left alone from now on; start again once that is mended", name, error, name
                )
                del self._waiting[name]
                self._refused.add(name)
                well = False
            except StoreUnavailable as error:
                well = False
                log.warning("%s: %s; trying again", name, error)
            except FedbucketError as error:
                well = False
                self._failed.add(name)
                log.error("%s: %s: %s\n%s: trying again", name, type(error).__name__, error, name)
        return well

    def _take_part(self, agreement: Agreement) -> bool:
        """Answer the newest model, if that is to be done; return whether the run is over."""
        name, parent = agreement.federation, self._client.open_parent(agreement)
        self._find_account(agreement)
        if exists(parent, key := str(keys.Finished(name))):
            finished = Finished.from_bytes(parent.read(key), key)
            log.info("%s: %s", name, ending(finished.round, finished.reason))
            return True
        # What failed here is not tried again at once: that would be at every look.
        patient = name in self._failed or not self._alone
        client = self._client if patient else replace(self._client, time_limit=0)
        if update := sweep_federation(client, agreement):
            self._failed.discard(name)
            answer = "withdrawn: the budget cannot bear it" if update.withdrawn else "update uploaded"
            log.info("%s: round %d: %s%s", name, update.round, answer, self._spent(parent, name))
        elif newest_model(parent, name) is None and name not in self._said:
            self._said.add(name)
            log.info("%s: waiting for the first model in %s", name, parent.url)
        return False

    def _find_account(self, agreement: Agreement) -> None:
        """Raise LedgerError, before the first round opens, if privacy is agreed and there is no account."""
        if not self._account_found and set(agreement.mechanisms) - {"none"}:
            Ledger(self._client.state, self._client.settings.dataset).read()
            self._account_found = True

    def _spent(self, parent: Store, federation: str) -> str:
        budget = self._client.settings.budget
        if budget is None or isinstance(read_settings(parent, federation).privacy, NoPrivacy):
            return ""
        charges = Ledger(self._client.state, self._client.settings.dataset).read()[1]
        spent = epsilon(events_of(charges), budget.delta)
        unit = f"unit: one {budget.unit}, {budget.adjacency}; δ = {budget.delta:g}"
        return f"; ε = {spent:.4g} of {budget.epsilon:g} is spent on {self._client.settings.dataset!r} ({unit})"


def _announced(learn: Learn) -> Learn:
    def announced(
        agreement: Agreement,
        settings: FederationSettings,
        round_: int,
        model: bytes,
        plan: Plan | None,
        saves: Saves,
        /,
    ) -> Learned:
        log.info("%s: round %d (%d/%d): training", settings.name, round_, round_ + 1, settings.rounds)
        return learn(agreement, settings, round_, model, plan, saves)

    return announced
