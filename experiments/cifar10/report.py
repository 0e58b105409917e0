"""The table and the picture of the generators of colour images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.frame.runs import Record
from experiments.frame.tables import conditions, load, table, write_page
from sinkdiv.generative.files import write_image
from sinkdiv.generative.report import figures
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.seeds import Stream

#: Inception scores of G18, of 20,000 samples.
PUBLISHED = {10.0: "3.11 ± .03", 100.0: "3.09 ± .04", 1000.0: "4.14 ± .06", math.inf: "4.04 ± .07"}
SHOWN = 16
SCORES = (("sample_mmd_energy_x1000", 0), ("fid", 2), ("kid_x1000", 1), ("classifier_score", 2))
HEAD = ["ε", "cost", "energy ×1000", "FID", "KID ×1000", "ImageNet score", "s", "failure", "inception score in G18"]


def write_report(found: list[Record], runs: Sequence[Path], folder: Path, full: bool) -> None:
    """``runs``: the folders of the runs, for the picture."""
    samples = [
        load_run(run).model.draw(SHOWN, Stream.SAMPLES, 0) for run in map(RunFolder, runs) if run.metrics.exists()
    ]
    if samples:
        write_image(folder / "samples.png", figures.grid(torch.cat(samples), (3, 32, 32), SHOWN, zoom=1))
    write_page(folder / "table.md", "CIFAR-10 under a learned cost", lines(found, full))


def lines(found: list[Record], full: bool) -> Iterator[str]:
    first = next((record for record in found if "scores" in record), None)
    if first is None:
        yield "No run has come to its first epoch's end."
        return
    moves = first["steps"] // (1 + first["critic_steps"])
    data, compared = first["scores"]["training_data"], (first["features"] or {}).get("images", 0)
    yield f"{first['training_images']} training images of CIFAR-10, DCGAN networks of width {first['width']}, batches"
    yield f"of {first['batch_size']}, {first['epochs']} epochs: {moves} steps of the generator and"
    yield f"{first['critic_steps']} times as many of the critic. RMSprop from 5·10⁻⁵ along half a cosine to zero, the"
    yield "critic clipped to ±0.01, the sharp debiased loss, the cost |f(x)−f(y)|. The numbers of critic steps and of"
    yield "features (16), the batch and the latents, 100 normal ones, are ours."
    if not full:
        yield ""
        yield "**A reduced run.** It shows that training works from end to end under every ε and how large ε is beside"
        yield "the learned cost. It cannot show which ε is best: after so few steps at this step size none of the"
        yield "generators makes objects, and the scores below must not be compared with the paper's, which are of other"
        yield "networks, other features and of trainings to their end."
    yield ""
    yield "FID and KID compare EfficientNet-Lite0's features of samples with those of held-out images; the ImageNet"
    yield "score is exp E KL(p(class|x) ‖ p(class)) of its 1,000 classes, *not* the inception score;"
    yield f"{compared} images each, and FID is only sound with more images than its 1,280 features."
    yield "`cost` is the mean learned cost between a sample and an image at the end: where ε is far above it the plan"
    yield "is nearly the product of the marginals, and the loss nearly the MMD."
    yield f"Times beside other work: {load(found)}."
    yield ""
    ordered = sorted(found, key=lambda record: record["eps"])
    of_data = ([name, "–", *shown(scores), "–", "–", "–"]
               for name, scores in (("untrained", first["scores"]["untrained"]), ("real images", data)))  # fmt: skip
    yield from table(HEAD, [*map(cells, ordered), *of_data])
    yield ""
    yield "![Samples](samples.png)"
    yield ""
    yield f"*{SHOWN} samples a row; ε from above as in the table.*"
    yield from conditions(found)


def cells(record: Record) -> list[str]:
    eps, scores = record["eps"], record.get("scores", {}).get("model")
    cost, seconds = (f"{record['mean_cost']:.3g}", f"{record['seconds']:.0f}") if scores else ("–", "–")
    figures = shown(scores) if scores else ["–"] * len(SCORES)
    return [f"{eps:g}", cost, *figures, seconds, record["failed"] or "none", PUBLISHED.get(eps, "–")]


def shown(scores: dict[str, Any]) -> list[str]:
    return [f"{scores[name]:.{digits}f}" if name in scores else "–" for name, digits in SCORES]
