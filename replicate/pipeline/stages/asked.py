"""What params.yaml asked for on two sides of a comparison, as far as it can be known: results carry
the hash of each part of it, and a params.yaml that has the same hash says what that part was. From
this follows which λ̂ are of one quantity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replicate.pipeline.config import Params
from replicate.study.contrast import Obstacles
from replicate.study.records import Estimate, Provenance
from replicate.study.reproduction import Side, by_model

TEXT = ("corpus", "tokenizer", "rule", "length")
QUANTITY = {
    "nbeta": "nβ",
    "restriction": "restriction",
}  # of a family's sampling: λ̂ at another one is another quantity
POSTERIOR = {
    "localization": "γ",
    "weight_decay": "decay",
    "bounding_box": "box",
    "weights": "weights",
}  # what λ̂ may depend on


@dataclass(frozen=True)
class Known:
    """Of one model on one side: `hashes` of the parts of params.yaml, and the `values` of those
    that are known.
    """

    hashes: Mapping[str, str]
    values: Mapping[str, Mapping[str, Any]]
    record: Provenance | None
    estimate: Estimate | None


def known(model: str, side: Side, own: Params | None, others: Sequence[Params | None]) -> Known:
    """`own`: the params.yaml that stands beside the results, which is taken at its word where they
    carry no hashes.
    """
    from replicate.pipeline.stages import provenance

    record = by_model(side).get(model)
    candidates = [
        params for params in (own, *others) if params is not None and model in params.models
    ]
    hashes = (
        dict(record.parameters)
        if record
        else provenance.parameters(own, model)
        if own is not None and own in candidates
        else {}
    )
    values: dict[str, Mapping[str, Any]] = {}
    for params in candidates:
        of_it, spelled = provenance.parameters(params, model), dict(parts(params, model))
        values |= {
            part: spelled[part]
            for part in spelled
            if part not in values and of_it.get(part) == hashes.get(part)
        }
    estimate = next(
        (
            row
            for row in side.get("estimates", ())
            if isinstance(row, Estimate) and row.model == model
        ),
        None,
    )
    return Known(hashes, values, record, estimate)


def parts(params: Params, model: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Those of which anything is told here."""
    family = params.families[params.models[model].family]
    yield "sampling", family.sampling.model_dump(mode="json")
    yield "family", family.model_dump(mode="json")


def obstacles(a: Known, b: Known) -> Obstacles:
    """To comparing one model's λ̂, and its loss at w*."""
    text, llc, notes = list(texts(a, b)), [], []
    if sizes := counts(a, b, "parameters"):
        text.append(f"models of {sizes} parameters")
    elif moving := counts(a, b, "sampled_parameters"):
        llc.append(f"{moving} parameters move")
    if differ(a, b, "sampling"):
        if changed := difference(a, b, "sampling"):
            llc += told(changed, QUANTITY)
            notes += told(changed, POSTERIOR)
        else:
            llc.append("sampled by other parameters, and whether at the same nβ cannot be told")
    if differ(a, b, "family"):
        notes += told(difference(a, b, "family"), POSTERIOR)
    if any(differ(a, b, part) for part in ("model", "training")) or weights(a) != weights(b):
        notes.append("at another w*")
    return Obstacles((*text, *llc), tuple(text), tuple(notes))


def texts(a: Known, b: Known) -> Iterator[str]:
    """Where both sides have windows, these say it all."""
    windows = [side.record and side.record.windows for side in (a, b)]
    if None not in windows:
        if windows[0] != windows[1]:
            yield "on another text"
        return
    if any(differ(a, b, part) for part in ("corpus", "tokenizer")) or difference(
        a, b, "family"
    ).keys() & set(TEXT):
        yield "on another text"


def counts(a: Known, b: Known, field: str) -> str:
    """Both, where both are known and not the same."""
    x, y = (getattr(side.estimate, field, None) for side in (a, b))
    return f"{x:,} and {y:,}" if x and y and x != y else ""


def weights(side: Known) -> object:
    return side.record and side.record.weights


def differ(a: Known, b: Known, part: str) -> bool:
    return part in {*a.hashes, *b.hashes} and a.hashes.get(part) != b.hashes.get(part)


def difference(a: Known, b: Known, part: str) -> dict[str, tuple[Any, Any]]:
    """The keys of a part that are not the same; none where a side's are not known. Plans within a
    family have a part of their own.
    """
    x, y = a.values.get(part), b.values.get(part)
    if x is None or y is None:
        return {}
    return {
        key: (x.get(key), y.get(key))
        for key in x
        if x.get(key) != y.get(key) and not isinstance(x.get(key), dict)
    }


def told(changed: Mapping[str, tuple[Any, Any]], names: Mapping[str, str]) -> list[str]:
    """Those of the changed keys that have a name here, with both values."""
    return [
        f"{name} {short(changed[key][0])} and {short(changed[key][1])}"
        for key, name in names.items()
        if key in changed
    ]


def short(value: object) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float)
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value or "none")
    )


def changes(a: Params | None, b: Params | None) -> list[tuple[str, str, str]]:
    """The keys of params.yaml whose values are not the same, with both; none where one of the two
    is not known.
    """
    if a is None or b is None:
        return []
    x, y = (dict(leaves(params.model_dump(mode="json", exclude={"machine"}))) for params in (a, b))
    return [
        (key, spelled(x, key), spelled(y, key))
        for key in dict.fromkeys([*x, *y])
        if spelled(x, key) != spelled(y, key)
    ]


def stale(side: Side, own: Params | None) -> list[str]:
    """The models whose results were made by other parameters than those that stand beside them
    now.
    """
    from replicate.pipeline.stages import provenance

    found = by_model(side) if own is not None else {}
    return [
        model
        for model, row in found.items()
        if own and model in own.models and provenance.parameters(own, model) != row.parameters
    ]


def spelled(found: Mapping[str, Any], key: str) -> str:
    return "–" if key not in found else "null" if found[key] is None else str(found[key])


def leaves(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
