"""The table and the figure of the embeddings, made from the files of the finished runs and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from experiments.frame import figures
from experiments.frame.runs import Record
from experiments.frame.scores import shown_interval
from experiments.frame.tables import averaged, conditions, least_seed, seeds, table, write_page

NUMBERS = (("trustworthiness", 3), ("continuity", 3), ("kept", 3), ("votes", 3))

ABOUT = """\
An encoder is trained on the Sinkhorn divergence between its codes and draws from the prior, and on nothing else (P19):
{steps} steps of {batch} points. All figures are those of {points} points that it was not trained with: mean ±
standard deviation over the seeds. Written by `experiments.embeddings` from the files in `records/`.

- S_ε: of the codes and as many draws from the prior, × 1000, and its certified interval at the least seed; in the row
  `draws` of two samples of the prior, which is what a perfect encoder would get.
- trustworthiness and continuity: are the 10 nearest neighbours of a code near in the data (on the unrolled sheet;
  among pixels), and the other way round? 1 is best, about ½ chance (scikit-learn).
- kept: the share of the 10 nearest neighbours that data and codes have in common.
- votes: the share of digits whose class is that of most of the 10 nearest known codes; in the row `draws`, of the
  10 nearest known images instead.
"""


def write_report(records: list[Record], titles: dict[str, str], folder: Path) -> None:
    titles = {case: title for case, title in titles.items() if any(record["case"] == case for record in records)}
    write_page(folder / "table.md", "Encoders without decoders", lines(records, titles))
    figures.save(draw(records, titles), folder / "embeddings.png", dpi=85)


def lines(records: list[Record], titles: dict[str, str]) -> Iterator[str]:
    first = records[0]
    yield from ABOUT.format(**first, points=len(first["colours"])).splitlines()
    yield ""
    scores = ["S_ε × 1000", "interval", "trustworthiness", "continuity", "kept", "votes"]
    of_cases = (rows([one for one in records if one["case"] == case], title) for case, title in titles.items())
    yield from table(["case", "encoder", *scores, "s", "seeds"], (row for found in of_cases for row in found))
    yield from conditions(records)


def rows(records: list[Record], title: str) -> Iterator[list[str]]:
    seconds = averaged([record["training_seconds"] for record in records], 0)
    title = f"{title}, ε = {records[0]['eps']:g}"
    for stage, name in (("before", "untrained"), ("after", "trained")):
        found = [record[stage] for record in records]
        numbers = [averaged([each[key] for each in found if key in each], digits) for key, digits in NUMBERS]
        spent = seconds if stage == "after" else "–"
        yield [title, name, *value_and_interval(found, "divergence"), *numbers, spent, seeds(records)]
    found = [record["after"] for record in records]
    known = averaged([each["votes_of_pixels"] for each in found if "votes_of_pixels" in each], 3)
    yield [title, "draws", *value_and_interval(found, "divergence_of_draws"), *"–––", known, "–", seeds(records)]


def value_and_interval(found: list[Any], key: str) -> tuple[str, str]:
    """The mean value, and the interval at the least seed."""
    return averaged([1000 * each[key]["value"] for each in found], 2), shown_interval(found[0][key])


def plane(codes: np.ndarray) -> np.ndarray:
    return codes


def equal_area(codes: np.ndarray) -> np.ndarray:
    """Longitude and height of points on S²: Archimedes' map, under which uniform stays uniform."""
    return np.stack([np.arctan2(codes[:, 1], codes[:, 0]), codes[:, 2]], 1)


def tsne(codes: np.ndarray) -> np.ndarray:
    return TSNE(random_state=0, init="pca", perplexity=min(30, len(codes) / 4)).fit_transform(codes)


@dataclass(frozen=True)
class Look:
    """How codes (n, d) become points (n, 2) of a picture; `frame` is the image of the support, where that is flat."""

    flatten: Callable[[np.ndarray], np.ndarray]
    label: str
    colours: str
    frame: dict[str, tuple[float, float]]


LOOKS = {
    "square": Look(plane, "the square; colour: place along the roll", "turbo", {"xlim": (0, 1), "ylim": (0, 1)}),
    "sphere": Look(
        equal_area, "longitude and height; colour: place along the roll", "turbo",
        {"xlim": (-math.pi, math.pi), "ylim": (-1, 1)},
    ),
    "digits": Look(tsne, "t-SNE of the codes; colour: class", "tab10", {}),
}  # fmt: skip


def draw(records: list[Record], titles: dict[str, str]) -> Figure:
    """Codes before and after training, at the least seed of each case."""
    figure = figures.empty(3.4 * len(titles), 6.4)
    panels = figure.subplots(2, len(titles), squeeze=False)
    for column, (case, title) in zip(panels.T, titles.items(), strict=True):
        record, look = least_seed([one for one in records if one["case"] == case]), LOOKS[case]
        for axes, stage, name in zip(column, ("before", "after"), ("untrained", "trained"), strict=True):
            points = look.flatten(np.array(record[stage]["codes"]))
            axes.scatter(*points.T, c=record["colours"], cmap=look.colours, s=6, linewidths=0)
            axes.set_title(
                f"{title}\n{name}: $S_\\varepsilon$ = {record[stage]['divergence']['value']:.2g}", fontsize=9
            )
            axes.set(xticks=[], yticks=[], **look.frame)
            axes.set_xlabel(look.label, fontsize=8)
            axes.spines[:].set_color("#b8c4d6")
    return figure
