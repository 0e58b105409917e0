"""The networks that score images: what they are worth, and that they leave the caller's state alone."""

import hashlib
import json
from importlib import resources

import pytest
import torch
from torch import Tensor

from sinkdiv.generative.data import load_images
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.features import efficientnet, features_for
from sinkdiv.generative.features.classifier import Classifier, card, trained_classifier

NAMES = ("mnist", "fashion-mnist")


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images = load_images("mnist-5k")
    return torch.cat([images.train, images.held_out]), torch.cat([images.train_labels, images.held_out_labels])


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_what_their_card_says(name: str) -> None:
    folder = resources.files("sinkdiv.generative.features") / "weights"
    file = (folder / f"{name}.pt").read_bytes()
    described = json.loads((folder / f"{name}.json").read_text())
    assert described == card(name)
    assert described["sha256"] == hashlib.sha256(file).hexdigest()
    assert len(file) <= 250_000
    assert described["parameters"] == sum(p.numel() for p in Classifier().parameters()) <= 60_000
    assert described["test_accuracy"] >= {"mnist": 0.988, "fashion-mnist": 0.89}[name]


@pytest.mark.parametrize("binarised", [False, True])
def test_the_digit_classifier_recognises_digits(digits: tuple[Tensor, Tensor], binarised: bool) -> None:
    images, labels = digits
    seen = (images > 0.5).float() if binarised else images
    answers = features_for("mnist-5k", (1, 28, 28))(seen).logits.argmax(1)
    assert (answers == labels).float().mean() > 0.98


def test_features_of_real_images_are_standardised(digits: tuple[Tensor, Tensor]) -> None:
    features = features_for("mnist", (1, 28, 28))(digits[0]).features
    # Half of the images it was standardised over were binarised, hence the slack.
    assert features.shape == (5000, 64)
    assert features.mean(0).abs().max() < 0.2
    assert (features.std(0) - 1).abs().max() < 0.2


def test_features_do_not_depend_on_the_batch(digits: tuple[Tensor, Tensor]) -> None:
    extract = features_for("mnist", (1, 28, 28))
    together, alone = extract(digits[0][:600]), extract(digits[0][599:600])
    torch.testing.assert_close(together.features[599:], alone.features, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.logits[599:], alone.logits, rtol=0, atol=1e-5)


def test_loading_leaves_the_global_generator_alone() -> None:
    trained_classifier.cache_clear()
    state = torch.get_rng_state()
    features_for("mnist", (1, 28, 28))(torch.rand(3, 784, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("data", "shape"), [("digits", (1, 8, 8)), ("mnist", (1, 40, 40)), ("/some/folder", (1, 28, 28))]
)
def test_other_images_have_no_features(data: str, shape: tuple[int, int, int]) -> None:
    assert features_for(data, shape) is None


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images has shape \(2, 64\); mnist_classifier needs \(n, 784\)"):
        features_for("mnist", (1, 28, 28))(torch.rand(2, 64))


def test_without_the_extra_colour_images_have_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_PACKAGE", "not_installed")
    efficientnet._network.cache_clear()
    assert features_for("photos.zip", (3, 32, 32)) is None
    with pytest.raises(InputError, match=r"sinkdiv\[backbone\]"):
        efficientnet.frozen_network((3, 32, 32))


@pytest.mark.skipif(not efficientnet.available(), reason="needs sinkdiv[backbone]")
def test_the_network_of_colour_images_tells_a_photograph_from_noise() -> None:
    from sklearn.datasets import load_sample_image

    photograph = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[:, 100:356, 200:456] / 255
    state = torch.get_rng_state()
    extract = features_for("photos.zip", (3, 256, 256))
    assert extract.name == "efficientnet_lite0"
    noise = torch.rand(photograph.shape, generator=torch.Generator().manual_seed(0))
    features, logits = extract(torch.stack([photograph, photograph.flip(2), noise]).flatten(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert features.shape == (3, 1280)
    assert (features[0] - features[1]).norm() < 0.6 * (features[0] - features[2]).norm()
    assert logits.shape == (3, 1000)
