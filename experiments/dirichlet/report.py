"""The table and the pictures of the Dirichlet priors, from the records and, for pictures of digits, the runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.frame import figures
from experiments.frame.runs import Record
from experiments.frame.scores import shown_interval
from experiments.frame.tables import averaged, conditions, least_seed, seeds, table, write_page
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.seeds import Stream

STEPS = 9

ABOUT = """\
Sinkhorn autoencoders whose codes are weights on a simplex: the encoder ends in a softmax, the prior is a Dirichlet
distribution that gathers at the vertices (P19: α = ½ on 10 weights, ⅕ on 16). Means ± standard deviation over the
seeds, on held-out digits. Written by `experiments.dirichlet` from the files in `records/`.

- nats: cross-entropy of a held-out image.
- S_ε × 1000 between codes and as many draws from the prior, at the ε of training, and its certified interval at the
  least seed; beside it that of two sets of draws, which is what a perfect encoder would get.
- largest weight: the mean over codes, and over draws from the prior.
- purity: the share of digits that have the class which most training digits at their vertex (their largest weight)
  have; information: normalised mutual information of vertex and class; votes: the share of digits whose class is that
  of most of the 10 nearest training codes. None of them was trained for: no label was seen.
"""
HEAD = [
    "data", "prior", "nats", "S_ε", "interval", "of draws", "largest weight", "of draws", "purity", "information",
    "votes", "seeds",
]  # fmt: skip


def write_report(records: list[Record], order: list[str], runs: Path, folder: Path) -> None:
    write_page(folder / "table.md", "Dirichlet priors", lines(records, order))
    of_rows = ([record for record in records if record["row"] == name] for name in order)
    firsts = [least_seed(own) for own in of_rows if own]
    figures.save(classes(firsts), folder / "classes.svg", dpi=90)
    shown = [(record, run) for record in firsts if (run := RunFolder(runs / record["run"])).exists()]
    if shown:
        figures.save(vertices(shown), folder / "vertices.png", dpi=90)


def lines(records: list[Record], order: list[str]) -> Iterator[str]:
    yield from ABOUT.splitlines()
    yield ""
    groups = (
        [record for record in records if (record["row"], record["data"]) == (name, data)]
        for data in sorted({record["data"] for record in records})
        for name in order
    )
    yield from table(HEAD, (cells(own) for own in groups if own))
    yield ""
    for text in sorted({seconds(record) for record in records}):
        yield f"- {text}"
    yield from conditions(records)


def cells(own: list[Record]) -> list[str]:
    scores = [record["scores"] for record in own]
    nats = [record["metrics"]["scores"]["model"]["reconstruction_nats_per_image"] for record in own]
    return [
        own[0]["data"], title(own[0]), averaged(nats, 1),
        averaged([1000 * each["divergence"]["value"] for each in scores], 2),
        shown_interval(scores[0]["divergence"]),
        averaged([1000 * each["divergence_of_draws"]["value"] for each in scores], 2),
        averaged([each["largest"] for each in scores], 3), averaged([each["largest_of_draws"] for each in scores], 3),
        averaged([each["purity"] for each in scores], 3), averaged([each["information"] for each in scores], 3),
        averaged([each["votes"] for each in scores], 3), seeds(own),
    ]  # fmt: skip


def seconds(record: Record) -> str:
    epochs, spent = record["metrics"]["epochs"], record["metrics"]["seconds"]["training"]
    return f"{record['run']}: ε = {record['eps']:.3g}, β = {record['beta']:.3g}, {epochs} epochs in {spent:.0f} s"


def title(record: Record) -> str:
    settings = record["settings"]
    return f"Dir({settings['prior'].partition(':')[2]}), {settings['latent_dim']} weights"


def classes(records: list[Record]) -> Figure:
    """Which classes lie at which vertex, at the least seed; vertices by their commonest class."""
    figure = figures.empty(4.2 * len(records), 3.4)
    for axes, record in zip(figure.subplots(1, len(records), squeeze=False)[0], records, strict=True):
        shares = np.array(record["scores"]["shares"])
        axes.imshow(100 * shares[np.argsort(shares.argmax(1), kind="stable")].T, cmap="Purples", aspect="auto")
        axes.set_title(f"{title(record)}: {record['scores']['purity']:.0%} pure", fontsize=9)
        axes.set(xlabel="vertex", ylabel="class", xticks=[], yticks=range(shares.shape[1]))
    return figure


@torch.no_grad()
def vertices(shown: list[tuple[Record, RunFolder]]) -> Figure:
    """Decoded vertices, edges between some of them, and samples."""
    figure = figures.empty(4.6 * len(shown), 6.4)
    panels = figure.subplots(3, len(shown), squeeze=False, gridspec_kw={"height_ratios": (2, 4, 4)})
    for column, (record, run) in zip(panels.T, shown, strict=True):
        model = load_run(run).model
        assert isinstance(model, Autoencoder)
        corners = torch.eye(record["settings"]["latent_dim"])
        samples = model.draw_codes(4 * STEPS, Stream.SAMPLES, 0)
        strips = (
            (f"{title(record)}: vertices", corners, 8),
            ("edges", edges(corners), STEPS),
            ("samples", samples, STEPS),
        )
        for axes, (name, codes, columns) in zip(column, strips, strict=True):
            figures.show_images(axes, name, model.decode(codes), model.config.image_shape, columns)
    return figure


def edges(corners: Tensor) -> Tensor:
    """STEPS codes along each of the edges from vertex 2k to vertex 2k + 1, four of them: (4·STEPS, d)."""
    times = torch.linspace(0, 1, STEPS)[:, None]
    return torch.cat([torch.lerp(corners[2 * k], corners[2 * k + 1], times) for k in range(4)])
