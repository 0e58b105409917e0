"""Images to train on: `named` data sets, the user's own `image_files`, and the `loaders` of their batches."""

from sinkdiv.generative.data.images import Images, load_images
from sinkdiv.generative.data.loaders import EpochBatches, Rows, held_out_loader, training_loader
from sinkdiv.generative.data.named import DATASETS, default_latent_dim, default_max_epochs

__all__ = [
    "DATASETS",
    "EpochBatches",
    "Images",
    "Rows",
    "default_latent_dim",
    "default_max_epochs",
    "held_out_loader",
    "load_images",
    "training_loader",
]
