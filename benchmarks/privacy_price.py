"""What privacy costs: accuracy by ε, for one example and for one whole client. Writes OUT.json and OUT.svg.

    python -m benchmarks.privacy_price --seeds 5 --out docs/images/privacy-price

All of examples/, with their own splits, tasks and settings, in one process: the handlers and the training are those of
production, the buckets are in memory. For unit "example" the settings are the example's own (one full-batch step a
round, or DP-SGD); for unit "client" those of its run without noise, with a client's difference clipped to `CLIP_NORM`,
which was chosen among .3, 1 and 3 on seed 100, and that is none of the seeds here. "No noise" is the example's own run
without privacy; "alone" and "pooled" are trained to convergence. A seed fixes split, initial weights and batch order;
the noise is drawn from the operating system and never the same.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

import examples.breast_cancer.__main__ as breast_cancer
import examples.cnn.__main__ as cnn
import examples.digits.__main__ as digits
from benchmarks.price_picture import draw
from examples.in_memory import Dealt, Example, deal
from exchange.spec import FederationSettings

EXAMPLES = {
    "digits": Example(Path(str(digits.__file__)).parent, digits.dealt),
    "breast cancer": Example(Path(str(breast_cancer.__file__)).parent, breast_cancer.dealt),
    "digits, CNN": Example(Path(str(cnn.__file__)).parent, cnn.dealt),
}
EPSILONS = {"example": (0.5, 1.0, 2.0, 4.0, 8.0), "client": (8.0, 32.0, 128.0, 512.0)}
ADJACENCY = {"example": "add-or-remove", "client": "replace-one"}
DELTA = 1e-5
CLIP_NORM = 0.3


@dataclass(frozen=True)
class Point:
    """One run: which, and the accuracy of its last model on the test set."""

    example: str
    curve: str
    epsilon: float | None
    seed: int
    accuracy: float


def settings_of(dealt: Dealt, unit: str, epsilon: float) -> FederationSettings:
    """Return the example's settings under ε (at `DELTA`, for `unit`)."""
    if unit == "example":
        return dealt.settings(epsilon)
    privacy = {"mechanism": "ornstein-uhlenbeck", "unit": "client", "epsilon": epsilon, "delta": DELTA}
    privacy["clip_norm"] = CLIP_NORM
    return FederationSettings.model_validate(dealt.settings(None).model_dump() | {"privacy": privacy})


def measure(
    names: list[str], seeds: range, epsilons: dict[str, tuple[float, ...]], rounds: int | None = None
) -> Iterator[Point]:
    """Yield every run of every example, seed by seed.

    Args:
        rounds: in place of the examples' own.
    """
    for seed in seeds:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                dealt = deal(EXAMPLES[name], seed, Path(folder))
                everyone = list(dealt.clients)
                yield Point(name, "pooled", None, seed, dealt.baseline(everyone))
                yield Point(name, "alone", None, seed, statistics.mean(dealt.baseline([one]) for one in everyone))
                yield Point(name, "no noise", None, seed, dealt.federated(_short(dealt.settings(None), rounds)))
                for unit, budgets in epsilons.items():
                    for epsilon in budgets:
                        settings = _short(settings_of(dealt, unit, epsilon), rounds)
                        assert settings.privacy.mechanism != "none"
                        assert (settings.privacy.delta, settings.privacy.adjacency) == (DELTA, ADJACENCY[unit])
                        yield Point(name, unit, epsilon, seed, dealt.federated(settings))


def _short(settings: FederationSettings, rounds: int | None) -> FederationSettings:
    if rounds is None:
        return settings
    return FederationSettings.model_validate(settings.model_dump() | {"rounds": rounds})


def table(points: list[Point]) -> list[dict[str, Any]]:
    """Return a row for every example, curve and ε: accuracies by seed, and their mean and range."""
    found: dict[tuple[str, str, float | None], list[Point]] = {}
    for point in points:
        found.setdefault((point.example, point.curve, point.epsilon), []).append(point)
    rows = []
    for (example, curve, epsilon), of in found.items():
        accuracies = [round(point.accuracy, 4) for point in of]
        guarantee = {"unit": curve, "adjacency": ADJACENCY[curve], "delta": DELTA} if epsilon is not None else {}
        figures = {
            "mean": round(statistics.mean(accuracies), 4),
            "lowest": min(accuracies),
            "highest": max(accuracies),
            "accuracies": accuracies,
        }
        rows.append({"example": example, "curve": curve, "epsilon": epsilon} | guarantee | figures)
    return rows


def conditions(names: list[str], seeds: range) -> dict[str, Any]:
    """Return what the figures depend on."""
    described = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            dealt = deal(EXAMPLES[name], seeds[0], Path(folder))
            settings = dealt.settings(1.0)
            described[name] = {
                "clients": len(settings.client),
                "training_examples": sum(entry.examples for entry in settings.client),
                "test_examples": len(dealt.test),
                "weights": sum(parameter.numel() for parameter in dealt.task.model(0).parameters()),
                "rounds": settings.rounds,
            }
    return {
        "seeds": list(seeds),
        "delta": DELTA,
        "client_clip_norm": CLIP_NORM,
        "examples": described,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@click.command()
@click.option("--seeds", default=5, show_default=True, help="How many: 0, 1, …")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/images/privacy-price"), show_default=True)
@click.option("--redraw", is_flag=True, help="Draw the figures in OUT.json again, and measure nothing.")
def main(seeds: int, out: Path, redraw: bool) -> None:
    """Measure, and draw."""
    torch.set_num_threads(1)
    figures, picture = out.with_suffix(".json"), out.with_suffix(".svg")
    if not redraw:
        start, points = time.perf_counter(), []
        for point in measure(list(EXAMPLES), range(seeds), EPSILONS):
            points.append(point)
            budget = "" if point.epsilon is None else f" ε = {point.epsilon:g} (δ = {DELTA:g})"
            elapsed = time.perf_counter() - start
            print(f"{elapsed:5.0f} s  seed {point.seed}  {point.example}, {point.curve}{budget}: {point.accuracy:.3f}")
        found = {"conditions": conditions(list(EXAMPLES), range(seeds)), "rows": table(points)}
        figures.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    picture.write_text(draw(json.loads(figures.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"{figures}\n{picture}")


if __name__ == "__main__":
    main()
