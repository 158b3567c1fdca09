"""What the parties agree on."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from exchange.documents import Document, sha256
from exchange.spec.fields import Count, FederationName, Identifier, Positive, Seconds, WatchedUrl
from exchange.spec.privacy import DpSgdPrivacy, OrnsteinUhlenbeckPrivacy, Privacy
from exchange.spec.strategy import FedAvg, MultiKrum, Strategy, TrimmedMean

MAX_ROUNDS = 10_000  # far above use; keeps round numbers within the key grammar


class RoundSettings(Document):
    """When a round closes, and what it takes in."""

    quorum: Count
    """How many accepted updates a round needs once its deadline has passed."""
    deadline: Seconds
    """Seconds from the creation of the round's model, by the store's clock."""
    max_update_norm: Positive | None = None
    """The largest accepted L2 norm of (update − global model); None takes any finite one."""


class TrainSettings(Document):
    """Local training in one round."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    local_epochs: Count = 1
    batch_size: Count | None = None
    """Examples in a step; None takes all of them."""
    gradient_clip: Positive | None = None
    """The largest L2 norm of a step's gradient; a matter of stability, not of privacy."""
    proximal_mu: Annotated[float, Field(ge=0)] = 0.0
    """FedProx: μ/2·‖w − global‖² is added to the loss (Li et al. 2020)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Fixes initial weights and batch order; never any privacy noise."""


class StopSettings(Document):
    """When to stop before the last round."""

    tolerance: Positive | None = None
    """Stop when ‖new model − old model‖ / ‖old model‖ falls below it."""
    patience: Count | None = None
    """Stop when the shared `metric` has not improved for so many rounds."""
    metric: str = "accuracy"
    """A metric that clients share; greater is better."""


class MetricsSettings(Document):
    """What clients share of their own evaluation of each global model."""

    share: Literal["none", "noised", "open"] = "none"
    """none; the accuracy with noise, charged to the same account; or openly, which is outside every guarantee."""
    noise_multiplier: Positive | None = None
    """Of "noised": the sd of the noise on the number of correct answers, for each round."""


class ClientEntry(Document):
    """One organisation on the roster."""

    id: Identifier
    examples: Count
    """Declared number of examples: weight, sensitivity and divisor use it; at most so many are used, chosen fixedly."""
    validation_examples: Count | None = None
    """Declared number of validation examples; what a noised metric is divided by."""
    inbox: WatchedUrl | None = None
    """The client's bucket for tickets; None for a client that looks for itself."""


class FederationSettings(Document):
    """Everything the parties agree on."""

    name: FederationName
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    round: RoundSettings
    train: TrainSettings
    privacy: Privacy
    strategy: Strategy = FedAvg(name="fedavg")
    stop: StopSettings = StopSettings()
    metrics: MetricsSettings = MetricsSettings()
    client: Annotated[tuple[ClientEntry, ...], Field(min_length=1)]

    _published: bytes = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Take the one encoding for what is published, until `from_bytes` knows better."""
        self._published = self.to_bytes()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if mistakes := list(self._contradictions()):
            raise ValueError("\n".join(mistakes))
        return self

    def _contradictions(self) -> Iterator[str]:
        if twice := sorted(client for client, count in Counter(self.roster).items() if count > 1):
            yield f"client: expected every id once, got more than one {', '.join(twice)}"
        if (quorum := self.round.quorum) > len(self.client):
            yield f"round.quorum: expected at most {len(self.client)}, the number of clients, got {quorum}"
        if message := _unfit_training(self.privacy, self.train):
            yield message
        if message := _unfit_metrics(self):
            yield message
        yield from _unfit_strategy(self)
        if self.train.momentum and self.train.optimizer != "sgd":
            yield f"train.momentum: is of sgd, expected 0 with {self.train.optimizer}, got {self.train.momentum:g}"
        if self.stop.patience is not None and self.metrics.share == "none":
            yield 'stop.patience: expected none, or metrics.share other than "none", for it watches a shared metric'

    @property
    def roster(self) -> list[str]:
        """The ids of all clients, sorted."""
        return sorted(entry.id for entry in self.client)

    def entry(self, client: str) -> ClientEntry | None:
        """Return the roster's entry of `client`, None if it is not on it."""
        return next((entry for entry in self.client if entry.id == client), None)

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Self:
        """Return the settings in federation.json, which keep its digest; raises InvalidDocument."""
        settings = super().from_bytes(data, source)
        settings._published = data
        return settings

    @property
    def sha256(self) -> str:
        """The digest that clients pin: of the bytes of federation.json.

        Of the bytes as they were published: a later version, which knows more settings, must not write them anew.
        """
        return sha256(self._published)


def _unfit_training(privacy: Privacy, train: TrainSettings) -> str | None:
    """Return what in the training does not fit the mechanism; None if nothing."""
    match privacy:
        case OrnsteinUhlenbeckPrivacy(unit="client", adjacency="add-or-remove"):
            return 'privacy.adjacency: unit "client" replaces all that a client has: expected "replace-one"'
        case OrnsteinUhlenbeckPrivacy(unit="example"):
            plain = train.optimizer == "sgd" and not train.momentum and not train.proximal_mu
            if not plain or train.batch_size is not None or train.gradient_clip is not None:
                return (
                    'train: unit "example" of this mechanism takes full-batch steps of plain sgd: leave out '
                    'batch_size, momentum, gradient_clip and proximal_mu, or take privacy.mechanism = "dp-sgd"'
                )
        case DpSgdPrivacy() if train.batch_size is not None or train.gradient_clip is not None:
            return (
                "train: under dp-sgd privacy.sampling_probability sets the batch and privacy.clip_norm clips: "
                "leave out batch_size and gradient_clip"
            )
    return None


def _unfit_metrics(settings: "FederationSettings") -> str | None:
    """Return what in the sharing of metrics does not fit the rest; None if nothing."""
    share, privacy = settings.metrics, settings.privacy
    if (share.share == "noised") != (share.noise_multiplier is not None):
        return 'metrics.noise_multiplier: belongs to share = "noised", and that needs it'
    if share.share != "noised":
        return None
    if not isinstance(privacy, OrnsteinUhlenbeckPrivacy) or privacy.unit != "example":
        return 'metrics.share: "noised" goes with mechanism "ornstein-uhlenbeck" and unit "example" only'
    if settings.stop.patience is not None and settings.stop.metric != "accuracy":
        return f'stop.metric: "noised" shares the accuracy only, expected "accuracy", got "{settings.stop.metric}"'
    if undeclared := [entry.id for entry in settings.client if entry.validation_examples is None]:
        return f'metrics.share: "noised" needs validation_examples of every client; missing for {undeclared}'
    return None


def _unfit_strategy(settings: "FederationSettings") -> Iterator[str]:
    """Yield what in the strategy does not fit the rest."""
    strategy, privacy, quorum = settings.strategy, settings.privacy, settings.round.quorum
    exact = isinstance(privacy, OrnsteinUhlenbeckPrivacy) and privacy.debias == "exact"
    if getattr(strategy, "weights", None) == "precision" and not exact:
        yield (
            'strategy.weights: "precision" weighs by the known noise of each release: expected privacy.mechanism = '
            '"ornstein-uhlenbeck" with debias = "exact"'
        )
    match strategy:
        case TrimmedMean(byzantine=byzantine) if quorum <= 2 * byzantine:
            yield f"strategy.byzantine: something must be left of {quorum}, the quorum: expected less than half of it"
        case MultiKrum(byzantine=byzantine) if quorum < 2 * byzantine + 3:
            yield f"strategy.byzantine: multi-krum needs 2f + 3 updates, and the quorum is {quorum}, f {byzantine}"
        case MultiKrum(byzantine=byzantine, select=select) if select is not None and select > quorum - byzantine:
            yield f"strategy.select: expected at most {quorum - byzantine}, the quorum without f, got {select}"
