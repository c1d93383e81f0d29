"""results/<study>/*.json, or the published figures → a verdict for every claim of the write-up. No
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from replicate.pipeline.config import HubModel, Params
from replicate.study import claims, published
from replicate.study.claims import ORIGINAL, Array, Evidence, Family, Rules, Spread
from replicate.study.published import Figures
from replicate.study.records import (
    Baseline,
    Estimate,
    Extraction,
    Importance,
    Quantised,
    Reexamined,
    Trace,
    Training,
    Transferred,
    Trial,
    read,
    write,
)
from replicate.study.records import Evidence as Source

DEFAULT = "controlled"
BESIDE = ("devinterp", "published")

CITED = {  # repositories of a family → who says what it was trained on, and where that stands
    "openai-community/gpt2": ("Radford et al. 2019", "radford2019"),
    "meta-llama/Llama-2-": ("Touvron et al. 2023", "touvron2023"),
}

SOURCES: dict[
    str, tuple[tuple[str, str], ...]
] = {  # claim → file of results/<study>, and what of it
    "A1": (
        ("baselines", "descent, descent_error, gradient_norm_squared"),
        ("estimates", "controlled: groups"),
    ),
    "A2": (("training", "epochs"), ("windows", "kept")),
    "C1": (("estimates", "{full}: groups"), ("original", "{full}: groups")),
    "C2": (("estimates", "{full}: groups"), ("original", "{full}: groups")),
    "C3": (("search", "{full}: stability, efficiency"),),
    "C4": (("importances", "{full}: resamples"),),
    "C5": (("search", "{full}, sgnht: mean"),),
    "C6": (("estimates", "controlled: clipped"),),
    "C7": (("original", "groups, deviations"), ("estimates", "groups"), ("traces", "chain_llc")),
    "C8": (("transfer", "groups"), ("estimates", "controlled: rhat, drift_p, failed_chains")),
    "C9": (("estimates", "{quantised}: groups"), ("original", "{quantised}: groups")),
    "C10": (("quantisation", "{quantised}: rise, changes, descent"),),
    "C11": (("estimates", "groups, sampled_parameters"), ("baselines", "loss")),
}

PUBLISHED = {  # claim → keys of data/published.yaml
    "A1": "families.*.models.*.mean",
    "C1": "families.gpt2.models.*.mean",
    "C2": "families.gpt2.models.*.mean",
    "C3": "search.sgld.stability, search.sgnht.stability",
    "C4": "search.sgld_range, search.sgld.stability",
    "C5": "search.diffusion",
    "C6": "families.*.models.*.mean",
    "C7": "families.*.models.*.mean, deviation",
    "C8": "families.*.models.*.mean",
    "C9": "families.llama2.models.*.mean",
    "C11": "families.*.models.*.mean, parameters, sampled",
}


def run(params: Params, study: str, results: Path, published_in: Path, out: Path) -> None:
    """`study`: one of params.yaml's, or `published`, which needs no results."""
    rules = Rules(**params.claims.model_dump(), **params.diagnostics.model_dump(), seed=params.seed)
    found = (
        of_figures(published.read(published_in), published_in)
        if study == "published"
        else of_results(params, study, results)
    )
    write(out / "claims.json", claims.judge(found, rules))


def of_results(params: Params, study: str, folder: Path) -> Evidence:
    """What a study's results hold."""
    names = params.studies[study]
    both = names.families
    baselines = {
        row.model: row for row in read(folder / "baselines.json", Baseline) if row.status == "run"
    }
    estimates = [row for row in read(folder / "estimates.json", Estimate) if row.status == "run"]
    original = [row for row in read(folder / "original.json", Reexamined) if row.status == "run"]
    trials = [row for row in read(folder / "search.json", Trial) if row.family == names.full]
    training, windows = (
        read(folder / "training.json", Training),
        read(folder / "windows.json", Extraction),
    )
    full, *quantised = (family(params, name, estimates, original, baselines) for name in both)
    falls = {name: (row.descent, row.descent_error) for name, row in baselines.items()}
    sources = {
        claim: [
            Source(file=(folder / f"{file}.json").as_posix(), key=key.format(**names.model_dump()))
            for file, key in pairs
        ]
        for claim, pairs in SOURCES.items()
    }
    if cited := [
        key
        for repository, (_, key) in CITED.items()
        if any(repo.startswith(repository) for repo in repositories(params, *both))
    ]:
        sources["A2"] = [Source(file="paper/references.bib", key=key) for key in cited]
    return Evidence(
        full=full,
        quantised=quantised[0] if quantised else None,
        descents={
            name: (fall, error)
            for name, (fall, error) in falls.items()
            if fall is not None and error is not None
        },
        gradients={
            name: row.gradient_norm_squared
            for name, row in baselines.items()
            if row.gradient_norm_squared is not None
        },
        provenance=dict(
            pair for name in both for pair in trained_on(params, name, training, windows)
        ),
        trials=trials,
        noise_follows=all(
            row.noise_diffusion is None for row in trials if row.proposed_by == "grid"
        ),
        importances=[
            row for row in read(folder / "importances.json", Importance) if row.family == names.full
        ],
        transfer=[in_health(row, estimates) for row in read(folder / "transfer.json", Transferred)],
        clipping={row.model: numbers(row.clipped) for row in estimates if row.estimator == DEFAULT},
        spreads=spreads(
            params,
            estimates,
            original,
            {row.model: row for row in read(folder / "traces.json", Trace)},
        ),
        quantisation=read(folder / "quantisation.json", Quantised),
        sources=sources,
    )


def in_health(row: Transferred, estimates: Sequence[Estimate]) -> Transferred:
    """At the chosen step size with the health of the longer chains of `estimate`, which are at the
    same setting.
    """
    longer = [
        other for other in estimates if other.model == row.model and other.estimator == DEFAULT
    ]
    if row.factor != 1.0 or row.status == "not run" or not longer:
        return row
    return row.model_copy(
        update={key: getattr(longer[0], key) for key in ("rhat", "drift_p", "failed_chains")}
    )


def numbers(values: Sequence[float | None]) -> Array:
    """null as NaN."""
    return np.array(values, float)


def family(
    params: Params,
    name: str,
    estimates: Sequence[Estimate],
    original: Sequence[Reexamined],
    baselines: Mapping[str, Baseline],
) -> Family | None:
    """None where none of its models was run."""
    rows = {(row.model, row.estimator): row for row in estimates if row.family == name}
    decided = sorted(
        (row for row in rows.values() if row.estimator == DEFAULT),
        key=lambda row: row.parameters or 0,
    )
    if not decided:
        return None
    models = tuple(row.model for row in decided)
    others = {
        estimator: np.stack([numbers(rows[model, estimator].groups) for model in models], axis=1)
        for estimator in BESIDE
    }
    again = {row.model: numbers(row.groups) for row in original if row.family == name}
    if again:
        nothing = np.full(len(next(iter(again.values()))), np.nan)
        others[ORIGINAL] = np.stack([again.get(model, nothing) for model in models], axis=1)
    settings = params.families[name]
    return Family(
        name=name,
        models=models,
        parameters_M=numbers([row.parameters for row in decided]),
        sampled_M=numbers([row.sampled_parameters for row in decided]),
        loss_M=numbers([baselines[model].loss if model in baselines else None for model in models]),
        estimator=DEFAULT,
        llc_GxM=np.stack([numbers(row.groups) for row in decided], axis=1),
        nbeta=settings.sampling.nbeta,
        localization=settings.sampling.localization,
        tokenizer=settings.tokenizer,
        others=others,
        missing=tuple(model for model in params.models_of(name) if model not in models),
    )


def repositories(params: Params, *families: str) -> list[str]:
    """Of the models that come from the hub."""
    return [
        model.repository
        for model in params.models.values()
        if isinstance(model, HubModel) and model.family in families
    ]


def trained_on(
    params: Params, name: str, training: Sequence[Training], windows: Sequence[Extraction]
) -> list[tuple[str, str | None]]:
    """(family, what its models were trained on); nothing where they are trained here and have not
    been yet.
    """
    if hub := repositories(params, name):
        said = [
            who
            for repository, (who, _) in CITED.items()
            if all(repo.startswith(repository) for repo in hub)
        ]
        return [
            (
                name,
                f"The models of {name} saw the same data according to {said[0]}; this was not tested here."
                if said
                else None,
            )
        ]
    epochs = [row.epochs for row in training if row.family == name and row.epochs is not None]
    kept = next((row.kept for row in windows if row.family == name), None)
    if kept is None or len(epochs) < len(params.models_of(name)):
        return []
    return [
        (
            name,
            f"The models of {name} were trained here on the same {kept:,} windows, for {min(epochs):.1f} to {max(epochs):.1f} epochs.",
        )
    ]


def spreads(
    params: Params,
    estimates: Sequence[Estimate],
    original: Sequence[Reexamined],
    traces: Mapping[str, Trace],
) -> dict[str, Spread]:
    """Of `controlled` from its chains, of the original protocol from its deviations across
    chains.
    """
    found = {}
    for row in estimates:
        if row.estimator != DEFAULT or row.model not in traces or row.monte_carlo_error is None:
            continue
        chains_GxC = numbers(traces[row.model].chain_llc).reshape(len(row.groups), -1)
        chains_GxC = chains_GxC[np.isfinite(chains_GxC).all(1)]
        if len(chains_GxC) > 1 and chains_GxC.shape[1] > 1:
            within, draws = (
                float(chains_GxC.var(1, ddof=1).mean()),
                row.monte_carlo_error**2 * (row.chains - row.failed_chains),
            )
            found[f"{row.model}, {DEFAULT}"] = Spread(
                chains_GxC.mean(1), within, chains_GxC.shape[1], draws
            )
    for row in original:
        pairs = np.stack([numbers(row.groups), numbers(row.deviations)])
        llc_G, deviation_G = pairs[:, np.isfinite(pairs).all(0)]
        if len(llc_G) > 1:
            chains = params.families[row.family].original.chains
            found[f"{row.model}, {ORIGINAL}"] = Spread(
                llc_G, float((deviation_G**2).mean()), chains, None
            )
    return found


def of_figures(figures: Figures, file: Path) -> Evidence:
    """What was published."""
    full, quantised = (
        Family(
            name=name,
            models=tuple(given.models),
            parameters_M=given.sizes,
            sampled_M=np.array([model.sampled for model in given.models.values()], float),
            loss_M=np.full(len(given.models), np.nan),
            estimator=ORIGINAL,
            llc_GxM=given.llc_GxM,
            nbeta=given.nbeta,
            localization=given.localization,
            tokenizer=given.tokenizer,
        )
        for name, given in figures.families.items()
    )
    spread = {
        f"{name}, {ORIGINAL}": Spread(
            np.array(model.mean), float(np.mean(np.square(model.deviation))), given.chains, None
        )
        for _, given in figures.families.items()
        for name, model in given.models.items()
    }
    search, kept = figures.search, figures.search.sgld_range
    cited = " and ".join(who for who, _ in CITED.values())
    sources = {claim: [Source(file=file.as_posix(), key=key)] for claim, key in PUBLISHED.items()}
    sources["A2"] = [Source(file="paper/references.bib", key=key) for _, key in CITED.values()]
    return Evidence(
        full=full,
        quantised=quantised,
        provenance={
            "both": f"The models of each family saw the same data according to {cited}; the study did not test it."
        },
        medians={
            "sgld": np.array(search.sgld.stability),
            "sgnht": np.array(search.sgnht.stability),
        },
        diffusion_BxA=np.array([search.diffusion.llc]),
        noise_follows=False,
        spreads=spread,
        open={
            "C4": f"Only ranges and medians were published: at ε = {kept.lr:g} SGLD's λ̂ stays within {kept.least:,.0f} to "
            f"{kept.greatest:,.0f} whatever the other parameters, which fits the claim, but λ̂ at the other step sizes is not told. "
            "The trials themselves would decide it.",
            "C6": "Only clipped estimates were published; the same chains without clipping would decide it.",
            "C8": "One step size served all models of a family, and nothing was published on the health of their chains; chains at a third "
            "of it, on every model, would decide it.",
        },
        sources=sources,
    )
