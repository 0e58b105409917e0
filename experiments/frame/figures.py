"""Figures of matplotlib, written in one step and the same from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from sinkdiv.generative.files import replacing
from sinkdiv.generative.report.figures import grid


def empty(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, dpi: int = 80) -> None:
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "sinkdiv"}), replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata=metadata)


@torch.no_grad()
def show_images(axes: Any, title: str, images: Tensor, shape: tuple[int, ...], columns: int) -> None:
    """A grid of images (n, pixels) under a title."""
    axes.imshow(grid(images, shape, columns))
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_axis_off()
