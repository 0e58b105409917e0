"""A row of figures, or the note that says why there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = dict[str, Any]


def attempted(row: Row, measure: Callable[[], Row], limit: float | None = None) -> Row:
    """The row with what was measured, or with a note of what went wrong.

    ``limit`` is the number of seconds after which ``measure`` raises TimeoutError. An error of a GPU itself leaves
    nothing more to be measured in this process, and ends it.
    """
    try:
        return row | measure()
    except TimeoutError:
        return row | {"note": "not finished in time" if limit is None else f"not finished within {limit:.0f} s"}
    except Exception as error:  # a failure is a result, whatever its type
        if "CUDA error" in str(error):
            raise
        return row | {"note": failure(error)}


def failure(error: Exception) -> str:
    """A note of what went wrong."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
