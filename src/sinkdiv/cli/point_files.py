"""Point sets in files, and the divergence between two of them as plain numbers."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sinkdiv
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.files import replacing
from sinkdiv.solvers.choice import SOLVERS

LARGEST_PLAN = 10**8

Pair = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def read_pair(first: Path, second: Path, weights_a: Path | None, weights_b: Path | None) -> Pair:
    """Points (n, d) and (m, d) with their optional weights (n,) and (m,), in one floating type.

    Raises:
        InputError: when a file is missing or holds something else, with a line that names it.
    """
    arrays = [_points(first), _points(second)]
    weights = [None if path is None else _read(path).squeeze() for path in (weights_a, weights_b)]
    single = all(array.dtype == np.float32 for array in arrays)
    dtype = torch.float32 if single else torch.float64
    x, y = (torch.from_numpy(np.ascontiguousarray(array)).to(dtype) for array in arrays)
    a, b = (None if array is None else torch.from_numpy(np.ascontiguousarray(array)).to(dtype) for array in weights)
    return x, y, a, b


def measure_distance(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    what: Mapping[str, Any],
    value: str,
    solver: str,
    how: Mapping[str, Any],
) -> tuple[sinkdiv.Divergence, dict[str, Any]]:
    """The solved divergence, and its value, interval and statuses as plain numbers and sentences.

    Args:
        x, y, a, b: as `read_pair` returns them.
        what: options of `sinkdiv.solve_divergence`.
        value: "entropic" or "sharp"; the interval belongs to the entropic one.
        solver: the name of one of `sinkdiv.solvers.choice.SOLVERS`.
        how: options of that solver.

    Raises:
        InputError: when an option or the points are wrong, with a line that names what.
    """
    if value not in ("entropic", "sharp"):
        raise InputError(f"--value {value}: expected entropic or sharp")
    if solver not in SOLVERS:
        raise InputError(f"--solver {solver}: expected one of {', '.join(SOLVERS)}")
    try:
        divergence = sinkdiv.solve_divergence(x, y, a, b, **what, solver=SOLVERS[solver](**how))
    except ValueError as error:
        raise InputError(str(error)) from error
    lower, upper = map(float, divergence.bounds) if value == "entropic" else (None, None)
    transports = {"first_to_second": divergence.ab, "first_to_itself": divergence.aa, "second_to_itself": divergence.bb}
    return divergence, {
        "value": float(divergence.value if value == "entropic" else divergence.sharp),
        "lower": lower,
        "upper": upper,
        "converged": bool(divergence.converged),
        "transports": {
            name: {
                "value": float(transport.value),
                "sharp": float(transport.sharp),
                "marginal_error": float(transport.marginal_error),
                "passes": int(transport.passes),
                "status": str(transport.status),
            }
            for name, transport in transports.items()
        },
    }


def write_plan(path: Path, divergence: sinkdiv.Divergence) -> None:
    """The plan (n, m) from the first points to the second, as the array `plan` of a compressed `.npz`, atomically."""
    n, m = len(divergence.ab.f), len(divergence.ab.g)
    if n * m > LARGEST_PLAN:
        raise InputError(f"--plan {path}: a plan of {n} × {m} is too large to write")
    if path.suffix != ".npz":
        raise InputError(f"--plan {path}: expected a name that ends in .npz")
    try:
        with replacing(path) as temporary:
            np.savez_compressed(temporary, plan=divergence.ab.plan().numpy())
    except OSError as error:
        raise InputError(f"--plan {path}: cannot be written ({error.strerror})") from error


def _points(path: Path) -> np.ndarray:
    array = _read(path)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise InputError(f"{path}: shape {array.shape}; expected points (n, d)")
    return array


def _read(path: Path) -> np.ndarray:
    """The numbers in a file; `allow_pickle` stays off, so that reading executes nothing."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".csv":
            array = np.loadtxt(path, delimiter=",", ndmin=2)
        else:
            content = np.load(path, allow_pickle=False)
            array = content if isinstance(content, np.ndarray) else _only(path, content)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable .npy, .npz or .csv of numbers") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: values of type {array.dtype}; expected numbers")
    return array


def _only(path: Path, archive: Any) -> np.ndarray:
    if len(archive.files) != 1:
        raise InputError(f"{path}: holds {len(archive.files)} arrays ({', '.join(archive.files)}); expected one")
    array: np.ndarray = archive[archive.files[0]]
    return array
