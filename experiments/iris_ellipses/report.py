"""The table and the picture of the ellipsoids, made from the records and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.frame import figures
from experiments.frame.runs import Record
from experiments.frame.tables import averaged, conditions, seeds, table, write_page
from experiments.iris_ellipses.flowers import flowers
from experiments.iris_ellipses.training import ITERATIONS, LATENTS, LEARNING_RATE, OURS, PAPER

COLOURS = ("#1d4ed8", "#c2410c", "#0f766e")


def write_report(found: list[Record], folder: Path) -> None:
    write_page(folder / "table.md", "Three ellipsoids and three species of Iris", lines(found))
    figures.save(draw(found), folder / "ellipses.png")


def lines(found: list[Record]) -> Iterator[str]:
    steps = " or ".join(str(each) for each in sorted({record["steps"] for record in found}))
    yield "Flowers of each species (setosa / versicolor / virginica, 50 each) inside of its ellipsoid under the best"
    yield "assignment, and those of all 150 in any ellipsoid and in several; mean ± standard deviation over the seeds."
    yield f"{steps} steps of Adam, step size {LEARNING_RATE} to zero; in each, {LATENTS} latents and all flowers."
    yield f"Debiased sharp loss; `unrolled`: {ITERATIONS} iterations (G18); `exact`: converged, implicit derivative."
    yield "The ellipsoids start as balls of radius 1/2 at three flowers that are far apart, the first of them random."
    yield "`not converged`: steps with a solve that ended at its 2000th pass above a marginal error of 1 %."
    yield "Written by `experiments.iris_ellipses` from the files in `records/`."
    yield ""
    counts = ["inside of its own", "G18", "in any", "in several", "not converged"]
    head = ["cost", "ε", "derivative", *counts, "s", "seeds"]
    yield from table(head, (cells(of_kind(found, kind), kind) for kind in kinds(found)))
    yield ""
    yield "G18 does not say which kernel its MMD has; here it is −|x−y|, the limit of the Euclidean cost."
    yield from conditions(found)


def cells(own: list[Record], kind: tuple[str, float, str]) -> list[str]:
    cost, eps, derivative = kind
    inside = " / ".join(averaged([record["inside"][k] for record in own], 0) for k in range(3))
    return [
        "|x−y|²" if cost == "sqeuclidean" else "|x−y|", "∞ (MMD)" if math.isinf(eps) else f"{eps:g}",
        "unrolled" if derivative == "unrolled" else "exact", inside, PAPER.get(kind, "–"),
        averaged([record["in_any"] for record in own], 0), averaged([record["in_several"] for record in own], 0),
        unfinished(own), averaged([record["seconds"] for record in own], 0), seeds(own),
    ]  # fmt: skip


def unfinished(own: list[Record]) -> str:
    """The part of the steps that did not converge, where they were meant to."""
    if own[0]["derivative"] == "unrolled" or math.isinf(own[0]["eps"]):
        return "–"
    return f"{sum(record['not_converged'] for record in own) / sum(record['steps'] for record in own):.0%}"


def kinds(found: list[Record]) -> list[tuple[str, float, str]]:
    """Those that there are records of, the paper's first."""
    return [kind for kind in dict.fromkeys([*PAPER, *OURS]) if of_kind(found, kind)]


def of_kind(found: list[Record], kind: tuple[str, float, str]) -> list[Record]:
    own = [record for record in found if (record["cost"], record["eps"], record["derivative"]) == kind]
    return sorted(own, key=lambda record: record["seed"])


def draw(found: list[Record]) -> Figure:
    """The ellipsoids in the plane of the first two components, at the seed of the least loss of each kind."""
    points, labels = flowers()
    shown = kinds(found)
    rows = -(-len(shown) // 5)
    figure = figures.empty(15, 2.6 * rows)
    panels = figure.subplots(rows, 5, squeeze=False, sharex=True, sharey=True).flat
    for axes in panels:
        axes.set_axis_off()
    for axes, kind in zip(figure.axes, shown, strict=False):
        record = min(of_kind(found, kind), key=lambda record: record["loss"])
        for species, colour in enumerate(COLOURS):
            axes.scatter(*points[labels == species, :2].T, s=5, color=colour, linewidths=0)
        for matrix, centre in zip(record["matrices"], record["centres"], strict=True):
            axes.plot(*outline(torch.tensor(matrix), torch.tensor(centre)).T, color="#1f2937", linewidth=1)
        eps = "MMD" if math.isinf(kind[1]) else f"ε = {kind[1]:g}"
        cost = "|x−y|²" if kind[0] == "sqeuclidean" else "|x−y|"
        end = "20 iterations" if kind[2] == "unrolled" else "exact"
        axes.set_title(f"{eps}, {cost}, {end}: {' / '.join(map(str, record['inside']))}", fontsize=9)
    return figure


def outline(matrix: Tensor, centre: Tensor) -> Tensor:
    """The edge (200, 2) of an ellipsoid's shadow on the first two axes: the image of a circle under (A₂A₂ᵀ)^½."""
    values, vectors = torch.linalg.eigh(matrix[:2] @ matrix[:2].T)
    angles = torch.linspace(0, 2 * math.pi, 200)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    return circle @ (vectors * values.clamp(min=0).sqrt() @ vectors.T) + centre[:2]
