"""Shows λ̂ along γ and nβ, with the harmonic part beside it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicate.estimation.estimate import LOOKS, Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """Holds λ̂ at one setting.

    Attributes:
        nbeta: nβ.
        localization: γ.
        estimate: λ̂ with its error, its regime and its trace.
        harmonic: ½·tr[H(H + γ/nβ)⁻¹] and its error; NaN where the curvature is too negative.
    """

    nbeta: float
    localization: float
    estimate: Estimate
    harmonic: tuple[float, float]

    @property
    def alpha(self) -> float:
        """α = γ/nβ (nats), the resolution."""
        return self.localization / self.nbeta


@dataclass(frozen=True)
class Curve:
    """Holds λ̂ at several settings.

    Attributes:
        points: one for each setting, by nβ and then by falling γ.
        natural: n/ln n, the nβ of WBIC (Watanabe 2013); NaN if n is not known.
        largest: the largest nβ at which the gradient at w* takes less than a tenth off λ̂.
    """

    points: Sequence[Point]
    natural: float = math.nan
    largest: float = math.inf

    def named(self, nbeta: float) -> str:
        """Returns the name of nβ, *n/ln n* or none."""
        return "n/ln n" if math.isclose(nbeta, self.natural, rel_tol=1e-3) else ""

    def __str__(self) -> str:
        rows = [f"{'nβ':>9} {'γ':>9} {'α':>9} {'λ̂':>9}{'±':>8} {'harmonic':>9}  regime"]
        for point in self.points:
            found = point.estimate
            harmonic = f"{point.harmonic[0]:9.3g}" if point.harmonic[0] > 0 else f"{'–':>9}"
            rows.append(
                f"{point.nbeta:9.4g} {point.localization:9.4g} {point.alpha:9.3g} {found.llc:9.3g}"
                f"{found.standard_error:8.2g} {harmonic}  {found.diagnosis.regime}"
                + (", nβ = n/ln n (WBIC)" if self.named(point.nbeta) else "")
            )
        if self.largest < self.natural:
            rows.append(
                f"n/ln n is {self.natural:.4g}, but above nβ = {self.largest:.3g} the gradient at"
                " w* takes more than a tenth off λ̂"
            )
        return "\n".join(rows)

    def to_json(self) -> str:
        """Returns the points as JSON; a number that is unknown is written as null."""
        rows = [
            {
                "nbeta": point.nbeta,
                "localization": point.localization,
                "alpha": point.alpha,
                "name": self.named(point.nbeta),
                "llc": point.estimate.llc,
                "standard_error": point.estimate.standard_error,
                "harmonic": point.harmonic[0],
                "regime": point.estimate.diagnosis.regime,
            }
            for point in self.points
        ]
        plain = json.loads(json.dumps(rows), parse_constant=lambda _: None)
        return json.dumps(plain, indent=1, ensure_ascii=False)

    def plot(self) -> Figure:
        """Plots λ̂ against α with a line for each nβ; the harmonic part is dashed.

        Lines differ by colour, mark and stroke.
        """
        from matplotlib import pyplot

        with pyplot.style.context(LOOKS):
            figure, axes = pyplot.subplots(figsize=(4.2, 2.8), layout="constrained")
            looks = itertools.cycle(zip("os^DvP", ("solid", "dotted", "dashdot") * 2, strict=True))
            for nbeta, (marker, stroke) in zip(
                dict.fromkeys(point.nbeta for point in self.points), looks, strict=False
            ):
                line = [point for point in self.points if point.nbeta == nbeta]
                axes.errorbar(
                    [point.alpha for point in line],
                    [point.estimate.llc for point in line],
                    [point.estimate.standard_error for point in line],
                    marker=marker,
                    linestyle=stroke,
                    label=f"nβ = {self.named(nbeta) or f'{nbeta:.4g}'}",
                )
            by_alpha = sorted(self.points, key=lambda point: point.alpha)
            axes.plot(
                [point.alpha for point in by_alpha],
                [point.harmonic[0] for point in by_alpha],
                color="0.2",
                linestyle="dashed",
                label="harmonic part",
            )
            axes.set(xscale="log", yscale="log", xlabel="α = γ/nβ (nats)", ylabel="λ̂")
            axes.legend()
            figure.draw_without_rendering()  # which makes the ticks, in this style
            pyplot.close(figure)  # otherwise a notebook shows it twice
        return figure
