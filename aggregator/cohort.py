"""When a round closes, and with whom: one pure function of the receipts and the clock.

A round closes when a quorum is accepted and either every client of the roster has answered or the deadline has passed.
It is void when those accepted and those yet to answer can no longer reach the quorum, or when twice the deadline has
passed without it. Until one of these holds it stays open; one of them always comes to hold.
"""

from collections.abc import Mapping

from exchange.records import Cohort, Receipt
from exchange.spec import FederationSettings


def close(
    settings: FederationSettings, round_: int, receipts: Mapping[str, Receipt], age: float, frozen_by: str
) -> Cohort | None:
    """Return the cohort with which the round closes now; None while it stays open.

    Args:
        receipts: by client.
        age: seconds since the creation of the round's model, by the store's clock.
        frozen_by: the id of the event that asks.
    """
    accepted = sorted(client for client, receipt in receipts.items() if receipt.outcome == "accepted")
    absent = [client for client in settings.roster if client not in receipts]
    quorum, deadline = settings.round.quorum, settings.round.deadline
    has_quorum = len(accepted) >= quorum
    void = len(accepted) + len(absent) < quorum or (not has_quorum and age >= 2 * deadline)
    if not void and not (has_quorum and (not absent or age >= deadline)):
        return None
    members = [] if void else [receipts[client].update for client in accepted]
    return Cohort(
        federation=settings.name,
        round=round_,
        members=tuple(member for member in members if member is not None),
        void=void,
        rejected={client: receipt.code for client, receipt in sorted(receipts.items()) if receipt.code is not None},
        withdrawn=tuple(sorted(client for client, receipt in receipts.items() if receipt.outcome == "withdrawn")),
        absent=tuple(absent),
        frozen_by=frozen_by,
    )
