"""Runs of the Sinkhorn generator by the command line: their files, how they go on, and how they fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from generative_models import settled
from sinkdiv.cli.app import run
from sinkdiv.generative import results, training
from sinkdiv.generative.config import CONFIGS, GeneratorConfig, load_config
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.generator_loss import EPS_OF_COST
from sinkdiv.generative.models.generator import SinkhornGenerator
from sinkdiv.generative.runs import RunFolder, load_checkpoint, load_run, resumed_config

TRAIN = ["train", "generator", "--data", "digits", "--accelerator", "cpu", "--hidden", "32"]
LEARNED = ["--cost", "learned", "--critic-steps", "2", "--eps", "0.2", "--batch-size", "200"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """With a square of latents, 8-bit mantissas and the cost's own ε."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "plain")
    options = [
        "--prior",
        "uniform",
        "--latent-dim",
        "2",
        "--precision",
        "bfloat16",
        "--max-epochs",
        "3",
        "--lr",
        "0.01",
    ]
    assert run([*TRAIN, *options, "--out", str(folder.root)]) == 0
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "learned")
    assert run([*TRAIN, *LEARNED, "--max-epochs", "16", "--out", str(folder.root)]) == 0
    return folder


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code, and the only line on stderr."""
    code = run([str(argument) for argument in arguments])
    errors = capsys.readouterr().err
    assert errors.startswith("sinkdiv: ")
    assert errors.count("\n") == 1
    return code, errors


def test_a_run_leaves_everything_it_promises_and_has_learned(plain: RunFolder) -> None:
    metrics = json.loads(plain.metrics.read_text())
    assert (metrics["interrupted"], metrics["failed"], metrics["epochs"]) == (False, None, 3)
    assert metrics["steps"] == 3 * (1617 // 200)
    scores = metrics["scores"]
    for name in ("training_data", "model"):
        assert scores[name]["sample_mmd_energy_x1000"] < 0.6 * scores["untrained"]["sample_mmd_energy_x1000"]
    assert not plain.reconstructions.exists()
    page = plain.report.read_text(encoding="utf-8")
    assert page.count('src="data:image/') == 3
    assert "The square of latents" in page


def test_a_learned_cost_has_two_curves_and_no_square(learned: RunFolder) -> None:
    rows = load_run(learned).history.rows
    assert {"train/loss", "train/critic", "held_out/energy"} < set(rows[-1])
    assert "square of latents" not in learned.report.read_text(encoding="utf-8")
    weights = load_run(learned).model.state_dict()
    assert any(name.startswith("critic.") for name in weights)


def test_samples_and_scores_can_be_had_again(plain: RunFolder, learned: RunFolder, tmp_path: Path) -> None:
    for folder in (plain, learned):
        assert run(["sample", str(folder.root), "-n", "64", "--out", str(tmp_path / "samples.png")]) == 0
        assert (tmp_path / "samples.png").read_bytes() == folder.samples.read_bytes()
    before = plain.load_metrics()
    assert results.evaluate(plain)["scores"] == before["scores"]
    assert plain.load_metrics()["failed"] is None


def test_killed_and_resumed_ends_where_an_uninterrupted_run_does(learned: RunFolder, tmp_path: Path) -> None:
    """SIGKILL inside an epoch, and an epoch may end within the critic's turns; all bitwise."""
    folder = RunFolder(tmp_path / "killed")
    command = [sys.executable, "-c", "from sinkdiv.cli import main; main()", *TRAIN, *LEARNED, "--max-epochs", "16"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", str(folder.root)], env=environment)
    deadline = time.monotonic() + 120
    while not folder.last.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert 1 <= len(load_run(folder).history.rows) < 16

    assert run([*TRAIN, "--out", str(folder.root), "--resume"]) == 0
    ours, theirs = load_checkpoint(folder.last), load_checkpoint(learned.last)
    assert ours["callbacks"]["History"]["rows"] == theirs["callbacks"]["History"]["rows"]
    for name, weights in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weights), name
    assert folder.load_metrics()["scores"] == learned.load_metrics()["scores"]


def test_infinite_eps_is_written_and_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    given = {"data": "digits", "cost": "euclidean", "eps": float("inf")}
    config = training.start(folder, GeneratorConfig, given).config
    assert "eps: .inf" in folder.config.read_text()
    assert load_config(folder.config) == config
    assert resumed_config(folder, GeneratorConfig, given) == config


def test_the_default_eps_follows_the_images_scale() -> None:
    """|y−y'|² grows fourfold as images are scaled by two, |y−y'| twofold."""

    def eps(cost: str, mean_squared_distance: float) -> float:
        return settled(GeneratorConfig, (1, 28, 28), mean_squared_distance, cost=cost).eps

    assert eps("sqeuclidean", 400.0) == 4 * eps("sqeuclidean", 100.0) == 400 * EPS_OF_COST
    assert eps("euclidean", 400.0) == 2 * eps("euclidean", 100.0) == 20 * EPS_OF_COST


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cost", "taxi"], "--cost taxi"),
        (["--eps", "inf"], "--eps inf"),
        (["--eps", "-1"], "--eps -1"),
        (["--prior", "cube"], "--prior cube"),
        (["--critic-steps", "2"], "--critic-steps: only --cost learned has it"),
        (["--cost", "learned", "--critic-bound", "hope"], "--critic-bound hope"),
        (["--cost", "learned", "--devices", "2"], "--devices 2: expected 1 for --cost learned"),
        (["--precision", "float16"], "--precision float16"),
        (["--width", "8"], "--width: only --network dcgan has it, not mlp"),
        (["--network", "dcgan"], "--hidden: only --network mlp has it, not dcgan"),
        (["--derivative", "unrolled"], "--iterations 0"),
        (["--derivative", "implicit", "--value", "entropic"], "--derivative implicit: expected --value sharp"),
        (["--method", "vae"], "--method"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    code, errors = failure(capsys, *TRAIN, *options, "--out", tmp_path / "run")
    assert code == 2
    assert expected in errors
    assert not (tmp_path / "run").exists()


def test_a_run_is_continued_by_its_own_command_only(plain: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    _, errors = failure(capsys, "train", "autoencoder", "--out", plain.root, "--resume")
    assert "trains the generator, not the autoencoder" in errors
    _, errors = failure(capsys, "train", "generator", "--out", plain.root, "--resume", "--eps", "3")
    assert "--eps 3.0: the run in" in errors


@pytest.mark.parametrize("model", ["generator", "autoencoder"])
def test_a_training_that_fails_at_once_is_one_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", model, "--data", "digits", "--accelerator", "cpu", "--lr", "1e30"]
    code, errors = failure(capsys, *command, "--out", tmp_path / "run")
    assert code == 1
    assert errors.startswith("sinkdiv: training failed: step 1: ")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_training_that_fails_later_is_reported_from_its_last_good_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a number in the third of eight steps of the third epoch; the state shown and kept is the second's."""
    training_step = SinkhornGenerator.training_step

    def broken(self: SinkhornGenerator, batch: Tensor, batch_idx: int) -> None:
        training_step(self, batch * (float("nan") if self.global_step == 18 else 1), batch_idx)

    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(SinkhornGenerator, "training_step", broken)
        code, errors = failure(capsys, *TRAIN, "--max-epochs", "4", "--out", folder.root)
    reason = "step 18: data are not finite, or too large for their distances to be"
    assert (code, errors) == (1, f"sinkdiv: training failed: {reason}\n")
    metrics = folder.load_metrics()
    assert (metrics["failed"], metrics["interrupted"], metrics["steps"]) == (reason, False, 16)
    page = folder.report.read_text(encoding="utf-8")
    assert f"training failed: {reason}; shown is the state after 16 steps, 2 of 4 epochs" in page

    assert run([*TRAIN, "--out", str(folder.root), "--resume"]) == 0
    assert (folder.load_metrics()["failed"], folder.load_metrics()["epochs"]) == (None, 4)


@pytest.mark.parametrize("model", ["generator", "autoencoder"])
def test_samples_that_are_all_alike_end_any_training(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples at the end of the second epoch are put at one place."""
    folder = RunFolder(tmp_path / "run")
    given = {"data": "digits", "hidden": (32,), "max_epochs": 3, "accelerator": "cpu", "batch_size": 400}
    prepared = training.start(folder, CONFIGS[model], given)
    draw = training.draw_samples

    def alike(model: Any, step: int) -> Tensor:
        return prepared.images.train[:64] if step <= 4 else 0 * draw(model, step)

    monkeypatch.setattr(training, "draw_samples", alike)
    metrics = training.train(prepared, Console(quiet=True))
    assert metrics["failed"].startswith("step 8: samples have collapsed: ")
    assert metrics["epochs"] == 1


def test_an_epoch_may_be_shorter_than_a_turn(tmp_path: Path) -> None:
    """Three batches an epoch, and the generator moves after five: some epochs have no loss of it, and no point."""
    folder = RunFolder(tmp_path / "run")
    options = ["--cost", "learned", "--critic-steps", "4", "--batch-size", "500", "--max-epochs", "3"]
    assert run([*TRAIN, *options, "--out", str(folder.root)]) == 0
    assert ["train/loss" in row for row in load_run(folder).history.rows] == [False, True, False]


def test_wrong_settings_of_a_saved_run_are_named(plain: RunFolder, tmp_path: Path) -> None:
    text = plain.config.read_text()
    (tmp_path / "config.yaml").write_text(text.replace("critic_steps: 1", "critic_steps: many"))
    with pytest.raises(InputError, match="critic_steps: 'many' is not valid"):
        load_config(tmp_path / "config.yaml")


def test_images_that_are_all_the_same_and_a_generator_that_never_moves_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "flat.npz", images=np.zeros((30, 8, 8), np.uint8))
    never = ["--data", "digits", "--cost", "learned", "--critic-steps", "500", "--max-epochs", "2"]
    for options, message in (
        (["--data", str(tmp_path / "flat.npz")], "all images are the same"),
        (never, "--critic-steps 500: the generator would never move in 32 batches"),
    ):
        assert run(["train", "generator", *options, "--out", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
