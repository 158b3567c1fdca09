"""The report of a parent bucket: what is in it, and nothing that is not."""

from typing import Any

import pytest

from exchange import keys
from exchange.errors import NotFound
from fedbucket.bucket_report import read_bucket
from fedbucket.report import render
from fedbucket.retention import prune, removable
from tests.fedbucket.report_runs import Page
from tests.support.arithmetic import FIRST, trained, update_file
from tests.support.federation import Federation
from tests.support.settings import CLIENTS, PRIVATE, federation_settings

ACCURACY = {"alder": 0.5, "birch": 0.75, "cedar": 1.0}


def eventful() -> Federation:
    """Return a run with a rejection, a withdrawal and an absence, whose clients share their metrics."""
    federation = Federation(
        federation_settings(metrics={"share": "open"}),
        metrics=lambda client, round_: {"accuracy": ACCURACY[client] - 0.1 * round_, "auc": 0.5},
    )
    federation.instead = {
        ("alder", 0): lambda: federation.upload("alder", 0, b"garbage"),
        ("birch", 1): lambda: federation.upload("birch", 1, None),
        ("cedar", 2): lambda: None,
    }
    return federation.run()


def page_of(federation: Federation) -> Page:
    return Page(render(*read_bucket(federation.parent_bucket, "orchard")))


def test_the_rounds_are_told_as_they_were() -> None:
    summary, lines = read_bucket(eventful().parent_bucket, "orchard")
    assert (summary["rounds"], summary["clients"], summary["finished"]["reason"]) == (3, list(CLIENTS), "rounds")
    assert [line["cohort"] for line in lines] == [["birch", "cedar"], ["alder", "cedar"], ["alder", "birch"]]
    assert [line["rejected"] for line in lines] == [{"alder": "not-safetensors"}, {}, {}]
    assert [line["withdrawn"] for line in lines] == [[], ["birch"], []]
    assert [line["absent"] for line in lines] == [[], [], ["cedar"]]
    assert lines[0]["shared_mean"]["accuracy"] == pytest.approx((0.75 * 50 + 1.0 * 7) / 57)
    assert all(line["norms"].keys() == set(line["cohort"]) and line["relative_change"] > 0 for line in lines)


def test_bytes_are_those_of_models_and_updates_also_after_pruning() -> None:
    federation = eventful()
    bucket = federation.parent_bucket
    before = [line["bytes"] for line in read_bucket(bucket, "orchard")[1]]
    sizes = {info.key: info.size for info in bucket.list("orchard/")}
    updates = [sizes[f"orchard/updates/{client}/000000.safetensors"] for client in CLIENTS]
    model = sizes["orchard/public/models/000000.safetensors"]
    assert before[0] == {"model_down": 3 * model, "updates_up": sum(updates)}
    for round_, found in removable(bucket, "orchard", 2).items():
        prune(bucket, "orchard", round_, found)
    assert [line["bytes"] for line in read_bucket(bucket, "orchard")[1]] == before


def test_times_are_those_of_the_stores_clock() -> None:
    federation = Federation().start()
    federation.offline = {"birch", "cedar"}
    federation.clock.advance(5)
    federation.deliver_all()
    federation.clock.advance(20)
    federation.upload("birch", 0, update_file(trained(FIRST, "birch", 0), "birch", 0))
    federation.upload("cedar", 0, update_file(trained(FIRST, "cedar", 0), "cedar", 0))
    federation.clock.advance(3)
    federation.deliver_all()
    summary, (line,) = read_bucket(federation.parent_bucket, "orchard")
    assert summary["seconds"] == line["seconds"]["total"] == 28
    spans = {(step, client): (start, end) for step, client, start, end in line["spans"]}
    assert spans["answer", "alder"] == (0, 5)
    assert spans["answer", "birch"] == (0, 25)
    assert spans["record", "birch"] == (25, 28)


def test_a_client_that_the_strategy_left_out_has_answered_all_the_same() -> None:
    clients = ("alder", "birch", "cedar", "damson", "elder")
    krum = {"name": "multi-krum", "byzantine": 1}
    federation = Federation(federation_settings(clients, rounds=1, quorum=5, strategy=krum)).run()
    _, (line,) = read_bucket(federation.parent_bucket, "orchard")
    assert len(line["left_out"]) == 1
    assert {client for step, client, _, _ in line["spans"] if step == "answer"} == set(clients)


def test_a_copied_bucket_whose_times_say_nothing_still_makes_a_page() -> None:
    federation = Federation().run()
    for key in sorted((info.key for info in federation.parent_bucket.list("")), reverse=True):
        federation.clock.advance(1)
        federation.parent_bucket.replace(key, federation.parent_bucket.read(key))
    assert page_of(federation).open == []
    summary, lines = read_bucket(federation.parent_bucket, "orchard")
    assert summary["seconds"] is None
    assert all(end >= start for line in lines for _, _, start, end in line["spans"])
    assert all(seconds >= 0 for line in lines for seconds in line["seconds"].values())


def test_the_page_shows_what_clients_shared_and_says_what_it_is() -> None:
    text = page_of(eventful()).text
    assert "On the clients’ own validation data model 2 reaches" in text
    assert "weighted by their declared examples" in text
    assert "The parent’s bucket alone: no test set, no baselines, no client’s private account." in text
    rows = {row[0]: row for row in page_of(eventful()).rows}
    assert rows["round"][2:4] == ["shared accuracy", "shared auc"]
    assert rows["0"][2:4] == ["78.1\N{NO-BREAK SPACE}%", "0.500"]


def test_the_page_of_a_bucket_without_shared_metrics_says_that_a_bucket_holds_no_test_set() -> None:
    text = page_of(Federation().run()).text
    assert "The parent’s bucket holds no accuracy: clients shared none, and there is no test set." in text
    assert "the run had no common test set" not in text


def test_the_page_of_a_private_federation_states_what_was_agreed_and_no_clients_spending() -> None:
    federation = Federation(federation_settings(rounds=2, privacy=PRIVATE)).run()
    text = page_of(federation).text
    assert "ε = 8 (unit: one client, replace-one; δ = 1e-5), by Ornstein-Uhlenbeck noise, clip norm 1." in text
    assert "What each client has spent is in its own ledger" in text
    assert "the noise in the average of all 3 clients has an L2 norm of about" in text
    assert "These numbers are what was agreed." in text


def test_the_page_of_an_open_federation_tells_how_far_it_is() -> None:
    federation = Federation().start()
    assert "Three clients will train one model together." in page_of(federation).text
    federation.deliver_until(keys.Model("orchard", 2))
    text = page_of(federation).text
    assert "Not finished: 2 of 3 rounds so far" in text
    assert "Three clients are training one model together." in text


def test_a_federation_that_was_not_started_is_said_to_be_so() -> None:
    federation = Federation()
    federation.parent_bucket.create("orchard/public/federation.json", federation.settings.to_bytes())
    with pytest.raises(NotFound, match="was not started"):
        read_bucket(federation.parent_bucket, "orchard")


def test_reporting_changes_nothing() -> None:
    bucket = eventful().parent_bucket
    tried: list[Any] = list(bucket.attempts)
    read_bucket(bucket, "orchard")
    assert bucket.attempts == tried
