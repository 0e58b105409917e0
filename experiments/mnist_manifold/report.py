"""The table of the generators of digits, made from the records and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.frame.runs import Record
from experiments.frame.tables import averaged, conditions, load, table, write_page


def write_report(found: list[Record], folder: Path, compared: int) -> None:
    """``compared``: samples in each score."""
    write_page(folder / "table.md", "The square of latents as digits", lines(found, compared))


def lines(found: list[Record], compared: int) -> Iterator[str]:
    first = found[0]
    steps = " or ".join(str(each) for each in sorted({record["steps"] for record in found}))
    yield f"Data: {first['data']}. {steps} steps of Adam, from 10⁻³ along half a cosine to zero, which is few: these"
    yield "pictures are to be compared with each other. Debiased sharp loss, |x−y|² of images in [0, 1]^784."
    yield f"Energy distance (½ MMD² in the kernel −|x−y|, × 1000) and FID (MNIST classifier) of {compared} samples to"
    yield f"{compared} held-out images; training images get {first['energy_of_data_x1000']:.1f} and"
    yield f"{first['fid_of_data']:.2f}. `exact`: converged, implicit derivative."
    yield "Written by `experiments.mnist_manifold`."
    yield f"Times beside other work: {load(found)}."
    yield ""
    head = ["ε", "iterations", "batch", "energy distance", "FID", "steps not converged", "ms a step", "s", "failure"]
    kinds = sorted({kind_of(record) for record in found})
    yield from table(head, (cells([record for record in found if kind_of(record) == kind]) for kind in kinds))
    yield from conditions(found)


def cells(own: list[Record]) -> list[str]:
    eps, iterations, batch = kind_of(own[0])
    keys = (
        ("energy_x1000", 1), ("fid", 1), ("not_converged", 0), ("milliseconds_a_step", 0), ("training_seconds", 0)
    )  # fmt: skip
    figures = [averaged([record[key] for record in own], digits) for key, digits in keys]
    failures = "; ".join(record["failure"] for record in own if record["failure"]) or "none"
    return [f"{eps:g}", str(iterations) if iterations else "exact", str(batch), *figures, failures]


def kind_of(record: Record) -> tuple[float, int, int]:
    return record["eps"], record["iterations"] or 0, record["batch_size"]
