"""The rows of the Sinkhorn autoencoder's table: what each trains, and what the paper reports for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """Figures of P19 on MNIST: first version (latent MMD ×1000, reconstruction, FID), third version (FID)."""

    v1: tuple[float | None, float | None, float] | None = None
    v3: float | None = None


@dataclass(frozen=True)
class Row:
    """A method with its prior.

    Attributes:
        name: of the row, in file names.
        title: in the table.
        options: settings of the trainer beyond those that all rows share.
        published: what the paper has for it.
        once: trained with the first seed on MNIST only, because it takes several times as long as the others.
    """

    name: str
    title: str
    options: dict[str, Any]
    published: Published = field(default_factory=Published)
    once: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        return SHARED | self.options


@dataclass(frozen=True)
class Plan:
    """How much is trained on a data set."""

    seeds: tuple[int, ...]
    epochs: int
    binarize: bool


# P19 §5: MLPs, ten latent dimensions, binarised MNIST, batches of 128, Adam. Widths and epochs are for two cores.
SHARED: dict[str, Any] = {"latent_dim": 10, "network": "mlp", "hidden": (256, 256), "batch_size": 128, "lr": 1e-3}
DATA = {
    "mnist": Plan(seeds=(0, 1, 2), epochs=15, binarize=True),
    "fashion-mnist": Plan(seeds=(0,), epochs=15, binarize=False),
}

# The loss of P19's first version: the sharp transport cost itself, unrolled; and of its third: debiased and rounded.
FIRST = {"value": "sharp", "debias": "none", "derivative": "unrolled", "iterations": 50, "beta": 100.0}
THIRD = {"value": "sharp", "rounding": True, "beta": 100.0}


def _row(name: str, title: str, published: Published | None = None, once: bool = False, **options: Any) -> Row:
    return Row(name, title, options, published or Published(), once)


_ALL = [
    _row("ae", "AE", Published((None, 62.6, 45.2)), method="ae", prior="normal"),
    _row("vae", "VAE, normal", Published((0.63, 66.4, 7.2), 11.4), method="vae", prior="normal"),
    _row("beta-vae", "β-VAE (.1), normal", Published((2.3, 62.8, 15.2), 50.0), method="beta-vae", prior="normal"),
    _row("wae-normal", "WAE-MMD (100), normal", Published((0.69, 63.1, 9.0), 24.4), method="wae", prior="normal"),
    _row("swae-normal", "SWAE, normal", Published(v3=18.8), method="swae", prior="normal"),
    _row("w2gae-normal", "W2GAE, normal", Published(v3=30.5), method="w2gae", prior="normal"),
    _row("hae-normal", "HAE, normal", Published(v3=16.8), method="hae", prior="normal"),
    _row("sae-normal", "SAE, normal", method="sae", prior="normal"),
    _row(
        "sae-normal-v3", "SAE (P19 v3), normal", Published(v3=17.2), once=True,
        method="sae", prior="normal", eps=10.0, **THIRD,
    ),
    _row("hvae", "HVAE, sphere", Published((0.33, 72.2, 9.5), 21.5), method="hvae", prior="sphere"),
    _row("wae-sphere", "WAE-MMD (100), sphere", Published((0.25, 65.7, 8.9), 22.3), method="wae", prior="sphere"),
    _row("swae-sphere", "SWAE, sphere", Published(v3=27.6), method="swae", prior="sphere"),
    _row("hae-sphere", "HAE, sphere", Published((None, None, 9.7), 12.0), method="hae", prior="sphere"),
    _row("sae-sphere", "SAE, sphere", method="sae", prior="sphere"),
    _row(
        "sae-sphere-v1", "SAE (P19 v1), sphere", Published((0.30, 66.8, 6.8)), once=True,
        method="sae", prior="sphere", eps=0.1, **FIRST,
    ),
    _row(
        "sae-sphere-v3", "SAE (P19 v3), sphere", Published(v3=12.5), once=True,
        method="sae", prior="sphere", eps=0.1, **THIRD,
    ),
]  # fmt: skip
# Added after the table's first rows were known: what experiments/code_variance found, tried.
_ALL += [
    _row("sae-normal-halves", "SAE, debiased by halves, normal", method="sae", prior="normal", debias="independent"),
    _row("sae-sphere-halves", "SAE, debiased by halves, sphere", method="sae", prior="sphere", debias="independent"),
]
ROWS = {row.name: row for row in _ALL}
