"""`python docs/pipeline.py` draws the pipeline, as `dvc dag` describes it: the diagram in
docs/reference/architecture.md and docs/pipeline.svg.

A stage of several families or studies is one box, and an arrow that follows from others is left
out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import yaml

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, GAP = 108, 30, 26  # of a box; between boxes
SWEEPS = 10  # down and up the layers
ARROW = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    ' orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
)


def pipeline() -> nx.DiGraph:
    """Returns the stages and what depends on what; `computes` says whether a stage needs torch."""
    command = [sys.executable, "-m", "dvc", "dag", "--mermaid", "--collapse-foreach-matrix"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r'(\w+)\["([^"]+)"\]', said))
    edges = [(names[a], names[b]) for a, b in re.findall(r"(\w+)-->(\w+)", said)]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    graph = nx.DiGraph()
    for name, body in stages.items():
        deps = body.get("do", body).get("deps", ())
        graph.add_node(name, computes="requirements/base.lock" in deps)
    graph.add_edges_from(sorted(nx.transitive_reduction(nx.DiGraph(edges)).edges))
    return graph


def mermaid(graph: nx.DiGraph) -> str:
    """Returns the diagram as text that a forge draws."""
    computing = ",".join(name for name, computes in graph.nodes(data="computes") if computes)
    lines = [
        "flowchart TD",
        *(f"    {name}" for name in graph),
        *(f"    {a} --> {b}" for a, b in graph.edges),
        "    classDef computes stroke-width:3px",
        f"    class {computing} computes",
    ]
    return "\n".join(lines) + "\n"


def places(graph: nx.DiGraph) -> dict[str, tuple[int, int]]:
    """Returns the centre of each box. A stage is just above those that depend on it.

    In a layer, boxes are ordered by the mean place of their neighbours in the layers beside it
    (Sugiyama et al. 1981).
    """
    layers = [sorted(layer) for layer in nx.topological_generations(graph.reverse())][::-1]
    widest = max(map(len, layers)) - 1
    along: dict[str, float] = {}

    def spread(layer: list[str]) -> None:
        along.update((name, i + (widest - len(layer) + 1) / 2) for i, name in enumerate(layer))

    def beside(name: str) -> tuple[float, str]:
        near = [along[other] for other in nx.all_neighbors(graph, name)]
        return sum(near) / max(len(near), 1), name

    for layer in layers:
        spread(layer)
    for layer in SWEEPS * [*layers, *layers[::-1]]:
        layer.sort(key=beside)
        spread(layer)
    across, down = WIDTH + GAP, HEIGHT + GAP
    return {
        name: (round(along[name] * across) + WIDTH // 2 + 2, depth * down + HEIGHT // 2 + 2)
        for depth, layer in enumerate(layers)
        for name in layer
    }


def svg(graph: nx.DiGraph) -> str:
    """Returns the diagram in layers."""
    place = places(graph)
    wide = max(x for x, _ in place.values()) + WIDTH // 2 + 2
    high = max(y for _, y in place.values()) + HEIGHT // 2 + 2
    out = [
        '<svg class="pipeline" xmlns="http://www.w3.org/2000/svg" role="img"'
        f' viewBox="0 0 {wide} {high}" width="{wide}">',
        "<title>The stages of dvc.yaml and what depends on what</title>",
        ARROW,
    ]
    for a, b in graph.edges:
        (x1, y1), (x2, y2) = place[a], place[b]
        start, end = y1 + HEIGHT // 2, y2 - HEIGHT // 2
        bend = (start + end) // 2
        out.append(
            f'<path class="edge" d="M{x1} {start}C{x1} {bend} {x2} {bend} {x2} {end}"'
            ' fill="none" stroke-width="1.2" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in place.items():
        kind = ' class="computes"' if graph.nodes[name]["computes"] else ""
        out.append(
            f'<g{kind}><rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}"'
            f' height="{HEIGHT}" rx="6"/><text x="{x}" y="{y + 4}" text-anchor="middle"'
            f' font-size="13">{name}</text></g>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def files() -> dict[str, str]:
    """Returns what each file should hold."""
    graph = pipeline()
    name, text = "docs/reference/architecture.md", mermaid(graph)
    page = (ROOT / name).read_text(encoding="utf-8")
    drawn = re.sub(r"(?s)(?<=```mermaid\n).*?(?=```)", lambda _: text, page)
    return {name: drawn, "docs/pipeline.svg": svg(graph)}


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
