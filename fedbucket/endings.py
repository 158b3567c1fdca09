"""How a federation ended, in words."""

REASONS = {
    "tolerance": "the model changed by less than the agreed tolerance",
    "patience": "the metrics that clients share had stopped improving",
    "void": "three rounds in a row were void",
}


def ending(rounds: int, reason: str) -> str:
    """Return after how many rounds it ended and, unless those were all that it had, why."""
    of = f"{rounds} round{'s' * (rounds != 1)}"
    return f"finished after {of}" if reason == "rounds" else f"stopped after {of}: {REASONS.get(reason, reason)}"
