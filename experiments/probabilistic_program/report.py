"""The table and the pictures of the probabilistic program, from the records and, for pictures, the runs themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.frame import figures
from experiments.frame.runs import Record
from experiments.frame.scores import shown_interval
from experiments.frame.tables import averaged, conditions, least_seed, seeds, table, write_page
from experiments.probabilistic_program.canvases import SALT, SIDE, of
from experiments.probabilistic_program.scores import PARTS, PLACES
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.seeds import Stream

SHAPE = (1, SIDE, SIDE)
COLUMNS = 10
STEPS = 9
FARTHEST = 2.0

ABOUT = """\
A digit at a random place and of a random size on a canvas of {side}×{side} pixels, under salt: {salt:.0%} of the pixels
are white (P19). The codes have 13 numbers; their prior is uniform on S⁹ for ten of them, *what*, and normal for three,
*where*. The program draws a digit of 28×28 pixels from what, and a spatial transformer places it by where; the
perceptrons decode all 13 numbers alike. Means ± standard deviation over the seeds, on digits that were not trained
with. Written by `experiments.probabilistic_program` from the files in `records/`.

- nats: cross-entropy of a canvas. Clean MSE: of the decoded canvas, the salt's share taken off, against the canvas
  without salt, × 1000. In the row `mean canvas` all codes are decoded to the mean of the training canvases.
- class: the share of digits whose class is that of most of the 10 nearest known codes, in this part of the code alone.
- places: the share of variance (R²) of size, right and down that is linear in this part. A code that separates has all
  of the class in what, and all of the places in where.
- S_½ × 1000 between codes and prior, and its certified interval at the least seed; in the last rows of two samples of
  the prior.
"""


def write_report(records: list[Record], titles: dict[str, str], runs: Path, folder: Path) -> None:
    titles = {name: title for name, title in titles.items() if any(record["row"] == name for record in records)}
    write_page(folder / "table.md", "A decoder that draws, then places", lines(records, titles))
    found = models(records, titles, runs)
    if found:
        figures.save(canvases_shown(found, records[0]["digits"]), folder / "canvases.png", dpi=100)
        figures.save(codes_moved(found), folder / "moved.png", dpi=100)


def lines(records: list[Record], titles: dict[str, str]) -> Iterator[str]:
    yield from ABOUT.format(side=SIDE, salt=SALT).splitlines()
    yield ""
    head = ["", "nats", "clean MSE", "part", "class", "size, right, down", "S_½", "interval", "seeds"]
    yield from table(head, rows(records, titles))
    yield ""
    yield from settings(records)
    yield from conditions(records)


def rows(records: list[Record], titles: dict[str, str]) -> Iterator[list[str]]:
    for name, title in titles.items():
        own = [record for record in records if record["row"] == name]
        scores = [record["scores"] for record in own]
        head = [title, over(scores, lambda s: s["nats"], 1), over(scores, lambda s: 1000 * s["clean_mse"], 2)]
        for part in PARTS:
            yield [*head, part, *cells(scores, part), seeds(own)]
            head = ["", "", ""]
    first = [records[0]["scores"]]
    nats = over(first, lambda s: s["nats_of_mean"], 1)
    mse = over(first, lambda s: 1000 * s["clean_mse_of_mean"], 2)
    yield ["mean canvas", nats, mse, *[""] * 6]
    for part in PARTS:
        yield ["draws", "", "", part, "", "", *divergence(first, part, "divergence_of_draws"), ""]


def cells(scores: list[dict[str, Any]], part: str) -> list[str]:
    # Rounded before: no share is −0.00.
    places = [over(scores, lambda s, place=place: round(s[part]["places"][place], 2) + 0.0, 2) for place in PLACES]
    return [
        over(scores, lambda s: s[part]["votes"], 3),
        ", ".join(places),
        *divergence(scores, part, "divergence"),
    ]


def divergence(scores: list[dict[str, Any]], part: str, key: str) -> tuple[str, str]:
    return over(scores, lambda s: 1000 * s[part][key]["value"], 2), shown_interval(scores[0][part][key])


def over(scores: list[dict[str, Any]], figure: Callable[[dict[str, Any]], float], digits: int) -> str:
    return averaged([figure(score) for score in scores], digits)


def settings(records: list[Record]) -> Iterator[str]:
    for record in records:
        given = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
        yield f"- {record['row']}: {given}; {record['metrics']['seconds']['training']:.0f} s of training."


def models(records: list[Record], titles: dict[str, str], runs: Path) -> dict[str, Autoencoder]:
    """By title, at the least seed of each row, where the run is still there."""
    found = {}
    for name, title in titles.items():
        record = least_seed([record for record in records if record["row"] == name])
        folder = RunFolder(runs / f"{record['digits']}-{name}-{record['seed']}")
        if folder.exists():
            model = load_run(folder).model
            assert isinstance(model, Autoencoder)
            found[title] = model
    return found


@torch.no_grad()
def canvases_shown(found: dict[str, Autoencoder], digits: str) -> Figure:
    """Canvases of new digits, what each model makes of them, and samples of each."""
    shown = of(digits)[1].images
    strips = {"canvases": shown[:COLUMNS]}
    for title, model in found.items():
        strips[f"rebuilt by {title}"] = model.decode(model.encode(shown[:COLUMNS]))
    strips["other canvases"] = shown[COLUMNS : 3 * COLUMNS]
    for title, model in found.items():
        strips[f"samples of {title}"] = model.decode(model.draw_codes(2 * COLUMNS, Stream.SAMPLES, 0))
    heights = [len(images) // COLUMNS for images in strips.values()]
    figure = figures.empty(7.2, 0.8 * sum(heights) + 0.2 * len(heights))
    panels = figure.subplots(len(strips), 1, gridspec_kw={"height_ratios": heights})
    for axes, (title, images) in zip(panels, strips.items(), strict=True):
        figures.show_images(axes, title, images, SHAPE, COLUMNS)
    return figure


@torch.no_grad()
def codes_moved(found: dict[str, Autoencoder]) -> Figure:
    """Codes of which one part moves while the other stays: decoded by each model."""
    figure = figures.empty(4.9 * len(found), 4.0)
    panels = figure.subplots(2, len(found), squeeze=False, gridspec_kw={"height_ratios": (3, 3)})
    for column, (title, model) in zip(panels.T, found.items(), strict=True):
        start, *ends = model.draw_codes(4, Stream.SAMPLES, 1)
        for axes, moving, codes in (
            (column[0], "size, right, down move", places_moved(start)),
            (column[1], "what moves", digits_moved(model, start, ends)),
        ):
            figures.show_images(axes, f"{title}: {moving}", model.decode(codes), SHAPE, STEPS)
    return figure


def places_moved(code: Tensor) -> Tensor:
    """STEPS codes for each of the three places, which alone runs from −FARTHEST to FARTHEST: (3·STEPS, d)."""
    rows = code.repeat(len(PLACES), STEPS, 1)
    for place in range(len(PLACES)):
        rows[place, :, PARTS["where"]] = 0
        rows[place, :, PARTS["where"].start + place] = torch.linspace(-FARTHEST, FARTHEST, STEPS)
    return rows.flatten(0, 1)


def digits_moved(model: Autoencoder, start: Tensor, ends: list[Tensor]) -> Tensor:
    """STEPS codes along the great arc from what `start` is to what each of the ends is, in the middle of the canvas."""
    what, sphere = model.prior.factors(len(start))[0]
    arcs = sphere.geodesic(
        start[None, what].expand(len(ends), -1), torch.stack(ends)[:, what], torch.linspace(0, 1, STEPS)
    )
    codes = torch.zeros(len(ends), STEPS, len(start))
    codes[:, :, what] = arcs.transpose(0, 1)
    return codes.flatten(0, 1)
