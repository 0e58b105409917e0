"""A setting is declared once: its default, its check, its option and its place in the file follow."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from generative_models import images_of, settled, train
from sinkdiv.cli.app import run
from sinkdiv.generative import models, training
from sinkdiv.generative.config import CONFIGS, load_config, save_config
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.settings import Settings, at_least, declarations, one_of, option, setting, settle

SHAPE = (1, 8, 8)


@dataclass(frozen=True, kw_only=True)
class Brush(Settings):
    only_with = ("tool", "brush")

    bristles: int = setting("How many.", derive=lambda draft: 10 * draft.diameter, check=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Painting(Brush):
    """`bristles` follow `diameter`, which follows the images and is declared after them."""

    tool: str = setting("brush or knife.", default="brush", check=one_of("brush", "knife"))
    diameter: int = setting(derive=lambda draft: 2 if "tool" in draft.chosen else draft.images.shape[1])


def paint(**chosen):
    return settle(Painting, chosen, images_of(SHAPE))


def test_defaults_follow_what_is_chosen_and_the_images_in_any_order() -> None:
    assert paint() == Painting(tool="brush", diameter=8, bristles=80)
    assert paint(tool="brush") == Painting(tool="brush", diameter=2, bristles=20)
    assert paint(diameter=3, bristles=7) == Painting(tool="brush", diameter=3, bristles=7)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"tool": "broom"}, "--tool broom: expected brush or knife"),
        ({"bristles": 0}, "--bristles 0: expected at least 1"),
        ({"diameter": 0}, "--bristles 0: expected at least 1"),
        ({"tool": "knife", "bristles": 7}, "--bristles: only --tool brush has it, not knife"),
    ],
)
def test_a_wrong_setting_is_named_as_an_option(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        paint(**chosen)


@pytest.mark.parametrize("model", CONFIGS)
def test_every_setting_with_a_help_is_an_option_and_shows_it(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run(["train", model, "--help"]) == 0
    shown = capsys.readouterr().out
    declared = declarations(CONFIGS[model])
    visible = {name: found for name, found in declared.items() if found.help}
    for name, found in visible.items():
        assert re.search(rf"{option(name)} .*{re.escape(found.help)}", shown), name
    options = {name[2:].replace("-", "_") for name in re.findall(r"(?<=│)[ *]*(--[a-z-]+)", shown)}
    assert options == visible.keys() | CONFIGS[model].aliases.keys() | {"out", "resume", "help"}
    assert {name for name in declared if name not in visible} == {"data_fingerprint", "image_shape"}


@pytest.mark.parametrize("shape", [SHAPE, (3, 32, 32)])
@pytest.mark.parametrize("model", CONFIGS)
def test_the_defaults_of_a_model_go_together_and_survive_their_file(
    model: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    config = settled(CONFIGS[model], shape)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_a_model_is_made_once_for_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The untrained model of the scores is a copy, with the weights that a model made anew has."""
    made = []

    def counted(config: object, total_steps: int = 1) -> models.Model:
        made.append(models.make_model(config, total_steps))
        return made[-1]

    monkeypatch.setattr(training, "make_model", counted)
    folder = train(tmp_path / "run", CONFIGS["autoencoder"], hidden=(8,), max_epochs=1, batch_size=400)
    assert len(made) == 1
    prepared = training.resume(folder, folder.load_config())
    untrained = models.make_model(prepared.config).state_dict()
    for name, weights in prepared.untrained.state_dict().items():
        assert torch.equal(weights, untrained[name])
