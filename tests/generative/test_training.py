"""Training runs: killed, interrupted, resumed, and read back."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from generative_models import train
from sinkdiv.generative import results, training
from sinkdiv.generative.config import AutoencoderConfig
from sinkdiv.generative.errors import InputError
from sinkdiv.generative.runs import RunFolder, load_checkpoint, load_run, resumed_config

QUICK = {"prior": "sphere", "hidden": (32,), "max_epochs": 3, "batch_size": 400}
COMMAND = [sys.executable, "-c", "from sinkdiv.cli import main; main()", "train", "autoencoder"]


def quick_run(root: Path, **settings: Any) -> RunFolder:
    return train(root, AutoencoderConfig, **QUICK | settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return quick_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def copied(finished: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.root, tmp_path / "copied")
    return RunFolder(tmp_path / "copied")


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    arguments = [*COMMAND, "--data", "digits", "--hidden", "32", "--accelerator", "cpu", "--out", str(out), *options]
    # One thread each: processes that share few cores wait for each other's threads far longer than they compute.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_checkpoint(run: RunFolder, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not run.last.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_leaves_everything_it_promises(finished: RunFolder) -> None:
    for path in (finished.config, finished.last, finished.metrics, finished.samples, finished.reconstructions):
        assert path.stat().st_size > 0
    assert list(finished.root.glob("logs/version_*/metrics.csv"))
    assert list(finished.root.glob("tensorboard/version_*/events.*"))
    page = finished.report.read_text(encoding="utf-8")
    assert page.count('src="data:image/') == 6
    assert "http" not in page.replace("http://www.w3.org", "")
    metrics = json.loads(finished.metrics.read_text())
    assert metrics["interrupted"] is False
    assert metrics["epochs"] == 3
    assert metrics["steps"] == 3 * (1617 // 400)
    assert not [path for path in finished.root.rglob(".*") if path.is_file()]


def test_training_improves_every_score(finished: RunFolder) -> None:
    scores = json.loads(finished.metrics.read_text())["scores"]
    for name in ("reconstruction_nats_per_image", "sample_mmd_energy_x1000"):
        assert scores["training_data"][name] < 1.05 * scores["model"][name]
        assert scores["model"][name] < scores["untrained"][name]


def test_training_leaves_global_state_alone(tmp_path: Path) -> None:
    state, dtype, threads = torch.random.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    handler = signal.getsignal(signal.SIGINT)
    quick_run(tmp_path / "run", max_epochs=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (dtype, threads) == (torch.get_default_dtype(), torch.get_num_threads())
    assert signal.getsignal(signal.SIGINT) is handler


def test_killed_and_resumed_ends_where_an_uninterrupted_run_does(tmp_path: Path) -> None:
    """SIGKILL inside an epoch; weights, optimiser state, history and scores are bitwise those of the other run."""
    options = ("--batch-size", "200", "--max-epochs", "40", "--seed", "5")
    run, whole = RunFolder(tmp_path / "killed"), RunFolder(tmp_path / "whole")
    uninterrupted = start(whole.root, *options)
    process = start(run.root, *options)
    wait_for_checkpoint(run, process)
    process.kill()
    process.communicate()
    assert not run.metrics.exists()
    reached = len(load_run(run).history.rows)
    assert 1 <= reached < 40

    resumed = start(run.root, "--resume")
    assert (resumed.communicate()[1], resumed.returncode) == ("", 0)
    assert (uninterrupted.communicate()[1], uninterrupted.returncode) == ("", 0)
    ours, theirs = load_checkpoint(run.last), load_checkpoint(whole.last)
    assert ours["callbacks"]["History"]["rows"] == theirs["callbacks"]["History"]["rows"]
    assert ours["global_step"] == theirs["global_step"]
    for name, weights in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weights)
    moments = zip(
        ours["optimizer_states"][0]["state"].values(), theirs["optimizer_states"][0]["state"].values(), strict=True
    )
    assert all(torch.equal(one["exp_avg_sq"], other["exp_avg_sq"]) for one, other in moments)
    assert run.load_metrics()["scores"] == whole.load_metrics()["scores"]
    assert run.samples.read_bytes() == whole.samples.read_bytes()


def test_ctrl_c_saves_reports_and_resumes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    process = start(run.root, "--max-epochs", "100000")
    wait_for_checkpoint(run, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert f"--out {run.root} --resume" in errors
    metrics = run.load_metrics()
    assert metrics["interrupted"] is True
    assert metrics["steps"] == load_checkpoint(run.interrupted)["global_step"]
    assert "interrupted after" in run.report.read_text(encoding="utf-8")
    assert run.samples.exists()

    # Resuming repeats the epoch that was cut, so the state inside it is no longer wanted.
    epochs = metrics["epochs"] + 1
    resumed = start(run.root, "--resume", "--max-epochs", str(epochs))
    assert (resumed.communicate()[1], resumed.returncode) == ("", 0)
    assert not run.interrupted.exists()
    assert run.load_metrics()["interrupted"] is False
    assert run.load_metrics()["epochs"] == epochs


def test_more_epochs_continue_a_finished_run(copied: RunFolder) -> None:
    assert copied.is_finished(resumed_config(copied, AutoencoderConfig, {}))
    config = resumed_config(copied, AutoencoderConfig, {"max_epochs": 4})
    assert not copied.is_finished(config)
    metrics = training.train(training.resume(copied, config), Console(quiet=True))
    assert metrics["epochs"] == 4
    assert [row["epoch"] for row in load_run(copied).history.rows] == [1, 2, 3, 4]
    assert copied.load_config().max_epochs == 4


def test_resume_refuses_what_would_change_the_run(copied: RunFolder) -> None:
    with pytest.raises(InputError, match=r"--beta 7\.0: the run in .* has 100\.0"):
        resumed_config(copied, AutoencoderConfig, {"beta": 7.0})
    with pytest.raises(InputError, match="has 3 epochs already"):
        training.resume(copied, resumed_config(copied, AutoencoderConfig, {"max_epochs": 2}))
    config = copied.config.read_text()
    copied.config.write_text(config.replace("data_fingerprint: ", "data_fingerprint: 0"))
    with pytest.raises(InputError, match="images have changed"):
        training.resume(copied, copied.load_config())


def test_a_folder_with_a_run_is_not_overwritten(finished: RunFolder) -> None:
    before = finished.config.read_bytes()
    with pytest.raises(InputError, match="holds a run already"):
        training.start(finished, AutoencoderConfig, QUICK)
    assert finished.config.read_bytes() == before


def test_evaluate_repeats_the_scores_and_keeps_the_rest(copied: RunFolder) -> None:
    before, page = copied.load_metrics(), copied.report.read_text(encoding="utf-8")
    copied.report.unlink()
    after = results.evaluate(copied)
    assert copied.report.read_text(encoding="utf-8").partition("<h2>Scores")[2] == page.partition("<h2>Scores")[2] != ""
    assert after["scores"] == before["scores"]
    assert after["seconds"]["training"] == before["seconds"]["training"]
    assert copied.load_metrics() == after
    copied.metrics.unlink()
    assert results.evaluate(copied)["steps"] == before["steps"]


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_checkpoint_that_runs_code_is_refused_and_does_not(copied: RunFolder, how: str) -> None:
    target = copied.root / "payload-ran"
    if how == "pickle":
        copied.last.write_bytes(pickle.dumps(Payload(target)))
    else:
        torch.save({"state_dict": {}, "callbacks": Payload(target), "global_step": 1}, copied.last)
    config = resumed_config(copied, AutoencoderConfig, {"max_epochs": 4})
    with pytest.raises(InputError, match="refused"):
        load_run(copied)
    with pytest.raises(InputError, match="refused"):
        training.resume(copied, config)
    assert not target.exists()


def test_damaged_and_foreign_checkpoints_are_one_clear_line(copied: RunFolder) -> None:
    whole = copied.last.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        copied.last.write_bytes(content)
        with pytest.raises(InputError, match=r"last\.ckpt"):
            load_run(copied)
    torch.save({"weights": torch.zeros(3)}, copied.last)
    with pytest.raises(InputError, match="not the checkpoint of a sinkdiv run"):
        load_run(copied)
    copied.last.write_bytes(whole)
    copied.config.write_text(copied.config.read_text().replace("latent_dim: 8", "latent_dim: 9"))
    with pytest.raises(InputError, match="does not belong"):
        load_run(copied)
    copied.last.unlink()
    with pytest.raises(InputError, match="no checkpoint"):
        load_run(copied)


def test_a_latent_space_of_one_dimension_is_drawn(tmp_path: Path) -> None:
    run = quick_run(tmp_path / "line", prior="uniform", latent_dim=1, max_epochs=1)
    assert run.report.stat().st_size > 0
