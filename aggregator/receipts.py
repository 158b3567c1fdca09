"""Admission: is this object an update that can be averaged? The answer is a receipt, given once.

The header is held against the global model's; then one streaming pass over the bytes finds their digest, whether every
value is finite in the global model's dtype, and how far the update is from the global model.
"""

import hashlib
from math import isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exchange import keys, strict_json, tensors
from exchange.blocks import Piece, WeightFile, open_weights, read_all, stripes
from exchange.errors import InvalidTensorFile, UpdateRejected
from exchange.records import (
    LARGEST_METRIC,
    MAX_METRIC_NAME,
    MAX_METRICS,
    Metrics,
    Receipt,
    RejectionCode,
    StoredUpdate,
)
from exchange.spec import ClientEntry, FederationSettings, NoPrivacy
from exchange.stores import Store

_BLOCK_ELEMENTS = 2**18  # 2 MiB of float64 at a time
_DETAIL_CHARACTERS = 300  # a client chooses what it sends; what is repeated of it in a receipt is bounded


def examine(
    store: Store, settings: FederationSettings, entry: ClientEntry, key: keys.Update, model: WeightFile
) -> Receipt:
    """Return the receipt for the answer at `key`, given to a round that starts from `model`.

    Raises:
        StoreError: the store could not be read; no decision was taken.
    """
    if key.withdrawn:
        return Receipt(federation=key.federation, round=key.round, client=key.client, outcome="withdrawn")
    try:
        update = _admit(store, settings, entry, key, model)
    except UpdateRejected as error:
        return Receipt(
            federation=key.federation,
            round=key.round,
            client=key.client,
            outcome="rejected",
            code=RejectionCode(error.code),
            detail=error.detail[:_DETAIL_CHARACTERS],
        )
    return Receipt(federation=key.federation, round=key.round, client=key.client, outcome="accepted", update=update)


def _admit(
    store: Store, settings: FederationSettings, entry: ClientEntry, key: keys.Update, model: WeightFile
) -> StoredUpdate:
    update = _open(store, key, model)
    _check_tensors(update, model)
    _check_origin(update.layout.metadata, key)
    _check_privacy(update.layout.metadata, settings)
    metrics = _shared_metrics(update.layout.metadata, settings)
    digest, norm = _scan(update, model)
    if (limit := settings.round.max_update_norm) is not None and norm > limit:
        raise UpdateRejected(
            RejectionCode.NORM, f"L2 norm of the update is {norm:.6g}, round.max_update_norm is {limit}"
        )
    return StoredUpdate(
        client=key.client,
        key=str(key),
        version=update.version,
        size=update.layout.size,
        sha256=digest,
        num_examples=entry.examples,
        norm=norm,
        metrics=metrics,
    )


def _open(store: Store, key: keys.Update, model: WeightFile) -> WeightFile:
    info = store.stat(str(key))
    # Twice the model's header leaves room for other dtypes and metadata; eight bytes an element is the widest dtype.
    max_header = 2 * model.layout.data_begin + 2**16
    max_size = max_header + 8 * sum(tensor.count for tensor in model.layout.floating)
    if info.size > max_size:
        raise UpdateRejected(RejectionCode.TOO_LARGE, f"{info.size} bytes, expected at most {max_size}")
    try:
        return open_weights(store, str(key), info.version, max_header)
    except InvalidTensorFile as error:
        raise UpdateRejected(RejectionCode.NOT_SAFETENSORS, str(error)) from error


def _check_tensors(update: WeightFile, model: WeightFile) -> None:
    expected = {tensor.name: tensor for tensor in model.layout.floating}
    if missing := sorted(expected.keys() - update.layout.tensors.keys()):
        raise UpdateRejected(RejectionCode.MISSING_TENSOR, f"expected tensors {missing}, which are not there")
    if extra := sorted(update.layout.tensors.keys() - expected.keys()):
        raise UpdateRejected(
            RejectionCode.UNEXPECTED_TENSOR, f"tensors {extra} are not the global model's floating ones"
        )
    for name, tensor in update.layout.tensors.items():
        if not tensor.floating:
            raise UpdateRejected(
                RejectionCode.WRONG_DTYPE, f"tensor {name!r} is {tensor.dtype}, expected a floating one"
            )
        if tensor.shape != expected[name].shape:
            raise UpdateRejected(
                RejectionCode.WRONG_SHAPE, f"tensor {name!r} has shape {tensor.shape}, expected {expected[name].shape}"
            )


def _check_origin(metadata: dict[str, str], key: keys.Update) -> None:
    for field, expected, code in (
        ("federation", key.federation, RejectionCode.WRONG_FEDERATION),
        ("round", str(key.round), RejectionCode.WRONG_ROUND),
        ("client", key.client, RejectionCode.WRONG_CLIENT),
    ):
        if (found := metadata.get(field)) != expected:
            raise UpdateRejected(code, f"metadata names {field} {found!r}, the key {expected!r}")


def _check_privacy(metadata: dict[str, str], settings: FederationSettings) -> None:
    """Hold what the update says of its privacy against what was agreed; a claim, which the bytes cannot prove."""
    agreed = settings.privacy
    if isinstance(agreed, NoPrivacy):
        return
    try:
        statement = strict_json.loads(metadata.get("privacy", "{}").encode())
    except ValueError as error:
        raise UpdateRejected(RejectionCode.PRIVACY, f"the privacy statement is not JSON: {error}") from error
    for field in ("mechanism", "unit", "adjacency", "clip_norm"):
        found = statement.get(field) if isinstance(statement, dict) else None
        if found != (expected := getattr(agreed, field)) or found is True:  # which equals 1.0
            raise UpdateRejected(RejectionCode.PRIVACY, f"the update claims {field} {found!r}, agreed is {expected!r}")


def _shared_metrics(metadata: dict[str, str], settings: FederationSettings) -> Metrics:
    if (text := metadata.get("metrics")) is None:
        return {}
    if settings.metrics.share == "none":
        raise UpdateRejected(RejectionCode.METADATA, "metadata holds metrics, which this federation does not share")
    try:
        metrics = strict_json.loads(text.encode())
    except ValueError as error:
        raise UpdateRejected(RejectionCode.METADATA, f"metrics are not JSON: {error}") from error
    if (
        not isinstance(metrics, dict)
        or len(metrics) > MAX_METRICS
        or any(len(name) > MAX_METRIC_NAME for name in metrics)
        or not all(map(_is_finite_number, metrics.values()))
    ):
        raise UpdateRejected(
            RejectionCode.METADATA,
            f"metrics must map at most {MAX_METRICS} names, of at most {MAX_METRIC_NAME} characters, to finite numbers",
        )
    return {name: float(value) for name, value in metrics.items()}


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_METRIC


def _scan(update: WeightFile, model: WeightFile) -> tuple[str, float]:
    digest = hashlib.sha256(update.read_head())
    square = 0.0
    for pieces in stripes(update.layout.floating, _BLOCK_ELEMENTS):
        values = _read_hashed(update, pieces, digest)
        _check_finite(values, pieces, model)
        with np.errstate(over="ignore"):
            square += float(np.sum((values - read_all(model, pieces)) ** 2))
    if not isfinite(square):
        raise UpdateRejected(RejectionCode.NORM, "the L2 norm of the update is too large for float64")
    return digest.hexdigest(), sqrt(square)


def _read_hashed(update: WeightFile, pieces: list[Piece], digest: "hashlib._Hash") -> NDArray[np.float64]:
    blocks = []
    for dtype, data in update.read_raw(pieces):
        digest.update(data)
        with np.errstate(invalid="ignore"):  # a signalling NaN: rejected like any other, and no warning
            blocks.append(tensors.decode(dtype, data).astype(np.float64))
    return np.concatenate(blocks)


def _check_finite(values: NDArray[np.float64], pieces: list[Piece], model: WeightFile) -> None:
    start = 0
    for piece in pieces:
        dtype = model.layout.tensors[piece.name].dtype
        largest = np.abs(values[start : start + piece.count]).max()
        if not largest <= tensors.LARGEST[dtype]:  # a NaN fails every comparison
            raise UpdateRejected(
                RejectionCode.NON_FINITE, f"tensor {piece.name!r} holds a value that is not finite in {dtype}"
            )
        start += piece.count
