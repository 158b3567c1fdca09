"""The picture of `benchmarks.privacy_price`: the examples, two in a row, a curve for each unit."""

from math import log2
from typing import Any

from markupsafe import Markup

from benchmarks.pictures import Plot, picture, power, share
from fedbucket.report.svg import spread, text

_HEIGHT = 1000
_ROW = 410  # from the top of one row of examples to the next
_WEAK = 10  # above, `fedbucket` warns
_TITLE = "What privacy costs: accuracy by ε"
_UNITS = {
    "example": ("first", "one example", "added or removed"),
    "client": ("second", "one client", "its data replaced"),
}
# Of each example: the accuracy that its axis begins with; and in ε and accuracy, where the names of the units stand.
_PLACES = {
    "digits": (0.0, {"example": (2.2, 0.66), "client": (48.0, 0.24)}),
    "digits, CNN": (0.0, {"example": (2.6, 0.55), "client": (44.0, 0.2)}),
    "breast cancer": (0.6, {"example": (0.45, 0.85), "client": (14.0, 0.85)}),
}
_LEVELS = {"pooled": "all data pooled", "no noise": "together, no noise", "alone": "a client alone"}
_Row = dict[str, Any]


def draw(found: dict[str, Any]) -> str:
    """Return the SVG of what `privacy_price` found."""
    conditions, rows = found["conditions"], found["rows"]
    parts = [text(_TITLE, class_="title", x=28, y=40), *_subtitle(conditions)]
    for number, (name, about) in enumerate(conditions["examples"].items()):
        left, top = 62 + 482 * (number % 2), 122 + _ROW * (number // 2)
        parts += _panel(left, top, name, about, [row for row in rows if row["example"] == name])
    parts += _notes(conditions)
    return picture(_TITLE, _description(conditions, rows), _HEIGHT, parts)


def _subtitle(conditions: dict[str, Any]) -> list[Markup]:
    said = [
        "Share of right answers on examples that no client holds, by the ε of all rounds together (logarithmic), at "
        f"δ = {power(conditions['delta'])}.",
        f"Dots: means over {len(conditions['seeds'])} seeds; bars: from the lowest to the highest. "
        f"A curve is named by its unit of privacy. Tinted: ε above {_WEAK}.",
    ]
    return [text(line, class_="dim", x=28, y=64 + 20 * number) for number, line in enumerate(said)]


def _panel(left: float, top: float, name: str, about: dict[str, Any], rows: list[_Row]) -> list[Markup]:
    budgets = sorted({row["epsilon"] for row in rows if row["epsilon"] is not None})
    lowest, places = _PLACES[name]
    plot = Plot(left, top + 38, 285, 300, (log2(budgets[0]) - 0.5, log2(budgets[-1]) + 0.5), (lowest, 1.0))
    head = f"{name[0].upper()}{name[1:]}: {about['clients']} clients, {about['training_examples']:,} examples"
    parts = [text(head, class_="head", x=left, y=top)]
    parts += [text(f"{about['weights']:,} weights, {about['rounds']} rounds", class_="small dim", x=left, y=top + 20)]
    if budgets[-1] > _WEAK:
        parts += plot.band(log2(_WEAK), "a weak promise")
    parts += plot.levels([level / 10 for level in range(round(10 * lowest), 11, 1 if lowest else 2)])
    parts += plot.marks([(log2(budget), f"{budget:g}".removeprefix("0")) for budget in budgets])
    parts.append(text("ε", class_="dim strong", x=plot.left + plot.width + 8, y=plot.top + plot.height + 20))
    parts += _levels(plot, [row for row in rows if row["epsilon"] is None])
    for unit, place in places.items():
        parts += _curve(plot, unit, [row for row in rows if row["curve"] == unit])
        parts += _name(plot, unit, place, in_full=name == next(iter(_PLACES)))
    return parts


def _levels(plot: Plot, rows: list[_Row]) -> list[Markup]:
    places = spread([plot.y(row["mean"]) for row in rows], 17)
    parts = [plot.level(row["mean"], "third") for row in rows]
    for row, y in zip(rows, places, strict=True):
        label = f"{share(row['mean'])} {_LEVELS[row['curve']]}"
        parts.append(text(label, class_="small dim", x=plot.left + plot.width + 6, y=round(y + 4, 1)))
    return parts


def _curve(plot: Plot, unit: str, rows: list[_Row]) -> list[Markup]:
    class_ = _UNITS[unit][0]
    points = [(log2(row["epsilon"]), row["mean"]) for row in rows]
    parts = [plot.curve(points, class_)]
    for (x, mean), row in zip(points, rows, strict=True):
        parts += plot.spread(x, row["accuracies"], mean, class_)
    return parts


def _name(plot: Plot, unit: str, place: tuple[float, float], in_full: bool) -> list[Markup]:
    class_, label, changed = _UNITS[unit]
    x, y = plot.x(log2(place[0])), plot.y(place[1])
    parts = [text(label, class_=f"strong {class_}", x=x, y=y)]
    return [*parts, text(changed, class_=f"small {class_}", x=x, y=y + 17)] if in_full else parts


def _notes(conditions: dict[str, Any]) -> list[Markup]:
    said = [
        "One example: the example's own settings; Ornstein-Uhlenbeck noise on one full-batch step a round, for the CNN "
        "DP-SGD.",
        "One client: Ornstein-Uhlenbeck noise on several local epochs, differences clipped to "
        f"{conditions['client_clip_norm']:g}. Alone and pooled: to convergence, no noise.",
        f"Made by: python -m benchmarks.privacy_price --seeds {len(conditions['seeds'])}",
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
    return f"Mean accuracy, δ = {power(conditions['delta'])}. " + " ".join(sentences)
