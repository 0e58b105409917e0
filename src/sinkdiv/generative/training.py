"""A run from its settings to its report, and the way back into one that was stopped."""

import contextlib
import logging
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

import sinkdiv
from sinkdiv.generative import figures, report
from sinkdiv.generative.autoencoder import SinkhornAutoencoder
from sinkdiv.generative.callbacks import (
    EpochCheckpoint,
    History,
    StopOnSignal,
    StoppedError,
    TrainingBar,
    WholeCheckpoints,
)
from sinkdiv.generative.config import TrainingConfig
from sinkdiv.generative.data import Images, defaults_for, held_out_loader, load_images, training_loader
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.files import write_image, write_json, write_text
from sinkdiv.generative.metrics import score
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.runs import RunFolder, Trained, load_checkpoint, load_run
from sinkdiv.generative.seeds import Stream

SAMPLES_SHOWN = 64
GRID_COLUMNS = 8
CODES_SHOWN = 1000
# What may change when a run is continued; everything else decides what the run is.
CHANGEABLE = {"max_epochs", "accelerator"}

_NOISE = (
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*The number of training batches .* is smaller than the logging interval.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*LeafSpec.*is deprecated.*",
    ".*GPU available but not used.*",
    ".*The dirpath has changed from.*",
)


def new_run(run: RunFolder, given: Mapping[str, Any]) -> tuple[TrainingConfig, Images]:
    """Settle the settings of a new run and write them to its folder, before any work.

    Args:
        run: where it will live.
        given: fields of `TrainingConfig` the user chose; the data's and the prior's defaults fill the others.

    Raises:
        InputError: when a setting is wrong, the data cannot be read, or the folder holds a run already.
    """
    if run.exists():
        raise InputError(f"--out {run.root}: holds a run already; continue it with --resume or choose another folder")
    if run.root.exists() and not run.root.is_dir():
        raise InputError(f"--out {run.root}: not a folder")
    defaults = defaults_for(given["data"])
    prior, dim = make_prior(given["prior"]), given.get("latent_dim", defaults.latent_dim)
    prior.check(dim)
    spread = prior.spread(dim)
    settings: dict[str, Any] = {
        "latent_dim": defaults.latent_dim,
        "hidden": defaults.hidden,
        "max_epochs": defaults.max_epochs,
        "beta": 200 / spread,
        "eps": spread / 4,
        "batch_size": 128,
        "lr": 1e-3,
        "seed": 0,
        "accelerator": "auto",
    } | dict(given)
    # Checked before the images are read, so that a wrong option does not wait for a download.
    TrainingConfig(**settings, data_fingerprint="", image_shape=(1, 1, 1))
    images = load_images(given["data"])
    config = TrainingConfig(
        **settings | {"data": images.name}, data_fingerprint=images.fingerprint, image_shape=images.shape
    )
    if config.batch_size > len(images.train):
        raise InputError(f"--batch-size {config.batch_size}: there are {len(images.train)} training images")
    try:
        config.save(run.config)
    except OSError as error:
        raise InputError(f"--out {run.root}: cannot be written ({error.strerror})") from error
    return config, images


def continued_config(run: RunFolder, given: Mapping[str, Any]) -> TrainingConfig:
    """The settings of a run that was started before, with the `given` changes; nothing is written.

    Raises:
        InputError: when there is no run, or a given setting contradicts it.
    """
    config = run.load_config()
    for name, value in given.items():
        recorded = getattr(config, name)
        if name == "data" and Path(value).exists():
            value = str(Path(value).resolve())
        if name not in CHANGEABLE and value != recorded:
            option = "--" + name.replace("_", "-")
            raise InputError(
                f"{option} {value}: the run in {run.root} has {recorded}; leave it out, or start a new run"
            )
    return replace(config, **{name: value for name, value in given.items() if name in CHANGEABLE})


def reopen(run: RunFolder, config: TrainingConfig) -> Images:
    """Write the settings a run continues with to its folder, and read its images.

    Raises:
        InputError: when the run is past `config.max_epochs`, or its images are not what they were.
    """
    if run.last.exists() and (epochs := load_run(run).epochs) > config.max_epochs:
        raise InputError(f"--max-epochs {config.max_epochs}: the run in {run.root} has {epochs} epochs already")
    images = load_run_images(config)
    config.save(run.config)
    return images


def load_run_images(config: TrainingConfig) -> Images:
    """The images a run was trained on; raises `InputError` when they have changed since."""
    images = load_images(config.data)
    if images.fingerprint != config.data_fingerprint:
        raise InputError(f"--data {config.data}: the images have changed since this run began")
    return images


def is_finished(run: RunFolder, config: TrainingConfig) -> bool:
    """Whether the run has its report, and as many epochs as `config` asks for."""
    metrics = run.load_metrics()
    if metrics is None or metrics.get("interrupted") is not False:
        return False
    return int(metrics.get("epochs", 0)) >= config.max_epochs


def train(run: RunFolder, config: TrainingConfig, images: Images, console: Console) -> dict[str, Any]:
    """Train from the last whole epoch, or from the start, then write samples, reconstructions, metrics and a report.

    On Ctrl-C the step is finished, its state saved, and everything is written as usual, marked as interrupted.

    Returns:
        What was written to `metrics.json`.
    """
    _fit(run, config, images, console)
    if not (run.last.exists() or run.interrupted.exists()):
        raise KeyboardInterrupt
    return finish(run, load_run(run), images)


def _fit(run: RunFolder, config: TrainingConfig, images: Images, console: Console) -> None:
    history, stop = History(), StopOnSignal(run.interrupted)
    loader = training_loader(images, config.batch_size, config.seed)
    model = SinkhornAutoencoder(config, total_steps=config.max_epochs * len(loader))
    resume_from = run.last if run.last.exists() else None
    if resume_from:
        load_checkpoint(resume_from)
    with stop.listening(), _quiet(), torch.random.fork_rng(devices=[]):
        trainer = Trainer(
            accelerator=config.accelerator,
            devices=1,
            max_epochs=config.max_epochs,
            callbacks=[history, TrainingBar(console, history), stop, EpochCheckpoint(run.last, run.interrupted)],
            logger=_loggers(run.root),
            plugins=[WholeCheckpoints()],
            default_root_dir=run.root,
            log_every_n_steps=len(loader),
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(model, loader, held_out_loader(images), ckpt_path=resume_from)
        except StoppedError:
            pass
        except (SystemExit, SIGTERMException) as ending:
            # A second Ctrl-C, on which Lightning would end the process, or SIGTERM: no time for a report.
            raise KeyboardInterrupt from ending


def _loggers(root: Path) -> list[CSVLogger | TensorBoardLogger]:
    # A new version per attempt: Lightning's CSV logger would delete the rows of the attempt before.
    attempt = len(list((root / "logs").glob("version_*")))
    return [
        CSVLogger(root, name="logs", version=attempt),
        TensorBoardLogger(root, name="tensorboard", version=attempt),
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's banners, tips, and advice about workers that images in memory do not need."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message)
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def finish(run: RunFolder, trained: Trained, images: Images) -> dict[str, Any]:
    """Write samples, reconstructions, report and, last because it marks the run as complete, metrics."""
    started = time.perf_counter()
    model, config = trained.model, trained.config
    metrics = describe(trained, images) | score(model, images)
    metrics["seconds"]["evaluation"] = time.perf_counter() - started
    shown = images.held_out[: SAMPLES_SHOWN // 2]
    rebuilt = model.decode(model.encode(shown))
    write_image(run.samples, sample_grid(trained, SAMPLES_SHOWN, config.seed))
    alternating = figures.pairs(shown, rebuilt, GRID_COLUMNS)
    write_image(run.reconstructions, figures.grid(alternating, config.image_shape, GRID_COLUMNS))
    codes = model.encode(images.held_out[:CODES_SHOWN])
    labels = None if images.held_out_labels is None else images.held_out_labels[:CODES_SHOWN]
    page = report.render(
        config,
        metrics,
        samples=run.samples.read_bytes(),
        reconstructions=run.reconstructions.read_bytes(),
        curves=figures.curves(trained.history.rows),
        latent_map=figures.latent_map(codes, labels, model.draw_codes(len(codes), Stream.EVALUATION, 3)),
    )
    write_text(run.report, page)
    write_json(run.metrics, metrics)
    return metrics


def describe(trained: Trained, images: Images) -> dict[str, Any]:
    """What a run was, as the head of its `metrics.json`."""
    config = trained.config
    return {
        "interrupted": trained.epochs < config.max_epochs,
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


def sample_grid(trained: Trained, count: int, seed: int) -> Any:
    """`count` decoded prior draws as one (H, W, 3) uint8 picture, a pure function of the run and `seed`."""
    draws = trained.model.draw_codes(count, Stream.SAMPLES, seed)
    columns = min(GRID_COLUMNS, count) if count <= SAMPLES_SHOWN else round(count**0.5)
    return figures.grid(trained.model.decode(draws), trained.config.image_shape, columns)


def evaluate(run: RunFolder) -> dict[str, Any]:
    """Score a run again and rewrite its `metrics.json`, keeping what only training knew.

    Raises:
        InputError: when the folder holds no run, or its images have changed.
    """
    trained = load_run(run)
    before = run.load_metrics()
    images = load_run_images(trained.config)
    started = time.perf_counter()
    metrics = (before or describe(trained, images)) | score(trained.model, images)
    metrics["seconds"] = metrics["seconds"] | {"evaluation": time.perf_counter() - started}
    write_json(run.metrics, metrics)
    return metrics
