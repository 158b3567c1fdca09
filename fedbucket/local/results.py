"""What a run leaves for people: summary.json, model.safetensors and report.html."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any

from client.privacy.accounting import epsilon
from client.privacy.floor import noise_in_words
from client.privacy.ledger import Ledger, events_of
from exchange import keys, tensors
from exchange.records import Finished, Metrics
from exchange.spec import FederationSettings, NoPrivacy
from fedbucket import report
from fedbucket.local.folder import FederationFolder, RunFolder
from fedbucket.local.journal import read_rounds
from fedbucket.local.pool import Pool, value_of
from fedbucket.local.progress import Progress

_POOLED = ""  # in baselines.json: the model trained on all data; no client bears an empty id


def write_results(
    federation: FederationFolder,
    run: RunFolder,
    pool: Pool,
    progress: Progress,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write everything that a finished run leaves, and return what is in summary.json.

    Args:
        more: what else summary.json is to say.

    Raises:
        RunStopped: a baseline could not be trained.
    """
    settings = federation.settings
    finished = _finished(run, settings)
    run.model.write_bytes(run.parent.read(finished.model, limit=2**62))
    tested = federation.local.test is not None
    examples = {"test_examples": pool.call("test_examples") if tested else None}
    baselines = {}
    if tested and federation.local.baselines:
        baselines = _baselines(run, pool, settings.roster, progress)
    summary = _summary(federation, run, finished, baselines) | examples | dict(more or {})
    run.summary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(run)
    return summary


def write_report(run: RunFolder) -> None:
    """Make report.html anew from summary.json and rounds.jsonl."""
    summary = json.loads(run.summary.read_text(encoding="utf-8"))
    run.report.write_text(report.render(summary, read_rounds(run.rounds)), encoding="utf-8")


def _finished(run: RunFolder, settings: FederationSettings) -> Finished:
    key = str(keys.Finished(settings.name))
    return Finished.from_bytes(run.parent.read(key), key)


def _baselines(run: RunFolder, pool: Pool, roster: list[str], progress: Progress) -> dict[str, Metrics]:
    """Train each client alone, and one model on all data; kept, so that a finished run need not do it again."""
    if run.baselines.exists():
        kept: dict[str, Metrics] = json.loads(run.baselines.read_text())
        return kept
    jobs = {pool.submit("baseline", [client]): client for client in roster}
    jobs[pool.submit("baseline", roster)] = _POOLED
    found = {}
    for number, future in enumerate(as_completed(jobs), start=1):
        found[jobs[future]] = value_of(future)
        progress.say(f"for comparison: clients alone and pooled, {number}/{len(jobs)}")
    progress.end()
    run.baselines.write_text(json.dumps(found, indent=2, sort_keys=True))
    return found


def _summary(
    federation: FederationFolder, run: RunFolder, finished: Finished, baselines: dict[str, Metrics]
) -> dict[str, Any]:
    settings = federation.settings
    rounds = read_rounds(run.rounds)
    federated = rounds[-1]["metrics"] if rounds else {}
    alone = {client: baselines[client] for client in settings.roster if client in baselines}
    accuracies = {client: metrics["accuracy"] for client, metrics in alone.items() if "accuracy" in metrics}
    mean_alone = sum(accuracies.values()) / len(accuracies) if accuracies else None
    accuracy = federated.get("accuracy")
    return {
        "name": settings.name,
        "rounds": finished.round,
        "planned_rounds": settings.rounds,
        "clients": settings.roster,
        "federated_accuracy": accuracy,
        "alone_accuracy": mean_alone,
        "alone": accuracies,
        "pooled_accuracy": baselines.get(_POOLED, {}).get("accuracy"),
        "ratio": accuracy / mean_alone if accuracy is not None and mean_alone else None,
        "metrics": {"federated": federated, "alone": alone, "pooled": baselines.get(_POOLED)},
        "privacy": settings.privacy.model_dump(mode="json") | _accounts(federation, run),
        "seconds": _seconds(rounds),
        "settings_sha256": settings.sha256,
        "model_sha256": finished.sha256,
        "finished": {"reason": finished.reason, "round": finished.round},
        "data_split": federation.local.split,
        "seed": settings.train.seed,
    }


def _seconds(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return the time from the first step to the end of the last: rounds overlap, theirs do not add up to it."""
    spans = [span for line in rounds for span in line["spans"]]
    return round(max(span[3] for span in spans) - min(span[2] for span in spans), 1) if spans else 0.0


def _accounts(federation: FederationFolder, run: RunFolder) -> dict[str, Any]:
    """Return what each client has spent, as it would tell its own people: the accounts are private to the clients."""
    if isinstance(federation.settings.privacy, NoPrivacy):
        return {}
    found = {}
    for client in federation.settings.roster:
        own = federation.clients[client]
        if own.budget is not None:
            spent = epsilon(events_of(Ledger(run.state(client), own.dataset).read()[1]), own.budget.delta)
            found[client] = {
                "epsilon_spent": spent,
                "epsilon_budget": own.budget.epsilon,
                "delta": own.budget.delta,
            }
    dimension = tensors.count_floating(tensors.load(run.model.read_bytes()))
    return {"by_client": found, "noise": noise_in_words(federation.settings, dimension)}
