"""`python -m benchmarks.efficiency`: how many gradients each sampler needs for λ̂ to 1 %.

A row is one sampler at one step on one model at one posterior. Independent chains give λ̂ and its
standard error s. The gradients (of 32 windows) for a standard error of 1 % are

    all gradients of the chains, with their burn-in × (s / (0.01·λ̂))²

The bias is proportional to the step at first order. One weighted least-squares fit to all rows of a
posterior gives λ at step 0, and for each sampler the bias per step and the step of 1 % bias. The
bias of a row is at most 1 % if its 90 % interval lies within 1 %, above if it lies outside, else
undecided. Rows share minibatches and noise, except those with a table of gradients.

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
NOT_RUN = {
    "sgnht": "has no localisation, so it samples another posterior",
    "baoab, leimkuhler with a frozen preconditioner, canonical-interp, posteriors": "not run",
    "hmc": "666 gradients of 32 windows for each leapfrog step",
}


def plan(model: str) -> list[tuple[Posterior, Method]]:
    """Returns the rows of a model, the most important first."""
    label, tokens = Posterior(model, "last", 30, 500), Posterior(model, "tokens", 1910, 300)
    fine = Posterior(model, "tokens", 19100, 3000)

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
        # steps so small that the fit proves a bias of at most 1 %
        (label, method("leimkuhler", 1e-4, 16, 150, 300)),
        (label, method("sgld", 3e-5, 12, 400, 500)),
        (tokens, method("leimkuhler", 2e-5, 8, 800, 600)),
        (tokens, method("sgld", 1e-5, 6, 1400, 700)),
        # a finer resolution
        (fine, method("leimkuhler", 1e-5, 8, 160, 200)),
        (fine, method("leimkuhler", 1e-5, 8, 160, 200, "table")),
        (fine, method("leimkuhler", 5e-6, 8, 240, 200)),
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


def kind(found: dict[str, Any]) -> str:
    """Returns the sampler and its control variate, whose bias is proportional to the step."""
    return f"{found['method']['sampler']['sampler']}, {found['method']['control']}"


def fit(rows: list[dict[str, Any]]) -> tuple[float, dict[str, tuple[float, float]], float]:
    """Fits λ + slope·ε to the rows of a posterior.

    Returns:
        λ in the limit of small steps, each kind's slope over λ with its standard error, and the
        standard error of λ.
    """
    kinds = sorted({kind(row) for row in rows})
    design = np.array([[1.0, *(lr(row) * (kind(row) == k) for k in kinds)] for row in rows])
    means, errors = np.array([estimate(row) for row in rows]).T
    covariance = np.linalg.pinv((design / errors[:, None] ** 2).T @ design)
    limit, *slopes = covariance @ (design / errors[:, None] ** 2).T @ means
    found = {}
    for i, (name, slope) in enumerate(zip(kinds, slopes, strict=True), 1):
        toward = np.zeros(len(kinds) + 1)  # the derivative of slope/λ
        toward[[0, i]] = -slope / limit**2, 1 / limit
        found[name] = float(slope / limit), float(toward @ covariance @ toward) ** 0.5
    return float(limit), found, float(covariance[0, 0]) ** 0.5


def lr(found: dict[str, Any]) -> float:
    return found["method"]["sampler"]["lr"]


def estimate(found: dict[str, Any]) -> tuple[float, float]:
    """Returns λ̂ and its standard error."""
    return float(np.mean(found["llc"])), float(np.std(found["llc"], ddof=1)) / len(
        found["llc"]
    ) ** 0.5


def summary(found: dict[str, Any], slope: float, slope_error: float) -> dict[str, Any]:
    """Returns λ̂, its standard error, the gradients to 1 %, and the bias of a row, in per cent."""
    llc, error = estimate(found)
    bias, unsure = 100 * slope * lr(found), 100 * slope_error * lr(found)
    low, high = bias - 1.645 * unsure, bias + 1.645 * unsure
    verdict = "undecided"
    if low >= -1 and high <= 1:
        verdict = "at most 1 %"
    elif low > 1 or high < -1:
        verdict = "above 1 %"
    share = found["method"]["draws"] / (found["method"]["draws"] + found["method"]["burn_in"])
    needed = found["gradients"] * (error / (0.01 * llc)) ** 2
    return {
        "llc": llc,
        "standard_error": error,
        "gradients_to_1_percent": needed,
        "relative_error": (2 / (len(found["llc"]) - 1)) ** 0.5,  # of the gradients, from s²
        "without_burn_in": needed * share,
        "bias_percent": bias,
        "bias_error_percent": unsure,
        "verdict": verdict,
    }


def peer_summary(found: dict[str, Any], truth: float) -> dict[str, Any]:
    """Returns the same of devinterp's defaults with the row's step."""
    peer = found["devinterp"]
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
    for name in dict.fromkeys(key.split(": ")[0] for key in rows):
        own = {k.split(": ")[1]: row for k, row in rows.items() if k.startswith(f"{name}: ")}
        alive = {k: row for k, row in own.items() if np.isfinite(row["llc"]).all()}
        found[name] = {method: {"verdict": "diverged"} for method in own if method not in alive}
        if len(alive) <= len({kind(row) for row in alive.values()}):
            continue  # no sampler has two steps, so nothing says what the bias is
        truth, slopes, error = fit(list(alive.values()))
        found[name]["limit"] = {
            "llc": truth,
            "standard_error": error,
            "steps_of_1_percent": {k: 0.01 / slope for k, (slope, _) in slopes.items()},
        }
        for method, row in alive.items():
            found[name][method] = summary(row, *slopes[kind(row)])
            if row.get("devinterp", {}).get("steps") == PEER["draws"]:
                found[name][f"devinterp's defaults, {lr(row):g}"] = peer_summary(row, truth)
    return found


def table(found: dict[str, Any]) -> str:
    """Returns a line for each row: gradients to 1 %, λ̂, and the bias."""
    lines = [found["machine"]]
    for posterior, methods in found["summaries"].items():
        lines += ["", posterior]
        for method, each in methods.items():
            if method == "limit":
                steps = [f"{k} {v:.2g}" for k, v in each["steps_of_1_percent"].items()]
                lines.append(f"  λ {each['llc']:.4g} ± {each['standard_error']:.2g}")
                lines.append(f"  steps of 1 % bias: {'; '.join(steps)}")
                continue
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
@click.option("--model", default="34k-1")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data/sizes"))
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
            found["rows"][key] = new
            found |= {"machine": describe().name, "not_run": NOT_RUN}
            found["summaries"] = summaries(found["rows"])
            write_json(FILE, found)
            print(f"{key}: λ̂ {np.mean(new['llc']):.4g}, {new['seconds']:.0f} s", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
