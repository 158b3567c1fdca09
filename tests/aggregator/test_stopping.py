"""What a summary says of a round, and when it ends the run: the rounds are done, the model stands still, or the shared
metric does."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest

from aggregator.stripes import Change
from aggregator.summary import summarise
from exchange import tensors
from exchange.public import FINAL
from exchange.records import Cohort, StoredUpdate, Summary
from exchange.spec import FederationSettings
from tests.support.arithmetic import reference
from tests.support.federation import Federation
from tests.support.settings import CLIENTS, EXAMPLES, federation_settings

WEIGHTS = [EXAMPLES[client] for client in CLIENTS]


def relative_changes(rounds: int) -> list[float]:
    """Return ‖new − old‖ / ‖old‖ of every round of an undisturbed run, with NumPy."""
    files = reference(federation_settings(rounds=rounds), [CLIENTS] * rounds)
    flat = [
        np.concatenate(
            [array.astype(np.float64).ravel() for array in tensors.load(data).values() if array.dtype.kind == "f"]
        )
        for data in files
    ]
    return [float(np.linalg.norm(new - old) / np.linalg.norm(old)) for old, new in pairwise(flat)]


def ended(federation: Federation) -> tuple[str, int]:
    """Return why a run ended, and the number of its final model; all that say so must agree."""
    ending, last = federation.ending(), len(federation.models) - 1
    assert federation.summary(last - 1).finished == ending.reason
    assert tensors.layout_of(federation.models[-1]).metadata[FINAL] == ending.reason
    assert all(FINAL not in tensors.layout_of(data).metadata for data in federation.models[:-1])
    assert all(federation.summary(round_).finished is None for round_ in range(last - 1))
    assert ending.round == last
    return ending.reason, last


def test_the_relative_change_is_that_of_all_floating_tensors_to_six_digits():
    federation = Federation(federation_settings(rounds=4)).run()
    found = [federation.summary(round_).relative_change for round_ in range(4)]
    assert found == [float(f"{change:.6g}") for change in relative_changes(4)]


def test_a_run_ends_once_the_model_changes_less_than_the_tolerance():
    changes = relative_changes(6)
    smallest = int(np.argmin(changes))
    assert smallest > 0  # or else the first round would end it anyway
    federation = Federation(federation_settings(rounds=6, stop={"tolerance": changes[smallest] * 1.00001})).run()
    assert ended(federation) == ("tolerance", smallest + 1)
    undisturbed = reference(federation_settings(rounds=6), [CLIENTS] * 6)
    assert federation.models[:-1] == undisturbed[: smallest + 1]


def test_a_tolerance_that_is_not_reached_ends_nothing():
    changes = relative_changes(4)
    exactly = float(f"{min(changes):.6g}")  # a change that is as large as the tolerance is not below it
    federation = Federation(federation_settings(rounds=4, stop={"tolerance": exactly})).run()
    assert ended(federation) == ("rounds", 4)
    assert federation.models == reference(federation.settings, [CLIENTS] * 4)


def test_a_void_round_does_not_end_a_run_by_its_tolerance():
    federation = Federation(federation_settings(rounds=3, stop={"tolerance": 1e-6}))
    federation.instead = {(client, 1): lambda: None for client in CLIENTS}
    assert ended(federation.run()) == ("rounds", 3)


def sharing(*accuracies: float | None, rounds: int | None = None, **stop: object) -> Federation:
    """Return a run in which all clients find these accuracies of model 0, 1, …, and share them."""
    settings = federation_settings(rounds=rounds or len(accuracies), metrics={"share": "open"}, stop=stop)

    def found(_: str, round_: int) -> dict[str, float]:
        accuracy = accuracies[round_]
        return {} if accuracy is None else {"accuracy": accuracy}

    return Federation(settings, metrics=found).run()


@pytest.mark.parametrize(
    ("accuracies", "patience", "end"),
    [
        ([0.5, 0.4, 0.4, 0.4], 1, ("patience", 2)),
        ([0.5, 0.5, 0.9, 0.9], 1, ("patience", 2)),  # as good is not better
        ([0.5, 0.6, 0.55, 0.6, 0.7], 2, ("patience", 4)),
        ([0.5, 0.4, 0.51, 0.4, 0.52, 0.4], 2, ("rounds", 6)),
        ([0.1, 0.2, 0.3], 1, ("rounds", 3)),
        ([-3.0, -2.0, -1.0, -1.5], 1, ("patience", 4)),  # a loss, negated
        ([0.5, 0.4, 0.4], 2, ("patience", 3)),  # the last round, too, says patience: it comes first
        ([None, None, None], 1, ("rounds", 3)),
        ([0.5, None, None, 0.6, None, 0.55], 1, ("patience", 6)),  # silence is no sign of anything
    ],
)
def test_a_run_ends_when_the_shared_metric_has_not_improved_for_so_many_rounds(
    accuracies: list[float | None], patience: int, end: tuple[str, int]
):
    assert ended(sharing(*accuracies, patience=patience)) == end


def test_patience_watches_the_metric_that_was_agreed_on():
    settings = federation_settings(
        rounds=4, metrics={"share": "open"}, stop={"patience": 1, "metric": "auc"}, inboxes=False
    )
    federation = Federation(settings, metrics=lambda client, round_: {"accuracy": 0.5, "auc": 0.1 * round_}).run()
    assert ended(federation) == ("rounds", 4)


def test_without_patience_metrics_are_reported_and_end_nothing():
    federation = sharing(0.5, 0.4, 0.3)
    assert ended(federation) == ("rounds", 3)
    assert [federation.summary(round_).metrics for round_ in range(3)] == [
        {"accuracy": pytest.approx(value)} for value in (0.5, 0.4, 0.3)
    ]
    assert [(federation.summary(round_).best, federation.summary(round_).stale_rounds) for round_ in range(3)] == [
        (pytest.approx(0.5), 0),
        (pytest.approx(0.5), 1),
        (pytest.approx(0.5), 2),
    ]


def test_metrics_are_averaged_by_examples_over_those_who_share_them():
    own = {
        "alder": {"accuracy": 0.9, "auc": 0.8},
        "birch": {"accuracy": 0.6},
        "cedar": {"accuracy": 0.1, "auc": 0.5},
    }
    settings = federation_settings(rounds=2, metrics={"share": "open"})
    federation = Federation(settings, metrics=lambda client, round_: own[client])
    federation.instead[("birch", 1)] = lambda: federation.upload("birch", 1, None)
    federation.run()
    assert federation.summary(0).metrics == {
        "accuracy": pytest.approx(np.average([0.9, 0.6, 0.1], weights=WEIGHTS), rel=1e-14),
        "auc": pytest.approx(np.average([0.8, 0.5], weights=[100, 7]), rel=1e-14),
    }
    assert federation.summary(0).client_metrics == own
    assert federation.summary(1).client_metrics == {client: own[client] for client in ("alder", "cedar")}
    assert federation.summary(1).metrics["accuracy"] == pytest.approx(np.average([0.9, 0.1], weights=[100, 7]))


@pytest.mark.parametrize("seed", range(5))
def test_summaries_are_the_same_bytes_however_events_came(seed: int):
    settings = federation_settings(quorum=3, metrics={"share": "open"}, stop={"patience": 2, "tolerance": 1e-9})

    def summaries(federation: Federation) -> list[bytes]:
        return [data for key, data in federation.folder("rounds/").items() if key.endswith("summary.json")]

    def metrics(client: str, round_: int) -> dict[str, float]:
        return {"accuracy": 0.1 * round_ + len(client) / 7}

    undisturbed = Federation(settings, metrics=metrics).run()
    disturbed = Federation(settings, metrics=metrics)
    disturbed.run(order=Random(seed), duplicates=True, sweeps=Random(seed))
    assert len(summaries(undisturbed)) == 3
    assert summaries(undisturbed) == summaries(disturbed)


# One round at a time.


def cohort(*clients: str, round_: int = 0, **metrics: float) -> Cohort:
    members = tuple(
        StoredUpdate(
            client=client,
            key=f"orchard/updates/{client}/{round_:06d}.safetensors",
            version="v",
            size=1,
            sha256="a" * 64,
            num_examples=EXAMPLES[client],
            norm=2.0,
            metrics=metrics,
        )
        for client in clients
    )
    absent = tuple(client for client in CLIENTS if client not in clients)
    return Cohort(
        federation="orchard",
        round=round_,
        members=members,
        void=not clients,
        rejected={},
        withdrawn=(),
        absent=absent,
        frozen_by="an event",
    )


def after(settings: FederationSettings, found: Cohort, change: Change | None, **before: object) -> Summary:
    earlier = summarise(settings, cohort("alder"), Change(1, 1), None).model_copy(update=before) if before else None
    return summarise(settings, found, change, earlier)


def test_of_several_reasons_to_end_a_run_the_gravest_is_given():
    settings = federation_settings(
        rounds=3, metrics={"share": "open"}, stop={"patience": 1, "tolerance": 0.1}, quorum=1
    )
    worse = cohort("alder", round_=2, accuracy=0.1)
    assert after(settings, worse, Change(0.01, 1), best=0.5).finished == "tolerance"
    assert after(settings, worse, Change(1, 1), best=0.5).finished == "patience"
    assert after(settings, worse, Change(1, 1), best=0.05).finished == "rounds"
    assert after(settings, cohort(round_=2), None, void_rounds=2).finished == "void"
    assert after(settings, cohort(round_=2), None, void_rounds=1).finished == "rounds"
    assert after(settings, cohort(round_=1), None, void_rounds=1).finished is None


def test_a_change_from_a_model_of_zeros_is_no_standstill():
    settings = federation_settings(stop={"tolerance": 0.1})
    found = after(settings, cohort("alder"), Change(0.0, 0.0))
    assert (found.relative_change, found.finished) == (None, None)


def test_a_void_round_has_no_metrics_and_ages_none():
    settings = federation_settings(metrics={"share": "open"}, stop={"patience": 2})
    found = after(settings, cohort(round_=1), None, best=0.5, stale_rounds=1)
    assert (found.metrics, found.best, found.stale_rounds, found.num_examples) == ({}, 0.5, 1, 0)


def test_a_summary_is_a_pure_function():
    settings = federation_settings(metrics={"share": "open"})
    first, second = (after(settings, cohort("alder", "cedar", b=0.1, a=0.3), Change(1, 3)) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    other_event = cohort("alder", "cedar", b=0.1, a=0.3).model_copy(update={"frozen_by": "another event"})
    assert after(settings, other_event, Change(1, 3)).to_bytes() == first.to_bytes()
    assert first.relative_change == 0.333333
    assert first.num_examples == 107
