"""The report page: what its readers find on it, whatever the run left behind."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import pytest

from fedbucket.report import render
from tests.fedbucket.report_runs import (
    RUNS,
    changed,
    crowd,
    hostile,
    make_privacy,
    make_summary,
    names,
    page,
    plain,
    private,
    single,
    unscored,
    unstarted,
)

every_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@every_run
def test_every_element_of_the_page_is_closed_in_order(run: Any) -> None:
    assert page(run()).open == []


@every_run
def test_the_page_names_no_address_to_fetch_anything_from(run: Any) -> None:
    shown = page(run())
    assert "//" not in re.sub(r"/\*.*?\*/", "", shown.source)
    assert not shown.attributes("src") + shown.attributes("href")
    assert "url(" not in shown.source
    assert "@import" not in shown.source


@every_run
def test_the_browser_is_told_to_load_nothing(run: Any) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in page(run()).attributes("content")


@every_run
def test_no_script_runs_in_the_page(run: Any) -> None:
    shown = page(run())
    assert not [tag for tag, _, _ in shown.elements if tag == "script"]
    assert not [name for _, attrs, _ in shown.elements for name in attrs if name.startswith("on")]


@every_run
def test_every_figure_has_a_role_and_a_label(run: Any) -> None:
    for attributes in page(run()).figures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"] or "") > 5


@every_run
def test_every_chart_is_described_by_a_sentence_that_stands_beside_it(run: Any) -> None:
    shown = page(run())
    described = [attributes["aria-label"] or "" for attributes in shown.figures if attributes.get("height") != "12"]
    for label in described:
        title, _, sentence = label.partition(". ")
        assert title
        assert sentence.endswith(".")
        assert re.sub(r"\s+", " ", sentence) in shown.text


@every_run
def test_the_sections_come_in_the_order_of_a_reader_in_a_hurry(run: Any) -> None:
    sections = [attrs["id"] for tag, attrs, _ in page(run()).elements if tag == "section"]
    assert [each for each in sections if each != "privacy"] == [
        "accuracy",
        "clients",
        "time",
        "bytes",
        "rounds",
        "facts",
    ]


@every_run
def test_no_epsilon_is_printed_without_its_unit_and_delta(run: Any) -> None:
    shown = page(run())
    for text in (shown.text, *shown.attributes("content"), *shown.attributes("aria-label")):
        values = re.findall(r"ε\W{0,3}\d", text)
        stated = re.findall(r"ε = [\d.]+ \(unit: one (?:example|client)(?:, [a-z-]+)?; δ = 1e-5\)", text)
        assert len(values) == len(stated)


def test_the_headline_has_the_numbers_that_matter() -> None:
    assert (
        "Ten clients together reach 93.1 %; alone they reach 48.6 % on average: 1.91×;"
        " one model on all data pooled would reach 95.0 %." in page(plain()).text
    )


def test_the_header_says_how_the_data_are_split_and_how_it_ended() -> None:
    text = page(plain()).text
    assert "Each client holds five of the ten classes." in text
    assert "Finished: all 40 rounds are done, in 41.2 s." in text


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("tolerance", "the model changed by less than the agreed tolerance"),
        ("patience", "the metrics that clients share had stopped improving"),
        ("void", "three rounds in a row were void"),
        ("something new", "something new"),
    ],
)
def test_an_early_end_is_told_in_words(reason: str, words: str) -> None:
    shown = changed(plain(), rounds=100, finished={"reason": reason, "round": 40})
    assert f"Stopped after 40 of 100 rounds: {words}" in shown.text


def test_a_run_that_goes_on_is_not_called_finished() -> None:
    assert "Not finished: 40 of 100 rounds so far" in changed(plain(), rounds=100, finished=None).text


def test_without_a_mechanism_the_page_says_plainly_that_updates_reveal() -> None:
    shown = page(plain())
    assert "No differential privacy: the updates reveal what they reveal." in shown.text
    assert "guarantee" not in shown.text
    assert "ε" not in shown.text


def test_a_run_that_says_nothing_of_privacy_is_taken_to_have_none() -> None:
    assert "assume that there was none" in changed(plain(), privacy=None).text


def test_the_budget_is_printed_with_unit_adjacency_and_delta() -> None:
    assert "ε = 4 (unit: one example, add-or-remove; δ = 1e-5), by Ornstein-Uhlenbeck noise" in page(private()).text


def test_each_client_finds_what_it_spent_and_what_is_left() -> None:
    assert ["client-07", "3.991", "0.009", "4.000", "1e-5"] in page(private()).rows


def test_spent_is_rounded_up_and_left_down() -> None:
    shown = changed(private(), privacy=make_privacy(names(10), spent=(3.9911,)))
    assert ["client-07", "3.992", "0.008", "4.000", "1e-5"] in shown.rows


def test_what_lies_outside_the_guarantee_stands_next_to_it_with_what_happened() -> None:
    text = page(private()).text
    for outside in (
        "Metrics shared openly accuracy, by two clients in 40 rounds",
        "Timing",
        "Drop-outs and withdrawals one absence and one withdrawal in this run",
        "Rejections and their reasons one rejection (non-finite)",
        "Settings chosen by trial",
        "The baselines on this page alone and pooled: computed from the data itself",
    ):
        assert outside in text
    assert "A claim is not a proof" in text


@pytest.mark.parametrize("missing", ["epsilon", "delta", "unit"])
def test_a_budget_without_its_unit_or_delta_is_refused(missing: str) -> None:
    privacy = make_privacy(names(10)) | {missing: None, "by_client": {}}
    shown = changed(private(), privacy=privacy)
    assert "Its budget is not printed" in shown.text
    assert not re.search(r"ε\W{0,3}\d", shown.text)


def test_a_large_budget_is_called_weak() -> None:
    assert "weak promise" in changed(private(), privacy=make_privacy(names(10), epsilon=12.0)).text
    assert "weak promise" not in page(private()).text


def test_the_meaning_of_the_guarantee_fits_its_unit() -> None:
    privacy = make_privacy(names(10)) | {"unit": "client", "adjacency": "replace-one"}
    text = changed(private(), privacy=privacy).text
    assert "ε = 4 (unit: one client, replace-one; δ = 1e-5)" in text
    assert "Changing the whole data set of one client changes the chance of whatever is seen" in text
    assert "by a factor of at most 55, plus 1 in 100 000" in text
    assert "one example" not in text


def test_the_lines_of_the_curve_are_labelled_where_they_end() -> None:
    labels = re.findall(r'class="label \w+">(.*?)</text>', page(plain()).source)
    shown = {re.sub(r"<.*?>|\s", "", label) for label in labels}
    assert {"95.0%pooled", "48.6%alone", "93.1%federated"} <= shown


def test_labels_of_lines_that_end_close_together_keep_apart() -> None:
    shown = changed(plain(), alone_accuracy=0.9305, pooled_accuracy=0.9312)
    heights = [float(y) for y in re.findall(r'x="100%" dx="10" y="([\d.]+)" class="label', shown.source)]
    assert len(heights) == 3
    first, second, third = sorted(heights)
    assert min(second - first, third - second) > 14


def test_void_rounds_are_marked_in_the_curve_and_in_the_table() -> None:
    shown = page(private())
    assert shown.source.count('class="void"') == 3
    assert "rounds 7 and 12–13" in shown.text
    assert [row[0] for row in shown.rows if "void" in row] == ["7", "12", "13"]


def test_a_round_without_a_score_leaves_a_gap_in_the_curve() -> None:
    summary, rounds = plain()
    whole = render(summary, rounds).count('class="curve"')
    rounds[20] |= {"accuracy": None}
    assert render(summary, rounds).count('class="curve"') == whole - 2


def test_clients_that_do_better_alone_are_named() -> None:
    alone = dict.fromkeys(names(10), 0.6) | {"client-04": 0.95}
    text = changed(plain(), alone=alone).text
    assert "One client does better alone: client-04. The other 9 of 10 gain." in text
    assert "−1.9" in text


def test_a_federation_that_loses_to_its_clients_is_not_praised() -> None:
    text = changed(plain(), federated_accuracy=0.885, alone_accuracy=0.908, ratio=0.97).text
    assert "0.97×, so on average federation does not pay here" in text


def test_the_table_says_who_was_missing_and_why() -> None:
    rows = {row[0]: row for row in page(private()).rows}
    assert rows["3"][1] == "9/10"
    assert rows["3"][-2:] == ["absent", "client-03"]
    assert "".join(rows["9"][7:]) == "withdrawnclient-02;left outclient-04;rejectedclient-05 (non-finite)"
    assert rows["39"][1:4] == ["10/10", "93.1\N{NO-BREAK SPACE}%", "1.0\N{NO-BREAK SPACE}%"]


def test_a_round_resumed_after_a_crash_has_no_time_and_the_page_says_why() -> None:
    shown = page(private())
    assert {row[0]: row for row in shown.rows}["11"][6] == "—"
    assert "resumed after a crash: round 11" in shown.text


def test_bytes_are_told_by_direction_in_units_that_people_read() -> None:
    text = page(plain()).text
    assert "2.46 MB in all; 61.5 kB in a typical round, 6.15 kB for each client that answered." in text
    assert "Models 1.05 MB down, to the clients" in text
    assert "Updates 1.05 MB up, from the clients" in text


def test_the_bytes_of_a_client_are_of_those_that_answered_and_whole() -> None:
    summary, rounds = plain()
    few = {"cohort": names(3), "withdrawn": names(10)[3:], "bytes": {"updates_up": 2000}}
    text = page((summary, [line | few for line in rounds])).text
    assert "2.00 kB in a typical round, 667 B for each client that answered." in text


def test_time_that_overlaps_counts_once() -> None:
    summary, rounds = single()
    rounds[0]["spans"] = [["train", "a", 0.0, 6.0], ["train", "b", 1.0, 5.0], ["aggregate", None, 8.0, 10.0]]
    text = page((summary, rounds)).text
    assert "Of 10.0 s: train 6.0 s (60 %), aggregate 2.0 s (20 %), nobody at work 2.0 s (20 %)" in text


def test_the_numbers_of_rounds_above_the_time_line_keep_apart_when_the_first_round_is_long() -> None:
    summary, rounds = plain()
    for line in rounds[1:]:
        line["spans"] = [[step, who, start + 60, end + 60] for step, who, start, end in line["spans"]]
    source = render(summary, rounds)
    marks = [float(x) for x in re.findall(r'x="([\d.]+)%" y="-7" class="tick"', source)]
    assert len(marks) >= 2
    assert min(right - left for left, right in pairwise(marks)) >= 12


def test_a_hundred_clients_and_rounds_stay_a_page_that_a_browser_draws_at_once() -> None:
    shown = page(crowd())
    drawn = [tag for tag, _, depth in shown.elements if depth and tag not in {"title", "desc", "tspan"}]
    assert len(drawn) < 3000
    assert len(shown.source) < 600_000


def test_the_facts_identify_the_run() -> None:
    text = page(plain()).text
    for fact in ("5e" * 32, "a7" * 32, "Seed 0", "41.2 s"):
        assert fact in text


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    shown = page(hostile())
    assert "<script>alert(1)</script> (<b>bad</b>)" in shown.text
    assert not {tag for tag, _, _ in shown.elements} & {"script", "img"}


def test_without_a_test_set_the_page_says_so_and_draws_no_empty_chart() -> None:
    shown = page(unscored())
    assert "The run had no common test set, so there is no accuracy to report." in shown.text
    assert "There is no comparison: the run had no common test set" in shown.text
    assert not [label for label in shown.attributes("aria-label") if label.startswith(("Accuracy", "Each client"))]


def test_without_baselines_the_page_names_what_was_not_trained() -> None:
    shown = changed(plain(), alone_accuracy=None, alone={}, pooled_accuracy=None, ratio=None, metrics={})
    assert "Ten clients together reach 93.1 %. No baseline was trained to compare it with." in shown.text
    assert "a baseline on each client alone and all data pooled" in shown.text
    assert "no client was trained alone in this run" in shown.text


def test_a_run_before_its_first_round_names_everything_as_not_yet_there() -> None:
    shown = page(unstarted())
    assert "Four clients will train one model together. No round has closed yet." in shown.text
    assert "Not finished: no round has closed yet." in shown.text
    assert shown.figures == []


def test_a_single_client_is_not_called_a_federation_of_many() -> None:
    text = page(single()).text
    assert "One client reaches 93.1 %; trained outside the loop it reaches 92.9 %: 1.00×" in text
    assert "clients" not in text.split("Accuracy by round")[0].split("Measure")[0]


def test_numbers_that_are_not_finite_are_shown_as_missing() -> None:
    summary, rounds = plain()
    rounds[5] |= {"accuracy": math.nan, "relative_change": math.inf}
    shown = page((summary, rounds))
    assert {row[0]: row for row in shown.rows}["5"][2:4] == ["—", "—"]
    assert not re.search(r"\b(nan|inf)\b", shown.source)


def test_an_empty_summary_still_makes_a_page() -> None:
    assert page(({}, [])).open == []


def test_a_round_that_carries_only_its_number_still_makes_a_row() -> None:
    shown = page((make_summary(names(2), []), [{"round": 0}]))
    assert ["0", "0/2", "—", "—", "—", "—", "nobody"] in shown.rows


def test_other_metrics_of_the_test_set_are_listed_beside_accuracy() -> None:
    rows = {row[0]: row for row in page(plain()).rows if len(row) == 3}
    assert rows["federated"][1:] == ["93.1\N{NO-BREAK SPACE}%", "0.994"]
    assert rows["client-03, alone"][2] == "0.810"
