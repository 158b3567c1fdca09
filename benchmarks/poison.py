"""What one liar among ten clients does to a model, under each rule. Writes OUT.json and OUT.svg.

    python -m benchmarks.poison --seeds 3 --out docs/images/poisoned

The runs are those of `examples.poisoned`. A seed fixes the split, the initial weights and the batch order; there is no
privacy noise.
"""

import json
import platform
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.poison_picture import draw
from examples.poisoned.__main__ import EXAMPLE, LARGEST_NORM, measure


def conditions(seeds: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    settings = (EXAMPLE.path / "without-privacy.toml").read_text(encoding="utf-8")
    return {
        "seeds": seeds,
        "clients": 10,
        "liars": 1,
        "rounds": int(settings.partition("rounds = ")[2].split()[0]),
        "max_update_norm": LARGEST_NORM,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


@click.command()
@click.option("--seeds", default=3, show_default=True, help="How many: 0, 1, …")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/images/poisoned"), show_default=True)
@click.option("--redraw", is_flag=True, help="Draw the figures in OUT.json again, and train nothing.")
def main(seeds: int, out: Path, redraw: bool) -> None:
    """Measure, and draw."""
    figures = out.with_suffix(".json")
    if not redraw:
        torch.set_num_threads(1)
        rows = []
        for row in measure(seeds):
            click.echo(f"{row['lie']}, {row['strategy']}: {row['mean']:.3f}", err=True)
            rows.append(row)
        found = {"conditions": conditions(seeds), "rows": rows}
        figures.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    found = json.loads(figures.read_text(encoding="utf-8"))
    out.with_suffix(".svg").write_text(draw(found), encoding="utf-8")
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
