"""Settings of small federations."""

from collections.abc import Mapping, Sequence
from typing import Any

from exchange.spec import Agreement, Budget, ClientSettings, FederationSettings, NoPrivacy, validate

EXAMPLES = {"alder": 100, "birch": 50, "cedar": 7}  # no two weights alike: a mean that mixes them up is another one
CLIENTS = tuple(EXAMPLES)
DEADLINE = 100  # seconds
PRIVATE = {
    "mechanism": "ornstein-uhlenbeck",
    "unit": "client",
    "epsilon": 8.0,
    "delta": 1e-5,
    "clip_norm": 1.0,
}


def federation_settings(
    clients: Sequence[str] = CLIENTS,
    rounds: int = 3,
    quorum: int = 2,
    inboxes: bool | Sequence[str] = True,
    **sections: Any,
) -> FederationSettings:
    """Return the settings of the federation "orchard".

    Args:
        inboxes: whether clients have inboxes, or which.
        sections: go over what is here, table by table.
    """
    with_inbox = inboxes if not isinstance(inboxes, bool) else clients if inboxes else ()
    content: dict[str, Any] = {
        "name": "orchard",
        "rounds": rounds,
        "round": {"quorum": quorum, "deadline": DEADLINE},
        "train": {"learning_rate": 0.1},
        "privacy": {"mechanism": "none"},
        "client": [
            {"id": client, "examples": EXAMPLES.get(client, 10)}
            | ({"inbox": f"gs://{client}"} if client in with_inbox else {})
            for client in clients
        ],
    }
    for name, value in sections.items():
        content[name] = content.get(name, {}) | value if isinstance(value, Mapping) else value
    return validate(FederationSettings, content, "test")


def client_settings(client: str, settings: FederationSettings, **agreement: Any) -> ClientSettings:
    """Return the settings of a client that agrees to `settings`; `agreement` goes over its agreement."""
    privacy = settings.privacy
    agreed: dict[str, Any] = {
        "federation": settings.name,
        "task": "task.py",
        "settings_sha256": settings.sha256,
        "mechanisms": (privacy.mechanism,),
        "share_metrics": settings.metrics.share != "none",
    }
    budget = None
    if not isinstance(privacy, NoPrivacy):
        agreed["max_epsilon"] = privacy.epsilon
        budget = Budget(
            unit=privacy.unit, adjacency=privacy.adjacency, epsilon=privacy.epsilon * 1.001, delta=privacy.delta
        )
    return ClientSettings(
        id=client, data="data", budget=budget, agreement=(Agreement.model_validate(agreed | agreement),)
    )
