"""The charts of the report page: numbers in, inline SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from fedbucket.report.svg import (
    Chart,
    Scale,
    Write,
    across_axis,
    brief,
    canvas,
    gutter,
    level_axis,
    round_axis,
    spread,
    tag,
    text,
    ticks,
)
from fedbucket.report.wording import percent, points, rough_size, size

Scores = Sequence[tuple[int, float | None]]  # round, and the accuracy of the model that it made


def accuracy_range(values: Sequence[float]) -> Scale:
    """Shares with some air around them; a narrow band is magnified, the axis says so by its values."""
    low, high = min(values), max(values)
    air = max(0.02, 0.08 * (high - low))
    return Scale(max(0.0, low - air), min(1.0, high + air))


def whole_percent(scale: Scale) -> Write:
    """Axis labels without decimals where the steps allow it."""
    digits = 0 if scale.high - scale.low > 0.05 else 1
    return lambda share: f"{100 * share:.{digits}f} %"


def accuracy_chart(scored: Scores, void: Sequence[int], alone: float | None, pooled: float | None, said: str) -> Chart:
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
        label = (tag("tspan", percent(value), class_="strong"), f" {kind}")
        parts.append(text(*label, x="100%", dx=10, y=round(y + 4, 1), class_=f"label {kind}"))
    return Chart(canvas("Accuracy by round", said, height + 30, parts), left=48, right=120)


def shared_chart(scored: Scores, void: Sequence[int], said: str) -> Chart:
    """What clients measured of each global model on their own data, where they shared it."""
    height = 220
    known = [value for _, value in scored if value is not None]
    shares, across = accuracy_range(known), Scale(scored[0][0], scored[-1][0])
    parts = _void_bands(void, across, height)
    parts += level_axis(shares, height, whole_percent(shares)) + round_axis(across, height, scored[0][0], scored[-1][0])
    parts += _curve(scored, across, shares, height)
    end = text(
        tag("tspan", percent(known[-1]), class_="strong"),
        " shared",
        x="100%",
        dx=10,
        y=round(shares.down(known[-1], height) + 4, 1),
        class_="label federated",
    )
    return Chart(canvas("Accuracy that clients shared, by round", said, height + 30, [*parts, end]), left=48, right=120)


def _void_bands(void: Sequence[int], across: Scale, height: int) -> list[Markup]:
    width = 100 / max(1.0, across.high - across.low)
    bands = []
    for at in void:
        start = max(0.0, 100 * across.share(at) - width / 2)
        stop = min(100.0, 100 * across.share(at) + width / 2)
        hover = tag("title", f"round {at}: void")
        box = {"x": f"{start:.2f}%", "width": f"{stop - start:.2f}%", "y": 0, "height": height}
        bands.append(tag("rect", hover, class_="void", **box))
    return bands


def _curve(scored: Scores, across: Scale, shares: Scale, height: int) -> list[Markup]:
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


def clients_chart(alone: Mapping[str, float], federated: float, margin: float | None, said: str) -> Chart:
    """Each client alone as a dot, joined to the federated model's line; the least accurate first.

    What lies within `margin` of that line, if it is known, is tinted: differences that may be chance.
    """
    order = sorted(alone.items(), key=lambda item: (item[1], item[0]))
    row = 24 if len(order) <= 15 else 18 if len(order) <= 40 else 7
    named = _named_rows(len(order), row)
    top, bottom = 26, 26 + row * len(order)
    scale = accuracy_range([federated, *alone.values()])
    parts = [_chance_band(federated, margin, scale, top, bottom)] if margin else []
    parts += across_axis(scale, ticks(scale.low, scale.high, 6), whole_percent(scale), bottom, top)
    parts += _beside(12, "alone", "gain", "label alone", "tick")
    for index, (name, value) in enumerate(order):
        middle = top + row * (index + 0.5)
        parts += _dumbbell(name, value, federated, scale, middle, radius=min(4.5, row / 2.5))
        if index in named:
            parts.append(text(brief(name), tag("title", name), x=-10, y=middle + 4, class_="name end"))
            parts += _beside(middle + 4, percent(value), points(federated - value), "value", "value strong")
    x = scale.across(federated)
    parts.append(tag("line", x1=x, x2=x, y1=top - 6, y2=bottom, class_="together"))
    anchor = "end" if scale.share(federated) > 0.5 else "start"
    label = ("federated ", tag("tspan", percent(federated), class_="strong"))
    parts.append(text(*label, x=x, y=12, class_=f"label federated {anchor}"))
    svg = canvas("Each client alone, beside the federated model", said, bottom + 26, parts)
    return Chart(svg, left=gutter([brief(name) for name in alone]), right=106)


def _chance_band(federated: float, margin: float, scale: Scale, top: float, bottom: float) -> Markup:
    start, stop = (min(1.0, max(0.0, scale.share(federated + side))) for side in (-margin, margin))
    box = {"x": f"{100 * start:.2f}%", "width": f"{100 * (stop - start):.2f}%", "y": top, "height": bottom - top}
    return tag("rect", tag("title", f"within {points(margin)[1:]} points: may be chance"), class_="chance", **box)


def _beside(y: float, left: str, right: str, left_kind: str, right_kind: str) -> list[Markup]:
    """Two columns of figures in the room to the right of a plot."""
    columns = ((left, 52, left_kind), (right, 102, right_kind))
    return [text(content, x="100%", dx=dx, y=y, class_=f"{kind} end") for content, dx, kind in columns]


def _named_rows(amount: int, row: float) -> set[int]:
    """Every row where a label fits; else the first, the last and what fits between."""
    every = max(1, round(14 / row + 0.49))
    last = amount - 1
    return {index for index in range(amount) if index % every == 0 and last - index >= every} | {last}


def _dumbbell(name: str, value: float, federated: float, scale: Scale, y: float, radius: float) -> list[Markup]:
    gain = f"{points(federated - value)} points"
    hover = tag("title", f"{name}: {percent(value)} alone, {percent(federated)} federated ({gain})")
    kind = "gain" if federated >= value else "loss"
    bar = tag("line", hover, x1=scale.across(value), x2=scale.across(federated), y1=y, y2=y, class_=f"bar {kind}")
    return [bar, tag("circle", hover, cx=scale.across(value), cy=y, r=radius, class_=f"alone {kind}")]


def bytes_chart(moved: Sequence[tuple[int, Mapping[str, float]]], kinds: Sequence[str], said: str) -> Chart:
    """A column a round, each kind of traffic stacked on the one before it."""
    height = 170
    amounts = Scale(0, max(sum(by_kind.values()) for _, by_kind in moved) * 1.05 or 1)
    first, last = moved[0][0], moved[-1][0]
    across = Scale(first - 0.5, last + 0.5)
    width = 80 / (last - first + 1)
    parts = level_axis(amounts, height, rough_size, most=5) + round_axis(across, height, first, last)
    for at, by_kind in moved:
        floor = 0.0
        for place, kind in enumerate(kinds):
            amount = by_kind.get(kind, 0.0)
            y, base = amounts.down(floor + amount, height), amounts.down(floor, height)
            floor += amount
            hover = tag("title", f"round {at}, {kind.replace('_', ' ')}: {size(amount)}")
            x = f"{100 * across.share(at) - width / 2:.2f}%"
            box = {"x": x, "width": f"{width:.2f}%", "y": y, "height": round(base - y, 1)}
            parts.append(tag("rect", hover, class_=f"bytes-{place % 4}", **box))
    return Chart(canvas("Bytes moved by round", said, height + 30, parts), left=64, right=4)
