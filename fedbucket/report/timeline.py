"""The time line of a run: a row for each client, then one for each of the parent's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from markupsafe import Markup

from fedbucket.report.facts import Round, Span
from fedbucket.report.svg import Chart, Scale, across_axis, brief, canvas, gutter, tag, text, ticks
from fedbucket.report.wording import duration

PARENT_STEPS = ("publish", "record", "aggregate", "evaluate", "sweep")
GRAIN = 700  # the narrowest bar, as a part of the whole: about a pixel of a laptop's page
SHADES = (("full", 0.5), ("half", 0.2), ("faint", 0.0))  # how much of a grain must be filled
ROOM, ROOM_ON_A_PHONE = 0.04, 0.12  # of the plot's width, for the number of a round: some 25 px on either
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


def shades(spans: Iterable[tuple[float, float]], scale: Scale) -> dict[str, list[tuple[float, float]]]:
    """What to draw, by shade: long spans as they are; short ones gathered by the grain, paler if they fill less of it.

    So a long run stays a small page, nothing is too thin to be seen, and a busy row does not look busier than it is.
    """
    grain = ((scale.high - scale.low) or 1.0) / GRAIN
    drawn: dict[str, list[tuple[float, float]]] = {}
    filled: dict[int, float] = {}
    for start, end in spans:
        if end - start >= grain:
            drawn.setdefault("full", []).append((start, end))
        else:
            at = int(((start + end) / 2 - scale.low) / grain)
            filled[at] = filled.get(at, 0.0) + end - start
    for at, busy in filled.items():
        shade = next(name for name, least in SHADES if busy >= least * grain)
        drawn.setdefault(shade, []).append((scale.low + at * grain, scale.low + (at + 1) * grain))
    return {shade: _joined(pieces, grain / 100) for shade, pieces in drawn.items()}


def _joined(spans: Iterable[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Spans that touch, as one."""
    result: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if result and start - result[-1][1] < gap:
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
            return lambda seconds: f"{seconds / unit:g} {name}" if seconds else "0"
    return lambda seconds: f"{seconds:g} s" if seconds else "0"


def places(lines: Sequence[Row]) -> list[Place]:
    """Rows below each other; many clients get thin rows, of which only some have room for a name."""
    crowd = sum(1 for line in lines if not line.parental)
    thick = 20 if crowd <= 12 else 16 if crowd <= 40 else 6
    every = 1 if thick > 13 else 3
    placed: list[Place] = []
    y = 0.0
    for index, line in enumerate(lines):
        if line.parental and index == crowd and crowd:
            y += GAP
        height = 18 if line.parental else thick
        placed.append(Place(line, y, height, named=line.parental or index % every == 0))
        y += height
    return placed


def timeline_chart(
    label: str, said: str, rounds: Sequence[Round], clients: Sequence[str], colours: Sequence[str]
) -> Chart:
    """All spans to scale, from the first one on; one path for each row and step, whatever the number of rounds."""
    spans = [span for each in rounds for span in each.spans]
    placed = places(rows(spans, clients))
    scale = Scale(min(span.start for span in spans), max(span.end for span in spans))
    bottom = placed[-1].y + placed[-1].height
    length = scale.high - scale.low
    parts = across_axis(Scale(0, length), time_ticks(length), time_label(length), bottom)
    parts += _round_marks(rounds, scale) if len(rounds) > 1 else []
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
    return Chart(
        canvas(label, said, bottom + 26, parts),
        gutter(list(names.values())),
        right=16,
        top=20 if len(rounds) > 1 else 0,
    )


def _round_marks(rounds: Sequence[Round], scale: Scale) -> list[Markup]:
    """Above the plot, where some of the rounds began."""
    began = {float(each.number): min(span.start for span in each.spans) for each in rounds if each.spans}
    chosen = [at for at in ticks(min(began), max(began), 9) if at in began]
    apart = _apart({at: scale.share(began[at]) for at in chosen}, ROOM)
    everywhere = _apart({at: scale.share(began[at]) for at in apart}, ROOM_ON_A_PHONE)
    parts = [text("round", x=-10, y=-7, class_="tick end")]
    for at in apart:
        crowded = "" if at in everywhere else " crowded"
        parts.append(text(f"{at:.0f}", x=scale.across(began[at]), y=-7, class_=f"tick{crowded}"))
    return parts


def _apart(shares: Mapping[float, float], room: float) -> list[float]:
    """Those marks, from the left, that keep so much room to the one before: rounds may be of very different length."""
    kept: list[float] = []
    for at, share in shares.items():
        if not kept or share - shares[kept[-1]] >= room:
            kept.append(at)
    return kept


def _bars(placed: Sequence[Place], scale: Scale, colours: Sequence[str], bottom: float) -> Markup:
    """The bars in a drawing of their own that is stretched across: 1000 units wide, a pixel is a unit down."""
    paths = []
    for place in placed:
        air = 3 if place.height > 13 else 1
        for step, spans in place.row.steps.items():
            whose = step if place.row.parental else f"{step}, {place.row.label}"
            spent = duration(sum(end - start for start, end in spans))
            hover = tag("title", f"{whose}: {len(spans)} times, {spent} in all")
            for shade, drawn in shades(spans, scale).items():
                path = _path(drawn, scale, place.y + air, place.height - 2 * air)
                paths.append(tag("path", hover, d=path, class_=f"step-{colours.index(step) % 6} {shade}"))
    box = {"viewBox": f"0 0 1000 {bottom:g}", "preserveAspectRatio": "none", "width": "100%", "height": f"{bottom:g}"}
    return tag("svg", *paths, aria_hidden="true", **box)


def _path(spans: Iterable[tuple[float, float]], scale: Scale, y: float, height: float) -> str:
    parts = []
    for start, end in spans:
        x, width = 1000 * scale.share(start), 1000 * (end - start) / ((scale.high - scale.low) or 1.0)
        parts.append(f"M{x:.1f} {y:g}h{width:.1f}v{height:g}h-{width:.1f}z")
    return "".join(parts)
