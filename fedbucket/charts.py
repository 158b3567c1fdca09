"""The charts of the report page: numbers in, inline SVG out.

A chart has no viewBox: across, everything stands at a percentage of the plot's width; down, at pixels. So it fills a phone and a laptop
alike while its letters keep their size. Labels may stand outside the plot, in the padding that the page leaves around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fedbucket.wording import percent, points, size

LETTER = 7.2  # px: how wide a letter of a 12 px label is, generously
LONGEST = 18  # letters of a client's name that fit beside a chart on a phone


@dataclass(frozen=True)
class Chart:
    """A drawing, and the room in pixels that its labels need on either side of it."""

    svg: Markup
    left: int
    right: int


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


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """One element; `class_` becomes class and `text_anchor` text-anchor; all but Markup is escaped."""
    written = [
        Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), value) for key, value in attributes.items()
    ]
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(written), Markup("").join(inside))


def canvas(label: str, description: str, height: float, parts: Sequence[Markup]) -> Markup:
    """A figure of the given height, named and described for those who do not see it."""
    said = (tag("title", label), tag("desc", description))
    return tag("svg", *said, *parts, role="img", aria_label=f"{label}. {description}", width="100%", height=round(height))


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
    return f"{name[:head]}…{name[head + 1 - longest:]}"


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
    at = [value for value in ticks(first, last, 11) if value == int(value)]
    return [text(f"{value:.0f}", x=scale.across(value), y=height + 18, class_="tick middle") for value in at]


def text(content: object, **attributes: object) -> Markup:
    return tag("text", content, **attributes)


def level_axis(scale: Scale, height: float, write: Callable[[float], str], most: int = 6) -> list[Markup]:
    """Horizontal grid lines with their values to the left."""
    parts = []
    for value in ticks(scale.low, scale.high, most):
        y = scale.down(value, height)
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(text(write(value), x=-8, y=y + 4, class_="tick end"))
    return parts


def accuracy_range(values: Sequence[float]) -> Scale:
    """Shares with some air around them; a narrow band is magnified, the axis says so by its values."""
    low, high = min(values), max(values)
    air = max(0.02, 0.08 * (high - low))
    return Scale(max(0.0, low - air), min(1.0, high + air))


def whole_percent(scale: Scale) -> Callable[[float], str]:
    """Axis labels without decimals where the steps allow it."""
    digits = 0 if scale.high - scale.low > 0.05 else 1
    return lambda share: f"{100 * share:.{digits}f} %"


def accuracy_chart(
    scored: Sequence[tuple[int, float | None]], void: Sequence[int], alone: float | None, pooled: float | None, said: str
) -> Chart:
    """The federated model by round, with the two baselines as lines across; a round without a score leaves a gap."""
    height = 300
    known = [(at, value) for at, value in scored if value is not None]
    baselines = [("pooled", pooled), ("alone", alone)]
    references = [(kind, value) for kind, value in baselines if value is not None]
    shares = accuracy_range([value for _, value in (*known, *references)])
    across = Scale(scored[0][0], scored[-1][0])
    parts = _void_bands(void, across, height)
    parts += level_axis(shares, height, whole_percent(shares)) + round_axis(across, height, scored[0][0], scored[-1][0])
    for kind, value in references:
        y = shares.down(value, height)
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_=f"reference {kind}"))
    parts += _curve(scored, across, shares, height)
    ends = [("federated", known[-1][1]), *references]
    rows = spread([shares.down(value, height) for _, value in ends], 16)
    for (kind, value), y in zip(ends, rows, strict=True):
        number = tag("tspan", percent(value), class_="strong")
        parts.append(text(Markup("{} {}").format(number, kind), x="100%", dx=10, y=round(y + 4, 1), class_=f"label {kind}"))
    return Chart(canvas("Accuracy by round", said, height + 26, parts), left=48, right=116)


def _void_bands(void: Sequence[int], across: Scale, height: int) -> list[Markup]:
    width = 100 / max(1.0, across.high - across.low)
    bands = []
    for at in void:
        start = max(0.0, 100 * across.share(at) - width / 2)
        stop = min(100.0, 100 * across.share(at) + width / 2)
        hover = tag("title", f"round {at}: void")
        bands.append(tag("rect", hover, x=f"{start:.2f}%", width=f"{stop - start:.2f}%", y=0, height=height, class_="void"))
    return bands


def _curve(scored: Sequence[tuple[int, float | None]], across: Scale, shares: Scale, height: int) -> list[Markup]:
    """Straight lines between neighbouring scores, and a dot for each with its value to hover over."""
    parts = []
    for (at, value), (then, following) in pairwise(scored):
        if value is not None and following is not None:
            ys = {"y1": shares.down(value, height), "y2": shares.down(following, height)}
            parts.append(tag("line", x1=across.across(at), x2=across.across(then), class_="curve", **ys))
    for at, value in scored:
        if value is not None:
            hover = tag("title", f"round {at}: {percent(value)}")
            parts.append(tag("circle", hover, cx=across.across(at), cy=shares.down(value, height), r=2.5, class_="dot"))
    return parts


def clients_chart(alone: Mapping[str, float], federated: float, said: str) -> Chart:
    """Each client alone as a dot, joined to the federated model's line; the least accurate first."""
    order = sorted(alone.items(), key=lambda item: (item[1], item[0]))
    names = {name: brief(name) for name in alone}
    row = 24 if len(order) <= 15 else 18 if len(order) <= 40 else 7
    named = _named_rows(len(order), row)
    top, height = 26, 26 + row * len(order)
    scale = accuracy_range([federated, *alone.values()])
    parts = _share_axis(scale, top, height)
    for index, (name, value) in enumerate(order):
        parts += _dumbbell(name, value, federated, scale, top + row * (index + 0.5))
        if index in named:
            y = top + row * (index + 0.5) + 4
            parts.append(text(names[name], tag("title", name), x=-10, y=y, class_="name end"))
            gain = (percent(value), tag("tspan", points(federated - value), dx=8, class_="strong"))
            parts.append(text(*gain, x="100%", dx=12, y=y, class_="value"))
    x = scale.across(federated)
    parts.append(tag("line", x1=x, x2=x, y1=top - 6, y2=height, class_="together"))
    anchor = "end" if scale.share(federated) > 0.5 else "start"
    parts.append(text("federated ", tag("tspan", percent(federated), class_="strong"), x=x, y=12, class_=f"label federated {anchor}"))
    parts.append(text("alone, gain", x="100%", dx=12, y=12, class_="tick"))
    return Chart(canvas("Each client alone, beside the federated model", said, height + 26, parts), gutter(list(names.values())), 106)


def _named_rows(amount: int, row: float) -> set[int]:
    """Every row where a label fits; else the first, the last and what fits between."""
    every = max(1, round(14 / row + 0.49))
    last = amount - 1
    return {index for index in range(amount) if index % every == 0 and last - index >= every} | {last}


def _share_axis(scale: Scale, top: int, height: int) -> list[Markup]:
    write = whole_percent(scale)
    parts = []
    for value in ticks(scale.low, scale.high, 6):
        x = scale.across(value)
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=height, class_="grid"))
        parts.append(text(write(value), x=x, y=height + 18, class_="tick middle"))
    return parts


def _dumbbell(name: str, value: float, federated: float, scale: Scale, y: float) -> list[Markup]:
    hover = tag("title", f"{name}: {percent(value)} alone, {percent(federated)} federated ({points(federated - value)} points)")
    kind = "gain" if federated >= value else "loss"
    bar = tag("line", hover, x1=scale.across(value), x2=scale.across(federated), y1=y, y2=y, class_=f"bar {kind}")
    return [bar, tag("circle", hover, cx=scale.across(value), cy=y, r=4 if kind == "gain" else 4.5, class_=f"alone {kind}")]


def bytes_chart(moved: Sequence[tuple[int, Mapping[str, float]]], kinds: Sequence[str], said: str) -> Chart:
    """A column a round, each kind of traffic stacked on the one before it."""
    height = 170
    amounts = Scale(0, max(sum(by_kind.values()) for _, by_kind in moved) * 1.05 or 1)
    first, last = moved[0][0], moved[-1][0]
    across = Scale(first - 0.5, last + 0.5)
    width = 80 / (last - first + 1)
    parts = level_axis(amounts, height, size, most=5) + round_axis(across, height, first, last)
    for at, by_kind in moved:
        floor = 0.0
        for place, kind in enumerate(kinds):
            amount = by_kind.get(kind, 0.0)
            y, base = amounts.down(floor + amount, height), amounts.down(floor, height)
            floor += amount
            hover = tag("title", f"round {at}, {kind.replace('_', ' ')}: {size(amount)}")
            x = f"{100 * across.share(at) - width / 2:.2f}%"
            parts.append(tag("rect", hover, x=x, width=f"{width:.2f}%", y=y, height=round(base - y, 1), class_=f"bytes-{place % 4}"))
    return Chart(canvas("Bytes moved by round", said, height + 26, parts), left=64, right=4)
