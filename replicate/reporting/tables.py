"""LaTeX fragments: rows of tables. LaTeX owns layout and captions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from replicate.reporting.formatting import split
from replicate.study.published import Family
from replicate.study.records import (
    Aggregate,
    Analysis,
    Calibrated,
    Claim,
    Control,
    Estimate,
    Quantised,
    Reexamined,
    Training,
    Trial,
)

NOT_RUN = r"\notrun"


def number(value: float | None, digits: int = 4) -> str:
    """In at most `digits` significant digits; a dash for null."""
    if value is None:
        return "--"
    figures, exponent = split(value, digits)
    return (
        figures.replace("-", "$-$") if exponent is None else rf"${figures}\times10^{{{exponent}}}$"
    )


def with_error(row: Estimate) -> str:
    return "--" if row.llc is None else f"{number(row.llc)} $\\pm$ {number(row.standard_error, 2)}"


def whole(value: int | None) -> str:
    return "--" if value is None else f"{value:,}".replace(",", r"\,")


def interval(value: tuple[float, float] | None, digits: int = 4) -> str:
    return "--" if value is None else f"{number(value[0], digits)} to {number(value[1], digits)}"


def percent(share: float, decimals: int = 1) -> str:
    return rf"{100 * share:.{decimals}f}\,\%"


def rows(lines: Iterable[Iterable[str]]) -> str:
    return "".join(" & ".join(cells) + r" \\" + "\n" for cells in lines)


def estimates(records: list[Estimate], published: Mapping[str, Family], estimator: str) -> str:
    """model, parameters, sampled ones, λ̂ with error and interval, R-hat, effective draws, chains
    that failed, the published λ̂.
    """
    lines = []
    for row in records:
        if row.estimator != estimator:
            continue
        theirs = published[row.family].models.get(row.model) if row.family in published else None
        before = [row.model, whole(row.parameters), whole(row.sampled_parameters)]
        after = [number(theirs.reported, 6) if theirs else "--"]
        if row.status == "not run":
            lines.append([*before, rf"\multicolumn{{5}}{{c}}{{{NOT_RUN}}}", *after])
        else:
            ours = [
                with_error(row),
                interval(row.interval),
                "--" if row.rhat is None else f"{row.rhat:.2f}",
            ]
            lines.append(
                [*before, *ours, number(row.ess, 3), f"{row.failed_chains}/{row.chains}", *after]
            )
    return rows(lines)


def estimators(records: list[Estimate]) -> str:
    """model, then λ̂ ± standard error by every estimator."""
    names = list(dict.fromkeys(row.estimator for row in records))
    lines = []
    for model in dict.fromkeys(row.model for row in records):
        mine = {row.estimator: row for row in records if row.model == model}
        if any(row.status == "not run" for row in mine.values()):
            lines.append([model, rf"\multicolumn{{{len(names)}}}{{c}}{{{NOT_RUN}}}"])
        else:
            lines.append([model, *(with_error(mine[n]) for n in names)])
    return rows(lines)


def efficiency(records: list[Estimate]) -> str:
    """model, then for every estimator the variance over shuffles over that of `controlled`, and the
    gradients for an error of 1 %.
    """
    names = list(dict.fromkeys(row.estimator for row in records))
    lines = []
    for model in dict.fromkeys(row.model for row in records):
        mine = {row.estimator: row for row in records if row.model == model}
        if any(row.status == "not run" for row in mine.values()):
            lines.append([model, rf"\multicolumn{{{2 * len(names)}}}{{c}}{{{NOT_RUN}}}"])
        else:
            lines.append(
                [
                    model,
                    *(number(mine[n].variance_ratio, 2) for n in names),
                    *(number(mine[n].evaluations, 2) for n in names),
                ]
            )
    return rows(lines)


def quantisation(records: list[Quantised]) -> str:
    """model, what moves, format, parameters moved, loss at w*, its rise (millinats), squared
    gradient norm, λ̂ with error.
    """
    return rows(
        [row.model, row.moved, row.weights, *quantised(row)]
        if row.status == "run"
        else [row.model, row.moved, row.weights, rf"\multicolumn{{5}}{{c}}{{{NOT_RUN}}}"]
        for row in records
    )


def quantised(row: Quantised) -> list[str]:
    rise = (
        "--"
        if row.weights == "float32" or row.rise is None
        else f"{1000 * row.rise:.2f} $\\pm$ {1000 * (row.rise_error or 0):.2f}"
    )
    cells = [
        whole(row.sampled_parameters),
        number(row.loss),
        rise,
        number(row.gradient_norm_squared, 2),
    ]
    return [*cells, f"{number(row.llc)} $\\pm$ {number(row.standard_error, 2)}"]


def search(records: list[Trial]) -> str:
    """The settings that the rules choose: family, rule, sampler, ε, μ, γ, box, mean and s.d. of λ̂,
    stability, efficiency.
    """
    return rows(
        [
            row.family,
            ", ".join(row.chosen_by) + (r"$^*$" if row.chosen else ""),
            row.sampler.upper(),
            number(row.lr),
            number(row.weight_decay),
            number(row.localization),
            "none" if row.bounding_box is None else number(row.bounding_box),
            number(row.mean),
            number(row.standard_deviation, 2),
            number(row.stability, 3),
            number(row.efficiency, 2),
        ]
        for row in records
        if row.chosen_by
    )


def training(records: list[Training]) -> str:
    """model, steps, loss and floor over all positions, loss and floor of the label."""
    return rows(
        [
            row.model,
            whole(row.steps),
            number(row.loss),
            number(row.floor),
            number(row.label_loss),
            number(row.label_floor),
        ]
        if row.status == "run"
        else [row.model, rf"\multicolumn{{5}}{{c}}{{{NOT_RUN}}}"]
        for row in records
    )


def calibration(records: list[Calibrated]) -> str:
    """target, parameters, λ, what an exact sampler would give, λ̂ with error, interval, verdict."""
    return rows(
        [
            escaped(row.target),
            whole(row.parameters),
            number(row.true_llc),
            number(row.exact)
            if not row.ladder
            else "from " + ", ".join(f"{rung.llc:.3g}" for rung in row.ladder),
            f"{number(row.llc)} $\\pm$ {number(row.standard_error, 2)}",
            interval(row.interval),
            row.verdict.replace("%", r"\%"),
        ]
        for row in records
    )


def controls(records: list[Control]) -> str:
    """mistake, target, expected, found, whether it was caught."""
    return rows(
        [
            escaped(row.mistake),
            escaped(row.target),
            number(row.expected),
            f"{number(row.llc)} $\\pm$ {number(row.standard_error, 2)}",
            "caught" if row.caught else "not caught",
        ]
        for row in records
    )


def aggregates(records: list[Aggregate]) -> str:
    """model, shuffles averaged of how many, reported and recomputed average, reported and
    recomputed deviation.
    """
    return rows(
        [
            row.model,
            f"{row.kept} of {row.shuffles}",
            f"{row.reported:.2f}",
            f"{row.recomputed:.2f}",
            "--" if row.reported_deviation is None else f"{row.reported_deviation:.2f}",
            "--" if row.reported_deviation is None else f"{row.deviation_of_all:.2f}",
        ]
        for row in records
    )


def anova(records: list[Analysis]) -> str:
    """family, shares of the sum of squares (shuffle, model, residual), F and p of the models, p of
    Page's test.
    """
    return rows(
        [
            row.family,
            *(percent(share) for share in (row.shuffle, row.model, row.residual)),
            number(row.f, 3),
            number(row.p_value, 2),
            number(row.page_p, 2),
        ]
        for row in records
    )


def original(records: list[Reexamined]) -> str:
    """model, least and greatest λ̂ as published over shuffles, R² of luck, spread with 1 and with
    most baseline minibatches, share of labels that are padding, share of the variance of a
    minibatch's loss that these explain.
    """
    lines = []
    for row in records:
        if row.status == "not run":
            lines.append([row.model, rf"\multicolumn{{6}}{{c}}{{{NOT_RUN}}}"])
            continue
        found = [value for value in row.groups if value is not None]
        shares = (
            "--" if value is None else percent(value, 0)
            for value in (row.padded_labels, row.padded_variance)
        )
        span = f"{number(min(found))} to {number(max(found))}" if found else "--"
        lines.append(
            [
                row.model,
                span,
                number(row.r_squared, 2),
                number(row.spread[0], 3),
                number(row.spread[-1], 3),
                *shares,
            ]
        )
    return rows(lines)


LATEX = {
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "–": "--",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "½": r"$\tfrac12$",
}
LATEX |= {
    "γ": r"$\gamma$",
    "ε": r"$\varepsilon$",
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "μ": r"$\mu$",
}
LATEX |= {
    "−": "$-$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "<": "$<$",
    ">": "$>$",
    "²": "$^2$",
    "⁴": "$^4$",
    "⁶": "$^6$",
}
LATEX |= {"₁": "$_1$", "₂": "$_2$", "₃": "$_3$"}


def escaped(text: str) -> str:
    """Plain text for LaTeX."""
    return (
        text.replace("λ̂", "\0")
        .replace("w*", "\1")
        .translate(str.maketrans(LATEX | {"\0": r"$\llc$", "\1": "$w^*$"}))
    )


def judged(claims: list[Claim]) -> str:
    """claim, what the effect is, effect, interval, p; nothing of claims without an effect."""
    return rows(
        [
            row.id,
            escaped(row.measure),
            number(row.effect, 3),
            interval(row.interval, 3),
            number(row.p_value, 2),
        ]
        for row in claims
        if row.effect is not None
    )


def undecided(claims: list[Claim]) -> str:
    """A line of a list for each claim that is open: what would decide it."""
    return (
        "".join(
            f"\\item[{row.id}] {escaped(row.why)}\n"
            for row in claims
            if row.verdict == "inconclusive"
        )
        or r"\item[--] None." + "\n"
    )


def write(fragments: Mapping[str, str], out: Path) -> None:
    """A `.tex` file each."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in fragments.items():
        (out / f"{name}.tex").write_text(text, encoding="utf-8")
