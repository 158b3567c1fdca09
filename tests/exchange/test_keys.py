"""Keys: every one is formatted and parsed back exactly, and nothing else is a key."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exchange import keys
from exchange.keys import Key
from exchange.stores.protocol import is_key

identifiers = st.from_regex(rf"\A{keys.IDENTIFIER}\Z").filter(str.isascii)
federations = identifiers.filter(lambda name: name != "ledger")
rounds = st.integers(0, keys.MAX_ROUND)
withdrawn = st.booleans()

KINDS: dict[type[Key], st.SearchStrategy[Key]] = {
    keys.Settings: st.builds(keys.Settings, federations),
    keys.Model: st.builds(keys.Model, federations, rounds),
    keys.Finished: st.builds(keys.Finished, federations),
    keys.Ticket: st.builds(keys.Ticket, federations, rounds),
    keys.Update: st.builds(keys.Update, federations, identifiers, rounds, withdrawn),
    keys.Receipt: st.builds(keys.Receipt, federations, rounds, identifiers),
    keys.Cohort: st.builds(keys.Cohort, federations, rounds),
    keys.Summary: st.builds(keys.Summary, federations, rounds),
    keys.Pruned: st.builds(keys.Pruned, federations, rounds),
    keys.OptimizerState: st.builds(keys.OptimizerState, federations, rounds),
    keys.Release: st.builds(keys.Release, federations, rounds, withdrawn),
    keys.Agreed: st.builds(keys.Agreed, federations),
    keys.Attempt: st.builds(keys.Attempt, federations, rounds, st.integers(0, 9999)),
    keys.Checkpoint: st.builds(keys.Checkpoint, federations, rounds, st.integers(0, 9999)),
    keys.LedgerEntry: st.builds(keys.LedgerEntry, identifiers, rounds),
}
any_key = st.one_of(*KINDS.values())

EXAMPLES = {
    "readmission/public/federation.json": keys.Settings("readmission"),
    "readmission/public/models/000007.safetensors": keys.Model("readmission", 7),
    "readmission/public/finished.json": keys.Finished("readmission"),
    "readmission/inbox/000007.json": keys.Ticket("readmission", 7),
    "readmission/updates/hospital-a/000007.safetensors": keys.Update("readmission", "hospital-a", 7),
    "readmission/updates/hospital-a/000007.withdrawn.json": keys.Update("readmission", "hospital-a", 7, withdrawn=True),
    "readmission/rounds/000007/receipts/hospital-a.json": keys.Receipt("readmission", 7, "hospital-a"),
    "readmission/rounds/000007/cohort.json": keys.Cohort("readmission", 7),
    "readmission/rounds/000007/summary.json": keys.Summary("readmission", 7),
    "readmission/rounds/000007/pruned.json": keys.Pruned("readmission", 7),
    "readmission/rounds/000007/optimizer.safetensors": keys.OptimizerState("readmission", 7),
    "readmission/releases/000007.safetensors": keys.Release("readmission", 7),
    "readmission/releases/000007.withdrawn.json": keys.Release("readmission", 7, withdrawn=True),
    "readmission/agreed.json": keys.Agreed("readmission"),
    "readmission/attempts/000007/0003.json": keys.Attempt("readmission", 7, 3),
    "readmission/checkpoints/000007/0003.safetensors": keys.Checkpoint("readmission", 7, 3),
    "ledger/admissions-2024/000012.json": keys.LedgerEntry("admissions-2024", 12),
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_each_kind_is_written_as_the_format_has_it(text: str) -> None:
    assert str(EXAMPLES[text]) == text
    assert keys.parse(text) == EXAMPLES[text]


def test_every_kind_is_tried() -> None:
    kinds = set(Key.__args__)
    assert set(KINDS) == kinds
    assert {type(key) for key in EXAMPLES.values()} == kinds


@given(any_key)
@example(keys.LedgerEntry("inbox", 7))
@example(keys.LedgerEntry("public", 7))
@example(keys.Update("ledgers", "ledger", 0))
def test_a_key_parses_back_to_itself_and_to_no_other_kind(key: Key) -> None:
    found = keys.parse(str(key))
    assert found == key
    assert type(found) is type(key)
    assert is_key(str(key))


@given(st.integers(0, 2**70), st.integers(0, 2**70))
def test_keys_sort_as_their_rounds_do(one: int, other: int) -> None:
    one, other = one % 10**6, other % 10**6
    assert (str(keys.Model("f", one)) < str(keys.Model("f", other))) == (one < other)


@given(any_key)
def test_prefixes_begin_the_keys_that_they_are_for(key: Key) -> None:
    text = str(key)
    match key:
        case keys.Model(federation, _):
            assert text.startswith(keys.models(federation))
        case keys.Receipt(federation, round_, _):
            assert text.startswith(keys.receipts(federation, round_))
        case keys.Attempt(federation, round_, _):
            assert text.startswith(keys.attempts(federation, round_))
        case keys.Checkpoint(federation, round_, _):
            assert text.startswith(keys.checkpoints(federation, round_))
        case keys.LedgerEntry(dataset, _):
            assert text.startswith(keys.ledger(dataset))
        case _:
            assert not text.startswith((keys.models("f"), keys.receipts("f", 0), keys.attempts("f", 0)))


def test_a_federation_cannot_be_mistaken_for_the_ledger() -> None:
    for text in ("ledger/public/federation.json", "ledger/public/models/000000.safetensors"):
        assert keys.parse(text) is None
    assert keys.parse("ledger/inbox/000007.json") == keys.LedgerEntry("inbox", 7)
    assert keys.parse("ledger-2/inbox/000007.json") == keys.Ticket("ledger-2", 7)


BAD_IDENTIFIERS = [
    "", "-", "-a", "a-", "A", "aB", "a.b", ".", "..", "a_b", "a b", " a", "a ", "a\n", "\na", "a/b", "a\\b", "a\0", "é",
    "ａ", "٣", "a%2f", "a" * 64, "*", "~",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_IDENTIFIERS)
def test_what_is_no_identifier_makes_no_key(name: str) -> None:
    for text in (
        f"{name}/public/federation.json",
        f"{name}/rounds/000007/cohort.json",
        f"{name}/inbox/000007.json",
        f"f/updates/{name}/000007.safetensors",
        f"f/rounds/000007/receipts/{name}.json",
        f"ledger/{name}/000012.json",
    ):
        assert keys.parse(text) is None, text


BAD_ROUNDS = [
    "",
    "7",
    "00007",
    "0000007",
    "-00007",
    "+00007",
    "00007a",
    "0x0007",
    "1e0005",
    " 00007",
    "00007\n",
    "٠٠٠٠٠٧",
]


@pytest.mark.parametrize("number", BAD_ROUNDS)
def test_what_is_no_round_makes_no_key(number: str) -> None:
    for text in EXAMPLES:
        if (changed := text.replace("000007", number).replace("000012", number)) != text:
            assert keys.parse(changed) is None, changed


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_key_with_anything_more_or_less_is_none(text: str) -> None:
    for changed in (
        text + "\n", "\n" + text, text + " ", " " + text, text + "/", "/" + text, "./" + text, "../" + text,
        "x/" + text,
        text + ".json", text + ".tmp", text + "\0", text.upper(), text.capitalize(), text.replace("/", "//", 1),
        text.replace("/", "/./", 1), text.replace("/", "/../", 1), text.replace("/", "\\"), text.replace(".", "_"),
        text.replace(".", "x"), text.replace(".json", ".JSON").replace(".safetensors", ".Safetensors"),
        text.replace("/", "\u2215"), text.replace("/", "%2F"), text[:-1], text.partition("/")[2],
    ):  # fmt: skip
        assert keys.parse(changed) is None, changed


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_key_that_parses_is_what_it_parses_to(text: str, data: st.DataObject) -> None:
    """Whatever one character is changed to: either it is no key any more, or it is exactly the key it says."""
    position = data.draw(st.integers(0, len(text)))
    changed = text[:position] + data.draw(st.text(max_size=2)) + text[position + data.draw(st.integers(0, 1)) :]
    found = keys.parse(changed)
    assert found is None or str(found) == changed


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_nothing(text: str) -> None:
    assert (found := keys.parse(text)) is None or str(found) == text
