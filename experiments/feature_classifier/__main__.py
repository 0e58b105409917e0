"""Train the convnets whose features score generated digits and clothes; writes the weights that the package ships.

    python -m experiments.feature_classifier

MNIST and Fashion-MNIST in full, from $SINKDIV_DATA or fetched. Half of every batch is binarised at ½, because P19's
autoencoders see binarised digits: a classifier that knows grey ones only would score the difference between the two.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.frame.runs import say
from sinkdiv.generative.data import EpochBatches, Images, load_images
from sinkdiv.generative.features import classifier
from sinkdiv.generative.features.classifier import Classifier
from sinkdiv.generative.files import replacing, write_json

NAMES = ("mnist", "fashion-mnist")
BATCH = 128
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
WEIGHTS = Path(classifier.__file__).parent / "weights"


def binarised(images: Tensor) -> Tensor:
    return (images > 0.5).to(images.dtype)


def train(images: Images, seed: int, epochs: int) -> Classifier:
    """A classifier after `epochs` of AdamW with one cycle of the learning rate."""
    torch.manual_seed(seed)
    model = Classifier()
    batches = EpochBatches(len(images.train), BATCH, seed)
    coins = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=epochs * len(batches))
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        total = 0.0
        for rows in batches:
            grey = images.train[rows]
            shown = torch.where(torch.rand(len(grey), 1, generator=coins) < 0.5, grey, binarised(grey))
            loss = nn.functional.cross_entropy(model(shown), images.train_labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        say(f"{images.name}: epoch {epoch + 1} of {epochs}, cross-entropy {total / len(batches):.4f}")
    return model.eval().requires_grad_(False)


def rounded(model: Classifier) -> dict[str, Tensor]:
    """The model's state in half precision, which the model keeps: what is measured is what is shipped."""
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return state


def serialised(state: dict[str, Tensor]) -> bytes:
    """What `torch.save` writes, without the file's name in it: equal weights are equal bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    right = sum(
        int((model(batch).argmax(1) == answers).sum())
        for batch, answers in zip(images.split(1000), labels.split(1000), strict=True)
    )
    return right / len(images)


def write(name: str, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Train the classifier of `name` and write its weights and its card into `folder`."""
    started = time.perf_counter()
    images = load_images(name)
    model = train(images, seed, epochs)
    weights = serialised(rounded(model))
    with replacing(folder / f"{name}.pt") as file:
        file.write_bytes(weights)
    card = {
        "data": name,
        "data_fingerprint": images.fingerprint,
        "test_accuracy": accuracy(model, images.held_out, images.held_out_labels),
        "test_accuracy_binarised": accuracy(model, binarised(images.held_out), images.held_out_labels),
        "test_images": len(images.held_out),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "features": classifier.FEATURES,
        "seed": seed,
        "epochs": epochs,
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_json(folder / f"{name}.json", card)
    return card


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=NAMES, default=list(NAMES), help="which classifiers to train")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="default: into the package")
    options = parser.parse_args(arguments)
    for name in options.data:
        card = write(name, options.seed, options.epochs, options.out)
        say(
            f"{name}: {card['test_accuracy']:.2%} of {card['test_images']} test images, "
            f"{card['test_accuracy_binarised']:.2%} of them binarised, {card['seconds']:.0f} s"
        )


if __name__ == "__main__":
    main()
