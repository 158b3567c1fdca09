"""What an organisation agrees to: checked before anything is created, by name."""

from exchange.errors import ConsentRefused
from exchange.spec import Agreement, ClientSettings, FederationSettings


def check(client: ClientSettings, federation: str, settings: FederationSettings) -> Agreement:
    """Return the agreement under which `client` takes part.

    Raises:
        ConsentRefused: the federation is outside what was agreed; every objection is listed.
    """
    agreement = agreed(client, federation)
    if objections := _objections(agreement, settings, client.id):
        lines = "\n".join(f"  {objection}" for objection in objections)
        raise ConsentRefused(f"{client.id} does not agree to {federation}; nothing was sent:\n{lines}")
    return agreement


def agreed(client: ClientSettings, federation: str) -> Agreement:
    """Return what `client` agreed to for `federation`; raises ConsentRefused if it is nothing."""
    if (agreement := client.agreement_on(federation)) is None:
        raise ConsentRefused(f"{client.id} has no [[agreement]] on {federation!r} in its settings; nothing was sent")
    return agreement


def _objections(agreement: Agreement, settings: FederationSettings, client: str) -> list[str]:
    found = []
    if settings.name != agreement.federation:
        found.append(f"the settings are of {settings.name!r}, the agreement is on {agreement.federation!r}")
    if agreement.settings_sha256 is None:
        found.append(
            f"settings_sha256 is not pinned; to agree to the settings as they are, set it to {settings.sha256}"
        )
    elif agreement.settings_sha256 != settings.sha256:
        found.append(f"settings_sha256 is pinned to {agreement.settings_sha256}, the settings have {settings.sha256}")
    if settings.privacy.mechanism not in agreement.mechanisms:
        found.append(f"privacy.mechanism is {settings.privacy.mechanism!r}, agreed are {list(agreement.mechanisms)}")
    if agreement.max_rounds is not None and settings.rounds > agreement.max_rounds:
        found.append(f"rounds is {settings.rounds}, agreed are at most {agreement.max_rounds}")
    if settings.metrics.share != "none" and not agreement.share_metrics:
        found.append(f"metrics.share is {settings.metrics.share!r}, share_metrics is not agreed")
    entry = settings.entry(client)
    if entry is None:
        found.append(f"{client} is not on the roster: {settings.roster}")
    elif agreement.max_examples is not None and entry.examples > agreement.max_examples:
        found.append(f"examples of {client} is {entry.examples}, agreed are at most {agreement.max_examples}")
    return found
