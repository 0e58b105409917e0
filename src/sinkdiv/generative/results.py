"""What a run leaves: samples, reconstructions, scores, a report."""

import platform
import time
from typing import Any

import lightning
import torch

import sinkdiv
from sinkdiv.generative.data import Images
from sinkdiv.generative.files import write_image, write_json, write_text
from sinkdiv.generative.models import Model, make_model
from sinkdiv.generative.report import page
from sinkdiv.generative.report.sections import SAMPLES_SHOWN, reconstruction_grid, sample_grid, sections
from sinkdiv.generative.runs import RunFolder, Trained, load_run_images, restore
from sinkdiv.generative.scores.evaluation import score


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
    """Score a run again and rewrite what it left, keeping what only training knew.

    Raises:
        InputError: when the folder holds no run, or its images have changed.
    """
    config = run.load_config()
    model = make_model(config)
    untrained = model.frozen_copy()
    trained = restore(run, config, model)
    before = run.load_metrics()
    images = load_run_images(config)
    return write_results(run, trained, untrained, images, before or describe(trained, images))


def write_results(
    run: RunFolder, trained: Trained, untrained: Model, images: Images, about: dict[str, Any]
) -> dict[str, Any]:
    """Write samples, reconstructions, report and, last because it marks the run as complete, metrics.

    Args:
        run: where to.
        trained: the model and its training.
        untrained: the same model before it.
        images: what it was trained on.
        about: what the run was, from `describe`, or from metrics that were written before.

    Returns:
        What was written to `metrics.json`.
    """
    started = time.perf_counter()
    metrics = about | score(trained.model, untrained, images)
    metrics["seconds"] = metrics["seconds"] | {"evaluation": time.perf_counter() - started}
    write_image(run.samples, sample_grid(trained.model, SAMPLES_SHOWN, trained.config.seed))
    if (rebuilt := reconstruction_grid(trained.model, images)) is not None:
        write_image(run.reconstructions, rebuilt)
    write_text(run.report, page.render(trained.config, metrics, sections(run, trained, images)))
    write_json(run.metrics, metrics)
    return metrics
