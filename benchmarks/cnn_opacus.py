"""The CNN on digits under DP-SGD: this federation, the same with Opacus 1.6 in its clients, and Opacus on pooled data.

    python -m benchmarks.cnn_opacus --seeds 3 --out docs/images/cnn-opacus

All three in one process, one after the other, from the same split, initial weights, sampling probability q, noise
multiplier z, clip norm, learning rate and number of steps. z is calibrated by our account (dp-accounting's PLD); what
Opacus's own accountants make of it is printed beside. In Opacus's federation each client takes its steps by
GradSampleModule and DPOptimizer on Poisson samples, with the same proximal pull, and models are averaged by examples.

Opacus on pooled data is the line above both: one trusted party that holds all data adds the same noise to the gradients
of all clients together, where a federation that trusts nobody adds it in each of its K clients. In the average the
noise is √K times as large. Opacus lives in an environment of its own under --cache, with this one's build of torch.
Writes OUT.json and OUT.svg.
"""

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.environments import opacus_python
from client.privacy.accounting import epsilon
from client.privacy.plan import DpSgdPlan, make_plan
from examples.cnn import __main__ as cnn
from examples.in_memory import Dealt, Example, deal

EXAMPLE = Example(Path(str(cnn.__file__)).parent, cnn.dealt)
EPSILON = 8.0
WITHIN = 0.02  # of the Opacus federation's mean accuracy
WAYS = ("fedbucket", "Opacus in the clients", "Opacus on pooled data")


def work(seed: int) -> dict[str, list[float]]:
    """Return the accuracy after each round, model 0 first, of each of `WAYS`; needs Opacus."""
    import torch

    from benchmarks.opacus_training import federated, pooled

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dealt = deal(EXAMPLE, seed, Path(folder))
        plan = plan_of(dealt)
        ours = [dealt.accuracy_of(model) for model in dealt.models(plan.settings)]
        torch.manual_seed(seed)  # of Opacus's samples and noise
        theirs = [dealt.accuracy(model) for model in federated(dealt, plan)]
        together = [dealt.accuracy(model) for model in pooled(dealt, plan)]
    return dict(zip(WAYS, (ours, theirs, together), strict=True))


def plan_of(dealt: Dealt) -> DpSgdPlan:
    """Return what every client does in a round, at the ε of the benchmark."""
    settings = dealt.settings(EPSILON)
    plan = make_plan(settings, settings.roster[0])
    assert isinstance(plan, DpSgdPlan)
    return plan


def accounts(plan: DpSgdPlan) -> dict[str, float]:
    """Return the ε of a whole run by our account and by Opacus's, at the settings' δ; needs Opacus."""
    from opacus.accountants import PRVAccountant, RDPAccountant

    event, rounds, delta = plan.event, plan.settings.rounds, plan.privacy.delta
    found = {"fedbucket": epsilon([event] * rounds, delta)}
    for name, accountant in {"Opacus, PRV": PRVAccountant(), "Opacus, RDP": RDPAccountant()}.items():
        accountant.history = [(event.noise_multiplier, event.sampling_probability, rounds * event.steps)]
        found[name] = accountant.get_epsilon(delta)
    return {name: round(float(value), 4) for name, value in found.items()}


def conditions(seeds: int) -> dict[str, Any]:
    """Return what the figures depend on; needs Opacus."""
    import opacus
    import torch

    with tempfile.TemporaryDirectory() as folder:
        dealt = deal(EXAMPLE, 0, Path(folder))
        plan = plan_of(dealt)
        return {
            "seeds": seeds,
            "unit": plan.privacy.unit,
            "adjacency": plan.privacy.adjacency,
            "delta": plan.privacy.delta,
            "epsilon": accounts(plan),
            "noise_multiplier": plan.event.noise_multiplier,
            "sampling_probability": plan.event.sampling_probability,
            "steps_in_a_round": plan.event.steps,
            "rounds": plan.settings.rounds,
            "clip_norm": plan.privacy.clip_norm,
            "learning_rate": plan.settings.train.learning_rate,
            "clients": len(dealt.clients),
            "training_examples": sum(len(part) for part in dealt.clients.values()),
            "test_examples": len(dealt.test),
            "weights": sum(parameter.numel() for parameter in dealt.task.model(0).parameters()),
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opacus": opacus.__version__,
        }


def table(runs: list[dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Return a row for each way: its accuracy after the last round by seed, and the mean after every round."""
    rows = []
    for way in WAYS:
        last = [round(run[way][-1], 4) for run in runs]
        by_round = [round(statistics.mean(of), 4) for of in zip(*(run[way] for run in runs), strict=True)]
        rows.append({"name": way, "mean": round(statistics.mean(last), 4), "accuracies": last, "by_round": by_round})
    return rows


def run_worker(python: Path, *arguments: str) -> Iterator[str]:
    """Yield the lines that this program prints under `python`."""
    root = Path(__file__).parent.parent
    command = [str(python), "-W", "ignore", "-m", "benchmarks.cnn_opacus", "--worker", *arguments]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def worker(seeds: int) -> None:
    """Print the progress, and as the last line all that was found."""
    start, runs = time.perf_counter(), []
    for seed in range(seeds):
        runs.append(work(seed))
        last = ", ".join(f"{way} {found[-1]:.3f}" for way, found in runs[-1].items())
        print(f"{time.perf_counter() - start:5.0f} s  seed {seed}: {last}", flush=True)
    rows = table(runs)
    difference = round(rows[0]["mean"] - rows[1]["mean"], 4)
    verdict = {"difference": difference, "within": WITHIN, "kept": abs(difference) <= WITHIN}
    print(json.dumps({"conditions": conditions(seeds), "rows": rows, "fedbucket_and_opacus": verdict}))


@click.command()
@click.option("--seeds", default=3, show_default=True, help="How many: 0, 1, …")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/images/cnn-opacus"), show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"), show_default=True)
@click.option("--redraw", is_flag=True, help="Draw the figures in OUT.json again, and measure nothing.")
@click.option("--worker", "is_worker", is_flag=True, hidden=True)
def main(seeds: int, out: Path, cache: Path, redraw: bool, is_worker: bool) -> None:
    """Measure, and draw."""
    if is_worker:
        worker(seeds)
        return
    from benchmarks.cnn_picture import draw

    figures = out.with_suffix(".json")
    if not redraw:
        line = ""
        for line in run_worker(opacus_python(cache), "--seeds", str(seeds)):
            if not line.startswith("{"):
                click.echo(line, nl=False, err=True)
        figures.write_text(json.dumps(json.loads(line), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    found = json.loads(figures.read_text(encoding="utf-8"))
    out.with_suffix(".svg").write_text(draw(found), encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
