"""How every published number is rounded, for LaTeX and for the report alike. Pure."""

from __future__ import annotations

DASH = "–"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def split(value: float, digits: int = 4) -> tuple[str, int | None]:
    """In at most `digits` significant digits: the figures, and the power of ten where there is
    one.
    """
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{float(f'{value:.{digits}g}'):f}".rstrip("0").rstrip("."), None
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}", int(exponent)


def number(value: float | None, digits: int = 4) -> str:
    """As text; a dash for null."""
    if value is None:
        return DASH
    figures, exponent = split(value, digits)
    before, dot, after = figures.partition(".")
    figures = f"{before[:-3]},{before[-3:]}{dot}{after}" if len(before.lstrip("-")) > 3 else figures
    power = "" if exponent is None else f" × 10{str(exponent).translate(RAISED)}"
    return figures.replace("-", "−") + power


def effect(value: float | None) -> str:
    """In three significant digits, and to the unit at least."""
    return number(value, max(3, len(f"{abs(value or 0):.0f}")))


def with_error(value: float | None, error: float | None, digits: int = 4) -> str:
    """± one standard error."""
    return (
        number(value, digits)
        if value is None or error is None
        else f"{number(value, digits)} ± {number(error, 2)}"
    )


def interval(value: tuple[float, float] | None) -> str:
    return DASH if value is None else f"{number(value[0])} to {number(value[1])}"


def effects(value: tuple[float, float] | None) -> str:
    """An interval of an effect."""
    return DASH if value is None else f"{effect(value[0])} to {effect(value[1])}"


def whole(value: int | None) -> str:
    return DASH if value is None else f"{value:,}".replace("-", "−")


def fixed(value: float | None, places: int = 2) -> str:
    return DASH if value is None else f"{value:,.{places}f}".replace("-", "−")


def percent(share: float | None, places: int = 1) -> str:
    return DASH if share is None else f"{fixed(100 * share, places)} %"


def probability(p: float | None) -> str:
    return DASH if p is None else "< 0.0001" if p < 1e-4 else number(p, 2)
