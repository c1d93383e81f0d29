"""Gathers the evidence for the claims from a study's records or from the published figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from replicate.data.json_io import rounded
from replicate.estimation import layouts, statistics
from replicate.study.claims.base import part
from replicate.study.claims.evidence import Array, Evidence, Family
from replicate.study.plan import FamilyPlan, StudyPlan
from replicate.study.published import ORIGINAL, Figures
from replicate.study.records import (
    Estimate,
    Extraction,
    OriginalProtocol,
    Setting,
    ThinnedTrace,
    Training,
)
from replicate.study.records.agreement import DEFAULT, read_study
from replicate.study.records.verdicts import Part

BESIDE = ("devinterp", "published")  # estimators that are reported beside it
CITED = {  # start of a repository → the authors who describe its training data, and their .bib key
    "openai-community/gpt2": ("Radford et al. 2019", "radford2019"),
    "meta-llama/Llama-2-": ("Touvron et al. 2023", "touvron2023"),
    "EleutherAI/pythia-": ("Biderman et al. 2023", "biderman2023"),
}
REPLICATED = ("openai-community/gpt2", "meta-llama/Llama-2-")  # those of the published figures


def of_results(plan: StudyPlan, folder: Path) -> Evidence:
    """Reads the evidence that a study obtained.

    Args:
        plan: the plan of the study.
        folder: results/<study>, which holds the study's records.

    Raises:
        UserError: a file of records is missing or damaged, or contradicts the others or the plan.
    """
    full, quantised = plan.full, plan.quantised or plan.full
    read = read_study(plan, folder)
    default = {row.model: row for row in read["estimates"] if row.estimator == DEFAULT}
    found = {
        each.name: _family(each, read["estimates"], read["original"]) for each in plan.families
    }
    told = [_trained_on(family, read["training"], read["windows"]) for family in plan.families]
    sources = [_source(name) for family in plan.families for name in family.repositories]
    run = {(row.model, row.factor) for row in read["transfer"]}
    planned = [pair for family in plan.families for pair in family.transfer]
    missing = [model for model, factor in planned if (model, rounded(factor)) not in run]
    return Evidence(
        full=found[full.name],
        quantised=found[quantised.name] if plan.quantised else None,
        baselines={row.model: row for row in read["baselines"]},
        estimates=default,
        shares=[
            *_training_shares(read["settings"], read["traces"], default),
            *_shares(default, read["traces"]),
            *_original_shares(read["original"]),
        ],
        trials=[row for row in read["search"] if row.family == full.name],
        importances=[row for row in read["importances"] if row.family == full.name],
        transfer=read["transfer"],
        transfer_missing=list(dict.fromkeys(missing)),
        quantisation=read["quantisation"],
        settings=read["settings"],
        provenance={name: text for each in told for name, text in each.items()},
        cited=list(dict.fromkeys(source[1] for source in sources if source)),
        place=folder,
        full_name=full.name,
        quantised_name=quantised.name,
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
            parameters_M=_numbers([model.parameters for model in given.models.values()]),
            sampled_M=_numbers([model.sampled for model in given.models.values()]),
            estimates={ORIGINAL: given.llc_SxM},
            nbeta=given.nbeta,
            localization=given.localization,
            tokenizer=given.tokenizer,
        )
        for name, given in figures.families.items()
    )
    sources = [CITED[start] for start in REPLICATED]
    authors = " and ".join(who for who, _ in sources)
    same = f"The models of each family saw the same data according to {authors}; the study did not "
    return Evidence(
        full=full,
        quantised=quantised,
        shares=[
            _original_share(name, model.mean, model.deviation, given.chains)
            for given in figures.families.values()
            for name, model in given.models.items()
        ],
        provenance={"both": f"{same}test it."},
        cited=[key for _, key in sources],
        published=figures,
        place=file,
    )


def _numbers(values: Sequence[float | None]) -> Array:
    """Returns the values as an array, with NaN for None."""
    return np.array(values, float)


def _family(
    plan: FamilyPlan, estimates: Sequence[Estimate], original: Sequence[OriginalProtocol]
) -> Family | None:
    """Returns the evidence on a family's models that were run, of which checkpoints before the last
    are none; None if none was run.
    """
    wanted = [model for model in plan.models if model not in plan.earlier]
    rows = [row for row in estimates if row.model in wanted and row.estimator == DEFAULT]
    if not rows:
        return None
    rows.sort(key=lambda row: row.parameters)
    models = tuple(row.model for row in rows)
    shuffles = {ORIGINAL: {row.model: row.shuffles for row in original if row.model in models}}
    for row in estimates:
        shuffles.setdefault(row.estimator, {})[row.model] = row.shuffles
    return Family(
        name=plan.name,
        models=models,
        parameters_M=_numbers([row.parameters for row in rows]),
        sampled_M=_numbers([row.sampled_parameters for row in rows]),
        estimates={
            name: _table(shuffles[name], models)
            for name in (DEFAULT, *BESIDE, ORIGINAL)
            if shuffles.get(name)
        },
        nbeta=rows[0].nbeta,
        localization=rows[0].localization,
        tokenizer=plan.tokenizer,
        missing=tuple(model for model in wanted if model not in models),
        loss=plan.loss,
    )


def _table(shuffles: Mapping[str, Sequence[float | None]], models: Sequence[str]) -> Array:
    """Returns λ̂ (shuffle, model); NaN for a model that was not run."""
    nothing = [None] * len(next(iter(shuffles.values())))
    return np.stack([_numbers(shuffles.get(model, nothing)) for model in models], axis=1)


def _source(repository: str) -> tuple[str, str] | None:
    """Returns who describes the training data of a model, and their key in the bibliography."""
    return next((cited for start, cited in CITED.items() if repository.startswith(start)), None)


def _trained_on(
    plan: FamilyPlan, training: Sequence[Training], windows: Sequence[Extraction]
) -> dict[str, str | None]:
    """Returns the family's name with a sentence on its training data, or with None if no source is
    known. The mapping is empty if the models are trained here and not all of them were trained.
    """
    if plan.repositories:
        sources = {_source(name) for name in plan.repositories}
        source = sources.pop()
        if source is None or sources:
            return {plan.name: None}
        same = f"The models of {plan.name} saw the same data according to {source[0]}; "
        return {plan.name: f"{same}this was not tested here."}
    epochs = [row.epochs for row in training if row.family == plan.name]
    counts = [row.kept for row in windows if row.family == plan.name]
    if not counts or len(epochs) < len(plan.models):
        return {}
    if not any(epochs):
        text = "were trained here on text of one grammar, each on text of its own."
        return {plan.name: f"The models of {plan.name} {text}"}
    same = f"The models of {plan.name} were trained here on the same {counts[0]:,} windows, "
    return {plan.name: f"{same}for {min(epochs):.1f} to {max(epochs):.1f} epochs."}


def _training_shares(
    settings: Sequence[Setting], traces: Sequence[ThinnedTrace], default: Mapping[str, Estimate]
) -> Iterator[Part]:
    """Yields for each size that was trained several times the shares of training, shuffle and
    chain in the variance of λ̂ by the default estimator.
    """
    size_of = {row.model: (row.family, row.size) for row in settings}
    found: dict[tuple[str, str], list[Array]] = {}
    for row in traces:
        if row.model in size_of and row.model in default:
            llc_SxC = _numbers(row.chain_llc).reshape(len(default[row.model].shuffles), -1)
            if np.isfinite(llc_SxC).all() and min(llc_SxC.shape) > 1:
                found.setdefault(size_of[row.model], []).append(llc_SxC)
    for (_, size), tables in found.items():
        alike = [llc_SxC for llc_SxC in tables if llc_SxC.shape == tables[0].shape]
        if len(alike) > 1:
            training, shuffle, chain = layouts.nested(np.stack(alike))
            others = f"shuffles {shuffle:.0%}, chains {chain:.0%}"
            title = f"{size}: trainings' share of the variance of one chain's λ̂ ({others})"
            yield part(title, None, training)


def _shares(default: Mapping[str, Estimate], traces: Sequence[ThinnedTrace]) -> Iterator[Part]:
    """Yields for each model the shuffles' share of the variance of λ̂ by the default estimator."""
    chain_llc = {row.model: row.chain_llc for row in traces}
    for model, row in default.items():
        if model not in chain_llc or row.monte_carlo_error is None:
            continue
        llc_SxC = _numbers(chain_llc[model]).reshape(len(row.shuffles), -1)
        llc_SxC = llc_SxC[np.isfinite(llc_SxC).all(1)]
        if min(llc_SxC.shape) > 1:
            within = float(llc_SxC.var(1, ddof=1).mean())
            draws = row.monte_carlo_error**2 * (row.chains - row.diverged_chains)
            means_S, chains = llc_SxC.mean(1), llc_SxC.shape[1]
            share, of_chain, of_draw = statistics.components(means_S, within, chains, draws)
            others = f"chains {of_chain:.0%}, draws {of_draw:.0%}"
            yield _share(f"{model}, {DEFAULT}", share, others)


def _original_shares(original: Sequence[OriginalProtocol]) -> Iterator[Part]:
    """Yields for each model the shuffles' share of the variance of λ̂ by the 2023 protocol."""
    for row in original:
        pairs = np.stack([_numbers(row.shuffles), _numbers(row.deviations)])
        llc_S, deviation_S = pairs[:, np.isfinite(pairs).all(0)]
        if len(llc_S) > 1:
            yield _original_share(row.model, llc_S, deviation_S, row.chains // len(row.shuffles))


def _original_share(
    model: str, llc_S: Sequence[float] | Array, deviation_S: Sequence[float] | Array, chains: int
) -> Part:
    """Returns the shuffles' share of the variance of a model's λ̂ by the 2023 protocol, from the
    mean and the standard deviation of λ̂ across the chains of each shuffle.
    """
    within = float(np.mean(np.square(deviation_S)))
    share, others, _ = statistics.components(np.array(llc_S), within, chains)
    return _share(f"{model}, {ORIGINAL}", share, f"chains and draws {others:.0%}")


def _share(name: str, share: float, others: str) -> Part:
    title = f"{name}: shuffles' share of the variance of one chain's λ̂ ({others})"
    return part(title, None, share)
