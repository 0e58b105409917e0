"""The table and pictures of the Sinkhorn autoencoder's experiment, made from the records of runs and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from experiments.frame.runs import Record
from experiments.frame.tables import seeds, table, write_page
from experiments.sinkhorn_autoencoder.rows import DATA, ROWS, Row
from sinkdiv.generative.files import write_image
from sinkdiv.generative.intervals import mean_and_interval
from sinkdiv.generative.report import figures
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.seeds import Stream

# Keys of the scores, titles and digits of the table's columns.
COLUMNS = (
    ("latent_mmd_imq_x1000", "latent MMD ×1000", 2),
    ("reconstruction_nats_per_image", "reconstruction, nats", 1),
    ("fid", "FID", 2),
    ("kid_x1000", "KID ×1000", 2),
    ("precision", "precision", 3),
    ("recall", "recall", 3),
    ("coverage", "coverage", 3),
)
SHOWN = 40


def write_report(records: list[Record], folder: Path, runs: Path) -> None:
    """table.md, and a picture of samples for each row whose run is at hand."""
    write_page(folder / "table.md", "Autoencoders whose codes follow a prior", lines(records))
    for record in records:
        run = RunFolder(runs / f"{record['data']}-{record['row']}-{record['seed']}")
        if record["seed"] == 0 and run.last.exists():
            model = load_run(run).model
            samples = model.draw(SHOWN, Stream.SAMPLES, 0)
            grid = figures.grid(samples, model.config.image_shape, columns=10, zoom=1)
            write_image(folder / "samples" / f"{record['data']}-{record['row']}.png", grid)


def lines(records: list[Record]) -> Iterator[str]:
    yield "Written by `experiments.sinkhorn_autoencoder` from the files in `records/`. Means over seeds, with half"
    yield "the width of a 95 % Student interval where there are several. FID, KID, precision, recall and coverage"
    yield "compare 10,000 samples with the test images in the features of a small classifier trained on the same data"
    yield "set: comparable within a table, with no other paper's. Latent MMD: WAE's kernels, unbiased; codes of"
    yield "stochastic encoders are draws from their posteriors. FID favours codes that are shrunk: see `radius.md`."
    yield "The rows debiased by halves were added after the first runs, the others are those of the plan"
    yield "(`plan.md` beside the script). Minutes are wall time on a shared machine, pauses included."
    yield ""
    for data in DATA:
        own = [record for record in records if record["data"] == data]
        paper = ["P19 v1: MMD / RE / FID", "P19 v3: FID"] if data == "mnist" else []
        head = ["method, prior", *(title for _, title, _ in COLUMNS), "minutes", "seeds", *paper]
        yield from [f"## {data}", "", *table(head, rows(own, with_paper=bool(paper))), ""]
    yield from conditions(records)


def rows(records: list[Record], with_paper: bool) -> Iterator[list[str]]:
    for row in ROWS.values():
        own = [record for record in records if record["row"] == row.name]
        yield [row.title, *cells_of(own), *(published(row) if with_paper else [])]
    if records:
        data_scores = [record["metrics"]["scores"]["training_data"] for record in records]
        yield ["*training images and prior draws*", *averages(data_scores), "", "", *([""] * 2 if with_paper else [])]


def cells_of(records: list[Record]) -> list[str]:
    if not records:
        return ["missing"] + [""] * (len(COLUMNS) + 1)
    scores = [record["metrics"]["scores"]["model"] for record in records]
    minutes = statistics.mean(record["metrics"]["seconds"]["training"] for record in records) / 60
    return [*averages(scores), f"{minutes:.1f}", seeds(records)]


def averages(scores: list[dict[str, float]]) -> list[str]:
    """The cells of COLUMNS."""
    return [with_interval([score[key] for score in scores if key in score], digits) for key, _, digits in COLUMNS]


def with_interval(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    mean, half_width = mean_and_interval(values)
    return f"{mean:.{digits}f}" + ("" if half_width is None else f" ± {half_width:.{digits}f}")


def published(row: Row) -> list[str]:
    v1, v3 = row.published.v1, row.published.v3
    shown = " / ".join("–" if value is None else f"{value:g}" for value in v1) if v1 else ""
    return [shown, f"{v3:g}" if v3 is not None else ""]


def conditions(records: list[Record]) -> Iterator[str]:
    epochs = sorted({record["metrics"]["epochs"] for record in records})
    versions = records[0]["metrics"]["versions"]
    hours = sum(record["metrics"]["seconds"]["training"] for record in records) / 3600
    yield f"{len(records)} runs of {' or '.join(map(str, epochs))} epochs, {hours:.1f} hours of training in all on one"
    yield f"thread each of {records[0]['machine']['cpu']}; " + ", ".join(f"{k} {v}" for k, v in versions.items()) + "."
