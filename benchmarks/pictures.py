"""What the benchmarks' pictures are made of: self-contained SVG, readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fedbucket.report.svg import tag, text

WIDTH = 1000
STYLE = """
:root { --page: #ffffff; --edge: #d0d7de; --ink: #1f2328; --dim: #57606a; --grid: #e8ebee; --tint: #f6f4ef;
        --first: #0a57b0; --second: #9a4b00; --third: #57606a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161c; --edge: #3d444d; --ink: #e6edf3; --dim: #9aa5b1; --grid: #252b33; --tint: #1b1f24;
          --first: #79b8ff; --second: #f0b266; --third: #9aa5b1; }
}
text { font: 14px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; fill: var(--ink); }
.page { fill: var(--page); stroke: var(--edge); }
.title { font-size: 20px; font-weight: 600; } .head { font-size: 15px; font-weight: 600; }
.small { font-size: 13px; } .dim { fill: var(--dim); } .end { text-anchor: end; } .middle { text-anchor: middle; }
.strong { font-weight: 600; } .halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; }
.grid { stroke: var(--grid); } .axis { stroke: var(--edge); }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; } .level { stroke-width: 1.5; stroke-dasharray: 5 4; }
line.first, path.first { stroke: var(--first); } text.first, circle.first { fill: var(--first); }
line.second, path.second { stroke: var(--second); } text.second, circle.second { fill: var(--second); }
line.third, path.third { stroke: var(--third); } text.third, circle.third { fill: var(--third); }
line.range { stroke-width: 5; stroke-opacity: .35; stroke-linecap: round; } .tint { fill: var(--tint); }
.bar { stroke-width: 16; } .whisker { stroke: var(--ink); stroke-width: 2; }
.around { stroke: var(--page); stroke-width: 5; }
circle.mean { stroke: var(--page); stroke-width: 1.5; }
"""


def share(value: float, digits: int = 2) -> str:
    """Return a number between 0 and 1 as the pictures write it: 0, .89, 1."""
    rounded = f"{value:.{digits}f}"
    return rounded[0] if float(rounded) in (0, 1) else rounded.removeprefix("0")


def power(value: float) -> str:
    """Return a small number as people write it: 1e-5."""
    return f"{value:g}".replace("e-0", "e-")


def picture(title: str, description: str, height: float, parts: Sequence[Markup]) -> str:
    """Return the SVG file."""
    frame = tag("rect", class_="page", x=0.5, y=0.5, width=WIDTH - 1, height=height - 1, rx=10)
    said = [tag("title", title, id="title"), tag("desc", description, id="description"), tag("style", Markup(STYLE))]
    about = {"role": "img", "aria_labelledby": "title description", "width": WIDTH, "height": height}
    inside = [Markup("\n  ") + part for part in (*said, frame, *parts)]
    svg = tag("svg", *inside, Markup("\n"), **about)
    # attributes that are not written as Python names are
    return str(svg).replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"', 1) + "\n"


@dataclass(frozen=True)
class Plot:
    """A panel in which `x` runs over `across` and a share of 1 over `up`, drawn at these pixels."""

    left: float
    top: float
    width: float
    height: float
    across: tuple[float, float]
    up: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        low, high = self.across
        return round(self.left + self.width * (value - low) / (high - low), 1)

    def y(self, value: float) -> float:
        low, high = self.up
        return round(self.top + self.height * (high - value) / (high - low), 1)

    def levels(self, values: Sequence[float]) -> list[Markup]:
        """Horizontal grid lines, labelled at the left."""
        right, parts = self.left + self.width, []
        for value in values:
            y = self.y(value)
            parts.append(tag("line", class_="grid", x1=self.left, x2=right, y1=y, y2=y))
            parts.append(text(share(value), class_="small dim end", x=self.left - 8, y=y + 4))
        return parts

    def marks(self, values: Sequence[tuple[float, str]]) -> list[Markup]:
        """Labels along the bottom."""
        bottom = self.top + self.height
        line = tag("line", class_="axis", x1=self.left, x2=self.left + self.width, y1=bottom, y2=bottom)
        return [line] + [
            text(label, class_="small dim middle", x=self.x(value), y=bottom + 20) for value, label in values
        ]

    def curve(self, points: Sequence[tuple[float, float]], class_: str) -> Markup:
        """A line through the means, in order."""
        path = "M" + " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        return tag("path", class_=f"line {class_}", d=path)

    def spread(self, at: float, values: Sequence[float], mean: float, class_: str, number: bool = True) -> list[Markup]:
        """The range of the seeds as a bar, their mean as a dot, and, if asked for, its number below the bar."""
        x, bottom = self.x(at), self.y(min(values))
        bar = tag("line", class_=f"range {class_}", x1=x, x2=x, y1=self.y(max(values)), y2=bottom)
        dot = tag("circle", class_=f"mean {class_}", cx=x, cy=self.y(mean), r=4.5)
        if not number:
            return [bar, dot]
        below = round(max(bottom, self.y(mean) + 4) + 16, 1)
        return [bar, dot, text(share(mean), class_=f"small middle strong halo {class_}", x=x, y=below)]

    def band(self, begin: float, label: str) -> list[Markup]:
        """A tinted part, from `begin` to the right end, with a word at its foot."""
        right, bottom = self.left + self.width, self.top + self.height
        box = {"x": self.x(begin), "y": self.top, "width": round(right - self.x(begin), 1), "height": self.height}
        return [tag("rect", class_="tint", **box), text(label, class_="small dim end", x=right - 6, y=bottom - 5)]

    def level(self, value: float, class_: str) -> Markup:
        """A dashed line for a figure that does not depend on x."""
        y = self.y(value)
        return tag("line", class_=f"level {class_}", x1=self.left, x2=self.left + self.width, y1=y, y2=y)
