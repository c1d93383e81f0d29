"""LaTeX fragments: rows of tables, and the numbers that the text names. LaTeX owns layout and captions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from replicate.published import Published
from replicate.results import Baseline, Estimate, Training, Trial

NOT_RUN = r"\notrun"


def number(value: float | None, digits: int = 4) -> str:
    """In at most `digits` significant digits; a dash for null."""
    if value is None:
        return "--"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:f}".rstrip("0").rstrip(".").replace("-", "$-$")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return rf"${float(mantissa):g}\times10^{{{int(exponent)}}}$"


def with_error(row: Estimate) -> str:
    return "--" if row.llc is None else f"{number(row.llc)} $\\pm$ {number(row.standard_error, 2)}"


def whole(value: int | None) -> str:
    return "--" if value is None else f"{value:,}".replace(",", r"\,")


def interval(value: tuple[float, float] | None) -> str:
    return "--" if value is None else f"{number(value[0])} to {number(value[1])}"


def rows(lines: Iterable[Iterable[str]]) -> str:
    return "".join(" & ".join(cells) + r" \\" + "\n" for cells in lines)


def estimates(records: list[Estimate], published: Mapping[str, Mapping[str, Published]], estimator: str) -> str:
    """model, parameters, sampled ones, λ̂ with error and interval, R-hat, effective draws, chains that failed, the published λ̂."""
    lines = []
    for row in records:
        if row.estimator != estimator:
            continue
        theirs = published.get(row.family, {}).get(row.model)
        before = [row.model, whole(row.parameters), whole(row.sampled_parameters)]
        after = [number(theirs.reported, 6) if theirs else "--"]
        if row.status == "not run":
            lines.append([*before, rf"\multicolumn{{5}}{{c}}{{{NOT_RUN}}}", *after])
        else:
            ours = [with_error(row), interval(row.interval), "--" if row.rhat is None else f"{row.rhat:.2f}"]
            lines.append([*before, *ours, number(row.ess, 3), f"{row.failed_chains}/{row.chains}", *after])
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


def search(records: list[Trial]) -> str:
    """The settings that were chosen: family, model, sampler, ε, μ, γ, box, mean and standard deviation of λ̂, stability."""
    return rows(
        [
            row.family,
            row.model,
            row.sampler.upper(),
            number(row.lr),
            number(row.weight_decay),
            number(row.localization),
            "none" if row.bounding_box is None else number(row.bounding_box),
            number(row.mean),
            number(row.standard_deviation, 2),
            number(row.stability, 3),
        ]
        for row in records
        if row.chosen
    )


def training(records: list[Training]) -> str:
    """model, steps, loss and floor over all positions, loss and floor of the label."""
    return rows(
        [row.model, whole(row.steps), number(row.loss), number(row.floor), number(row.label_loss), number(row.label_floor)]
        if row.status == "run"
        else [row.model, rf"\multicolumn{{5}}{{c}}{{{NOT_RUN}}}"]
        for row in records
    )


def values(study: str, estimates: list[Estimate], baselines: list[Baseline], trials: list[Trial]) -> str:
    r"""`\setresult{study/model/quantity}{…}` for every quantity that the text may name, *not run* where there is none."""
    named: dict[str, str] = {}
    for row in estimates:
        run = row.status == "run"
        prefix = f"{row.model}/" if row.estimator == "controlled" else f"{row.model}/{row.estimator}/"
        named[prefix + "llc"] = number(row.llc) if run else NOT_RUN
        named[prefix + "error"] = number(row.standard_error, 2) if run else NOT_RUN
        named[prefix + "interval"] = interval(row.interval) if run else NOT_RUN
        if row.estimator == "controlled":
            named[prefix + "parameters"] = whole(row.parameters) if row.parameters else NOT_RUN
            named[prefix + "rhat"] = f"{row.rhat:.2f}" if run and row.rhat is not None else NOT_RUN
    for row in baselines:
        named[f"{row.model}/loss"] = number(row.loss) if row.status == "run" else NOT_RUN
    for trial in trials:
        if trial.chosen:
            named[f"{trial.family}/lr"] = number(trial.lr)
            named[f"{trial.family}/localization"] = number(trial.localization)
    return "".join(f"\\setresult{{{study}/{key}}}{{{text}}}\n" for key, text in sorted(named.items()))
