"""What the sampler was set to, how that carries over, and what weight formats change."""

from __future__ import annotations

from replicate.reporting.formatting import fixed, number, percent, probability, whole, with_error
from replicate.reporting.report.evidence import Study
from replicate.reporting.report.table import Table, not_run, row


def chosen(study: Study) -> Table:
    """What the rules choose among all settings tried; the one that is used is marked."""
    rows = []
    for family in study.families:
        trials = [trial for trial in study.search if trial.family == family]
        if not trials:
            rows.append(not_run(family))
        for trial in trials:
            if trial.chosen_by:
                head = (
                    family,
                    ", ".join(trial.chosen_by) + (", used" if trial.chosen else ""),
                    trial.sampler.upper(),
                )
                box = "none" if trial.bounding_box is None else number(trial.bounding_box)
                knobs = (number(trial.lr, 3), number(trial.localization), box)
                found = (
                    with_error(trial.mean, trial.standard_deviation),
                    number(trial.stability, 3),
                    number(trial.efficiency, 2),
                )
                rows.append(
                    row(*head, *knobs, *found, percent(trial.expected_error), strong=trial.chosen)
                )
    columns = (
        "family",
        "rule",
        "sampler",
        "ε",
        "γ",
        "box",
        "λ̂ ± s.d. of chains",
        "mean / s.d.",
        "draws per gradient",
        "expected error",
    )
    note = "Effective draws per gradient evaluation; expected error: relative, of λ̂, step-size bias and Monte-Carlo error together."
    return Table(
        f"Settings that the rules choose, {study.name} study", columns, rows, words=3, note=note
    )


def tried(study: Study) -> list[str]:
    """Of each family that was searched: how many settings, and how many were healthy."""
    words = []
    for family in study.families:
        trials = [trial for trial in study.search if trial.family == family]
        if trials:
            healthy, failed = (
                sum(trial.healthy for trial in trials),
                sum(trial.failed_chains > 0 for trial in trials),
            )
            words.append(
                f"{family}: {len(trials)} settings tried on {trials[0].model}; chains healthy at {healthy}, one that failed at {failed}."
            )
    return words


def importances(study: Study) -> Table:
    rows = [
        row(
            found.hyperparameter.replace("_", " "),
            found.family,
            found.sampler.upper(),
            percent(found.importance),
            shares(found.interval),
        )
        for found in study.importances
    ] or [not_run(family) for family in study.families[:1]]
    columns = ("hyperparameter", "family", "sampler", "importance", "95 % interval")
    note = "Share of the variance of λ̂ over the grid (fANOVA), with bootstrap intervals over its trials."
    return Table(
        f"Which hyperparameter matters, {study.name} study", columns, rows, words=3, note=note
    )


def shares(bounds: tuple[float, float]) -> str:
    return f"{fixed(100 * bounds[0], 1)} to {percent(bounds[1])}"


def transfer(study: Study) -> Table:
    rows = []
    for found in study.transfer:
        head = (found.model, f"× {number(found.factor, 2)}")
        if found.status == "not run":
            rows.append(not_run(*head))
            continue
        health = (
            fixed(found.rhat),
            probability(found.drift_p),
            f"{found.failed_chains} of {found.chains}",
        )
        rows.append(
            row(*head, number(found.lr, 3), with_error(found.llc, found.standard_error), *health)
        )
    columns = ("model", "step size", "ε", "λ̂ ± s.e.", "R-hat", "drift, p", "failed chains")
    return Table(f"The chosen step size on every model, {study.name} study", columns, rows, words=2)


def quantisation(study: Study) -> Table:
    rows = []
    for found in study.quantisation:
        head = (found.model, found.weights, found.moved)
        if found.status == "not run":
            rows.append(not_run(*head))
            continue
        anchor = found.weights == "float32"
        rise = (
            number(None)
            if anchor or found.rise is None
            else with_error(1000 * found.rise, 1000 * (found.rise_error or 0), 3)
        )
        changes = [value for value in found.changes if value is not None]
        change = number(None) if anchor or not changes else percent(sum(changes) / len(changes))
        lambda_ = with_error(found.llc, found.standard_error)
        rows.append(
            row(
                *head,
                whole(found.sampled_parameters),
                number(found.loss),
                rise,
                lambda_,
                change,
                fixed(found.rhat),
            )
        )
    columns = (
        "model",
        "weights",
        "moved",
        "parameters moved",
        "loss at w*",
        "rise, millinats ± s.e.",
        "λ̂ ± s.e.",
        "change of λ̂",
        "R-hat",
    )
    note = "Same batches and noise in every format; changes are against float32 with the same parameters moving."
    return Table(f"Weight formats, {study.name} study", columns, rows, words=3, note=note)
