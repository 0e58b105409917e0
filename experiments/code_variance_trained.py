"""The variance of codes that autoencoders end with under N(0, I_64), and what it does to samples (P19 v3, CelebA).

    python experiments/code_variance_trained.py --runs runs/variance --out experiments/results/code_variance

trains an autoencoder on MNIST for each loss that `code_variance.py` looked at without one, and writes one record a run
to trained/, then trained.md and trained.png. Finished runs are skipped, interrupted ones go on.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from resumable import machine, say, until_interrupted
from training_runs import trained

from sinkdiv.generative import figures
from sinkdiv.generative.autoencoder import Autoencoder
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.files import write_image, write_text
from sinkdiv.generative.opening import load_run_images
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.seeds import Stream

DIMENSION = 64
SHARED = {
    "data": "mnist", "binarize": True, "prior": "normal", "latent_dim": DIMENSION, "hidden": (256, 256),
    "method": "sae", "beta": 10.0,
}  # fmt: skip
# ε = 32 is the library's default, a quarter of E|z−z'|² = 128; biased losses collapse there, so they get a small one.
ROWS: dict[str, dict[str, Any]] = {
    "sharp, biased, ε = 1.28": {"value": "sharp", "debias": "none", "eps": 1.28},
    "sharp, biased, ε = 32": {"value": "sharp", "debias": "none", "eps": 32.0},
    "sharp, debiased, ε = 32": {"value": "sharp", "debias": "self", "eps": 32.0},
    "entropic, debiased, ε = 32": {"value": "entropic", "debias": "self", "eps": 32.0},
    "entropic, debiased by other halves, ε = 32": {"value": "entropic", "debias": "independent", "eps": 32.0},
    "entropic, debiased, β = 100, ε = 32": {"debias": "self", "beta": 100.0, "eps": 32.0},
    "entropic, debiased by other halves, β = 100, ε = 32": {"debias": "independent", "beta": 100.0, "eps": 32.0},
}
SHOWN = 10
# A principal direction of less variance carries next to nothing of a code.
USED = 0.1


def file_name(row: str) -> str:
    return row.replace(", ε = ", "-eps-").replace(", β = ", "-beta-").replace(", ", "-").replace(" ", "-")


def measure(run: RunFolder) -> dict[str, Any]:
    """The scale and the principal variances of codes of held-out images, 1 under the prior, and the run's scores."""
    saved = load_run(run)
    assert isinstance(saved.model, Autoencoder)
    codes = saved.model.encode(load_run_images(saved.config).held_out)
    variances = torch.linalg.eigvalsh(torch.cov(codes.T)).flip(0)
    return {
        "code_scale": float(codes.square().mean().sqrt()),
        "principal_variances": variances.tolist(),
        "metrics": run.load_metrics() or {},
        "machine": machine(),
    }


def table(records: dict[str, Any]) -> Iterator[str]:
    yield f"# Autoencoders with N(0, I) in {DIMENSION} dimensions"
    yield ""
    yield "Scale: root mean square of the code coordinates of test images, 1 under the prior. Directions: principal"
    yield f"directions of the codes with a variance above {USED:g}, and the median of their variances; under the prior"
    yield f"there are {DIMENSION}, of variance 1. Latent MMD × 1000 (WAE's"
    yield "kernels, unbiased), reconstruction of test images in nats, FID of 10,000 samples in the MNIST classifier's"
    yield "features. β = 10 where nothing is said. One seed. Written by `experiments/code_variance_trained.py` from the"
    yield "files in `trained/`."
    yield ""
    yield "| loss | scale | directions | their variance | latent MMD | reconstruction | FID | recall | epochs |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in ROWS:
        if (record := records.get(row)) is None:
            yield f"| {row} | missing | | | | | | | |"
            continue
        scores = record["metrics"]["scores"]["model"]
        keys = (("latent_mmd_imq_x1000", 1), ("reconstruction_nats_per_image", 1), ("fid", 2), ("recall", 2))
        used = [variance for variance in record["principal_variances"] if variance > USED]
        typical = f"{statistics.median(used):.2f}" if used else "–"
        cells = [
            f"{record['code_scale']:.2f}",
            str(len(used)),
            typical,
            *(f"{scores[key]:.{digits}f}" for key, digits in keys),
        ]
        yield f"| {row} | " + " | ".join([*cells, str(record["metrics"]["epochs"])]) + " |"
    seconds = sum(record["metrics"]["seconds"]["training"] for record in records.values())
    versions = ", ".join(f"{k} {v}" for k, v in next(iter(records.values()))["metrics"]["versions"].items())
    yield ""
    yield f"{len(records)} runs, {seconds / 60:.0f} minutes of training on one thread of a shared machine; {versions}."


def write_report(records: dict[str, Any], folder: Path, runs: Path) -> None:
    write_text(folder / "trained.md", "\n".join(table(records)) + "\n")
    at_hand = [runs / file_name(row) for row in ROWS if row in records and (runs / file_name(row)).exists()]
    if at_hand:
        models = [load_run(RunFolder(root)).model for root in at_hand]
        samples = torch.cat([model.draw(SHOWN, Stream.SAMPLES, 0) for model in models])
        write_image(folder / "trained.png", figures.grid(samples, models[0].config.image_shape, SHOWN, zoom=1))


def work(options: argparse.Namespace) -> None:
    for row, settings in ROWS.items():
        say(row)
        given = SHARED | settings | {"max_epochs": options.max_epochs}
        run = trained(options.runs / file_name(row), AutoencoderConfig, given)
        text = json.dumps({"row": row} | measure(run), indent=1) + "\n"
        write_text(options.out / "trained" / f"{file_name(row)}.json", text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--max-epochs", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    status = until_interrupted(functools.partial(work, options))
    found = [json.loads(file.read_text()) for file in sorted((options.out / "trained").glob("*.json"))]
    if found:
        write_report({record["row"]: record for record in found}, options.out, options.runs)
    sys.exit(status)


if __name__ == "__main__":
    main()
