"""What charts are made of: elements, scales and axes, as inline SVG.

A chart has no viewBox: across, everything stands at a percentage of the plot's width; down, at pixels. So it fills a
phone and a laptop alike while its letters keep their size. Labels may stand outside the plot, in the padding that the
page leaves around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

LETTER = 7.2  # px: how wide a letter of a 12 px label is, generously
Write = Callable[[float], str]
LONGEST = 18  # letters of a client's name that fit beside a chart on a phone


@dataclass(frozen=True)
class Chart:
    """A drawing, and the room in pixels that its labels need around it."""

    svg: Markup
    left: int
    right: int
    top: int = 0


@dataclass(frozen=True)
class Scale:
    """A linear axis over the plot's width (as a percentage) or height (as pixels, growing upwards)."""

    low: float
    high: float

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def across(self, value: float) -> str:
        return f"{100 * self.share(value):.2f}%"

    def down(self, value: float, height: float) -> float:
        return round(height * (1 - self.share(value)), 1)


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """One element; `class_` becomes class and `text_anchor` text-anchor; all but Markup is escaped."""
    written = [
        Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), value) for key, value in attributes.items()
    ]
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(written), Markup("").join(inside))


def canvas(label: str, description: str, height: float, parts: Sequence[Markup]) -> Markup:
    """A figure of the given height, named and described for those who do not see it."""
    said = (tag("title", label), tag("desc", description))
    box = {"width": "100%", "height": round(height)}
    return tag("svg", *said, *parts, role="img", aria_label=f"{label}. {description}", **box)


def ticks(low: float, high: float, most: int, steps: Sequence[float] = (1, 2, 5)) -> list[float]:
    """At most `most` round values within [low, high], a step of 1, 2 or 5 times a power of ten apart."""
    exponent = -6
    while True:
        for factor in steps:
            step = factor * 10.0**exponent
            first, last = -int(-low // step), int(high // step + 1e-9)
            if last - first < most:
                return [round(index * step, 9) for index in range(first, last + 1)]
        exponent += 1


def brief(name: str, longest: int = LONGEST) -> str:
    """A long name without its middle: names of one family differ at the end as often as at the start."""
    if len(name) <= longest:
        return name
    head = longest // 2 - 1
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def gutter(names: Sequence[str], least: int = 40) -> int:
    """The room that the longest of these labels needs."""
    return max(least, round(max((len(name) for name in names), default=0) * LETTER) + 12)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The same positions moved apart so that neighbours keep `gap`: labels of lines that end close together."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    placed = list(positions)
    for _ in range(20):
        for low, high in pairwise(order):
            overlap = gap - (placed[high] - placed[low])
            if overlap > 0:
                placed[low] -= overlap / 2
                placed[high] += overlap / 2
    return placed


def round_axis(scale: Scale, height: float, first: int, last: int) -> list[Markup]:
    """Round numbers below a plot."""
    whole = [value for value in ticks(first, last, 11) if value == int(value)]
    y = height + 22  # clear of the lowest label of the levels
    named = text("round", x=-12, y=y, class_="tick end")
    return [named, *(text(f"{at:.0f}", x=scale.across(at), y=y, class_="tick middle") for at in whole)]


def across_axis(scale: Scale, at: Sequence[float], write: Write, bottom: float, top: float = 0) -> list[Markup]:
    """Vertical grid lines with their values below."""
    parts = []
    for index, value in enumerate(at):
        x = scale.across(value)
        crowded = " crowded" if index % 2 and len(at) > 4 else ""  # hidden on a phone
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(text(write(value), x=x, y=bottom + 18, class_=f"tick middle{crowded}"))
    return parts


def text(*content: str, **attributes: object) -> Markup:
    return tag("text", *content, **attributes)


def level_axis(scale: Scale, height: float, write: Write, most: int = 6) -> list[Markup]:
    """Horizontal grid lines with their values to the left."""
    parts = []
    for value in ticks(scale.low, scale.high, most):
        y = scale.down(value, height)
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(text(write(value), x=-8, y=y + 4, class_="tick end"))
    return parts
