"""What a report shows of a model: samples, reconstructions, curves, its latent space."""

from typing import Any

import torch
from torch import Tensor

from sinkdiv.generative.data import Images
from sinkdiv.generative.files import png_bytes
from sinkdiv.generative.models.autoencoder import Autoencoder
from sinkdiv.generative.models.base import Model
from sinkdiv.generative.models.generator import SinkhornGenerator
from sinkdiv.generative.report import figures
from sinkdiv.generative.report.page import Section, png, svg
from sinkdiv.generative.runs import RunFolder, Trained
from sinkdiv.generative.seeds import Stream

SAMPLES_SHOWN = 64
GRID_COLUMNS = 8
CODES_SHOWN = 1000
INTERPOLATIONS = 8
STEPS = 12
LANDMARKS_SHOWN = 36
SQUARE_SIDE = 20


def sample_grid(model: Model, count: int, seed: int) -> Any:
    """`count` new images as one (H, W, 3) uint8 picture, a pure function of the model and `seed`."""
    columns = min(GRID_COLUMNS, count) if count <= SAMPLES_SHOWN else round(count**0.5)
    return figures.grid(model.draw(count, Stream.SAMPLES, seed), model.config.image_shape, columns)


def reconstruction_grid(model: Model, images: Images) -> Any:
    """Held-out images, each row above its reconstruction, as one picture; None for a model without an encoder."""
    if not isinstance(model, Autoencoder):
        return None
    shown = images.held_out[: SAMPLES_SHOWN // 2]
    columns = min(GRID_COLUMNS, len(shown))
    alternating = figures.pairs(shown, model.decode(model.encode(shown)), columns)
    return figures.grid(alternating, model.config.image_shape, columns)


def sections(run: RunFolder, trained: Trained, images: Images) -> list[Section]:
    """The report's pictures in their order; `run` holds those that are files of their own."""
    model = trained.model
    found = [Section("Samples", "Decoded draws from the prior.", png(run.samples.read_bytes()), half=True)]
    if run.reconstructions.exists():
        caption = "Held-out images, each row above its reconstruction."
        found.append(Section("Reconstructions", caption, png(run.reconstructions.read_bytes()), half=True))
    found.append(Section("Training", "", svg(figures.curves(trained.history.rows))))
    if isinstance(model, Autoencoder):
        found += _latent_sections(model, images)
    if isinstance(model, SinkhornGenerator) and (model.config.prior, model.config.latent_dim) == ("uniform", 2):
        caption = "Images of an even grid over the latents' square [0, 1]²."
        found.append(Section("The square of latents", caption, _picture(model, square(model), SQUARE_SIDE)))
    return found


def square(model: SinkhornGenerator) -> Tensor:
    """Images (400, pixels) of the midpoints of a 20 × 20 grid over the unit square, for latents in two dimensions."""
    ticks = (torch.arange(SQUARE_SIDE) + 0.5) / SQUARE_SIDE
    return model.decode(torch.cartesian_prod(ticks, ticks))


def _latent_sections(model: Autoencoder, images: Images) -> list[Section]:
    codes = model.encode(images.held_out[:CODES_SHOWN])
    labels = None if images.held_out_labels is None else images.held_out_labels[:CODES_SHOWN]
    draws = model.draw_codes(len(codes), Stream.EVALUATION, 3)
    found = [
        Section(
            "Latent space",
            "Held-out codes beside the prior, on the same principal plane. Where the two clouds differ, samples are "
            "drawn from codes the decoder has not seen.",
            svg(figures.latent_map(codes, labels, draws)),
        )
    ]
    if labels is not None:
        caption = "The same codes, a panel a class."
        found.append(Section("Classes in the latent space", caption, svg(figures.class_maps(codes, labels, draws))))
    caption = "Between pairs of held-out images, at even steps along the geodesics of the latent space."
    found.append(Section("Interpolations", caption, _picture(model, _interpolations(model, codes), STEPS)))
    landmarks = model.prior.landmarks(model.config.latent_dim)
    if len(landmarks):
        caption = "Decoded vertices of the simplex, or means of the prior's modes."
        pictures = model.decode(landmarks[:LANDMARKS_SHOWN])
        found.append(Section("Landmarks of the prior", caption, _picture(model, pictures, STEPS)))
    return found


def _interpolations(model: Autoencoder, codes: Tensor) -> Tensor:
    """Decoded points (rows·steps, pixels) between consecutive pairs of codes (n, d), a pair a row."""
    pairs = min(INTERPOLATIONS, len(codes) // 2)
    start, end = codes[0 : 2 * pairs : 2], codes[1 : 2 * pairs : 2]
    path = model.prior.geodesic(start, end, torch.linspace(0, 1, STEPS))
    return model.decode(path.transpose(0, 1).reshape(pairs * STEPS, -1))


def _picture(model: Model, images: Tensor, columns: int) -> str:
    return png(png_bytes(figures.grid(images, model.config.image_shape, columns, zoom=1)))
