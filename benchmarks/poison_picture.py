"""The picture of `benchmarks.poison`: a panel for each lie, a bar for each rule."""

from typing import Any

from markupsafe import Markup

from benchmarks.pictures import WIDTH, picture, share
from fedbucket.report.svg import tag, text

WITHIN = 0.03  # of the honest run: what a robust rule is asked for
_HEIGHT = 520
_TITLE = "One of ten clients lies: what becomes of the model"
_LEFT, _BAR, _ROW, _PANEL, _TOP = 192, 236, 28, 190, 122
_Row = dict[str, Any]


def draw(found: dict[str, Any]) -> str:
    """Return the SVG of what `benchmarks.poison` found."""
    conditions, rows = found["conditions"], found["rows"]
    honest = {row["strategy"]: row["mean"] for row in rows if row["lie"] == "nobody lies"}
    parts = [text(_TITLE, class_="title", x=28, y=40), *_subtitle(conditions)]
    for number, lie in enumerate(dict.fromkeys(row["lie"] for row in rows)):
        left, top = _LEFT + (number % 2) * WIDTH / 2, _TOP + (number // 2) * _PANEL
        parts += _panel(left, top, lie, [row for row in rows if row["lie"] == lie], honest["mean"])
    parts += _notes(conditions)
    return picture(_TITLE, _description(conditions, rows), _HEIGHT, parts)


def _subtitle(conditions: dict[str, Any]) -> list[Markup]:
    said = [
        "Share of right answers on handwritten digits that no client holds. Dashed: the mean when nobody lies.",
        f"Means over {conditions['seeds']} seeds; lines on the bars: from the lowest to the highest. "
        f"Brown (orange on a dark page): over {share(WITHIN)} below the dashed line.",
    ]
    return [text(line, class_="dim", x=28, y=64 + 20 * number) for number, line in enumerate(said)]


def _panel(left: float, top: float, lie: str, rows: list[_Row], honest: float) -> list[Markup]:
    parts = [text(_head(lie), class_="head", x=left - 164, y=top)]
    for number, row in enumerate(rows):
        y = top + 14 + _ROW * number
        class_ = "first" if row["mean"] >= honest - WITHIN else "second"
        parts.append(text(row["strategy"], class_="small dim end", x=left - 8, y=y + 13))
        parts.append(_line(left, left + _BAR * row["mean"], y + 9, f"bar {class_}"))
        low, high = (round(left + _BAR * bound(row["accuracies"]), 1) for bound in (min, max))
        parts += [_line(low, high, y + 9, kind) for kind in ("around", "whisker")]
        parts.append(
            text(share(row["mean"], 3), class_=f"small strong {class_}", x=round(left + _BAR + 10, 1), y=y + 13)
        )
    x, bottom = round(left + _BAR * honest, 1), top + 14 + _ROW * len(rows)
    return [*parts, tag("line", class_="level third", x1=x, x2=x, y1=top + 10, y2=bottom - 4)]


def _line(begin: float, end: float, y: float, class_: str) -> Markup:
    return tag("line", class_=class_, x1=round(begin, 1), x2=round(end, 1), y1=y, y2=y)


def _head(lie: str) -> str:
    return {
        "nobody lies": "Nobody lies",
        "scaled by 100": "It scales its difference by 100",
        "sign turned": "It turns the sign of its difference",
        "a constant": "It sends weights that are all 1",
    }[lie]


def _notes(conditions: dict[str, Any]) -> list[Markup]:
    said = [
        f"{conditions['clients']} clients, digits dealt out evenly, {conditions['rounds']} rounds, no privacy noise. "
        f"max_update_norm = {conditions['max_update_norm']:g} rejects an update before the cohort is frozen.",
        f"Made by: python -m benchmarks.poison --seeds {conditions['seeds']}",
    ]
    return [text(line, class_="small dim", x=28, y=_HEIGHT - 34 + 20 * number) for number, line in enumerate(said)]


def _description(conditions: dict[str, Any], rows: list[_Row]) -> str:
    sentences = []
    for lie in dict.fromkeys(row["lie"] for row in rows):
        of = ", ".join(f"{row['strategy']} {share(row['mean'], 3)}" for row in rows if row["lie"] == lie)
        sentences.append(f"{_head(lie)}: {of}.")
    return f"Mean accuracy after {conditions['rounds']} rounds. " + " ".join(sentences)
