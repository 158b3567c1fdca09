"""How fast updates become a global model, beside Flower's and NVFlare's own code on the same numbers.

    python -m benchmarks.aggregate --clients 10 --parameters 25000000 --json OUT
    python -m benchmarks.aggregate --clients 100 --parameters 1000000 --rule median

From the received bytes to the bytes of the global model. Every run is a process of its own and the contenders take
turns, so that whatever else the machine does falls on all of them alike; medians of --runs. Ours runs with one thread
and with two. The first run of each is held against ours, element by element: all compute the same mean. Peers live in
environments of their own under --cache, made at first use. A median, a trimmed mean and multi-Krum are compared with
Flower's; NVFlare has none.

`peak_mib` is what aggregating added to the process's resident memory, without the received bytes.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from benchmarks.environments import FLOWER, NVFLARE, flower_python, nvflare_python

RULES = ("mean", "median", "trimmed-mean", "multi-krum")
WITHIN = 1e-5  # of one another: the others add up in float32, some of them a hundred clients


@dataclass(frozen=True)
class Contender:
    """An aggregator with the interpreter that has it."""

    name: str
    python: Path
    threads: int = 1

    @property
    def label(self) -> str:
        return f"{self.name}, {self.threads} threads" if self.threads > 1 else self.name


def contenders(rule: str, cache: Path) -> list[Contender]:
    """Return whoever knows the rule, ours with one thread first."""
    here, flower = Path(sys.executable), flower_python(cache)
    found = [Contender("fedbucket", here), Contender("fedbucket", here, threads=2)]
    found += [Contender("Flower aggregate", flower), Contender("Flower aggregate_arrayrecords", flower)]
    if rule == "mean":
        nvflare = nvflare_python(cache)
        found.append(Contender("NVFlare in-time accumulation", nvflare))
        found.append(Contender("NVFlare in-time accumulation, one message", nvflare))
    return found


@dataclass(frozen=True)
class Task:
    """What is to be aggregated."""

    clients: int
    parameters: int
    tensors: int
    rule: str


def run(contender: Contender, task: Task, result: Path | None = None) -> dict[str, float]:
    """Return what one run of it took."""
    command = [str(contender.python), "-W", "ignore", "-m", "benchmarks.aggregators", contender.name]
    command += [f"--{name}={value}" for name, value in asdict(task).items()]
    command += ["--threads", str(contender.threads)]
    command += ["--result", str(result)] if result else []
    root = Path(__file__).parent.parent
    # One BLAS thread for each of ours, and as many as it likes for the others.
    own = {"OPENBLAS_NUM_THREADS": "1"} if contender.name == "fedbucket" else {}
    done = subprocess.run(command, cwd=root, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{contender.label}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: list[Contender], task: Task) -> Iterator[str]:
    """Run each once, hold its result against ours, and yield what was seen."""
    with TemporaryDirectory() as folder:
        ours = None
        for contender in found:
            path = Path(folder) / "result.npy"
            run(contender, task, path)
            values = np.load(path)
            ours = values if ours is None else ours
            furthest = float(np.max(np.abs(values - ours)))
            if not furthest <= WITHIN:
                raise RuntimeError(f"{contender.label}: {furthest} from ours, expected at most {WITHIN}")
            yield f"{contender.label}: at most {furthest:.1e} from ours"


def measure(found: list[Contender], task: Task, runs: int) -> list[dict[str, Any]]:
    """Return a row for each contender: medians over `runs` in which they take turns."""
    taken: list[list[dict[str, float]]] = [[] for _ in found]
    for _ in range(runs):
        for place, contender in enumerate(found):
            taken[place].append(run(contender, task))
    rows = []
    for contender, samples in zip(found, taken, strict=True):
        middle = {figure: median(sample[figure] for sample in samples) for figure in samples[0]}
        base = rows[0] if rows else middle
        rows.append(
            {"name": contender.name, "threads": contender.threads}
            | {figure: round(value, 4 if figure != "peak_mib" else 1) for figure, value in middle.items()}
            | {"ratio_to_fedbucket": round(middle["seconds"] / base["seconds"], 2)}
            | {"cpu_ratio_to_fedbucket": round(middle["cpu_seconds"] / base["cpu_seconds"], 2)}
            | {"all_seconds": [round(sample["seconds"], 4) for sample in samples]}
        )
    return rows


def conditions(task: Task, runs: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    return asdict(task) | {
        "dtype": "float32",
        "runs": runs,
        "load_before": round(os.getloadavg()[0], 2),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "flower": FLOWER[0],
        "nvflare": NVFLARE[0],
    }


@click.command()
@click.option("--clients", default=10, show_default=True)
@click.option("--parameters", default=25_000_000, show_default=True)
@click.option("--tensors", default=160, show_default=True, help="That the model is cut into; ResNet-50 has 161.")
@click.option("--rule", type=click.Choice(RULES), default="mean", show_default=True)
@click.option("--runs", default=5, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write the JSON there.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"), show_default=True)
def main(clients: int, parameters: int, tensors: int, rule: str, runs: int, out: Path | None, cache: Path) -> None:
    """Measure, and print."""
    task = Task(clients, parameters, tensors, rule)
    said, found = conditions(task, runs), contenders(rule, cache)
    for line in check(found, task):
        click.echo(line, err=True)
    text = json.dumps({"conditions": said, "rows": measure(found, task, runs)}, indent=2, ensure_ascii=False)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
