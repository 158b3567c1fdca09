"""What the report page can show of a federation from its parent bucket alone.

It comes in the form of summary.json and rounds.jsonl. There is no test set and no baseline, and what clients have spent
is in their own ledgers. Times are those at which objects were created, by the store's clock: an answer lasts from the
round's opening to its upload, waiting included. In a bucket that was copied they are the times of the copying.
"""

from collections.abc import Mapping
from typing import Any

from aggregator.next_model import read_summary
from client.privacy.floor import noise_in_words
from exchange import keys
from exchange.errors import NotFound
from exchange.public import newest_model, open_model, read_settings
from exchange.records import Finished, Summary
from exchange.spec import FederationSettings
from exchange.stores import ObjectInfo, Store
from fedbucket.local.journal import Span, moved, round_line
from fedbucket.retention import read_pruned

_Objects = Mapping[keys.Key, ObjectInfo]


def read_bucket(store: Store, federation: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what summary.json and rounds.jsonl would hold, as far as the bucket tells; raises NotFound."""
    settings = read_settings(store, federation)
    if (newest := newest_model(store, federation)) is None:
        raise NotFound(f"{federation} in {store.url} has settings, and no model yet: it was not started")
    parsed = ((keys.parse(info.key), info) for info in store.list(keys.everything(federation)))
    objects = {key: info for key, info in parsed if key is not None}
    rounds = [_line(store, settings, round_, objects) for round_ in range(newest)]
    return _summary(store, settings, newest, objects), rounds


def _summary(store: Store, settings: FederationSettings, newest: int, objects: _Objects) -> dict[str, Any]:
    began, ended = (objects[keys.Model(settings.name, round_)].created for round_ in (0, newest))
    finished = None
    if keys.Finished(settings.name) in objects:
        key = str(keys.Finished(settings.name))
        finished = Finished.from_bytes(store.read(key), key)
    dimension = sum(tensor.count for tensor in open_model(store, settings.name, newest).layout.floating)
    return {
        "source": "parent bucket",
        "name": settings.name,
        "rounds": newest,
        "planned_rounds": settings.rounds,
        "clients": settings.roster,
        "privacy": settings.privacy.model_dump(mode="json") | {"noise": noise_in_words(settings, dimension)},
        "seconds": round(ended - began, 1) if ended >= began else None,
        "settings_sha256": settings.sha256,
        "model_sha256": finished.sha256 if finished else None,
        "finished": {"reason": finished.reason, "round": finished.round} if finished else None,
        "seed": settings.train.seed,
    }


def _line(store: Store, settings: FederationSettings, round_: int, objects: _Objects) -> dict[str, Any]:
    summary = read_summary(store, settings.name, round_)
    if summary is None:
        raise NotFound(f"{keys.Summary(settings.name, round_)} in {store.url}: model {round_ + 1} is there without it")
    model = objects[keys.Model(settings.name, round_)].size
    return round_line(summary, {}, moved(model, _sizes(store, settings, round_, objects)), _spans(summary, objects))


def _sizes(store: Store, settings: FederationSettings, round_: int, objects: _Objects) -> list[int]:
    """Return the bytes of each update of a round, also of those that were removed since."""
    pruned = read_pruned(store, settings.name, round_) if keys.Pruned(settings.name, round_) in objects else None
    sizes = {each.key: each.size for each in pruned.removed} if pruned else {}
    updates = [keys.Update(settings.name, client, round_) for client in settings.roster]
    sizes |= {str(update): objects[update].size for update in updates if update in objects}
    return [sizes[str(update)] for update in updates if str(update) in sizes]


def _spans(summary: Summary, objects: _Objects) -> list[Span]:
    """Return who took how long, in seconds since model 0 was created."""
    name, round_ = summary.federation, summary.round
    began = objects[keys.Model(name, 0)].created

    def first(*found: keys.Key) -> float:
        return next(round(objects[key].created - began, 4) for key in found if key in objects)

    made = keys.Model(name, round_ + 1)
    opened, frozen = first(keys.Model(name, round_)), keys.Cohort(name, round_)
    spans: list[Span] = [("aggregate", None, first(frozen, made), first(made))]
    for client in (*summary.averaged, *summary.left_out, *summary.rejected, *summary.withdrawn):
        receipt = keys.Receipt(name, round_, client)
        answers = [keys.Update(name, client, round_, withdrawn) for withdrawn in (False, True)]
        answered = first(*answers, receipt, made)
        spans += [("answer", client, opened, answered), ("record", client, answered, first(receipt, made))]
    return [span for span in spans if span[3] >= span[2]]  # whole seconds of the one may precede parts of the other's
