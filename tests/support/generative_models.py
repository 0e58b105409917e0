"""Settings, losses and runs of generative models, made quickly."""

import math

import torch
from rich.console import Console

from sinkdiv.generative import training
from sinkdiv.generative.data import Images
from sinkdiv.generative.generator_loss import GeneratorLoss, GeneratorLossSettings
from sinkdiv.generative.latent_losses import LatentSinkhornSettings, SinkhornLoss
from sinkdiv.generative.runs import RunFolder
from sinkdiv.generative.settings import settle


def images_of(shape, mean_squared_distance=2.0):
    """Two images of the shape (channels, height, width), apart by so much that E|y−y'|² is as given."""
    train = torch.zeros(2, math.prod(shape))
    train[1, 0] = math.sqrt(2 * mean_squared_distance)
    return Images("made", shape, train, train[:0], None, None, "")


def settled(kind, shape, mean_squared_distance=2.0, **chosen):
    """The settings of a new run for images of the shape (channels, height, width)."""
    return settle(kind, {"data": "made"} | chosen, images_of(shape, mean_squared_distance))


def sinkhorn_loss(eps, tol=1e-2, **chosen):
    """The Sinkhorn loss between codes and draws, with settings of `LatentSinkhornSettings`."""
    return SinkhornLoss(LatentSinkhornSettings(eps=eps, **chosen), tol)


def generator_loss(eps, cost="sqeuclidean", tol=1e-2, **chosen):
    """The loss between samples and data, with settings of `GeneratorLossSettings`."""
    return GeneratorLoss(GeneratorLossSettings(eps=eps, cost=cost, **chosen), tol)


def train(root, kind, **chosen):
    """A run in the folder `root` that is trained to its end on a CPU."""
    run = RunFolder(root)
    training.train(training.start(run, kind, {"data": "digits", "accelerator": "cpu"} | chosen), Console(quiet=True))
    return run
