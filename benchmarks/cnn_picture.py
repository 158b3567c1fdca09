"""The picture of `benchmarks.cnn_opacus`: accuracy by round, a curve for each way."""

from typing import Any

from markupsafe import Markup

from benchmarks.pictures import Plot, picture, power, share
from fedbucket.report.svg import spread, text

_HEIGHT = 520
_LOWEST = 0.4  # accuracy that the axis begins with: what the first round reaches
_TITLE = "The same DP-SGD, here and with Opacus: a small CNN on digits"
_CLASSES = ("first", "second", "third")
_MEANING = ("noise in each client", "noise in each client", "noise once, by one trusted party")


def draw(found: dict[str, Any]) -> str:
    """Return the SVG of what `cnn_opacus` found."""
    conditions, rows = found["conditions"], found["rows"]
    plot = Plot(62, 124, 660, 270, (1, conditions["rounds"]), (_LOWEST, 1.0))
    parts = [text(_TITLE, class_="title", x=28, y=40), *_subtitle(conditions)]
    parts += plot.levels([level / 10 for level in range(round(10 * _LOWEST), 11)])
    parts += plot.marks([(round_, f"{round_}") for round_ in (1, *range(5, conditions["rounds"] + 1, 5))])
    parts.append(text("round", class_="dim", x=plot.left + plot.width + 22, y=plot.top + plot.height + 20))
    for row, class_ in reversed(list(zip(rows, _CLASSES, strict=True))):
        parts.append(plot.curve(list(enumerate(row["by_round"]))[1:], class_))
        parts += plot.spread(conditions["rounds"], row["accuracies"], row["mean"], class_, number=False)
    parts += _labels(plot, rows)
    parts += _notes(conditions)
    return picture(_TITLE, _description(conditions, rows), _HEIGHT, parts)


def _subtitle(conditions: dict[str, Any]) -> list[Markup]:
    guarantee = f"ε = {conditions['epsilon']['fedbucket']:.3g} (unit: one {conditions['unit']}, "
    guarantee += f"{conditions['adjacency']}; δ = {power(conditions['delta'])})"
    said = [
        f"Share of right answers on examples that no client holds; {guarantee} after {conditions['rounds']} rounds.",
        f"Means over {conditions['seeds']} seeds; bars at the end: from the lowest to the highest.",
    ]
    return [text(line, class_="dim", x=28, y=64 + 20 * number) for number, line in enumerate(said)]


def _labels(plot: Plot, rows: list[dict[str, Any]]) -> list[Markup]:
    x, parts = plot.left + plot.width + 14, []
    places = spread([plot.y(row["mean"]) for row in rows], 38)
    for row, y, class_, meaning in zip(rows, places, _CLASSES, _MEANING, strict=True):
        parts.append(text(f"{share(row['mean'], 3)} {row['name']}", class_=f"strong {class_}", x=x, y=round(y, 1)))
        parts.append(text(meaning, class_="small dim", x=x, y=round(y + 16, 1)))
    return parts


def _notes(conditions: dict[str, Any]) -> list[Markup]:
    said = [
        f"{conditions['clients']} clients, {conditions['training_examples']:,} examples, "
        f"{conditions['weights']:,} weights. Same split, initial weights, and in each step of all three: "
        f"q = {conditions['sampling_probability']:g}, z = {conditions['noise_multiplier']:.4g}, clip "
        f"{conditions['clip_norm']:g};",
        f"{conditions['steps_in_a_round']} steps a round. Of {conditions['clients']} clients' noise, the average has "
        f"√{conditions['clients']} times as much as noise that is added once.",
        f"Made by: python -m benchmarks.cnn_opacus --seeds {conditions['seeds']}",
    ]
    return [text(line, class_="small dim", x=28, y=_HEIGHT - 62 + 20 * number) for number, line in enumerate(said)]


def _description(conditions: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    ends = ", ".join(f"{row['name']} {share(row['mean'], 3)}" for row in rows)
    guarantee = f"unit one {conditions['unit']}, δ = {power(conditions['delta'])}"
    return f"Mean accuracy after {conditions['rounds']} rounds, {guarantee}: {ends}."
