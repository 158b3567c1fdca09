"""What each of four lenders gains: `python -m benchmarks.loans --seeds 20 --json examples/loans/gains.json`.

AUC and accuracy of examples/loans, lender by lender, on two sets of loans that nobody trained on: those of all lenders,
and the lender's own. *Alone* and *pooled* are trained to convergence without noise; *together* is the example's own
run, with noise and without. All of it in one process: the handlers and the training are those of production, the
buckets are in memory. A seed fixes split, initial weights and batch order; the noise is drawn from the operating system
and never the same.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

import examples.loans.__main__ as loans
from examples.in_memory import Example, deal

EPSILON, DELTA = 4.0, 1e-5
WAYS = ("alone", "together", "together, noise", "pooled")
KINDS = ("split", "lender", "on", "of")
Row = dict[str, Any]


def measure(split: str, seed: int, rounds: int | None = None) -> Iterator[Row]:
    """Yield what every way to train reaches for every lender, on all lenders' loans and on its own.

    Args:
        rounds: in place of the example's own.
    """
    held_back = {lender: test for lender, (_, test) in loans.lenders(seed, split).items()}
    with TemporaryDirectory() as folder:
        found = deal(Example(Path(loans.__file__).parent, partial(loans.dealt, split=split)), seed, Path(folder))
        models = {"pooled": found.trained(list(found.clients))}
        for way, epsilon in {"together": None, "together, noise": EPSILON}.items():
            models[way] = found.loaded(found.models(found.settings(epsilon, rounds))[-1])
        for lender, own in held_back.items():
            models["alone"] = found.trained([lender])
            for on, test in {"all": found.test, "own": own}.items():
                reached = {way: found.metrics(models[way], test) for way in WAYS}
                which = {"split": split, "lender": lender, "on": on, "trained": len(found.clients[lender])}
                for metric in ("auc", "accuracy"):
                    yield which | {"of": metric} | {way: metrics[metric] for way, metrics in reached.items()}


def table(rows: list[Row], seeds: int) -> list[Row]:
    """Return the means over seeds, and of what a lender gains by training together, with noise."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(tuple(row[of] for of in KINDS), []).append(row)
    found = []
    for kind, of in kinds.items():
        assert len(of) == seeds
        gains = [row["together, noise"] - row["alone"] for row in of]
        means = {way: round(mean(row[way] for row in of), 4) for way in WAYS}
        gain = {"gain": round(mean(gains), 4), "gain_sd": round(stdev(gains), 4), "gained": sum(g > 0 for g in gains)}
        found.append(dict(zip(KINDS, kind, strict=True)) | {"trained": of[0]["trained"]} | means | gain)
    return found


@click.command()
@click.option("--seeds", default=20, show_default=True, help="How many, two at least: 0, 1, …")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the JSON there.")
def main(seeds: int, out: Path | None) -> None:
    """Measure, and print the means as JSON."""
    torch.set_num_threads(1)
    rows = [row for split in loans.SPLITS for seed in range(seeds) for row in measure(split, seed)]
    privacy = {"epsilon": EPSILON, "delta": DELTA, "unit": "one example, added or removed"}
    text = json.dumps({"seeds": seeds, "privacy": privacy, "rows": table(rows, seeds)}, indent=2, ensure_ascii=False)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
