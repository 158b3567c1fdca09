"""What an emulated run leaves: a copy of its buckets as they stood, and from the functions' own log what they did."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from exchange import keys
from exchange.public import newest_model
from exchange.records import Finished
from exchange.stores import Store, open_store
from fedbucket.emulated.placement import Placement
from fedbucket.local.folder import FederationFolder, RunFolder
from fedbucket.local.journal import Journal
from fedbucket.local.pool import Pool, value_of

_BUFFER = 8 * 2**20  # bytes


def keep(placement: Placement, run: RunFolder) -> None:
    """Copy the buckets to where a run on one machine has them, for every command that reads a run."""
    _copy(open_store(placement.parent_bucket), run.parent)
    for client in placement.places:
        _copy(open_store(placement.state(client)), run.state(client))
        if (inbox := placement.inbox(client)) is not None:
            _copy(open_store(inbox), run.inbox(client))


def write_rounds(federation: FederationFolder, run: RunFolder, pool: Pool, began: float) -> None:
    """Write rounds.jsonl, from the buckets that were kept and from the functions' log.

    Args:
        began: when the run began, in seconds since 1970.
    """
    settings = federation.settings
    journal = Journal(run.rounds, run.parent, settings, began)
    for line in read_log(run.path / "logs"):
        if line.get("outcome") == "done" and "round" in line:
            ended = datetime.fromisoformat(line["time"]).timestamp()
            journal.span(line["round"], line["step"], line.get("client"), ended - line["seconds"], ended)
    made = range(newest_model(run.parent, settings.name) or 0)
    tested = [pool.submit("evaluate", round_ + 1) for round_ in made] if federation.local.test is not None else []
    for round_ in made:
        journal.close(round_, value_of(tested[round_]) if tested else {})


def seconds_to_model(created: Mapping[str, float], federation: str) -> list[float]:
    """Return for each round the seconds from its last update to the model made of it.

    Args:
        created: when the parent bucket told of each key, in seconds since any time.
    """
    last: dict[int, float] = {}
    for name, when in created.items():
        if isinstance(key := keys.parse(name), keys.Update):
            last[key.round] = max(when, last.get(key.round, when))
    models = {round_: created.get(str(keys.Model(federation, round_ + 1))) for round_ in sorted(last)}
    return [round(made - last[round_], 3) for round_, made in models.items() if made is not None]


def final_model(run: RunFolder) -> str:
    """Return the SHA-256 of a finished run's last model."""
    (name,) = run.parent.folders()
    key = str(keys.Finished(name))
    return Finished.from_bytes(run.parent.read(key), key).sha256


def read_log(logs: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON in the logs of a folder; the last one may be torn, for the functions are killed."""
    for path in sorted(logs.glob("*.log")):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            yield from _objects(text)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield those of one line: processes that share a log write an object and its end of line one after the other."""
    while text.startswith("{"):
        try:
            found, end = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError:
            return
        yield found
        text = text[end:]


def _copy(source: Store, target: Store) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    for info in source.list(""):
        with target.writer(info.key, info.size) as out:
            for offset in range(0, info.size, _BUFFER):
                part = buffer[: min(_BUFFER, info.size - offset)]
                source.read_into(info.key, offset, part, info.version)
                out.write(part)
