"""Shows an estimate of λ̂, computed from a trace, as text, JSON or a plot."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from replicate.estimation import diagnostics, estimators, fluctuations, regimes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = ["default", "replicate.looks"]  # matplotlib's name for replicate/looks.mplstyle
PARTS = {"harmonic": "curvature", "gradient_part": "gradient"}  # of λ̂ of a quadratic
RHAT, DRIFT, LOCAL = 1.05, 0.01, 0.25  # the limits of healthy chains, as in params.yaml

FEW = 4  # chains or shuffles below which the interval is much wider than twice the error
WELL = "The chains agree; nothing is wrong with them."
SETTLE = "Lower lr, or start with a longer burn-in, and draw more."


@dataclass(frozen=True)
class Estimate:
    """Holds a trace and computes λ̂ by the estimator `controlled`, its error and its diagnostics.

    Attributes:
        trace: `loss` and `init_loss` (nats) of each step (shuffle, chain, draw), and `diverged`.
            Its attributes must include `sampling`, with nβ, and `baseline`, with the mean loss at
            w* over all examples (nats). They may include `guess`, the loss of guessing (nats), and
            in `baseline` what `llc` measured at w*: `trace` of H, `gradient_squared` and
            `gradient_part` and `harmonic`, each with its error, and
            `largest_nbeta`.
        limits: the limits of the rules that say what λ̂ measures.
    """

    trace: xr.Dataset
    limits: regimes.Limits | None = None

    @cached_property
    def diagnosis(self) -> regimes.Diagnosis:
        """What λ̂ measures at these settings, from the chain itself."""
        guess = self.trace.attrs.get("guess", float("nan"))
        known = self.trace.attrs["baseline"]
        names = {"gradient_squared": "gradient"} | {
            name: name for name in ("trace", "harmonic", "gradient_part")
        }
        minimum = regimes.AtMinimum(
            **{name: regimes.Measured(*known[key]) for key, name in names.items() if key in known}
        )
        return regimes.diagnose(
            self.trace, baseline=self.baseline, guess=guess, minimum=minimum, limits=self.limits
        )

    @property
    def nbeta(self) -> float:
        """nβ, the inverse temperature times the number of examples."""
        return self.trace.attrs["sampling"]["nbeta"]

    @property
    def baseline(self) -> float:
        """The mean loss at w* over all examples (nats)."""
        return self.trace.attrs["baseline"]["loss"]

    @cached_property
    def values(self) -> xr.DataArray:
        """The contribution of each draw to λ̂ (shuffle, chain, draw); λ̂ is their mean."""
        return estimators.controlled(self.trace, self.nbeta, self.baseline)

    @cached_property
    def result(self) -> estimators.Result:
        """λ̂, its errors, and the diagnostics of the chains."""
        return estimators.summarise(self.values, halves="relaxations" in self.trace.attrs)

    @cached_property
    def estimators(self) -> dict[str, estimators.Result]:
        """Every estimator that the trace allows, by its name; `controlled` is λ̂.

        Beside those of `replicate.estimation.estimators` there are `variance` and, where losses of
        examples were kept, `singular`, of `replicate.estimation.fluctuations`.
        """
        trace, task = self.trace, self.trace.attrs.get("task", {})
        found = estimators.estimates(
            trace, nbeta=self.nbeta, examples=task.get("labels", 2), baseline=self.baseline
        )
        if "labels" not in task:
            del found["published"]
        if "half_loss" in trace and (each := fluctuations.variance(trace, self.nbeta)).size:
            found["variance"] = estimators.summarise(each)
        if "example_loss" in trace:
            each = fluctuations.singular(trace, self.nbeta, task["labels"] / task["examples"])
            found["singular"] = estimators.summarise(each)
        return found

    def table(self) -> str:
        """Returns the estimators as a table of text."""
        rows = [f"{'estimator':12}{'λ̂':>10}{'±':>9}  95 %"]
        for name, result in self.estimators.items():
            low, high = result.interval
            told = f"{result.llc:10.3g}{result.standard_error:9.2g}  {low:.3g} to {high:.3g}"
            rows.append(f"{name:12}{told}")
        return "\n".join(rows)

    @property
    def llc(self) -> float:
        """λ̂ (no unit); NaN if all chains diverged."""
        return self.result.llc

    @property
    def standard_error(self) -> float:
        """The standard error of λ̂, from the shuffles, or from the chains of a single shuffle."""
        return self.result.standard_error

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of λ̂."""
        return self.result.interval

    @property
    def rhat(self) -> float:
        """Split R-hat over all chains; 1 if they agree."""
        return self.result.rhat

    @property
    def ess(self) -> float:
        """The effective number of draws of all chains together."""
        return self.result.ess

    @property
    def diverged(self) -> float:
        """The share of the chains that diverged."""
        return self.result.diverged_chains / self.result.chains

    @cached_property
    def advice(self) -> list[str]:
        """A sentence for each problem of the chains, with its remedy; empty if there is none."""
        loss_NxT = self.trace.loss.values.reshape(self.result.chains, -1)
        burn_in = int((self.trace.draw < 0).sum())
        guess = self.trace.attrs.get("guess", float("nan"))
        draws_NxD = self.values.values.reshape(self.result.chains, -1)
        most = self.trace.attrs["baseline"].get("largest_nbeta", float("nan"))
        found = []
        if self.result.chains - self.result.diverged_chains == 1:
            found.append("one chain has no standard error: run two or more")
        if self.values.sizes["draw"] < 4:
            found.append("too few draws to judge the chains: draw 4 or more")
        return found + diagnostics.advise(
            loss_NxT,
            burn_in,
            draws_NxD[np.isfinite(draws_NxD).all(axis=1)],
            self.interval,
            diagnostics.escape(loss_NxT, burn_in, self.baseline, guess),
            still=estimators.still(self.trace),
            rhat_limit=RHAT,
            drift_level=DRIFT,
            local_limit=LOCAL,
            sloped=self.diagnosis.answers["gradient"] == "yes",
            largest_nbeta=most if most < self.nbeta else float("nan"),
        )

    def __str__(self) -> str:
        result = self.result
        low, high = self.interval
        advice = [sentence[0].upper() + sentence[1:] + "." for sentence in self.advice]
        regime = self.diagnosis.regime
        if regime == "not in equilibrium":
            advice.append(SETTLE)
        shuffles = len(result.shuffles)
        units, kind = (shuffles, "shuffles") if shuffles > 1 else (result.chains, "chains")
        few = f", from {units} {kind} alone" if units < FEW else ""
        interval = f"(95 %: {low:.3g} to {high:.3g}{few})"
        return "\n".join(
            [
                f"λ̂ = {self.llc:.3g} ± {self.standard_error:.2g} {interval}",
                self._settings(),
                f"R-hat {self.rhat:.2f}, {self.ess:.0f} effective draws of {self.values.size},"
                f" {result.diverged_chains} of {result.chains} chains diverged",
                *self._measured(),
                *self._quadratic(),
                *(f"{choice}." for choice in self.trace.attrs.get("choices", [])),
                *(advice or [WELL if regime in regimes.REGIMES else "The chains agree."]),
            ]
        )

    def _settings(self) -> str:
        """Says with which settings the chains were run."""
        gamma, lr = (self.trace.attrs["sampler"][name] for name in ("localization", "lr"))
        draws = self.values.sizes["draw"]
        steps = f"{draws} draws after {self.trace.sizes['draw'] - draws} steps"
        told = f"At nβ = {self.nbeta:.5g}, γ = {gamma:.5g}, ε = {lr:.3g}"
        return f"{told}: {self.result.chains} chains of {steps}."

    def _measured(self) -> list[str]:
        """Says what λ̂ measures."""
        if self.diverged == 1:
            return ["No chain is left, so there is no λ̂ and no regime."]
        found = self.diagnosis
        return [
            f"Regime: {found}.",
            f"∂ln λ̂/∂ln γ = {found.elasticity_gamma}, ∂ln λ̂/∂ln nβ = {found.elasticity_nbeta},"
            f" E[V]/λ̂ = {found.degree}",
        ]

    def _quadratic(self) -> list[str]:
        """Says λ̂ of the quadratic that touches the loss at w*, where it is known."""
        known = self.trace.attrs["baseline"]
        parts = [regimes.Measured(*known.get(name, regimes.UNKNOWN)) for name in PARTS]
        if not all(math.isfinite(part.value) for part in parts):
            return []
        told = " and ".join(
            f"{part.value:.3g} ± {part.error:.2g} by its {name}"
            for part, name in zip(parts, PARTS.values(), strict=True)
        )
        return [f"A quadratic with the derivatives at w* would have λ̂ = {told}."]

    def to_json(self) -> str:
        """Returns the estimate, its advice and the attributes of the trace as JSON.

        A number that is unknown, such as the error of a single chain, is written as null.
        """
        result = asdict(self.result) | {"shuffles": self.result.shuffles.tolist()}
        found = result | {"advice": self.advice, "made_by": self.trace.attrs}
        names = ("llc", "standard_error", "interval")
        found["estimators"] = {
            name: {each: getattr(one, each) for each in names}
            for name, one in self.estimators.items()
        }
        plain = json.loads(json.dumps(found), parse_constant=lambda _: None)
        return json.dumps(plain, indent=1, ensure_ascii=False)

    def plot(self) -> Figure:
        """Plots the losses of the chains, and λ̂ as the number of draws grows."""
        from matplotlib import pyplot

        with pyplot.style.context(LOOKS):
            figure, (left, right) = pyplot.subplots(1, 2, figsize=(6.3, 2.4), layout="constrained")
            for loss_T in self.trace.loss.values.reshape(self.result.chains, -1):
                left.plot(self.trace.draw, loss_T, color="C0", alpha=0.35, linewidth=0.6)
            left.axhline(self.baseline, color="0.2", linestyle="dashed", label="at w*")
            left.axvspan(float(self.trace.draw[0]) - 1, -0.5, color="0.93", label="burn-in")
            left.set(xlabel="step", ylabel="loss of a minibatch (nats)")
            left.legend()
            mean_D, error_D = estimators.running(self.values)
            right.plot(self.values.draw, mean_D)
            right.fill_between(self.values.draw, mean_D - error_D, mean_D + error_D, alpha=0.2)
            right.set(xlabel="draws", ylabel="λ̂ of the draws so far")
            figure.draw_without_rendering()  # which makes the ticks, in this style
            pyplot.close(figure)  # otherwise a notebook shows it twice
        return figure
