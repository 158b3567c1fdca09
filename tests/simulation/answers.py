"""What clients send that did not come of training, or not by our functions."""

from collections.abc import Iterator

import numpy as np

from exchange import keys, tensors
from exchange.documents import Document
from exchange.records import Ticket, Withdrawal
from exchange.spec import FederationSettings
from tests.support.arithmetic import trained, update_file

KINDS = (
    "withdraws",
    "uploads by another tool",
    "uploads by another tool, late",
    "uploads, then withdraws",
    "withdraws, then uploads",
    "withdraws, late",
    "sends nothing at all",
    "sends no safetensors",
    "sends NaN",
    "sends another shape",
    "sends the update of another round",
    "sends half a file",
    "sends rubbish, late",
)
_LATE = 130.0  # seconds; past the deadline


def files(
    settings: FederationSettings, client: str, round_: int, model: bytes, kind: str
) -> Iterator[tuple[float, bool, bytes]]:
    """Yield (delay in seconds, whether it withdraws, bytes) of what is uploaded."""
    withdrawal = Withdrawal(federation=settings.name, round=round_, client=client).to_bytes()
    weights = trained(tensors.load(model), f"{client} by hand", round_)
    good = update_file(weights, client, round_)
    rubbish = {
        "nothing": b"",
        "no": b"not at all a weight file",
        "NaN": update_file({name: array * np.float32("nan") for name, array in weights.items()}, client, round_),
        "another": update_file({name: array.reshape(-1)[:2] for name, array in weights.items()}, client, round_),
        "the": update_file(weights, client, round_ + 1),
        "half": good[: len(good) // 2],
        "rubbish,": b"late, and rubbish",
    }
    late = _LATE if kind.endswith("late") else 0.0
    if kind.startswith("withdraws"):
        yield late, True, withdrawal
    if kind.startswith("uploads") or kind.endswith("then uploads"):
        yield late or (2.0 if "then uploads" in kind else 0.0), False, good
    if kind.endswith("then withdraws"):
        yield 2.0, True, withdrawal
    if kind.startswith("sends"):
        yield late, False, rubbish[kind.split()[1]]


def altered(data: bytes) -> bytes:
    """Return another sound update in place of `data`; something else in place of what is none."""
    try:
        metadata = tensors.layout_of(data).metadata
        arrays = {name: array + array.dtype.type(1) for name, array in tensors.load(data).items()}
    except Exception:  # noqa: BLE001 - it was rubbish
        return data + b"!"
    return tensors.dump(arrays, metadata)


def other_ticket(settings: FederationSettings, round_: int) -> bytes:
    """Return a ticket that names another model than there will be."""
    ticket: Document = Ticket(
        federation=settings.name,
        round=round_,
        model=str(keys.Model(settings.name, round_)),
        sha256="0" * 64,
        settings_sha256=settings.sha256,
        last=None,
    )
    return ticket.to_bytes()
