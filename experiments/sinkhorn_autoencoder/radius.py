"""Do shrunken codes make better samples? FID of decoded draws s·z of N(0, I), against s, for runs of the P19 table.

    python -m experiments.sinkhorn_autoencoder.radius

reads the runs of `experiments.sinkhorn_autoencoder` with a normal prior and writes radius.md. Where codes are shrunk,
draws of the prior lie outside of them, as draws with s > 1 do where codes have the prior's variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.frame import command
from experiments.frame.tables import table, write_page
from sinkdiv.generative.data import Images
from sinkdiv.generative.features import Extractor, features_for
from sinkdiv.generative.models import Autoencoder
from sinkdiv.generative.runs import RunFolder, load_run, load_run_images
from sinkdiv.generative.scores.frechet import frechet_distance
from sinkdiv.generative.seeds import Stream

ROWS = ("hae-normal", "sae-normal", "sae-normal-halves", "wae-normal", "vae")
SCALES = (0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.75)
IMAGES = 10_000


def distances(model: Autoencoder, extractor: Extractor, reference: torch.Tensor) -> list[float]:
    draws = model.draw_codes(IMAGES, Stream.EVALUATION, 0)
    found = []
    for scale in SCALES:
        samples = torch.cat([model.decode(scale * part) for part in draws.split(1000)])
        found.append(frechet_distance(extractor(samples).features, reference))
    return found


def lines(runs: Path, data: str, seed: int) -> Iterator[str]:
    yield f"z from N(0, I), {IMAGES} samples, the classifier's features. Scale of codes: root mean square of the code"
    yield "coordinates of test images, 1 under the prior. Written by `experiments.sinkhorn_autoencoder.radius`."
    yield ""
    yield from table(["row", "scale of codes", *(f"s = {scale:g}" for scale in SCALES)], rows(runs, data, seed))


def rows(runs: Path, data: str, seed: int) -> Iterator[list[str]]:
    images: Images | None = None
    for row in ROWS:
        run = RunFolder(runs / f"{data}-{row}-{seed}")
        if not run.last.exists():
            yield [row, "missing", *([""] * len(SCALES))]
            continue
        saved = load_run(run)
        assert isinstance(saved.model, Autoencoder)
        images = images or load_run_images(saved.config)
        extractor = features_for(data, images.shape)
        assert extractor is not None
        reference = extractor(images.held_out).features
        scale = float(saved.model.encode(images.held_out).square().mean().sqrt())
        yield [row, f"{scale:.2f}", *(f"{value:.2f}" for value in distances(saved.model, extractor, reference))]


def main(arguments: list[str] | None = None) -> None:
    parser = command.parser(__doc__, "sinkhorn_autoencoder")
    parser.add_argument("--runs", type=Path, default=Path("runs/sae"), help="folder of the table's runs (runs/sae)")
    parser.add_argument("--data", default="mnist", choices=("mnist", "fashion-mnist"))
    parser.add_argument("--seed", type=int, default=0)
    command.add_threads(parser)
    options = command.parsed(parser, arguments)
    title = f"FID of decoded draws s·z, {options.data}, seed {options.seed}"
    write_page(options.out / "radius.md", title, lines(options.runs, options.data, options.seed))


if __name__ == "__main__":
    main()
