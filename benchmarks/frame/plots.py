"""How plots of times and errors look, and how they are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.frame.tables import OURS

COLOURS = {OURS: "black", "GeomLoss": "C0", "POT": "C1", "OTT-JAX": "C2", "KeOps": "C3"}
MARKERS = {"online": "s", "multiscale": "^", "tensorized": "v"}


def drawn(file: Path, draw: Callable[[Any], None], **figure: Any) -> str | None:
    """Write what ``draw`` makes of an empty figure; the name of the file, or None without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    made = Figure(**figure)
    bounds = None if "layout" in figure else "tight"
    draw(made)
    with matplotlib.rc_context({"svg.hashsalt": OURS}):
        made.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, bbox_inches=bounds)
    return file.name


def style(name: str) -> dict[str, Any]:
    """Of a method's line."""
    colour = next((colour for library, colour in COLOURS.items() if name.startswith(library)), "grey")
    marker = next((marker for word, marker in MARKERS.items() if word in name), "o")
    width = 2.2 if name.startswith(OURS) else 1.2
    return {"color": colour, "marker": marker, "linewidth": width, "markersize": 5}


def finish(axes: Any) -> None:
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
