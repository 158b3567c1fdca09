"""Numbers and lists in words, for a reader in a hurry."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

SPACE = "\N{NO-BREAK SPACE}"
LEVEL = 5e-4  # accuracies closer than this look the same with one digit after the point
DASH = "\N{EM DASH}"
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f}{SPACE}%"


def metric(name: str, value: float) -> str:
    """A metric's value: accuracy as a percentage, any other as a number."""
    return percent(value) if name == "accuracy" else significant(value)


def points(difference: float) -> str:
    """A difference of two accuracies, signed, in percentage points."""
    sign = "+" if difference >= 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(100 * difference):.1f}"


def beside(difference: float) -> str:
    """A difference of two accuracies in words: 8.9 points below."""
    if abs(difference) < LEVEL:
        return "level with"
    return f"{abs(100 * difference):.1f} points {'above' if difference > 0 else 'below'}"


def significant(value: float, digits: int = 3) -> str:
    """1.9 → 1.90, 1234.5 → 1234: so many digits, but never fewer than stand before the point."""
    if not value:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}" if decimals <= 6 else short(value)


def short(value: float) -> str:
    """As short as it is exact enough: 4.0 → 4, 1e-05 → 1e-5."""
    return re.sub(r"e([-+])0+", r"e\1", f"{value:.6g}").replace("e+", "e")


def grouped(amount: int) -> str:
    """100000 → 100 000."""
    return f"{amount:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def change(share: float | None) -> str:
    return DASH if share is None else f"{significant(100 * share, 2)}{SPACE}%"


def size(amount: float) -> str:
    """Bytes in decimal units: 26240 → 26.2 kB."""
    amount, unit = _unit(amount)
    return f"{round(amount) if unit == 'B' else significant(amount)}{SPACE}{unit}"


def rough_size(amount: float) -> str:
    """Bytes of a round amount: 20000 → 20 kB."""
    amount, unit = _unit(amount)
    return f"{short(amount)}{SPACE}{unit}"


def _unit(amount: float) -> tuple[float, str]:
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return amount, unit
        amount /= 1000
    return amount, "TB"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    if seconds < 99.5:
        return f"{significant(seconds, 2 if seconds < 9.95 else 3)}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest}{SPACE}s" if rest else f"{minutes}{SPACE}min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{SPACE}h {minutes}{SPACE}min"


def count(amount: int, singular: str, plural: str | None = None) -> str:
    """3, "absence" → three absences."""
    word = WORDS[amount] if amount < len(WORDS) else str(amount)
    return f"{word}{SPACE}{singular if amount == 1 else plural or singular + 's'}"


def all_of(amount: int, singular: str) -> str:
    """1, 2, 3 → the client, both clients, all three clients."""
    if amount < 3:
        return f"the {singular}" if amount == 1 else f"both {singular}s"
    return f"all {count(amount, singular)}"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def series(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def whole(text: str) -> Markup:
    """The text with ε = 4 and δ = 1e-5 kept on one line each."""
    return Markup(re.sub(r"[εδ] = [^\s;]+[);]?", r'<span class="whole">\g<0></span>', str(escape(text))))


def some(names: Sequence[str], most: int = 3) -> str:
    """All names when they are few, else the first ones and how many more."""
    if len(names) <= most + 1:
        return series(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 → 1–3 and 7."""
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return some([f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs], most=8)


def full_stop(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
