"""The settings: what the parties agree on, and what one organisation keeps to itself.

`federation.toml` is read once, by whoever starts a federation, and becomes `federation.json` in the parent bucket with
every default written out: immutable, known by the SHA-256 of its bytes. `client.toml` never leaves its organisation.
"""

from exchange.spec.client import Agreement, Budget, ClientSettings
from exchange.spec.federation import (
    MAX_ROUNDS,
    ClientEntry,
    FederationSettings,
    MetricsSettings,
    RoundSettings,
    StopSettings,
    TrainSettings,
)
from exchange.spec.fields import Count, FederationName, Identifier, Positive, Seconds, Sha256, Share, StoreUrl
from exchange.spec.identity import AzureInGoogle, GoogleInAzure, Identity
from exchange.spec.parent import ParentSettings
from exchange.spec.privacy import DpSgdPrivacy, NoPrivacy, OrnsteinUhlenbeckPrivacy, Privacy
from exchange.spec.reading import (
    check_identifier,
    client_from_environment,
    parent_from_environment,
    read_client,
    read_federation,
    read_toml,
    validate,
)
from exchange.spec.strategy import (
    FedAdagrad,
    FedAdaptive,
    FedAvg,
    FedAvgM,
    Median,
    MultiKrum,
    ServerOptimizer,
    Strategy,
    TrimmedMean,
)

__all__ = [
    "MAX_ROUNDS",
    "Agreement",
    "AzureInGoogle",
    "Budget",
    "ClientEntry",
    "ClientSettings",
    "Count",
    "DpSgdPrivacy",
    "FedAdagrad",
    "FedAdaptive",
    "FedAvg",
    "FedAvgM",
    "FederationName",
    "FederationSettings",
    "GoogleInAzure",
    "Identifier",
    "Identity",
    "Median",
    "MetricsSettings",
    "MultiKrum",
    "NoPrivacy",
    "OrnsteinUhlenbeckPrivacy",
    "ParentSettings",
    "Positive",
    "Privacy",
    "RoundSettings",
    "Seconds",
    "ServerOptimizer",
    "Sha256",
    "Share",
    "StopSettings",
    "StoreUrl",
    "Strategy",
    "TrainSettings",
    "TrimmedMean",
    "check_identifier",
    "client_from_environment",
    "parent_from_environment",
    "read_client",
    "read_federation",
    "read_toml",
    "validate",
]
