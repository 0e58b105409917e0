"""Settings of runs: their checks, their defaults, their file."""

from pathlib import Path
from typing import Any

import pytest

from generative_models import settled
from sinkdiv.generative.config import AutoencoderConfig, load_config, save_config
from sinkdiv.generative.errors import InputError

MADE = {
    "data": "made",
    "data_fingerprint": "",
    "image_shape": (1, 8, 8),
    "binarize": False,
    "method": "sae",
    "prior": "sphere",
    "latent_dim": 4,
    "network": "mlp",
    "likelihood": "bernoulli",
    "hidden": (32,),
    "beta": 10.0,
    "eps": 0.5,
    "batch_size": 16,
    "lr": 1e-3,
    "max_epochs": 1,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"latent_dim": 1}, "--latent-dim"),
        ({"hidden": ()}, "--hidden"),
        ({"beta": -1.0}, "--beta"),
        ({"beta": float("nan")}, "--beta"),
        ({"eps": 0.0}, "--eps"),
        ({"batch_size": 1}, "--batch-size"),
        ({"lr": float("inf")}, "--lr"),
        ({"max_epochs": 0}, "--max-epochs"),
        ({"seed": -1}, "--seed"),
        ({"prior": "gamma"}, "--prior"),
        ({"accelerator": "abacus"}, "--accelerator"),
        ({"method": "gan"}, "--method"),
        ({"method": "vae"}, "--prior"),
        ({"network": "oracle"}, "--network"),
        ({"likelihood": "poisson"}, "--likelihood"),
        ({"latent_cost": "cosine"}, "--latent-cost"),
        ({"value": "dull"}, "--value"),
        ({"derivative": "finite"}, "--derivative"),
        ({"derivative": "unrolled"}, "--iterations"),
        ({"iterations": 5}, "--iterations"),
        ({"rounding": True}, "--rounding"),
        ({"derivative": "implicit"}, "--derivative"),
        ({"prior": "normal", "latent_cost": "geodesic"}, "--latent-cost"),
        ({"prior": "mixture:1e9"}, "--prior"),
        ({"debias": "twice"}, "--debias"),
        ({"devices": 0}, "--devices"),
        ({"devices": 3}, "--batch-size"),
        ({"precision": "int8"}, "--precision"),
    ],
)
def test_wrong_settings_name_their_option(change: dict[str, object], option: str) -> None:
    with pytest.raises(InputError, match=option):
        AutoencoderConfig(**MADE | change)


def test_config_survives_its_file(tmp_path: Path) -> None:
    config = AutoencoderConfig(**MADE)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "model: autoencoder", "model: other", "a: [", "!!python/object/apply:os.getcwd []", "\x00"]
)
def test_foreign_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        load_config(path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"prior": "sphere", "latent_dim": 8, "eps": 0.5, "beta": 100.0}),
        ({"method": "vae"}, {"prior": "normal", "beta": 1.0}),
        ({"prior": "sphere@10*normal@3"}, {"latent_dim": 13, "eps": 0.5, "beta": 100.0}),
        ({"prior": "normal", "latent_dim": 10}, {"eps": 5.0, "beta": 10.0}),
        # In lengths where the cost is one: a quarter of the root of E|z−z'|² = 2d.
        ({"prior": "normal", "latent_dim": 8, "latent_cost": "euclidean"}, {"eps": 1.0, "beta": 50.0}),
    ],
)
def test_defaults_go_with_method_prior_and_cost(given: dict[str, Any], expected: dict[str, Any]) -> None:
    config = settled(AutoencoderConfig, (1, 28, 28), **{"data": "mnist-5k"} | given)
    assert {name: getattr(config, name) for name in expected} == expected
