"""The table and the figure of the embeddings, made from the files of the finished runs and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from records import describe
from sklearn.manifold import TSNE

from sinkdiv.generative.files import replacing, write_text

Record = dict[str, Any]
NUMBERS = (("trustworthiness", 3), ("continuity", 3), ("kept", 3), ("votes", 3))


def write_report(records: list[Record], titles: dict[str, str], folder: Path) -> None:
    titles = {case: title for case, title in titles.items() if any(record["case"] == case for record in records)}
    write_text(folder / "table.md", "\n".join(table(records, titles)) + "\n")
    with replacing(folder / "embeddings.png") as temporary:
        draw(records, titles).savefig(temporary, dpi=85)


def table(records: list[Record], titles: dict[str, str]) -> Iterator[str]:
    first = records[0]
    yield "# Encoders without decoders"
    yield ""
    yield "An encoder is trained on the Sinkhorn divergence between its codes and draws from the prior, and on nothing"
    yield f"else (P19): {first['steps']} steps of {first['batch']} points. All figures are those of {len(first['colours'])} points"
    yield "that it was not trained with: mean ± standard deviation over the seeds. Written by `embeddings.py` from the files in"
    yield "`records/`."
    yield ""
    yield "- S_ε: of the codes and as many draws from the prior, × 1000, and its interval at the least seed; in the row `draws`"
    yield "  of two samples of the prior, which is what a perfect encoder would get."
    yield "- trustworthiness and continuity: are the 10 nearest neighbours of a code near in the data (on the unrolled"
    yield "  sheet; among pixels), and the other way round? 1 is best, ½ chance (scikit-learn)."
    yield "- kept: the share of the 10 nearest neighbours that data and codes have in common."
    yield "- votes: the share of digits whose class is that of most of the 10 nearest known codes; in the row `draws`, that of"
    yield "  the 10 nearest known images instead."
    yield ""
    yield "| case | encoder | S_ε × 1000 | interval | trustworthiness | continuity | kept | votes | s | seeds |"
    yield "|---" * 10 + "|"
    for case, title in titles.items():
        yield from rows([record for record in records if record["case"] == case], title)
    yield ""
    for text in sorted({describe(record["machine"]) for record in records}):
        yield f"*{text}*"


def rows(records: list[Record], title: str) -> Iterator[str]:
    seeds = ", ".join(str(record["seed"]) for record in records)
    seconds = spread([record["seconds"] for record in records], 0)
    title = f"{title}, ε = {records[0]['eps']:g}"
    for stage, name in (("before", "untrained"), ("after", "trained")):
        found = [record[stage] for record in records]
        numbers = [spread([each[key] for each in found if key in each], digits) for key, digits in NUMBERS]
        spent = seconds if stage == "after" else "–"
        cells = [title, name, *divergence([each["divergence"] for each in found]), *numbers, spent, seeds]
        yield "| " + " | ".join(cells) + " |"
    found = [record["after"] for record in records]
    known = spread([each["votes_of_pixels"] for each in found if "votes_of_pixels" in each], 3)
    cells = [title, "draws", *divergence([each["divergence_of_draws"] for each in found]), *"–––", known, "–", seeds]
    yield "| " + " | ".join(cells) + " |"


def divergence(found: list[dict[str, float]]) -> tuple[str, str]:
    values = [1000 * each["value"] for each in found]
    return spread(values, 2), f"[{1000 * found[0]['lower']:.3f}, {1000 * found[0]['upper']:.3f}]"


def spread(figures: list[float], digits: int) -> str:
    if not figures:
        return "–"
    middle = f"{statistics.mean(figures):.{digits}f}"
    return middle if len(figures) == 1 else f"{middle} ± {statistics.stdev(figures):.{digits}f}"


def draw(records: list[Record], titles: dict[str, str]) -> Figure:
    """Codes before and after training, at the least seed of each case."""
    figure = Figure(figsize=(3.4 * len(titles), 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(titles), squeeze=False)
    for column, (case, title) in zip(panels.T, titles.items(), strict=True):
        record = min((record for record in records if record["case"] == case), key=lambda record: record["seed"])
        look, flatten = LOOKS[case]
        for axes, stage, name in zip(column, ("before", "after"), ("untrained", "trained"), strict=True):
            value = 1000 * record[stage]["divergence"]["value"]
            axes.scatter(*flatten(np.array(record[stage]["codes"])).T, c=record["colours"], s=6, linewidths=0, **look)
            axes.set_title(f"{title}\n{name}: $S_\\varepsilon$ = {value:.3g} / 1000", fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("#b8c4d6")
        limit_to(case, column)
    return figure


def plane(codes: np.ndarray) -> np.ndarray:
    return codes


def equal_area(codes: np.ndarray) -> np.ndarray:
    """Longitude and height of points on S²: Archimedes' map, under which uniform stays uniform."""
    return np.stack([np.arctan2(codes[:, 1], codes[:, 0]), codes[:, 2]], 1)


def tsne(codes: np.ndarray) -> np.ndarray:
    return TSNE(random_state=0, init="pca", perplexity=min(30, len(codes) / 4)).fit_transform(codes)


def limit_to(case: str, column: np.ndarray) -> None:
    """Frames are the supports, where these are flat."""
    frames = {"square": ((0, 1), (0, 1)), "sphere": ((-np.pi, np.pi), (-1, 1))}
    for axes in column:
        if case in frames:
            axes.set(xlim=frames[case][0], ylim=frames[case][1])
        axes.set_xlabel({"square": "", "sphere": "longitude and height", "digits": "t-SNE of the codes"}[case], fontsize=8)


Flatten = Callable[[np.ndarray], np.ndarray]
LOOKS: dict[str, tuple[dict[str, Any], Flatten]] = {
    "square": ({"cmap": "turbo"}, plane),
    "sphere": ({"cmap": "turbo"}, equal_area),
    "digits": ({"cmap": "tab10"}, tsne),
}
