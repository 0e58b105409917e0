"""The experiments run end to end on sizes that show nothing, go on where they were stopped, and say what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parents[2] / "experiments" / "analytic_differentiation.py"
BOTH = ("--only", "grid9", "moons", "--methods", "implicit", "unrolled")


MODULES = ("analytic_differentiation", "resumable", "toy_generator", "toy_report", "toy_targets")


@pytest.fixture(scope="module")
def experiment():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        import analytic_differentiation

        yield analytic_differentiation
    for name in MODULES:
        sys.modules.pop(name, None)


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
    toy_generator = sys.modules["toy_generator"]
    assert toy_generator.exact_w2(points, shuffled) == pytest.approx(25, rel=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_an_interrupted_command_keeps_what_it_finished(tmp_path):
    many = ["--only", "grid9", "--methods", "implicit", "--steps", "5", "--seeds", "1000"]
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--quick", *many]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
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


@pytest.fixture
def scripts(monkeypatch):
    """Two other scripts as modules."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    import cifar10
    import million_points

    yield cifar10, million_points
    for name in ("cifar10", "million_points", "resumable", "training_runs"):
        sys.modules.pop(name, None)


def ended(script, *arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as end:
        script.main([str(argument) for argument in arguments])
    return end.value.code


def test_a_large_divergence_is_recorded_with_its_certificate(scripts, tmp_path, capsys):
    _, million_points = scripts
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


def test_wrong_arguments_of_a_large_divergence_are_named(scripts, tmp_path, capsys):
    _, million_points = scripts
    for arguments, complaint in ((("--points", "1"), "at least 2"), (("--device", "cuda"), "finds no GPU here")):
        assert ended(million_points, "--out", tmp_path / "results", *arguments) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_full_run_of_colour_images_is_the_papers(scripts, tmp_path, capsys):
    """G18 §5.3, as far as its text goes: four ε, 50,000 images, and here some 50,000 steps of the generator."""
    cifar10, _ = scripts
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
