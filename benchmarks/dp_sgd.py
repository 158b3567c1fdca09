"""DP-SGD here and in Opacus 1.6: examples a second and memory, on the same networks, batch and threads. Prints JSON.

    python -m benchmarks.dp_sgd --cache .cache/benchmarks

A step is the whole of it: the gradients of a fixed batch, clipped, summed, noised, and the optimizer's step. Ours takes
its noise from the operating system and puts it on the lattice; Opacus takes torch's generator (its default). Opacus
lives in an environment of its own under --cache, which borrows this one's torch, so that both run the very same build.
Every run is a process of its own, theirs and ours in turn; medians are reported. On a machine that others use too, the
examples in a second of CPU time are the steadier figure.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.environments import opacus_python


def digits() -> tuple[Any, tuple[int, ...]]:
    """Return a small network for 1 × 8 × 8: 38 282 parameters."""
    from torch import nn

    convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*convolutions, *head), (1, 8, 8)


def mnist() -> tuple[Any, tuple[int, ...]]:
    """Return the network of Opacus's own MNIST example, for 1 × 28 × 28: 26 010 parameters."""
    from torch import nn

    first = [nn.Conv2d(1, 16, 8, 2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1)]
    second = [nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1)]
    head = [nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(*first, *second, *head), (1, 28, 28)


def wide() -> tuple[Any, tuple[int, ...]]:
    """Return the network of PyTorch's MNIST example, for 1 × 28 × 28: 1 199 882 parameters."""
    from torch import nn

    convolutions = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(*convolutions, *head), (1, 28, 28)


NETWORKS: dict[str, tuple[Callable[[], tuple[Any, tuple[int, ...]]], int]] = {
    "digits": (digits, 256),
    "mnist": (mnist, 256),
    "wide": (wide, 64),
}


def ours(model: Any, x: Any, y: Any) -> Callable[[int], None]:
    """Return a function that takes so many steps of `client.privacy.dp_sgd`."""
    from torch.nn.functional import cross_entropy

    from client.privacy.dp_sgd import DpSgd, dp_sgd
    from client.privacy.noise import system_normals, system_uniforms

    def take(steps: int) -> None:
        settings = DpSgd(
            clip_norm=1.0,
            noise_multiplier=1.0,
            sampling_probability=1.0,
            steps=steps,
            learning_rate=0.1,
            declared_examples=len(x),
        )
        dp_sgd(model, cross_entropy, x, y, settings, normals=system_normals, uniforms=system_uniforms)

    return take


def opacus(model: Any, x: Any, y: Any) -> Callable[[int], None]:
    """Return a function that takes so many steps of Opacus."""
    import torch
    from opacus import PrivacyEngine
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    private, optimizer, _ = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )

    def take(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(private(x), y).backward()
            optimizer.step()

    return take


def work(library: str, network: str, threads: int, seconds: float) -> dict[str, float]:
    """Return what one process measures: steps for about `seconds`, after two that are not counted."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    build, batch = NETWORKS[network]
    model, shape = build()
    x, y = torch.randn(batch, *shape), torch.randint(10, (batch,))
    take = {"fedbucket": ours, "opacus": opacus}[library](model, x, y)
    take(2)
    start = time.perf_counter()
    take(1)
    steps = max(3, round(seconds / (time.perf_counter() - start)))
    start, cpu_start = time.perf_counter(), time.process_time()
    take(steps)
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "examples_per_second": batch * steps / elapsed,
        "examples_per_cpu_second": batch * steps / cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(python: Path | str, library: str, network: str, threads: int, seconds: float) -> dict[str, float]:
    """Return `work` of a fresh process."""
    command = [str(python), "-W", "ignore", __file__, "--worker", library, "--network", network]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": str(threads)}
    finished = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def conditions(python: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    code = "import opacus, torch; print(opacus.__version__, torch.__version__)"
    versions = subprocess.run([python, "-W", "ignore", "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    peer, torch = versions.stdout.split()
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "repeats": repeats,
        "batch": {network: batch for network, (_, batch) in NETWORKS.items()},
        "python": platform.python_version(),
        "torch": torch,
        "opacus": peer,
    }


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"), show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="For one run.")
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), default=list(NETWORKS))
@click.option("--worker", type=click.Choice(["fedbucket", "opacus"]), hidden=True)
def main(
    cache: Path, threads: int, repeats: int, seconds: float, networks: tuple[str, ...], worker: str | None
) -> None:
    """Compare the two."""
    if worker:
        print(json.dumps(work(worker, networks[0], threads, seconds)))
        return
    peer = opacus_python(cache)
    rows, ratio = [], {}
    for network in networks:
        runs: dict[str, list[dict[str, float]]] = {"fedbucket": [], "opacus": []}
        for _ in range(repeats):
            runs["fedbucket"].append(measure(sys.executable, "fedbucket", network, threads, seconds))
            runs["opacus"].append(measure(peer, "opacus", network, threads, seconds))
        medians = {
            name: {figure: round(statistics.median(run[figure] for run in of), 1) for figure in of[0]}
            for name, of in runs.items()
        }
        rows += [{"name": name, "network": network, **figures} for name, figures in medians.items()]
        ratio[network] = {
            figure: round(medians["fedbucket"][figure] / medians["opacus"][figure], 2) for figure in medians["opacus"]
        }
    print(json.dumps({"conditions": conditions(peer, threads, repeats), "rows": rows, "ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
