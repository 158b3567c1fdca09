"""What one organisation keeps to itself."""

from collections import Counter
from typing import Literal, Self

from pydantic import model_validator

from exchange.documents import Document
from exchange.spec.fields import (
    Count,
    FederationName,
    Identifier,
    Positive,
    Seconds,
    Sha256,
    Share,
    StoreUrl,
    WatchedUrl,
)
from exchange.spec.identity import Identity


class Budget(Document):
    """What an organisation grants on one data set, over all federations together."""

    unit: Literal["example", "client"]
    adjacency: Literal["add-or-remove", "replace-one"]
    epsilon: Positive
    delta: Share


class Agreement(Document):
    """What an organisation agrees to for one federation; anything outside is refused by name."""

    federation: FederationName
    task: str
    """The path of the task module, deployed by the organisation itself."""
    parent: StoreUrl | None = None
    """The parent bucket; `fedbucket run` brings its own."""
    settings_sha256: Sha256 | None = None
    """The pinned settings. Required wherever the parent is somebody else."""
    mechanisms: tuple[str, ...] = ("none",)
    max_epsilon: Positive | None = None
    """The largest ε of the whole federation; required for any mechanism but "none"."""
    max_rounds: Count | None = None
    max_examples: Count | None = None
    """The largest number of examples that it will disclose to have."""
    share_metrics: bool = False


class ClientSettings(Document):
    """One organisation's own settings."""

    id: Identifier
    data: str
    """Handed to the task's data(source, split); a path is relative to the settings' folder."""
    state: StoreUrl | None = None
    """Private state: ledger, releases; where the parent has no right. `fedbucket run` brings its own."""
    inbox: WatchedUrl | None = None
    """Its bucket for tickets, if it has one; `fedbucket run` brings its own."""
    time_limit: Seconds = 540
    """How long one of its functions may run; what one has begun, another leaves to it for so long."""
    dataset: Identifier = "data"
    """The name of the privacy account: one data set, one account, whatever the federation."""
    budget: Budget | None = None
    """What may be spent on the data set in all; without it only mechanism "none" trains."""
    device: str = "cpu"
    micro_batch: Count = 64
    """Examples whose gradients are held at a time: memory grows with it, results do not depend on it."""
    agreement: tuple[Agreement, ...] = ()
    identity: tuple[Identity, ...] = ()
    """Who its functions are in another cloud, for the parent's bucket there."""

    @model_validator(mode="after")
    def _agrees_once(self) -> Self:
        names = Counter(agreement.federation for agreement in self.agreement)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"agreement: expected one for each federation, got more for {', '.join(twice)}")
        return self

    def agreement_on(self, federation: str) -> Agreement | None:
        """Return what was agreed for `federation`, None if nothing was."""
        return next((agreement for agreement in self.agreement if agreement.federation == federation), None)
