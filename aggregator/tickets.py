"""What the parent tells a client: that a round has opened, and how the one before ended for it."""

from aggregator.known import Known
from exchange import keys
from exchange.errors import DifferentContent, NotFound
from exchange.records import Summary, Ticket
from exchange.spec import FederationSettings
from exchange.stores import Store, put


def make_ticket(
    settings: FederationSettings, round_: int, client: str, model_sha256: str, before: Summary | None
) -> Ticket:
    """Return the ticket of `client`; `before` is the summary of the round before, None for the first."""
    return Ticket(
        federation=settings.name,
        round=round_,
        model=str(keys.Model(settings.name, round_)),
        sha256=model_sha256,
        settings_sha256=settings.sha256,
        last=_outcome(before, client),
    )


def tell(inbox: Store, ticket: Ticket, known: Known) -> None:
    """Create a ticket, or find it there: a sweep finds nearly all there, reads each once, then only looks for it.

    Raises:
        DifferentContent: there is another one.
    """
    key, data = str(keys.Ticket(ticket.federation, ticket.round)), ticket.to_bytes()
    try:
        version = inbox.stat(key).version
    except NotFound:
        put(inbox, key, data)
        return
    if known.find(inbox.url, key, version, lambda: inbox.read(key, version)) != data:
        raise DifferentContent(f"{key} in {inbox.url} exists with other content than expected")


def _outcome(summary: Summary | None, client: str) -> str | None:
    if summary is None:
        return None
    if client in summary.rejected:
        return f"rejected: {summary.rejected[client]}"
    if client in summary.withdrawn:
        return "withdrawn"
    if client in summary.absent:
        return "absent"
    if client in summary.left_out:
        return "left out"
    return "averaged" if client in summary.averaged else "void"
