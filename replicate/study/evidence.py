"""Gathers the evidence for the claims from a study's records or from the published figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from replicate.data.json_io import rounded
from replicate.study.claims import Array, Evidence, Family, Spread
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.published import ORIGINAL, Figures
from replicate.study.records import (
    Baseline,
    Estimate,
    Extraction,
    Importance,
    OriginalProtocol,
    Quantised,
    ThinnedTrace,
    Training,
    Transferred,
    Trial,
    read,
)

DEFAULT = "controlled"  # the estimator that claims are judged by
BESIDE = ("devinterp", "published")
CITED = {  # start of a repository → the authors who describe its training data, and their .bib key
    "openai-community/gpt2": ("Radford et al. 2019", "radford2019"),
    "meta-llama/Llama-2-": ("Touvron et al. 2023", "touvron2023"),
}


def of_results(plan: StudyPlan, folder: Path) -> Evidence:
    """Reads the evidence that a study obtained.

    Args:
        plan: what the study asks for.
        folder: results/<study>, which holds the study's records.

    Raises:
        UserError: a file of records is missing or damaged.
    """
    baselines = {row.model: row for row in read(folder / "baselines.json", Baseline)}
    estimates = read(folder / "estimates.json", Estimate)
    original = read(folder / "original.json", OriginalProtocol)
    transfer = read(folder / "transfer.json", Transferred)
    trials = [t for t in read(folder / "search.json", Trial) if t.family == plan.full.name]
    importances = read(folder / "importances.json", Importance)
    traces = {row.model: row for row in read(folder / "traces.json", ThinnedTrace)}
    training = read(folder / "training.json", Training)
    windows = {row.family: row for row in read(folder / "windows.json", Extraction)}
    families = {each.name: _family(each, estimates, original, baselines) for each in plan.families}
    chosen = {row.model: row for row in estimates if row.estimator == DEFAULT}
    repositories = [name for family in plan.families for name in family.repositories]
    return Evidence(
        full=families[plan.full.name],
        quantised=families[plan.quantised.name] if plan.quantised else None,
        descents={
            name: (row.descent, row.descent_error)
            for name, row in baselines.items()
            if row.descent is not None and row.descent_error is not None
        },
        gradients={
            name: row.gradient_norm_squared
            for name, row in baselines.items()
            if row.gradient_norm_squared is not None
        },
        provenance=dict(
            pair for family in plan.families for pair in _trained_on(family, training, windows)
        ),
        cited=[
            key
            for start, (_, key) in CITED.items()
            if any(name.startswith(start) for name in repositories)
        ],
        trials=trials,
        noise_follows=all(t.noise_diffusion is None for t in trials if t.proposed_by == "grid"),
        importances=[row for row in importances if row.family == plan.full.name],
        transfer=[_with_health(row, chosen.get(row.model)) for row in transfer],
        transfer_missing=_missing(plan, transfer),
        clipping={model: _numbers(row.clipped) for model, row in chosen.items()},
        spreads=dict([*_spreads(chosen, traces), *_original_spreads(original)]),
        quantisation=read(folder / "quantisation.json", Quantised),
        place=folder,
        names={"full": plan.full.name, "quantised": (plan.quantised or plan.full).name},
    )


def of_figures(figures: Figures, file: Path) -> Evidence:
    """Returns the evidence that was published.

    Args:
        figures: the published figures.
        file: the file that holds the figures; claims cite it.
    """
    full, quantised = (
        Family(
            name=name,
            models=tuple(given.models),
            parameters_M=given.sizes_M,
            sampled_M=_numbers([model.sampled for model in given.models.values()]),
            loss_M=np.full(len(given.models), np.nan),
            estimator=ORIGINAL,
            llc_SxM=given.llc_SxM,
            nbeta=given.nbeta,
            localization=given.localization,
            tokenizer=given.tokenizer,
        )
        for name, given in figures.families.items()
    )
    cited = " and ".join(who for who, _ in CITED.values())
    same = f"The models of each family saw the same data according to {cited}; the study did not "
    search = figures.search
    return Evidence(
        full=full,
        quantised=quantised,
        provenance={"both": f"{same}test it."},
        cited=[key for _, key in CITED.values()],
        medians={
            name: np.array(found.stability)
            for name, found in (("sgld", search.sgld), ("sgnht", search.sgnht))
        },
        diffusion_BxA=np.array([search.diffusion.llc]),
        noise_follows=False,
        spreads={
            f"{name}, {ORIGINAL}": _spread(model.mean, model.deviation, given.chains)
            for given in figures.families.values()
            for name, model in given.models.items()
        },
        published=figures,
        place=file,
    )


def _numbers(values: Sequence[float | None]) -> Array:
    """Returns the values as an array, with NaN for None."""
    return np.array(values, float)


def _family(
    plan: FamilyPlan,
    estimates: Sequence[Estimate],
    original: Sequence[OriginalProtocol],
    baselines: Mapping[str, Baseline],
) -> Family | None:
    """Returns the evidence on a family's models that were run; None if none was run."""
    rows = {(row.model, row.estimator): row for row in estimates if row.family == plan.name}
    chosen = [row for row in rows.values() if row.estimator == DEFAULT]
    chosen.sort(key=lambda row: row.parameters)
    if not chosen:
        return None
    models = tuple(row.model for row in chosen)
    others = {
        estimator: np.stack([_numbers(rows[model, estimator].shuffles) for model in models], axis=1)
        for estimator in BESIDE
    }
    again = {row.model: _numbers(row.shuffles) for row in original if row.family == plan.name}
    if again:
        nothing = np.full(len(next(iter(again.values()))), np.nan)
        others[ORIGINAL] = np.stack([again.get(model, nothing) for model in models], axis=1)
    losses = [baselines[model].loss if model in baselines else None for model in models]
    return Family(
        name=plan.name,
        models=models,
        parameters_M=_numbers([row.parameters for row in chosen]),
        sampled_M=_numbers([row.sampled_parameters for row in chosen]),
        loss_M=_numbers(losses),
        estimator=DEFAULT,
        llc_SxM=np.stack([_numbers(row.shuffles) for row in chosen], axis=1),
        nbeta=chosen[0].nbeta,
        localization=chosen[0].localization,
        tokenizer=plan.tokenizer,
        others=others,
        missing=tuple(model for model in plan.models if model not in models),
    )


def _trained_on(
    plan: FamilyPlan, training: Sequence[Training], windows: Mapping[str, Extraction]
) -> Iterator[tuple[str, str | None]]:
    """Yields the family's name and a sentence on its training data (None if no source is known).
    If its models are trained here, it yields nothing until all of them are trained.
    """
    if plan.repositories:
        said = (
            who
            for start, (who, _) in CITED.items()
            if all(name.startswith(start) for name in plan.repositories)
        )
        who = next(said, None)
        same = f"The models of {plan.name} saw the same data according to {who}; this was not "
        yield plan.name, f"{same}tested here." if who else None
        return
    epochs = [row.epochs for row in training if row.family == plan.name]
    if plan.name in windows and len(epochs) == len(plan.models):
        kept = windows[plan.name].kept
        same = f"The models of {plan.name} were trained here on the same {kept:,} windows, "
        yield plan.name, f"{same}for {min(epochs):.1f} to {max(epochs):.1f} epochs."


def _with_health(row: Transferred, longer: Estimate | None) -> Transferred:
    """Replaces the health of chains at the chosen step size by that of the longer chains of the
    main estimate, which have the same sampler settings.
    """
    if row.factor != 1.0 or longer is None:
        return row
    health = ("rhat", "drift_p", "diverged_chains")
    return row.model_copy(update={key: getattr(longer, key) for key in health})


def _missing(plan: StudyPlan, transfer: Sequence[Transferred]) -> list[str]:
    """Returns the models that lack a planned step size."""
    run = {(row.model, row.factor) for row in transfer}
    planned = [pair for family in plan.families for pair in family.transfer]
    missing = [model for model, factor in planned if (model, rounded(factor)) not in run]
    return list(dict.fromkeys(missing))


def _spreads(
    chosen: Mapping[str, Estimate], traces: Mapping[str, ThinnedTrace]
) -> Iterator[tuple[str, Spread]]:
    """Yields each model's spread of λ̂ by the default estimator, computed from its chains."""
    for model, row in chosen.items():
        if model not in traces or row.monte_carlo_error is None:
            continue
        llc_SxC = _numbers(traces[model].chain_llc).reshape(len(row.shuffles), -1)
        llc_SxC = llc_SxC[np.isfinite(llc_SxC).all(1)]
        shuffles, chains = llc_SxC.shape
        if shuffles > 1 and chains > 1:
            within = float(llc_SxC.var(1, ddof=1).mean())
            draws = row.monte_carlo_error**2 * (row.chains - row.diverged_chains)
            yield f"{model}, {DEFAULT}", Spread(llc_SxC.mean(1), within, chains, draws)


def _original_spreads(original: Sequence[OriginalProtocol]) -> Iterator[tuple[str, Spread]]:
    """Yields each model's spread of λ̂ by the 2023 protocol, from its deviations across chains."""
    for row in original:
        pairs = np.stack([_numbers(row.shuffles), _numbers(row.deviations)])
        llc_S, deviation_S = pairs[:, np.isfinite(pairs).all(0)]
        if len(llc_S) > 1:
            chains = row.chains // len(row.shuffles)
            yield f"{row.model}, {ORIGINAL}", _spread(llc_S, deviation_S, chains)


def _spread(
    llc_S: Sequence[float] | Array, deviation_S: Sequence[float] | Array, chains: int
) -> Spread:
    """Returns the spread of λ̂ if only its standard deviation across chains is known."""
    return Spread(np.array(llc_S), float(np.mean(np.square(deviation_S))), chains, None)
