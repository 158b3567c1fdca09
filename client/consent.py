"""What an organisation agrees to: checked before anything is created, by name."""

from exchange.errors import ConsentRefused
from exchange.spec import Agreement, ClientSettings, FederationSettings, NoPrivacy


def check(client: ClientSettings, federation: str, settings: FederationSettings) -> Agreement:
    """Return the agreement under which `client` takes part.

    Raises:
        ConsentRefused: the federation is outside what was agreed; every objection is listed.
    """
    agreement = agreed(client, federation)
    if objections := _objections(client, agreement, settings):
        lines = "\n".join(f"  {objection}" for objection in objections)
        raise ConsentRefused(f"{client.id} does not agree to {federation}; nothing was sent:\n{lines}")
    return agreement


def check_round(client: ClientSettings, settings: FederationSettings, round_: int) -> None:
    """Raise ConsentRefused for a round beyond the last: the ε that was agreed is that of so many rounds."""
    if round_ >= settings.rounds:
        raise ConsentRefused(
            f"{client.id} agreed to {settings.rounds} rounds of {settings.name}, from 0, and round {round_} is open; "
            "nothing was sent: more rounds are a new federation, with a name of its own"
        )


def agreed(client: ClientSettings, federation: str) -> Agreement:
    """Return what `client` agreed to for `federation`; raises ConsentRefused if it is nothing."""
    if (agreement := client.agreement_on(federation)) is None:
        raise ConsentRefused(f"{client.id} has no [[agreement]] on {federation!r} in its settings; nothing was sent")
    return agreement


def _objections(client: ClientSettings, agreement: Agreement, settings: FederationSettings) -> list[str]:
    found = []
    if settings.name != agreement.federation:
        found.append(f"the settings are of {settings.name!r}, the agreement is on {agreement.federation!r}")
    if agreement.settings_sha256 is None:
        found.append(
            f"settings_sha256 is not pinned; to agree to the settings as they are, set it to {settings.sha256}"
        )
    elif agreement.settings_sha256 != settings.sha256:
        found.append(f"settings_sha256 is pinned to {agreement.settings_sha256}, the settings have {settings.sha256}")
    found += _privacy_objections(client, agreement, settings)
    if agreement.max_rounds is not None and settings.rounds > agreement.max_rounds:
        found.append(f"rounds is {settings.rounds}, agreed are at most {agreement.max_rounds} (max_rounds)")
    if settings.metrics.share == "open" and not agreement.share_metrics:
        found.append(f"metrics.share is {settings.metrics.share!r}, share_metrics is not agreed")
    entry = settings.entry(client.id)
    if entry is None:
        found.append(f"{client.id} is not on the roster: {settings.roster}")
    elif agreement.max_examples is not None and entry.examples > agreement.max_examples:
        found.append(
            f"examples of {client.id} is {entry.examples}, agreed are at most {agreement.max_examples} (max_examples)"
        )
    return found


def _privacy_objections(client: ClientSettings, agreement: Agreement, settings: FederationSettings) -> list[str]:
    privacy, budget = settings.privacy, client.budget
    found = []
    if privacy.mechanism not in agreement.mechanisms:
        found.append(
            f"privacy.mechanism is {privacy.mechanism!r}, agreed are {list(agreement.mechanisms)} (mechanisms)"
        )
    if isinstance(privacy, NoPrivacy):
        return found
    unit = f"unit: one {privacy.unit}, {privacy.adjacency}; δ = {privacy.delta:g}"
    if agreement.max_epsilon is None:
        found.append(f"max_epsilon is not set; the federation asks for ε = {privacy.epsilon:g} ({unit})")
    elif privacy.epsilon > agreement.max_epsilon:
        found.append(
            f"privacy.epsilon is {privacy.epsilon:g} ({unit}), agreed are at most {agreement.max_epsilon:g} "
            "(max_epsilon)"
        )
    if budget is None:
        found.append("the client's settings have no [budget]: nothing may be spent")
    elif (budget.unit, budget.adjacency) != (privacy.unit, privacy.adjacency):
        found.append(
            f"the federation protects one {privacy.unit} ({privacy.adjacency}), "
            f"the budget is for one {budget.unit} ({budget.adjacency})"
        )
    return found
