"""Turns every published number into a rounded text, which LaTeX, HTML and the terminal all show."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

DASH = "–"
NOT_RUN = "not run"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Pair = tuple[float | None, float | None]


def number(value: float | None, digits: int = 4) -> str:
    """Rounds to at most `digits` significant digits. A value that is not finite becomes a dash."""
    if value is None or not isfinite(value):
        return DASH
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{float(f'{value:.{digits}g}'):,f}".rstrip("0").rstrip(".")
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{float(mantissa):g} × 10{str(int(exponent)).translate(RAISED)}"
    return text.replace("-", "−")


def with_error(pair: Pair | None, digits: int = 4) -> str:
    """Writes a value ± one standard error."""
    value, error = pair or (None, None)
    text = number(value, digits)
    return text if value is None or error is None else f"{text} ± {number(error, 2)}"


def effect(value: float | None) -> str:
    """Rounds to three significant digits; a number of four or more digits to a whole number."""
    return number(value, max(3, len(f"{abs(value or 0):.0f}")))


def interval(bounds: Pair | None, digits: int = 4) -> str:
    """Writes both ends of an interval."""
    return DASH if bounds is None else f"{number(bounds[0], digits)} to {number(bounds[1], digits)}"


def effects(bounds: Pair | None) -> str:
    """Writes both ends of the interval of an effect."""
    return DASH if bounds is None else f"{effect(bounds[0])} to {effect(bounds[1])}"


def shares(bounds: tuple[float, float]) -> str:
    """Writes both ends of the interval of a share, in per cent."""
    return f"{fixed(100 * bounds[0], 1)} to {percent(bounds[1])}"


def span(values: Iterable[float | None], digits: int = 4, factor: float = 1.0) -> str:
    """Writes the range of the values times `factor`; one number if both ends round to the same."""
    known = [factor * value for value in values if value is not None]
    if not known:
        return DASH
    least, greatest = number(min(known), digits), number(max(known), digits)
    return least if least == greatest else f"{least} to {greatest}"


def whole(value: int | None) -> str:
    """Writes a count with separators between thousands."""
    return DASH if value is None else f"{value:,}".replace("-", "−")


def fixed(value: float | None, places: int = 2) -> str:
    """Rounds to `places` decimal places."""
    known = value is not None and isfinite(value)
    return f"{value:,.{places}f}".replace("-", "−") if known else DASH


def percent(share: float | None, places: int = 1) -> str:
    """Writes a share in per cent."""
    return DASH if share is None else f"{fixed(100 * share, places)} %"


def probability(p: float | None) -> str:
    """Rounds a p value to two significant digits."""
    return DASH if p is None else "< 0.0001" if p < 1e-4 else number(p, 2)


def out_of(counts: tuple[int, int]) -> str:
    """Writes a pair of counts, as in "3 of 4"."""
    return f"{counts[0]} of {counts[1]}"


def duration(seconds: float) -> str:
    """Writes a time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
