"""Pictures of a run: grids of images, curves, a map of the latent space."""

import io

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

GRID_PIXELS = 640
MARGIN = 2
MOST_CLASSES_NAMED = 10
CLASSES_IN_A_ROW = 5
INK, ACCENT, QUIET = "#1f2937", "#c2410c", "#64748b"


def grid(images: Tensor, shape: tuple[int, ...], columns: int, zoom: int | None = None) -> np.ndarray:
    """Flat images (n, c·h·w) in [0, 1], row by row, as one (H, W, 3) uint8 picture.

    Each pixel becomes `zoom` × `zoom`; without a number, as many as make the picture about `GRID_PIXELS` wide.
    """
    channels, height, width = shape
    zoom = zoom or max(1, round(GRID_PIXELS / (columns * (width + MARGIN))))
    rows = -(-len(images) // columns)
    pixels = (images.reshape(-1, channels, height, width).clamp(0, 1) * 255).round().byte().numpy()
    cell_height, cell_width = height * zoom + MARGIN, width * zoom + MARGIN
    canvas = np.full((rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3), 255, np.uint8)
    for index, image in enumerate(pixels):
        top = MARGIN + index // columns * cell_height
        left = MARGIN + index % columns * cell_width
        enlarged = image.transpose(1, 2, 0).repeat(zoom, axis=0).repeat(zoom, axis=1)
        canvas[top : top + height * zoom, left : left + width * zoom] = enlarged
    return canvas


def pairs(originals: Tensor, rebuilt: Tensor, columns: int) -> Tensor:
    """Images (n, p) and their reconstructions as rows that alternate: a row of originals, then the row rebuilt."""
    n = len(originals) // columns * columns
    blocks = torch.stack(
        [originals[:n].reshape(-1, columns, originals.shape[1]), rebuilt[:n].reshape(-1, columns, originals.shape[1])],
        dim=1,
    )
    return blocks.reshape(-1, originals.shape[1])


def curves(rows: list[dict[str, float]]) -> bytes:
    """The losses of every epoch as an SVG, one panel a loss, of training, of held-out images or of both.

    An epoch may lack a loss, and is then left out of its curve.
    """
    keys = [key for row in rows for key in row if "/" in key]
    names = list(dict.fromkeys(key.partition("/")[2] for key in keys))
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, max(1, len(names)), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=False):
        drawn = [(f"train/{name}", "training", INK), (f"held_out/{name}", "held out", ACCENT)]
        drawn = [curve for curve in drawn if curve[0] in keys]
        for key, label, color in drawn:
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.6)
        _dress(axes, name)
        axes.set_xlabel("epoch", fontsize=8, color=QUIET)
        if len(rows) > 20:
            # The first epochs are so much worse that they would flatten everything after them.
            settled = [row[key] for row in rows[5:] for key, _, _ in drawn if key in row] or [0.0]
            extent = (max(settled) - min(settled)) or 1.0
            axes.set_ylim(min(settled) - 0.05 * extent, max(settled) + 0.05 * extent)
        if len(drawn) > 1:
            axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure)


def latent_map(codes: Tensor, labels: Tensor | None, draws: Tensor) -> bytes:
    """Codes (n, d), coloured by label, beside prior draws (m, d), both on the codes' and draws' principal plane."""
    code_points, draw_points = _on_plane(codes, draws)
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    colors = QUIET if labels is None else labels.numpy()
    points = left.scatter(*code_points.T, c=colors, cmap="tab10", s=9, linewidths=0)
    right.scatter(*draw_points.T, c=QUIET, s=9, linewidths=0)
    _dress(left, "codes of held-out images")
    _dress(right, "draws from the prior")
    for axes in (left, right):
        axes.set_aspect("equal", adjustable="box")
    if labels is not None and len(labels.unique()) <= MOST_CLASSES_NAMED:
        handles, names = points.legend_elements(num=None)
        figure.legend(handles, names, frameon=False, loc="outside lower left", ncols=len(names), fontsize=8)
    return _svg(figure)


def class_maps(codes: Tensor, labels: Tensor, draws: Tensor) -> bytes:
    """A panel a class: its codes among all others, on the principal plane of codes (n, d) and prior draws (m, d)."""
    points, _ = _on_plane(codes, draws)
    classes = labels.unique().tolist()[:MOST_CLASSES_NAMED]
    rows = -(-len(classes) // CLASSES_IN_A_ROW)
    figure = Figure(figsize=(9.6, 2.0 * rows), layout="constrained")
    panels = list(figure.subplots(rows, CLASSES_IN_A_ROW, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, name in zip(panels, classes, strict=False):
        own = (labels == name).numpy()
        axes.scatter(*points[~own].T, c="#e5e7eb", s=3, linewidths=0)
        axes.scatter(*points[own].T, c=ACCENT, s=4, linewidths=0)
        axes.set_title(str(name), fontsize=9, color=INK, loc="left")
        axes.set_aspect("equal", adjustable="box")
    return _svg(figure)


def _on_plane(codes: Tensor, draws: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, d) and draws (m, d) as (n, 2) and (m, 2), projected on the plane in which both together vary most."""
    # A second coordinate of zeros, for codes that have only one.
    both = functional.pad(torch.cat([codes, draws]).double(), (0, max(0, 2 - codes.shape[1])))
    centre = both.mean(0)
    _, _, directions = torch.linalg.svd(both - centre, full_matrices=False)
    points = ((both - centre) @ directions[:2].T).numpy()
    return points[: len(codes)], points[len(codes) :]


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8, colors=QUIET, length=0)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _svg(figure: Figure) -> bytes:
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    # "tight", because axes of equal aspect leave their titles outside the box that the layout reserved.
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.05)
    return buffer.getvalue()
