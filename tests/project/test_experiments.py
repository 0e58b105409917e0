"""The experiments run end to end on sizes that show nothing, go on where they were stopped, and say what is wrong."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sinkdiv

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
ROOT = Path(__file__).parents[2]
BOTH = ("--only", "grid9", "moons", "--methods", "implicit", "unrolled")


@pytest.fixture(scope="module")
def command():
    """The module of an experiment's command by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield lambda name: importlib.import_module(f"experiments.{name}.__main__")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("experiments", "benchmarks")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def experiment(command):
    return command("analytic_differentiation")


def run(experiment, out, *arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as end:
        experiment.main(["--out", str(out), "--quick", "--seeds", "1", *arguments])
    return end.value.code


def records(out):
    return {file.stem: json.loads(file.read_text()) for file in sorted((out / "records").glob("*.json"))}


@pytest.fixture(scope="module")
def first(experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "results"
    assert run(experiment, out, *BOTH, "--steps", "6") == 0
    return out


def test_every_run_is_recorded_and_reported(first):
    found = records(first)
    assert list(found) == ["grid9-implicit-0", "grid9-unrolled-0", "moons-implicit-0", "moons-unrolled-0"]
    for record in found.values():
        assert record["machine"]["versions"]["torch"]
        assert len(record["points"]) == record["n"]
        assert record["curve"][-1][0] == record["steps"] == 6
        assert 0 < record["w2_target"] < record["w2"]
        assert record["warnings_count"] == 0
    table = (first / "table.md").read_text()
    assert f"{found['moons-implicit-0']['w2']:.3f}" in table
    for figure in ("points.png", "curves.svg"):
        assert 1000 < (first / figure).stat().st_size < 300_000


def test_a_second_command_repeats_nothing_and_adds_what_is_missing(experiment, first, capsys):
    before = records(first)
    assert run(experiment, first, "--only", "moons", "--steps", "6") == 0
    assert capsys.readouterr().err.count("finished before") == 2
    after = records(first)
    assert set(after) - set(before) == {"moons-debiased-0"}
    assert before.items() <= after.items()


def test_runs_of_other_settings_are_not_mixed(experiment, first):
    assert "was made with steps 6, not 7" in run(experiment, first, *BOTH, "--steps", "7")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "grid10"), "invalid choice: 'grid10'"),
        (("--methods", "envelope"), "invalid choice: 'envelope'"),
        (("--steps", "0"), "--steps must be at least 1, not 0"),
    ],
)
def test_wrong_arguments_are_named(experiment, tmp_path, capsys, arguments, complaint):
    assert run(experiment, tmp_path / "results", *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_w2_is_that_of_a_translation(experiment):
    points = torch.rand(50, 2)
    shuffled = points[torch.randperm(50)] + torch.tensor([3.0, 4.0])
    from experiments.analytic_differentiation.generator import exact_w2

    assert exact_w2(points, shuffled) == pytest.approx(25, rel=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_an_interrupted_command_keeps_what_it_finished(tmp_path):
    many = ["--only", "grid9", "--methods", "implicit", "--steps", "5", "--seeds", "1000"]
    command = [sys.executable, "-m", "experiments.analytic_differentiation", "--out", str(tmp_path), "--quick", *many]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "records").glob("*.json"))) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "finished runs are kept" in errors
    assert 0 < len(records(tmp_path)) < 1000
    assert (tmp_path / "table.md").exists()


def environment():
    """For a process that runs in the root of the repository and finds this package, wherever it is."""
    package = Path(sinkdiv.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))}


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def ended(script, *arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as end:
        script.main([str(argument) for argument in arguments])
    return end.value.code


def test_a_large_divergence_is_recorded_with_its_certificate(command, without_gpu, tmp_path, capsys):
    million_points = command("million_points")
    for points in (400, 401):
        assert ended(million_points, "--out", tmp_path, "--points", points) == 0
    record = records(tmp_path)["400-points-cpu"]
    assert record["converged"]
    assert record["bounds"][0] <= record["value"] <= record["bounds"][1]
    # For squared distances the gradient's sum is twice the difference of the means, to the marginal error.
    assert record["gradient_sum_error"] < record["tol"]
    report = (tmp_path / "table.md").read_text()
    assert report.count("| cpu |") == 2
    assert report.count("not measured") == 2
    capsys.readouterr()
    assert ended(million_points, "--out", tmp_path, "--points", 400) == 0
    assert "finished before" in capsys.readouterr().err


def test_wrong_arguments_of_a_large_divergence_are_named(command, without_gpu, tmp_path, capsys):
    million_points = command("million_points")
    for arguments, complaint in ((("--points", "1"), "at least 2"), (("--device", "cuda"), "finds no GPU here")):
        assert ended(million_points, "--out", tmp_path / "results", *arguments) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_full_run_of_colour_images_is_the_papers(command, without_gpu, tmp_path, capsys):
    """G18 §5.3, as far as its text goes: four ε, 50,000 images, and here some 50,000 steps of the generator."""
    cifar10 = command("cifar10")
    images = tmp_path / "images.zip"
    images.touch()
    common = ["--train-zip", images, "--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    runs = cifar10.planned(cifar10.parse([*map(str, common), "--full"]))
    assert [run.eps for run in runs] == [10, 100, 1000, float("inf")]
    for run in runs:
        batches = run.epochs * (run.images * 9 // 10 // run.batch_size)  # a tenth is held out
        assert batches // (1 + run.critic_steps) == pytest.approx(50_000, rel=0.01)
        assert run.settings["width"] == 64
    assert ended(cifar10, *common, "--full", "--accelerator", "gpu") == 2
    assert "finds no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "count", "files"),
    [
        ("iris_ellipses", ("--seeds", "1", "--steps", "2"), 10, ("table.md", "ellipses.png")),
        ("mnist_manifold", ("--data", "mnist-5k", "--only", "unrolled", "--steps", "1"), 4, ("table.md",)),
        ("code_variance", ("--repeats", "1", "--dimensions", "2", "--batches", "8"), 25, ("table.md", "scales.svg")),
    ],
)
def test_other_commands_record_and_report(command, tmp_path, capsys, name, arguments, count, files):
    for _ in range(2):
        assert ended(command(name), "--out", tmp_path, *arguments) == 0
    assert len(records(tmp_path)) == count
    assert capsys.readouterr().err.count("finished before") == count
    for file in files:
        assert 500 < (tmp_path / file).stat().st_size < 300_000
    assert "nan" not in (tmp_path / "table.md").read_text()


def test_the_autoencoders_table_is_trained_scored_and_scored_again(command, tmp_path, monkeypatch):
    autoencoders = command("sinkhorn_autoencoder")
    from experiments.sinkhorn_autoencoder.rows import DATA, Plan

    monkeypatch.setitem(DATA, "digits", Plan(seeds=(0,), epochs=1, binarize=False))
    common = ["--runs", tmp_path / "runs", "--out", tmp_path / "out", "--data", "digits", "--only", "ae", "sae-normal"]
    assert ended(autoencoders, *common) == 0
    first = records(tmp_path / "out")
    assert list(first) == ["digits-ae-0", "digits-sae-normal-0"]
    assert ended(autoencoders, *common, "--score-again") == 0
    again = records(tmp_path / "out")
    for name, record in first.items():
        assert record["metrics"]["scores"]["model"] == again[name]["metrics"]["scores"]["model"]
    assert "| SAE, sphere | missing |" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "samples" / "digits-ae.png").exists()
