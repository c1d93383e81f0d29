"""`python -m benchmarks.efficiency`: how many gradients each sampler needs for λ̂ to 1 %.

A row is one sampler at one step on one model at one posterior. Independent chains give λ̂ and its
standard error s. The gradients (of 32 windows) for a standard error of 1 % are

    all gradients of the chains, with their burn-in × (s / (0.01·λ̂))²

Rows of a posterior share minibatches and noise, except those with a table of gradients. The bias is
the difference to the reference; at the same step it is measured on pairs of chains. It is at most
1 % if its 90 % interval lies within 1 %, above if it lies outside, and undecided else.

Rows of SGLD also say what devinterp 2.0.1's defaults make of the same chains: 4 chains of 200 draws
from w*, which share minibatches, and a baseline of the first 32 of them.

A row is written to efficiency.json as soon as it is measured. A row that is there is not measured
again, so that a run can be stopped and continued. HMC (`replicate.validation.hmc`) would need
666 gradients for each of its leapfrog steps on these windows, so it is no row here.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.localised import BATCH, Control, Method, Posterior, Problem
from benchmarks.machine import describe
from replicate.data.json_io import read_json, write_json
from replicate.models.cpu_kernels import fast_cpu
from replicate.sampling import Chain, SamplerConfig

FILE = Path(__file__).parent / "efficiency.json"
PEER = {"chains": 4, "draws": 200, "initial": 32}  # devinterp's defaults, without burn-in
FORWARD = 1 / 3  # of a gradient
REFERENCES = [("last", "leimkuhler 0.001, table control variate"), ("tokens", "leimkuhler 0.0001")]
NOT_RUN = {
    "sgnht": "has no localisation, so it samples another posterior",
    "baoab, leimkuhler with a frozen preconditioner, canonical-interp, posteriors": "not run",
    "hmc": "666 gradients of 32 windows for each leapfrog step",
}


def plan(model: str) -> list[tuple[Posterior, Method]]:
    """Returns the rows of a model, the most important first."""
    label, tokens = Posterior(model, "last", 30, 500), Posterior(model, "tokens", 1910, 300)

    def method(
        name: str,
        lr: float,
        chains: int,
        burn_in: int,
        draws: int,
        control: Control = "none",
        stationary: bool = False,
    ) -> Method:
        config = SamplerConfig(name, lr, stationary=stationary)
        return Method(config, chains, burn_in, draws, control)

    return [
        (label, method("leimkuhler", 2e-3, 24, 20, 180)),
        (tokens, method("leimkuhler", 1e-4, 16, 160, 200)),
        (label, method("leimkuhler", 1e-3, 24, 30, 100, "table")),
        (tokens, method("sgld", 1e-4, 8, 160, 200)),
        (label, method("sgld", 1e-4, 16, 120, 160)),
        (tokens, method("leimkuhler", 2e-4, 8, 80, 120)),
        (label, method("leimkuhler", 5e-4, 16, 40, 120)),
        (label, method("sgld", 1e-3, 16, 30, 170)),
        (label, method("leimkuhler", 2e-3, 24, 15, 100, "table", stationary=True)),
        (tokens, method("leimkuhler", 1e-4, 8, 160, 200, "table")),
        (label, method("rmsprop", 1e-3, 16, 60, 120)),
        (tokens, method("rmsprop", 1e-4, 8, 200, 200)),
        (label, method("leimkuhler", 1e-3, 16, 30, 100, "fresh")),
    ]


def row(problem: Problem, method: Method, chains: list[Chain], seconds: float) -> dict[str, Any]:
    """Returns what efficiency.json has of a method: λ̂ of each chain, and what they cost."""
    nbeta, start = problem.posterior.nbeta, method.burn_in
    values_CxT = nbeta * np.stack([c.loss - c.init_loss for c in chains])
    found: dict[str, Any] = {
        "posterior": asdict(problem.posterior),
        "method": asdict(method),
        "seconds": seconds,
        "gradients": method.gradients,
        "llc": values_CxT[:, start:].mean(1).tolist(),
        "quarters": [float(q.mean()) for q in np.array_split(values_CxT[:, start:], 4, axis=1)],
    }
    if method.sampler.sampler == "sgld":
        draws, initial = PEER["draws"], PEER["initial"]
        peer_C = values_CxT[:, :draws].mean(1)
        # the baseline is the mean of the first 32 of the 200 minibatches that all chains share
        spread = nbeta**2 * problem.init_losses_N.var(dtype=float, ddof=1) / BATCH
        found["devinterp"] = {
            "llc": float(peer_C.mean()),
            "chain_variance": float(peer_C.var(ddof=1)) / PEER["chains"],
            "baseline_variance": spread * (1 / initial - 1 / draws),
            "gradients": PEER["chains"] * (draws + FORWARD * initial),
            "steps": min(draws, values_CxT.shape[1]),
        }
    return found


def summary(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Returns λ̂, its standard error, the gradients to 1 %, and the bias of a row, in per cent."""
    llc_C, truth_C = np.array(found["llc"]), np.array(reference["llc"])
    llc, truth = float(llc_C.mean()), float(truth_C.mean())
    error, other = (float(x.std(ddof=1)) / len(x) ** 0.5 for x in (llc_C, truth_C))
    difference, unsure = llc - truth, float(np.hypot(error, other))
    if found["method"]["sampler"]["lr"] == reference["method"]["sampler"]["lr"]:
        size = min(len(llc_C), len(truth_C))
        pairs = llc_C[:size] - truth_C[:size]
        difference, unsure = float(pairs.mean()), float(pairs.std(ddof=1)) / size**0.5
    bias, unsure = 100 * difference / truth, 100 * unsure / truth
    low, high = bias - 1.645 * unsure, bias + 1.645 * unsure
    verdict = "undecided"
    if low >= -1 and high <= 1:
        verdict = "at most 1 %"
    elif low > 1 or high < -1:
        verdict = "above 1 %"
    if found is reference:
        verdict = "reference"
    share = found["method"]["draws"] / (found["method"]["draws"] + found["method"]["burn_in"])
    needed = found["gradients"] * (error / (0.01 * llc)) ** 2
    return {
        "llc": llc,
        "standard_error": error,
        "gradients_to_1_percent": needed,
        "relative_error": (2 / (len(llc_C) - 1)) ** 0.5,  # of the gradients, from s² of C chains
        "without_burn_in": needed * share,
        "bias_percent": bias,
        "bias_error_percent": float(unsure),
        "verdict": verdict,
    }


def peer_summary(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Returns the same of devinterp's defaults with the row's step."""
    truth, peer = float(np.mean(reference["llc"])), found["devinterp"]
    variance = peer["chain_variance"] + peer["baseline_variance"]
    return {
        "llc": peer["llc"],
        "standard_error": variance**0.5,
        "gradients_to_1_percent": peer["gradients"] * variance / (0.01 * truth) ** 2,
        "relative_error": (2 / (len(found["llc"]) - 1)) ** 0.5
        * (peer["chain_variance"] / variance),  # the baseline's part is exact
        "bias_percent": 100 * (peer["llc"] / truth - 1),
    }


def summaries(rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the summary of every row, and of devinterp's defaults, by posterior and method."""
    found: dict[str, dict[str, Any]] = {}
    for key, each in rows.items():
        name, method = key.split(": ")
        own = [other for other in rows.values() if other["posterior"] == each["posterior"]]
        reference = next((r for r in own if r.get("reference")), own[0])
        if not np.isfinite(each["llc"]).all():
            found.setdefault(name, {})[method] = {"verdict": "diverged"}
            continue
        found.setdefault(name, {})[method] = summary(each, reference)
        if each.get("devinterp", {}).get("steps") == PEER["draws"]:
            peer = f"devinterp's defaults, {each['method']['sampler']['lr']:g}"
            found[name][peer] = peer_summary(each, reference)
    return found


def table(found: dict[str, Any]) -> str:
    """Returns a line for each row: gradients to 1 %, λ̂, and the bias."""
    lines = [found["machine"]]
    for posterior, methods in found["summaries"].items():
        lines += ["", posterior]
        for method, each in methods.items():
            if "llc" not in each:
                lines.append(f"  {method}: {each['verdict']}")
                continue
            lines.append(
                f"  {method}: {each['gradients_to_1_percent']:,.0f} gradients to 1 % "
                f"(± {100 * each['relative_error']:.0f} %); "
                f"λ̂ {each['llc']:.4g} ± {each['standard_error']:.2g}, bias "
                f"{each['bias_percent']:+.1f} ± {each.get('bias_error_percent', 0.0):.1f} % "
                f"{each.get('verdict', '')}"
            )
    return "\n".join(lines)


@click.command()
@click.option("--model", default="mini-34k")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data/mini"))
@click.option("--traces", type=click.Path(path_type=Path), help="a folder for all losses")
@click.option("--minutes", type=float, default=60.0, help="after which no row is begun")
def main(model: str, data: Path, traces: Path | None, minutes: float) -> None:
    """Measures the rows that efficiency.json lacks and prints the table."""
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * minutes
    problems: dict[Posterior, Problem] = {}
    found: dict[str, Any] = read_json(FILE) if FILE.exists() else {"rows": {}}
    rows = plan(model)
    with fast_cpu():
        for posterior, method in rows:
            key = f"{posterior.name}: {method.name}"
            if key in found["rows"] or time.monotonic() > until:
                continue
            if posterior not in problems:
                problems[posterior] = Problem(posterior, data)
            begun = time.monotonic()
            first = next(each for other, each in rows if other == posterior)
            seed = key if method.control == "table" else f"{posterior.name}: {first.name}"
            chains = problems[posterior].run(method, seed)
            new = row(problems[posterior], method, chains, time.monotonic() - begun)
            if traces is not None:
                traces.mkdir(exist_ok=True, parents=True)
                file = traces / f"{key}.npz"
                np.savez(
                    file, loss=[c.loss for c in chains], init_loss=[c.init_loss for c in chains]
                )
            new["reference"] = (posterior.loss, method.name) in REFERENCES
            found["rows"][key] = new
            found |= {"machine": describe().name, "not_run": NOT_RUN}
            found["summaries"] = summaries(found["rows"])
            write_json(FILE, found)
            print(key, found["summaries"][posterior.name][method.name], flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
