"""The time line of a run: a row for each client, then one for each of the parent's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from markupsafe import Markup

from fedbucket.charts import Chart, Scale, brief, canvas, gutter, tag, text, ticks
from fedbucket.facts import Round, Span
from fedbucket.wording import duration

PARENT_STEPS = ("publish", "record", "aggregate", "evaluate", "sweep")
GRAIN = 1200  # the finest width that is drawn, as a part of the whole: about a device pixel of a laptop's page
GAP = 14  # px between the clients' rows and the parent's
MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Row:
    """One line of the chart: a client with all its steps, or one step of the parent's."""

    label: str
    parental: bool
    steps: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Place:
    """Where a row stands, in pixels."""

    row: Row
    y: float
    height: int
    named: bool


def rows(spans: Iterable[Span], clients: Sequence[str]) -> list[Row]:
    """Clients in the order of the roster; then the parent's steps, whichever client they were for."""
    lines: dict[tuple[bool, str], dict[str, list[tuple[float, float]]]] = {}
    for span in spans:
        key = (True, span.step) if span.client is None or span.step in PARENT_STEPS else (False, span.client)
        lines.setdefault(key, {}).setdefault(span.step, []).append((span.start, span.end))
    at = {client: index for index, client in enumerate(clients)}

    def order(key: tuple[bool, str]) -> tuple[bool, int, str]:
        parental, label = key
        return parental, _rank(label) if parental else at.get(label, len(at)), label

    return [Row(label, parental, lines[parental, label]) for parental, label in sorted(lines, key=order)]


def _rank(step: str) -> int:
    return PARENT_STEPS.index(step) if step in PARENT_STEPS else -1


def steps_of(spans: Iterable[Span]) -> list[str]:
    """All steps that occur, clients' first: the key of the colours."""
    return sorted({span.step for span in spans}, key=lambda step: (_rank(step), step))


def typical(rounds: Sequence[Round]) -> Round | None:
    """The round of median length among those that have a time line, a whole one if there is any."""
    drawn = [each for each in rounds if each.spans and not each.void] or [each for each in rounds if each.spans]
    if not drawn:
        return None
    length = {each.number: max(s.end for s in each.spans) - min(s.start for s in each.spans) for each in drawn}
    middle = median_low(length.values())
    return next(each for each in drawn if length[each.number] == middle)


def merged(spans: Iterable[tuple[float, float]], grain: float) -> list[tuple[float, float]]:
    """Spans closer than the grain become one, and none is narrower: what is there is seen, and a long run stays a small page."""
    result: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        end = max(end, start + grain)
        if result and start - result[-1][1] < grain:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result


def time_ticks(span: float) -> list[float]:
    """Round times from 0: seconds, then minutes, then hours."""
    unit = next((unit for unit in (HOUR, MINUTE) if span >= 3 * unit), 1)
    return [unit * value for value in ticks(0, span / unit, 6, steps=(1, 2, 5) if unit == 1 else (1, 2, 3, 5))]


def time_label(span: float) -> Callable[[float], str]:
    for unit, name in ((HOUR, "h"), (MINUTE, "min")):
        if span >= 3 * unit:
            return lambda seconds: f"{seconds / unit:g} {name}"
    return lambda seconds: f"{seconds:g} s"


def places(lines: Sequence[Row]) -> list[Place]:
    """Rows below each other; many clients get thin rows, of which only some have room for a name."""
    crowd = sum(1 for line in lines if not line.parental)
    thick = 20 if crowd <= 12 else 16 if crowd <= 40 else 7
    every = 1 if thick > 13 else 2
    placed: list[Place] = []
    y = 0.0
    for index, line in enumerate(lines):
        if line.parental and index == crowd and crowd:
            y += GAP
        height = 18 if line.parental else thick
        placed.append(Place(line, y, height, named=line.parental or index % every == 0))
        y += height
    return placed


def timeline_chart(label: str, said: str, spans: Sequence[Span], clients: Sequence[str], colours: Sequence[str]) -> Chart:
    """All spans to scale, from the first one on; one path for each row and step, whatever the number of rounds."""
    placed = places(rows(spans, clients))
    scale = Scale(min(span.start for span in spans), max(span.end for span in spans))
    bottom = placed[-1].y + placed[-1].height
    parts = _time_axis(scale.high - begin, bottom)
    crowd = [place for place in placed if not place.row.parental]
    if crowd and len(crowd) < len(placed):
        y = crowd[-1].y + crowd[-1].height + GAP / 2
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="rule"))
    parts.append(_bars(placed, scale, colours, bottom))
    names = {place.row.label: brief(place.row.label) for place in placed if place.named}
    for place in placed:
        if place.named:
            y = place.y + place.height / 2 + 4
            parts.append(text(names[place.row.label], tag("title", place.row.label), x=-10, y=y, class_="name end"))
    return Chart(canvas(label, said, bottom + 26, parts), gutter(list(names.values())), right=16)


def _time_axis(length: float, bottom: float) -> list[Markup]:
    write, scale = time_label(length), Scale(0, length)
    parts = []
    for value in time_ticks(length):
        x = scale.across(value)
        parts.append(tag("line", x1=x, x2=x, y1=0, y2=bottom, class_="grid"))
        parts.append(text(write(value), x=x, y=bottom + 18, class_="tick middle"))
    return parts


def _bars(placed: Sequence[Place], scale: Scale, colours: Sequence[str], bottom: float) -> Markup:
    """The bars in a drawing of their own that is stretched across: 1000 units wide, a pixel is a unit down."""
    paths = []
    for place in placed:
        air = 3 if place.height > 13 else 1
        for step, spans in place.row.steps.items():
            whose = step if place.row.parental else f"{step}, {place.row.label}"
            hover = tag("title", f"{whose}: {len(spans)} times, {duration(sum(end - start for start, end in spans))} in all")
            drawn = _path(merged(spans, (scale.high - scale.low) / GRAIN), scale, place.y + air, place.height - 2 * air)
            paths.append(tag("path", hover, d=drawn, class_=f"step-{colours.index(step) % 6}"))
    box = Markup(' viewBox="0 0 1000 {0}" preserveAspectRatio="none" width="100%" height="{0}" aria-hidden="true"').format(bottom)
    return Markup("<svg{}>{}</svg>").format(box, Markup("").join(paths))


def _path(spans: Iterable[tuple[float, float]], scale: Scale, y: float, height: float) -> str:
    parts = []
    for start, end in spans:
        x, width = 1000 * scale.share(start), 1000 * (end - start) / ((scale.high - scale.low) or 1.0)
        parts.append(f"M{x:.1f} {y:g}h{width:.1f}v{height:g}h-{width:.1f}z")
    return "".join(parts)
