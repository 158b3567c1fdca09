"""What a client may upload instead of a sound update, from real bytes: a receipt says why it was rejected, and the
round goes on with the others."""

import io
import json
import re
import zipfile

import numpy as np
import pytest

from aggregator import rounds as parent_rounds
from exchange import keys
from exchange.errors import CohortUnreadable, VersionMismatch
from tests.support.arithmetic import FIRST, file_of, mean, model_file, reference, trained, update_file
from tests.support.buckets import contents
from tests.support.federation import Federation
from tests.support.settings import DEADLINE, PRIVATE, federation_settings
from tests.support.watched import WatchedStore

GOOD = trained(FIRST, "birch", 0)
SOUND = update_file(GOOD, "birch", 0)
WEIGHT, BIAS = "layer.weight", "layer.bias"


def with_bias(*values: float, dtype: type = np.float32) -> bytes:
    return update_file(GOOD | {BIAS: np.array(values, dtype)}, "birch", 0)


def with_header(change) -> bytes:
    """Return the sound update with its header, as a dict, changed in place by `change`."""
    length = int.from_bytes(SOUND[:8], "little")
    header = json.loads(SOUND[8 : 8 + length])
    header = change(header) or header
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + SOUND[8 + length :]


def signalling_nan() -> bytes:
    bits = np.array([0x7F800001, 0, 0], np.uint32).view(np.float32)
    return update_file(GOOD | {BIAS: bits}, "birch", 0)


def a_zip() -> bytes:
    with zipfile.ZipFile(data := io.BytesIO(), "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}q\x00.")
    return data.getvalue()


# A pickle of {"weights": [0.0]} that would print on being loaded; nothing ever loads it.
A_PICKLE = b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x8c\x05print\x93\x94\x8c\x02hi\x85\x94R\x94."

REJECTED = {
    "nothing": (b"", "not-safetensors", "at least 8 bytes; this one has 0"),
    "seven bytes": (SOUND[:7], "not-safetensors", "this one has 7"),
    "cut in its header": (SOUND[:50], "not-safetensors", "truncated"),
    "cut by one byte": (SOUND[:-1], "not-safetensors", "truncated"),
    "cut by a tensor": (SOUND[:-24], "not-safetensors", "truncated"),
    "one byte too long": (SOUND + b"\0", "not-safetensors", "appended"),
    "too long by far": (SOUND + bytes(10**6), "too-large", r"10\d{5} bytes, expected at most \d{5}$"),
    "a pickle": (A_PICKLE, "not-safetensors", "not a safetensors file"),
    "a zip": (a_zip(), "not-safetensors", "not a safetensors file"),
    "some JSON": (b'{"weights": [1, 2, 3]}', "not-safetensors", "not a safetensors file"),
    "a header of 2^63 bytes": (b"\xff" * 7 + b"\x7f" + SOUND[8:], "not-safetensors", "header of 9223372036854775807 b"),
    "a header that is all of it": (
        (len(SOUND) - 8).to_bytes(8, "little") + SOUND[8:],
        "not-safetensors",
        "header is not JSON",
    ),
    "a header that is a list": (with_header(lambda header: [header]), "not-safetensors", "expected an object"),
    "tensors that overlap": (
        with_header(lambda header: header[WEIGHT].update(data_offsets=[0, 24])),
        "not-safetensors",
        "a gap or an overlap",
    ),
    "an unknown dtype": (
        with_header(lambda header: header[BIAS].update(dtype="F8_E4M3")),
        "not-safetensors",
        "'layer.bias': unknown dtype 'F8_E4M3'",
    ),
    "a missing tensor": (update_file({BIAS: GOOD[BIAS]}, "birch", 0), "missing-tensor", "layer.weight"),
    "no tensor": (update_file({}, "birch", 0), "missing-tensor", "layer.bias.*layer.weight"),
    "an extra tensor": (
        update_file(GOOD | {"layer.extra": np.zeros(2, np.float32)}, "birch", 0),
        "unexpected-tensor",
        "layer.extra",
    ),
    "a whole model": (
        update_file(GOOD | {"steps": FIRST["steps"]}, "birch", 0),
        "unexpected-tensor",
        "'steps'.* not the global model's floating",
    ),
    "an integer tensor": (
        update_file(GOOD | {BIAS: np.zeros(3, np.int64)}, "birch", 0),
        "wrong-dtype",
        "'layer.bias' is I64, expected a floating one",
    ),
    "a transposed tensor": (
        update_file(GOOD | {WEIGHT: GOOD[WEIGHT].T.copy()}, "birch", 0),
        "wrong-shape",
        r"'layer.weight' has shape \(3, 2\), expected \(2, 3\)",
    ),
    "a flat tensor": (
        update_file(GOOD | {WEIGHT: GOOD[WEIGHT].ravel()}, "birch", 0),
        "wrong-shape",
        r"has shape \(6,\), expected \(2, 3\)",
    ),
    "a longer tensor": (with_bias(1, 2, 3, 4), "wrong-shape", r"has shape \(4,\), expected \(3,\)"),
    "NaN": (with_bias(0, float("nan"), 0), "non-finite", "'layer.bias' holds a value that is not finite in F32"),
    "a signalling NaN": (signalling_nan(), "non-finite", "'layer.bias'"),
    "infinity": (with_bias(0, 0, float("inf")), "non-finite", "'layer.bias'"),
    "minus infinity": (with_bias(-float("inf"), 0, 0), "non-finite", "'layer.bias'"),
    "infinity in half precision": (with_bias(0, 0, float("inf"), dtype=np.float16), "non-finite", "'layer.bias'"),
    "1e39, which float32 cannot hold": (with_bias(0, -1e39, 0, dtype=np.float64), "non-finite", "finite in F32"),
    "a double just above the largest float32": (
        with_bias(0, 0, np.nextafter(float(np.finfo(np.float32).max), np.inf), dtype=np.float64),
        "non-finite",
        "finite in F32",
    ),
    "another round": (update_file(GOOD, "birch", 1), "wrong-round", "round '1', the key '0'"),
    "another spelling of the round": (update_file(GOOD, "birch", 0, round="000000"), "wrong-round", "'000000'"),
    "another client": (update_file(GOOD, "alder", 0), "wrong-client", "client 'alder', the key 'birch'"),
    "another federation": (
        update_file(GOOD, "birch", 0, federation="apiary"),
        "wrong-federation",
        "federation 'apiary', the key 'orchard'",
    ),
    "no metadata": (file_of(GOOD, {}), "wrong-federation", "federation None, the key 'orchard'"),
    "metrics that nobody agreed to share": (
        update_file(GOOD, "birch", 0, metrics='{"accuracy": 0.5}'),
        "metadata",
        "does not share",
    ),
}


def outcome(data: bytes, **settings) -> Federation:
    """Return a run of one round in which birch uploaded `data`."""
    federation = Federation(federation_settings(rounds=1, **settings))
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, data)
    return federation.run()


def assert_rejected(federation: Federation, code: str) -> str:
    """Hold a run against the rejection of birch's update; return the receipt's detail."""
    receipt = federation.receipt("birch", 0)
    assert (receipt.outcome, receipt.code, receipt.update) == ("rejected", code, None)
    assert federation.summary(0).rejected == {"birch": code}
    assert federation.models == reference(federation.settings, [("alder", "cedar")])
    return receipt.detail


@pytest.mark.parametrize("what", REJECTED)
def test_an_unsound_update_is_rejected_by_name_and_the_round_goes_on(what: str):
    data, code, detail = REJECTED[what]
    found = assert_rejected(outcome(data), code)
    assert len(found) <= 300
    assert re.search(detail, found)


def test_metadata_may_be_long_but_not_without_end():
    codes = []
    for length in range(65_000, 66_500, 8):
        federation = Federation().start()
        key = federation.upload("birch", 0, update_file(GOOD, "birch", 0, notes="x" * length))
        parent_rounds.record(federation.parent, key)
        codes.append(federation.receipt("birch", 0).code)
    assert list(dict.fromkeys(codes)) == [None, "not-safetensors", "too-large"]


def test_the_sound_update_that_all_of_these_are_made_from_is_accepted():
    federation = outcome(SOUND)
    assert federation.receipt("birch", 0).outcome == "accepted"
    assert federation.summary(0).averaged == ("alder", "birch", "cedar")


@pytest.mark.parametrize(
    "metrics",
    [
        "accuracy",
        "[0.5]",
        '{"accuracy": NaN}',
        '{"accuracy": 1e999}',
        '{"accuracy": "high"}',
        '{"accuracy": true}',
        '{"accuracy": null}',
        '{"accuracy": {"mean": 1}}',
        '{"accuracy": 1, "accuracy": 0}',
        "[" * 5000,
        '{"accuracy": ' + "9" * 5000 + "}",
        json.dumps({f"metric {number}": 1 for number in range(33)}),
        json.dumps({"m" * 101: 1}),
    ],
    ids=lambda text: text[:30],
)
def test_metrics_that_are_not_numbers_by_name_are_rejected(metrics: str):
    federation = outcome(update_file(GOOD, "birch", 0, metrics=metrics), metrics={"share": "open"})
    assert assert_rejected(federation, "metadata")


STATEMENT = {"mechanism": "ornstein-uhlenbeck", "unit": "client", "adjacency": "replace-one", "clip_norm": 1.0}


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        (None, "claims mechanism None, agreed is 'ornstein-uhlenbeck'"),
        ("noise, plenty of it", "not JSON"),
        ("[]", "claims mechanism None"),
        ('"ornstein-uhlenbeck"', "claims mechanism None"),
        (json.dumps(STATEMENT | {"mechanism": "none"}), "claims mechanism 'none'"),
        (json.dumps(STATEMENT | {"unit": "example"}), "claims unit 'example', agreed is 'client'"),
        (json.dumps(STATEMENT | {"adjacency": "add-or-remove"}), "claims adjacency 'add-or-remove'"),
        (json.dumps(STATEMENT | {"clip_norm": 2.0}), "claims clip_norm 2.0, agreed is 1.0"),
        (json.dumps(STATEMENT | {"clip_norm": True}), "claims clip_norm True, agreed is 1.0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_update_that_claims_another_privacy_than_agreed_is_rejected(statement: str | None, detail: str):
    federation = Federation(federation_settings(privacy=PRIVATE)).start()
    metadata = {} if statement is None else {"privacy": statement}
    parent_rounds.record(federation.parent, federation.upload("birch", 0, update_file(GOOD, "birch", 0, **metadata)))
    assert federation.receipt("birch", 0).code == "privacy"
    assert detail in federation.receipt("birch", 0).detail


def test_an_update_that_claims_the_privacy_that_was_agreed_is_accepted():
    federation = Federation(federation_settings(privacy=PRIVATE)).start()
    claim = json.dumps(STATEMENT | {"sigma": 3.0})
    parent_rounds.record(federation.parent, federation.upload("birch", 0, update_file(GOOD, "birch", 0, privacy=claim)))
    assert federation.receipt("birch", 0).outcome == "accepted"


def test_the_norm_of_an_update_is_its_distance_from_the_global_model():
    far = {name: array + np.float32(0.5) for name, array in FIRST.items() if array.dtype.kind == "f"}
    expected = 0.5 * np.sqrt(9)
    federation = outcome(update_file(far, "birch", 0))
    assert federation.receipt("birch", 0).update.norm == pytest.approx(expected, rel=1e-6)
    assert federation.summary(0).norms["birch"] == federation.receipt("birch", 0).update.norm


def test_an_update_further_from_the_model_than_agreed_is_rejected():
    far = {name: array + np.float32(100) for name, array in FIRST.items() if array.dtype.kind == "f"}
    federation = outcome(update_file(far, "birch", 0), round={"max_update_norm": 50.0})
    assert assert_rejected(federation, "norm") == "L2 norm of the update is 300, round.max_update_norm is 50.0"


def test_an_update_as_far_as_agreed_is_accepted():
    apart = np.zeros(3, np.float32)
    apart[0] = 2.0
    update = {WEIGHT: FIRST[WEIGHT], BIAS: FIRST[BIAS] + apart}
    federation = outcome(update_file(update, "birch", 0), round={"max_update_norm": 2.0}, quorum=1)
    assert federation.receipt("birch", 0).outcome == "accepted"


def test_an_update_whose_distance_no_float64_can_hold_is_rejected():
    first = {"w": np.zeros(2)}
    federation = Federation(federation_settings(rounds=1))
    parent_rounds.start(federation.parent_bucket, federation.settings, model_file(federation.settings, 0, first))
    key = federation.upload("birch", 0, update_file({"w": np.array([1e200, 0])}, "birch", 0))
    parent_rounds.record(federation.parent, key)
    assert (federation.receipt("birch", 0).code, federation.receipt("birch", 0).detail) == (
        "norm",
        "the L2 norm of the update is too large for float64",
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_another_floating_dtype_is_as_good(dtype: type):
    other = {name: array.astype(dtype) for name, array in GOOD.items()}
    federation = outcome(update_file(other, "birch", 0))
    members = [
        (trained(FIRST, "alder", 0), 100),
        (other, 50),
        (trained(FIRST, "cedar", 0), 7),
    ]
    assert federation.models[1] == model_file(federation.settings, 1, mean(members, FIRST), "rounds")


def test_the_first_receipt_stands():
    federation = Federation().start()
    key = federation.upload("birch", 0, b"not a weight file")
    parent_rounds.record(federation.parent, key)
    federation.parent_bucket.replace(str(key), SOUND)
    parent_rounds.record(federation.parent, key)
    parent_rounds.record(federation.parent, federation.upload("birch", 0, None))
    assert federation.receipt("birch", 0).code == "not-safetensors"


# Answers that no round is open for: no receipt, and nothing raised, for a platform would only deliver them again.


def assert_left_alone(federation: Federation, key: keys.Update) -> None:
    federation.deliver(federation.deliver_until(key))
    assert "receipts" not in "".join(federation.folder(f"rounds/{key.round:06d}/"))
    federation.events.clear()
    federation.sweep_parent()
    assert "receipts" not in "".join(federation.folder(f"rounds/{key.round:06d}/"))


@pytest.mark.parametrize("data", [SOUND, b"garbage", None], ids=["sound", "unsound", "withdrawn"])
def test_an_answer_of_somebody_not_on_the_roster_is_left_alone(data: bytes | None):
    federation = Federation().start()
    federation.offline = set(federation.settings.roster)
    assert_left_alone(federation, federation.upload("mallory", 0, data))


@pytest.mark.parametrize("data", [SOUND, b"garbage", None], ids=["sound", "unsound", "withdrawn"])
def test_an_answer_to_a_round_that_has_not_opened_is_left_alone(data: bytes | None):
    federation = Federation().start()
    federation.offline = set(federation.settings.roster)
    assert_left_alone(federation, federation.upload("birch", 1, data))


def test_a_receipt_put_there_for_somebody_not_on_the_roster_counts_for_nothing():
    federation = Federation(federation_settings(quorum=3)).start()
    event = federation.deliver_until(keys.Receipt("orchard", 0, "alder"))
    forged = federation.receipt("alder", 0).model_copy(update={"client": "mallory"})
    federation.parent_bucket.create("orchard/rounds/000000/receipts/mallory.json", forged.to_bytes())
    federation.deliver(event)
    assert federation.summary(0).averaged == ("alder", "birch", "cedar")


def test_an_update_that_came_too_early_is_recorded_when_its_round_opens():
    federation = Federation(federation_settings(quorum=3))
    federation.instead[("cedar", 0)] = lambda: (
        federation.upload("cedar", 1, update_file(trained(FIRST, "cedar", 1), "cedar", 1)),
        federation.upload("cedar", 0, update_file(trained(FIRST, "cedar", 0), "cedar", 0)),
    )
    federation.instead[("cedar", 1)] = lambda: None
    federation.run()
    assert federation.summary(1).averaged == ("alder", "birch", "cedar")


@pytest.mark.parametrize("data", [SOUND, b"garbage", None], ids=["sound", "unsound", "withdrawn"])
def test_an_answer_to_a_round_that_is_over_is_left_alone(data: bytes | None):
    federation = Federation().start()
    federation.offline = {"birch"}
    federation.deliver_all()
    federation.clock.advance(DEADLINE)
    federation.sweep_parent()
    before = federation.folder("rounds/000000/")
    federation.deliver(federation.deliver_until(federation.upload("birch", 0, data)))
    federation.sweep_parent()
    assert federation.folder("rounds/000000/") == before


@pytest.mark.parametrize("data", [SOUND, b"garbage", None], ids=["sound", "unsound", "withdrawn"])
def test_an_answer_to_the_final_model_is_left_alone(data: bytes | None):
    federation = Federation().run()
    assert_left_alone(federation, federation.upload("birch", 3, data))


# An object that is replaced behind the parent's back.


def replacing(federation: Federation, moment: str, key: keys.Update, data: bytes) -> None:
    """Let `key` be replaced by `data` after the first call that begins with `moment`."""
    calls: list[str] = []

    def before(call: str) -> int:
        calls.append(call)
        return len(calls)

    def after(number: int) -> None:
        if calls[number - 1].startswith(moment) and not replaced:
            replaced.append(True)
            federation.parent_bucket.replace(str(key), data)

    replaced: list[bool] = []
    federation.watch = lambda store: WatchedStore(store, before, after)


@pytest.mark.parametrize("moment", ["stat", "read_into"])
def test_an_update_replaced_while_it_is_examined_is_an_error_and_gets_no_receipt(moment: str):
    federation = Federation().start()
    federation.events.clear()
    key = federation.upload("birch", 0, SOUND)
    replacing(federation, f"{moment} {key}", key, with_bias(1, 2, 3))
    with pytest.raises(VersionMismatch):
        parent_rounds.record(federation.parent, key)
    assert federation.receipt("birch", 0) is None
    parent_rounds.record(federation.parent, key)  # a redelivery finds one version, whole
    bias = contents(federation.parent_bucket)[str(key)]
    assert federation.receipt("birch", 0).update.size == len(bias)
    assert federation.receipt("birch", 0).outcome == "accepted"


@pytest.mark.parametrize(
    "moment",
    [
        "create orchard/rounds/000000/cohort.json",
        "stat orchard/updates/cedar/000000.safetensors",
        "begin orchard/public/models/000001.safetensors",
        "read_into orchard/updates/birch/000000.safetensors",
    ],
)
@pytest.mark.parametrize("stop", [{}, {"tolerance": 1e-9}], ids=["one-pass", "two-passes"])
@pytest.mark.parametrize("replacement", [with_bias(1, 2, 3), b"gone"], ids=["sound", "broken"])
def test_a_member_of_the_cohort_replaced_before_it_is_averaged_stops_the_round_by_name(
    moment: str, stop: dict, replacement: bytes
):
    federation = Federation(federation_settings(stop=stop)).start()
    event = federation.deliver_until(keys.Receipt("orchard", 0, "alder"))
    replacing(federation, moment, keys.Update("orchard", "birch", 0), replacement)
    with pytest.raises(CohortUnreadable, match="birch"):
        federation.deliver(event)
    assert len(federation.models) == 1
    with pytest.raises(CohortUnreadable, match="birch"):
        federation.deliver(event)
    assert len(federation.models) == 1


@pytest.mark.parametrize("stop", [{}, {"tolerance": 1e-9}], ids=["one-pass", "two-passes"])
def test_a_member_of_the_cohort_restored_with_its_bytes_is_averaged(stop: dict):
    """A restored object bears a new version."""
    federation = Federation(federation_settings(stop=stop)).start()
    event = federation.deliver_until(keys.Receipt("orchard", 0, "alder"))
    replacing(federation, "create orchard/rounds/000000/cohort.json", keys.Update("orchard", "birch", 0), SOUND)
    federation.deliver(event)
    assert len(federation.models) == 2
