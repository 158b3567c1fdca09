"""The picture of `benchmarks.privacy_price`: two examples side by side, a curve for each unit."""

from math import log2
from typing import Any

from markupsafe import Markup

from benchmarks.pictures import Plot, picture, share
from fedbucket.report.svg import spread, text

_HEIGHT = 590
_TITLE = "What privacy costs: accuracy by ε"
_UNITS = {
    "example": ("first", "unit: one example", "added or removed"),
    "client": ("second", "unit: one client", "all its data replaced"),
}
# What an axis begins with, and where the names of the curves stand: in ε and accuracy, where nothing else is.
_PLACES = {
    "digits": (0.0, {"example": (2.6, 0.68), "client": (42.0, 0.2)}),
    "breast cancer": (0.6, {"example": (0.5, 0.83), "client": (42.0, 0.83)}),
}
_LEVELS = {"pooled": "all data pooled", "no noise": "together, no noise", "alone": "a client alone"}
_Row = dict[str, Any]


def draw(found: dict[str, Any]) -> str:
    """Return the SVG of what `privacy_price` found."""
    conditions, rows = found["conditions"], found["rows"]
    parts = [text(_TITLE, class_="title", x=28, y=40), *_subtitle(conditions)]
    for number, name in enumerate(conditions["examples"]):
        parts += _panel(
            70 + 485 * number, name, conditions["examples"][name], [r for r in rows if r["example"] == name]
        )
    parts += _notes(conditions)
    return picture(_TITLE, _description(conditions, rows), _HEIGHT, parts)


def _subtitle(conditions: dict[str, Any]) -> list[Markup]:
    seeds = len(conditions["seeds"])
    said = (
        "Share of right answers on examples that no client holds. ε is for all rounds together, at "
        f"δ = {conditions['delta']:g}. A dot is one of {seeds} seeds, a line their mean."
    )
    return [text(said, class_="dim", x=28, y=64)]


def _panel(left: float, name: str, about: dict[str, Any], rows: list[_Row]) -> list[Markup]:
    budgets = sorted({row["epsilon"] for row in rows if row["epsilon"] is not None})
    lowest, places = _PLACES[name]
    plot = Plot(left, 140, 300, 300, (log2(budgets[0]) - 0.4, log2(budgets[-1]) + 0.4), (lowest, 1.0))
    head = f"{name[0].upper()}{name[1:]}: {about['clients']} clients, {about['training_examples']:,} examples"
    parts = [text(head, class_="head", x=left, y=104)]
    parts += [text(f"{about['weights']} weights, {about['rounds']} rounds", class_="small dim", x=left, y=123)]
    parts += plot.levels([level / 10 for level in range(round(10 * lowest), 11, 1 if lowest else 2)])
    parts += plot.marks([(log2(budget), f"{budget:g}".removeprefix("0")) for budget in budgets])
    parts.append(text("ε", class_="dim strong", x=plot.left + plot.width + 12, y=plot.top + plot.height + 20))
    parts += _levels(plot, [row for row in rows if row["epsilon"] is None])
    for unit in _UNITS:
        parts += _curve(plot, unit, places[unit], [row for row in rows if row["curve"] == unit])
    return parts


def _levels(plot: Plot, rows: list[_Row]) -> list[Markup]:
    places = spread([plot.y(row["mean"]) for row in rows], 17)
    parts = [plot.level(row["mean"], "third") for row in rows]
    for row, y in zip(rows, places, strict=True):
        label = f"{share(row['mean'])} {_LEVELS[row['curve']]}"
        parts.append(text(label, class_="small dim", x=plot.left + plot.width + 6, y=round(y + 4, 1)))
    return parts


def _curve(plot: Plot, unit: str, place: tuple[float, float], rows: list[_Row]) -> list[Markup]:
    class_, label, changed = _UNITS[unit]
    points = [(log2(row["epsilon"]), row["mean"]) for row in rows]
    parts = [plot.curve(points, class_)]
    for (x, _), row in zip(points, rows, strict=True):
        parts += plot.dots(x, row["accuracies"], class_)
    for x, mean in points:
        parts += plot.mean(x, mean, class_)
    x, y = plot.x(log2(place[0])), plot.y(place[1])
    parts.append(text(label, class_=f"strong {class_}", x=x, y=y))
    parts.append(text(changed, class_=f"small {class_}", x=x, y=y + 17))
    return parts


def _notes(conditions: dict[str, Any]) -> list[Markup]:
    seeds = len(conditions["seeds"])
    said = [
        "One example: one full-batch step a round, by the example's own settings. One client: two local epochs a round, "
        f"each client's difference clipped to {share(conditions['client_clip_norm'])}.",
        "Both by Ornstein-Uhlenbeck noise. A client alone and all data pooled: trained to convergence, without noise. "
        "Data are spread unevenly.",
        f"python -m benchmarks.privacy_price --seeds {seeds}",
    ]
    return [text(line, class_="small dim", x=28, y=_HEIGHT - 62 + 20 * number) for number, line in enumerate(said)]


def _description(conditions: dict[str, Any], rows: list[_Row]) -> str:
    sentences = []
    for name in conditions["examples"]:
        of = [row for row in rows if row["example"] == name]
        levels = [f"{_LEVELS[row['curve']]} {share(row['mean'])}" for row in of if row["epsilon"] is None]
        curves = [
            f"unit {label}, {changed}: "
            + ", ".join(f"{share(row['mean'])} at ε = {row['epsilon']:g}" for row in of if row["curve"] == unit)
            for unit, (_, label, changed) in _UNITS.items()
        ]
        sentences.append(f"{name}: {'; '.join(levels + curves)}.")
    return f"Mean accuracy, δ = {conditions['delta']:g}. " + " ".join(sentences)
