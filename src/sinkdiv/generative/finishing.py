"""What a finished run leaves: samples, reconstructions, scores, a report."""

import platform
import time
from typing import Any

import lightning
import torch

import sinkdiv
from sinkdiv.generative import report, showing
from sinkdiv.generative.data import Images
from sinkdiv.generative.files import write_image, write_json, write_text
from sinkdiv.generative.metrics import score
from sinkdiv.generative.opening import load_run_images
from sinkdiv.generative.runs import RunFolder, Trained, load_run


def finish(run: RunFolder, trained: Trained, images: Images, failure: str | None = None) -> dict[str, Any]:
    """Write samples, reconstructions, report and, last because it marks the run as complete, metrics.

    Args:
        failure: why training failed after the state of `trained`, if it did.

    Returns:
        What was written to `metrics.json`.
    """
    return _leave(run, trained, images, describe(trained, images, failure))


def describe(trained: Trained, images: Images, failure: str | None = None) -> dict[str, Any]:
    """What a run was, as the head of its `metrics.json`."""
    config = trained.config
    return {
        "interrupted": failure is None and trained.epochs < config.max_epochs,
        "failed": failure,
        "epochs": trained.epochs,
        "steps": trained.steps,
        "seconds": {"training": trained.history.seconds},
        "seed": config.seed,
        "data": {
            "name": config.data,
            "training_images": len(images.train),
            "held_out_images": len(images.held_out),
            "image_shape": list(config.image_shape),
        },
        "versions": {
            "python": platform.python_version(),
            "sinkdiv": sinkdiv.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }


def evaluate(run: RunFolder) -> dict[str, Any]:
    """Score a run again and rewrite what `finish` wrote, keeping what only training knew.

    Raises:
        InputError: when the folder holds no run, or its images have changed.
    """
    trained = load_run(run)
    before = run.load_metrics()
    images = load_run_images(trained.config)
    return _leave(run, trained, images, before or describe(trained, images))


def _leave(run: RunFolder, trained: Trained, images: Images, head: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    metrics = head | score(trained.model, images)
    metrics["seconds"] = metrics["seconds"] | {"evaluation": time.perf_counter() - started}
    write_image(run.samples, showing.sample_grid(trained.model, showing.SAMPLES_SHOWN, trained.config.seed))
    if (rebuilt := showing.reconstruction_grid(trained.model, images)) is not None:
        write_image(run.reconstructions, rebuilt)
    write_text(run.report, report.render(trained.config, metrics, showing.sections(run, trained, images)))
    write_json(run.metrics, metrics)
    return metrics
