"""What the report page claims: no more than so few examples, such a bound and such a run can bear."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from fedbucket.cli import _results
from fedbucket.local.folder import RunFolder
from fedbucket.report.chance import margin
from tests.fedbucket.report_runs import changed, level, make_privacy, names, other_metrics, page, plain, private


def head(text: str) -> str:
    return text.split("Accuracy by round")[0]


def test_two_equal_models_differ_by_more_than_the_margin_on_one_test_set_in_twenty() -> None:
    rng, examples, accuracy = random.Random(0), 449, 0.9
    scores = [[sum(rng.random() < accuracy for _ in range(examples)) / examples for _ in range(2)] for _ in range(1000)]
    beyond = sum(abs(one - other) > margin(one, examples) for one, other in scores) / len(scores)
    assert 0.02 < beyond < 0.08


def test_a_model_without_a_mistake_has_a_margin_too() -> None:
    assert 0 < margin(1.0, 100) < 0.03


def test_a_gain_that_may_be_chance_is_called_so_in_the_headline() -> None:
    assert "1.02×, a difference that may be chance on 449 test examples;" in head(page(level()).text)


def test_a_loss_that_may_be_chance_is_not_called_a_loss() -> None:
    text = changed(level(), federated_accuracy=0.905, ratio=0.99).text
    assert "0.99×, a difference that may be chance on 449 test examples" in text
    assert "does not pay" not in text


def test_a_gain_far_beyond_chance_is_left_as_it_is() -> None:
    assert "chance" not in head(changed(plain(), test_examples=449).text).split("Measure")[0]


def test_without_the_size_of_the_test_set_nothing_is_said_of_chance() -> None:
    assert "chance" not in page(plain()).text


def test_the_first_screen_names_the_test_sets_size_and_what_differences_may_be_chance() -> None:
    assert "one test set of 449 examples that no client holds. Differences below about 3.5 points may be chance." in (
        head(page(level()).text)
    )


def test_the_first_screen_says_that_the_baselines_bore_no_noise() -> None:
    assert "trained on all data together; to convergence, without noise." in head(page(private()).text)


def test_the_reading_of_the_clients_counts_the_differences_that_may_be_chance() -> None:
    text = page(level()).text
    assert "All ten differences may be chance: smaller than 3.5 points on 449 test examples." in text
    assert 'class="chance"' in page(level()).source


def test_a_client_that_is_level_with_the_federation_does_not_gain() -> None:
    text = changed(plain(), alone=dict.fromkeys(names(10), 0.5) | {"client-04": 0.931}).text
    assert "One client is level with it: client-04. The other 9 of 10 gain." in text


def test_those_who_lose_most_are_named_first() -> None:
    alone = {client: 0.94 + 0.002 * index for index, client in enumerate(names(10))}
    text = changed(plain(), alone=alone).text
    assert "Ten clients do better alone: client-10, client-09, client-08 and 7 more." in text


def test_what_is_level_is_not_called_a_difference() -> None:
    text = changed(level(), federated_accuracy=0.912, ratio=1.0, alone=dict.fromkeys(names(10), 0.912)).text
    assert "on average: 1.00×; one model" in text
    assert "differences may be chance" not in text


def test_a_run_in_which_no_round_was_whole_says_so() -> None:
    summary, rounds = plain()
    rounds = [line | {"cohort": names(10)[1:]} for line in rounds]
    assert "None of 40 rounds averaged the updates of all ten clients." in head(page((summary, rounds)).text)


def test_the_distance_to_pooled_data_is_called_the_price_of_noise_and_of_training_apart() -> None:
    text = changed(private(), pooled_accuracy=0.99).text
    assert "below one model on all data pooled and without noise: what noise and training apart cost together." in text
    assert "cost together" not in changed(plain(), pooled_accuracy=0.99).text


def test_the_first_screen_says_who_took_part_and_what_went_wrong() -> None:
    assert (
        "35 of 40 rounds averaged the updates of all ten clients; three void rounds, one absence, one withdrawal,"
        " one rejection and one update left out." in head(page(private()).text)
    )


def test_clients_whose_updates_were_never_averaged_are_named_on_the_first_screen() -> None:
    summary, rounds = plain()
    cohort = names(10)[2:]
    rounds = [line | {"cohort": cohort, "rejected": dict.fromkeys(names(2), "non-finite")} for line in rounds]
    assert "Never averaged: client-01 and client-02." in head(page((summary, rounds)).text)


@pytest.mark.parametrize(("finished", "wrong"), [("rounds", False), ("patience", False), ("void", True), (None, True)])
def test_an_end_that_nobody_wanted_stands_out(finished: str | None, wrong: bool) -> None:
    shown = changed(plain(), finished={"reason": finished, "round": 40})
    assert ('class="ending wrong"' in shown.source) == wrong


@pytest.mark.parametrize(
    ("epsilon", "factor"), [(0.1, "1.11"), (0.5, "1.65"), (1.0, "2.72"), (2.0, "7.39"), (4.0, "55"), (8.0, "2 981")]
)
def test_the_factor_of_the_guarantee_is_never_rounded_down(epsilon: float, factor: str) -> None:
    text = changed(private(), privacy=make_privacy(names(10), epsilon=epsilon)).text
    assert f"by a factor of at most {factor}, plus 1 in 100 000." in text
    assert float(factor.replace(" ", "")) >= math.exp(epsilon)


def test_a_budget_that_is_all_spent_is_called_so() -> None:
    assert "Each client has spent its whole budget: ε = 4 (unit" in (
        changed(private(), privacy=make_privacy(names(10), spent=(3.9999,))).text
    )


def test_clients_with_nothing_left_are_named_where_others_have_some() -> None:
    text = changed(private(), privacy=make_privacy(names(3), spent=(4.0, 2.0, 1.0))).text
    assert "Clients have spent from ε = 1 (unit: one example, add-or-remove; δ = 1e-5) to ε = 4" in text
    assert "client-01 has nothing left." in text


def test_a_task_that_measures_no_accuracy_is_not_said_to_have_no_test_set() -> None:
    text = page(other_metrics()).text
    assert "On the common test set: rmse 0.530 (alone 0.710 on average, pooled 0.500)." in text
    assert "the task measures rmse, and no accuracy" in text
    assert "no common test set" not in text


def test_the_terminal_says_of_what_size_the_test_set_is_and_survives_clients_that_get_nothing_right() -> None:
    summary = level()[0] | {"privacy": {"mechanism": "none"}, "alone_accuracy": 0.0, "ratio": None}
    text = _results(RunFolder(Path("runs/level")), summary)
    assert "test set            449 examples; differences below 3.5 points may be chance" in text
    assert "each client alone   0.0% on average" in text
    assert "ratio" not in text
