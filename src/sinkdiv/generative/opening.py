"""How a run begins and how it goes on: settings settled, images read, all before any work."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sinkdiv.generative.config import AutoencoderConfig, GeneratorConfig, RunConfig
from sinkdiv.generative.data import Images, defaults_for, load_images
from sinkdiv.generative.dcgan import can_halve
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.generator_loss import LEARNED
from sinkdiv.generative.methods import METHODS, check_method, default_prior
from sinkdiv.generative.models import make_model
from sinkdiv.generative.networks import default_hidden
from sinkdiv.generative.priors import make_prior
from sinkdiv.generative.processes import check_machine
from sinkdiv.generative.runs import RunFolder, load_run
from sinkdiv.generative.watch import spread

# What may change when a run is continued; everything else decides what the run is.
CHANGEABLE = {"max_epochs", "accelerator", "devices"}
# A quarter of the mean squared distance of two draws: half a unit of squared length on the unit sphere.
EPS_OF_SPREAD = 0.25
# Of a generator's cost of two training images, |y−y'|² or its root: for MNIST the ε = 1 of G18.
EPS_OF_IMAGE_SPREAD = 0.01
# Stands for images that are not read yet.
PLACEHOLDER = Images("", (1, 28, 28), torch.eye(28 * 28), torch.zeros(0, 28 * 28), None, None, "")
CRITIC_ONLY = ("critic_features", "critic_steps", "critic_bound")
SINKHORN_ONLY = ("eps", "latent_cost", "value", "debias", "derivative", "iterations", "rounding", "warm_start")


def autoencoder_settings(given: Mapping[str, Any], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The fields of `AutoencoderConfig` for a new run: what the user chose, and what goes well with it and the images.

    Raises:
        InputError: for a method or prior that is not known, or an option that the method does not have.
    """
    chosen = {"method": "sae", "data": "mnist-5k", "network": "mlp"} | dict(given)
    chosen.setdefault("prior", default_prior(chosen["method"]))
    check_method(chosen["method"], chosen["prior"])
    if chosen["method"] != "sae":
        _refuse(given, SINKHORN_ONLY, f"only --method sae has it, not {chosen['method']}")
    defaults = defaults_for(chosen["data"])
    prior = make_prior(chosen["prior"])
    latent_dim = chosen.get("latent_dim", prior.own_dim or defaults.latent_dim)
    prior.check(latent_dim)
    # The narrowest factor of a product: a wider one does well with a small ε, the narrow one not with a large one.
    spread = min(factor.spread(part.stop - part.start) for part, factor in prior.factors(latent_dim))
    if chosen.get("latent_cost") == "euclidean":
        spread = math.sqrt(spread)
    return {
        "latent_dim": latent_dim,
        "hidden": default_hidden(chosen["network"], image_shape),
        "likelihood": "bernoulli" if image_shape[0] == 1 else "gaussian",
        "max_epochs": defaults.max_epochs,
        "beta": METHODS[chosen["method"]].beta(spread),
        "eps": EPS_OF_SPREAD * spread,
        "binarize": False,
        "batch_size": 128,
        "lr": 1e-3,
        "seed": 0,
    } | chosen


def generator_settings(given: Mapping[str, Any], image_shape: tuple[int, ...], image_spread: float) -> dict[str, Any]:
    """The fields of `GeneratorConfig` for a new run: what the user chose, and what goes well with it and the images.

    Args:
        image_spread: E|y−y'|² of the images.

    Raises:
        InputError: for an option that the cost or the network does not have.
    """
    if image_spread == 0:
        raise InputError(f"--data {given.get('data')}: all images are the same")
    colour, learned = image_shape[0] == 3, given.get("cost") == LEARNED
    convolutional = "width" in given or ((colour or learned) and can_halve(image_shape))
    network = "dcgan" if convolutional and "hidden" not in given else "mlp"
    chosen = {"cost": "sqeuclidean", "data": "mnist-5k", "network": network} | dict(given)
    _refuse(given, () if learned else CRITIC_ONLY, "only --cost learned has it")
    _refuse(given, ("width",) if chosen["network"] == "mlp" else ("hidden",), f"--network {chosen['network']} has none")
    defaults = defaults_for(chosen["data"])
    distance = image_spread if chosen["cost"] == "sqeuclidean" else math.sqrt(image_spread)
    return {
        "prior": "normal",
        "latent_dim": defaults.latent_dim,
        "hidden": default_hidden("mlp", image_shape),
        "width": 64 if colour else 32,
        "max_epochs": defaults.max_epochs,
        # Features have a scale of their own, which changes; the limit has none.
        "eps": math.inf if learned else float(f"{EPS_OF_IMAGE_SPREAD * distance:.2g}"),
        "binarize": False,
        "batch_size": 100 if learned else 200,
        "lr": 5e-4 if learned else 1e-3,
        "seed": 0,
    } | chosen


def _refuse(given: Mapping[str, Any], names: Iterable[str], why: str) -> None:
    for name in names:
        if name in given:
            raise InputError(f"--{name.replace('_', '-')}: {why}")


# How the options of each model become its settings, for given images.
SETTINGS: dict[type[RunConfig], Callable[[Mapping[str, Any], Images], dict[str, Any]]] = {
    AutoencoderConfig: lambda given, images: autoencoder_settings(given, images.shape),
    GeneratorConfig: lambda given, images: generator_settings(given, images.shape, spread(images.train)),
}


def new_run(run: RunFolder, kind: type[RunConfig], given: Mapping[str, Any]) -> tuple[RunConfig, Images]:
    """Settle the settings of a new run and write them to its folder, before any work.

    Args:
        run: where it will live.
        kind: the model's settings.
        given: fields of `kind` the user chose; the model's, the data's and the prior's defaults fill the others.

    Raises:
        InputError: when a setting is wrong, the data cannot be read, or the folder holds a run already.
    """
    if run.exists():
        raise InputError(f"--out {run.root}: holds a run already; continue it with --resume or choose another folder")
    if run.root.exists() and not run.root.is_dir():
        raise InputError(f"--out {run.root}: not a folder")
    # Checked before the images are read, so that a wrong option does not wait for a download.
    config = kind(**SETTINGS[kind](given, PLACEHOLDER), data_fingerprint="", image_shape=PLACEHOLDER.shape)
    check_machine(config.accelerator, config.devices, config.precision)
    images = load_images(config.data, binarize=config.binarize)
    settings = SETTINGS[kind](given, images) | {"data": images.name}
    config = kind(**settings, data_fingerprint=images.fingerprint, image_shape=images.shape)
    if config.batch_size > len(images.train):
        raise InputError(f"--batch-size {config.batch_size}: there are {len(images.train)} training images")
    batches = config.max_epochs * (len(images.train) // config.batch_size)
    if batches < config.turns:
        raise InputError(f"--critic-steps {config.turns - 1}: the generator would never move in {batches} batches")
    make_model(config)
    try:
        config.save(run.config)
    except OSError as error:
        raise InputError(f"--out {run.root}: cannot be written ({error.strerror})") from error
    return config, images


def continued_config(run: RunFolder, kind: type[RunConfig], given: Mapping[str, Any]) -> RunConfig:
    """The settings of a run that was started before, with the `given` changes; nothing is written.

    Raises:
        InputError: when there is no run, or a given setting contradicts it.
    """
    config = run.load_config()
    if type(config) is not kind:
        raise InputError(f"--resume: the run in {run.root} trains the {config.model}, not the {kind.model}")
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


def reopen(run: RunFolder, config: RunConfig) -> Images:
    """Write the settings a run continues with to its folder, and read its images.

    Raises:
        InputError: when the run is past `config.max_epochs`, or its images are not what they were.
    """
    check_machine(config.accelerator, config.devices, config.precision)
    if run.last.exists() and (epochs := load_run(run).epochs) > config.max_epochs:
        raise InputError(f"--max-epochs {config.max_epochs}: the run in {run.root} has {epochs} epochs already")
    images = load_run_images(config)
    config.save(run.config)
    return images


def load_run_images(config: RunConfig) -> Images:
    """The images a run was trained on; raises `InputError` when they have changed since."""
    images = load_images(config.data, binarize=config.binarize)
    if images.fingerprint != config.data_fingerprint:
        raise InputError(f"--data {config.data}: the images have changed since this run began")
    return images


def is_finished(run: RunFolder, config: RunConfig) -> bool:
    """Whether the run has its report, and as many epochs as `config` asks for."""
    metrics = run.load_metrics()
    if metrics is None or metrics.get("interrupted") is not False:
        return False
    return int(metrics.get("epochs", 0)) >= config.max_epochs
