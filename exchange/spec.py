"""The settings: what the parties agree on, and what one organisation keeps to itself.

`federation.toml` is read once, by whoever starts a federation, and becomes `federation.json` in the parent bucket with
every default written out: immutable, known by the SHA-256 of its bytes. `client.toml` never leaves its organisation.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from exchange.documents import Document, problems, sha256
from exchange.errors import SettingsError
from exchange.keys import FEDERATION, IDENTIFIER

MAX_ROUNDS = 10_000  # far above use; keeps round numbers within the key grammar
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"(\d+)\s*([smhd])", value):
        return int(match[1]) * _SECONDS[match[2]]
    raise ValueError("expected a duration such as '90s', '30m', '2h' or '1d'")


def _matching(pattern: str, expectation: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"expected {expectation}")
        return value

    return AfterValidator(check)


Identifier = Annotated[str, _matching(IDENTIFIER, "1 to 63 lower-case letters, digits and inner hyphens")]
FederationName = Annotated[
    str, _matching(FEDERATION, "1 to 63 lower-case letters, digits and inner hyphens, and not 'ledger'")
]
Sha256 = Annotated[str, _matching("[0-9a-f]{64}", "a SHA-256: 64 hexadecimal digits")]
StoreUrl = Annotated[
    str, _matching("(file|gs|az|s3)://.+", "a bucket: file://…, gs://…, az://account/container or s3://…")
]
Seconds = Annotated[int, BeforeValidator(_duration), Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


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


class NoPrivacy(Document):
    """No noise. It must be written out: a federation without a privacy section does not train."""

    mechanism: Literal["none"]


class OrnsteinUhlenbeckPrivacy(Document):
    """Noise by an Ornstein-Uhlenbeck process on each round's difference: local weights − global weights.

    Unit "example" needs one full-batch step a round, or a model that is known to be convex; unit "client" takes any
    local training.
    """

    mechanism: Literal["ornstein-uhlenbeck"]
    unit: Literal["example", "client"]
    """What one account protects: one example of a client (a patient's row), or all that a client has."""
    adjacency: Literal["add-or-remove", "replace-one"]
    """What happens to the unit between neighbours; by default "add-or-remove" an example, "replace-one" client."""
    epsilon: Positive
    """ε of all rounds together, for one client's data."""
    delta: Share
    clip_norm: Positive
    """Unit "example": the largest L2 norm of an example's gradient. Unit "client": of the whole difference."""
    theta: Annotated[float, Field(ge=0)] = 1.0
    """θ, the rate at which the process reverts to the global model; changes nothing in ε."""
    time: Positive = 0.25
    """t, how long it runs; with θ = 1, e^(−θt) = 0.78 of the difference is left."""
    debias: Literal["exact", "none", "optimal"] = "exact"
    """What the release is multiplied by afterwards: 1/a, nothing, or a*/a; changes nothing in ε."""

    @model_validator(mode="before")
    @classmethod
    def _adjacency_of_the_unit(cls, values: Any) -> Any:
        if isinstance(values, dict) and "adjacency" not in values:
            return values | {"adjacency": "replace-one" if values.get("unit") == "client" else "add-or-remove"}
        return values


class DpSgdPrivacy(Document):
    """Noise in every step of local training (Abadi et al. 2016); for several steps a round, and deep models.

    A round takes local_epochs / sampling_probability steps. With train.proximal_mu it is an Ornstein-Uhlenbeck process,
    discretised.
    """

    mechanism: Literal["dp-sgd"]
    unit: Literal["example"] = "example"
    adjacency: Literal["add-or-remove"] = "add-or-remove"
    """The one for which sampled steps have an exact account."""
    epsilon: Positive
    """ε of all rounds together, for one client's data."""
    delta: Share
    clip_norm: Positive
    """The largest L2 norm of an example's gradient."""
    sampling_probability: Annotated[float, Field(gt=0, le=1)]
    """With which each example takes part in a step; the expected batch is this share of the declared examples."""


Privacy = Annotated[NoPrivacy | OrnsteinUhlenbeckPrivacy | DpSgdPrivacy, Field(discriminator="mechanism")]


class ClientEntry(Document):
    """One organisation on the roster."""

    id: Identifier
    examples: Count
    """Declared number of examples: weight, sensitivity and divisor use it; at most so many are used, chosen fixedly."""
    validation_examples: Count | None = None
    """Declared number of validation examples; what a noised metric is divided by."""
    inbox: StoreUrl | None = None
    """The client's bucket for tickets; None for a client that looks for itself."""


class FederationSettings(Document):
    """Everything the parties agree on."""

    name: FederationName
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]
    round: RoundSettings
    train: TrainSettings
    privacy: Privacy
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
    if undeclared := [entry.id for entry in settings.client if entry.validation_examples is None]:
        return f'metrics.share: "noised" needs validation_examples of every client; missing for {undeclared}'
    return None


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
    dataset: Identifier = "data"
    """The name of the privacy account: one data set, one account, whatever the federation."""
    budget: Budget | None = None
    """What may be spent on the data set in all; without it only mechanism "none" trains."""
    device: str = "cpu"
    micro_batch: Count = 64
    """Examples whose gradients are held at a time: memory grows with it, results do not depend on it."""
    agreement: tuple[Agreement, ...] = ()

    @model_validator(mode="after")
    def _agrees_once(self) -> Self:
        names = Counter(agreement.federation for agreement in self.agreement)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"agreement: expected one for each federation, got more for {', '.join(twice)}")
        return self

    def agreement_on(self, federation: str) -> Agreement | None:
        """Return what was agreed for `federation`, None if nothing was."""
        return next((agreement for agreement in self.agreement if agreement.federation == federation), None)


_Settings = TypeVar("_Settings", bound=Document)


def check_identifier(name: str) -> None:
    """Raise SettingsError unless `name` can be the name of a federation or a client."""
    if len(name) > 63 or not re.fullmatch(IDENTIFIER, name, re.ASCII):
        raise SettingsError("name", [f"expected 1 to 63 lower-case letters, digits and inner hyphens, got {name!r}"])


def read_federation(path: Path) -> FederationSettings:
    """Return the settings in federation.toml; raises SettingsError with every mistake."""
    return validate(FederationSettings, read_toml(path), str(path))


def read_client(path: Path) -> ClientSettings:
    """Return the settings in client.toml; raises SettingsError with every mistake."""
    return validate(ClientSettings, read_toml(path), str(path))


def client_from_environment(environment: Mapping[str, str]) -> ClientSettings:
    """Return the settings in FEDBUCKET_CLIENT, the text of a client.toml; raises SettingsError with every mistake."""
    if (text := environment.get("FEDBUCKET_CLIENT")) is None:
        raise SettingsError("environment", ["FEDBUCKET_CLIENT: expected the text of a client.toml, got nothing"])
    return validate(ClientSettings, _parse_toml(text, "FEDBUCKET_CLIENT"), "FEDBUCKET_CLIENT")


def validate(kind: type[_Settings], content: Mapping[str, Any], source: str) -> _Settings:
    """Return `content` as `kind`; raises SettingsError with every mistake, said to be in `source`."""
    try:
        # By way of JSON, so that TOML and JSON settings are held to the same, strict, types.
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise SettingsError(source, problems(error, content)) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; raises SettingsError."""
    try:
        return _parse_toml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(str(path), [f"cannot be read: {error}"]) from error


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(source, [f"not TOML: {error}"]) from error
