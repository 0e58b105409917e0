"""The benchmarks run without any other library, on sizes that measure nothing."""

import importlib
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[2]
PEERS = ("geomloss", "pykeops", "ot", "ott", "jax", "regot", "flash_sinkhorn")


@pytest.fixture
def command(monkeypatch):
    """The module of a benchmark by its name, on a machine where no other library is installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)
    yield lambda name: importlib.import_module(f"benchmarks.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture
def speed(command):
    return command("speed.__main__")


@pytest.fixture
def derivatives(command):
    return command("derivatives.__main__")


def run(speed, out, only):
    speed.main(["--size", "tiny", "--out", str(out), "--only", only, "--cache", str(out / "references")])
    return json.loads((out / "speed.json").read_text())["sections"]


def test_every_section_runs_and_names_what_is_not_installed(speed, tmp_path):
    sections = run(speed, tmp_path, "conventions,kinds,T5,T6,T1,T2,growth")
    report = (tmp_path / "speed.md").read_text()
    for name, section in sections.items():
        assert section["machine"]["versions"]["torch"]
        for table in section["tables"]:
            for row in table["rows"]:
                ours = row["method"].startswith("sinkdiv")
                assert bool(row["seconds"]) is (ours or name == "kinds"), (name, row)
                assert row["seconds"] or row["note"] == "not installed"
    assert sections["T5"]["tables"][0]["reference"]["converged"]
    assert sections["T5"]["tables"][0]["rows"][0]["errors"]["gradient"] < 1e-2
    assert sections["growth"]["tables"][-1]["rows"][0]["errors"]["value_at_most"] < 1e-2
    assert "not installed" in report
    assert "no result" in report
    assert "gradient_tangent" in report
    assert (tmp_path / "speed_growth.svg").stat().st_size < 300_000


def test_only_replaces_the_sections_it_names(speed, tmp_path):
    before = run(speed, tmp_path, "T5")
    after = run(speed, tmp_path, "T8")
    assert set(after) == {"T5", "T8"}
    assert after["T5"] == before["T5"]
    ours = after["T8"]["tables"][0]["rows"][0]
    assert ours["error"] < 1e-4
    assert ours["pairs_per_s"] > 0


def test_unknown_sections_are_refused(speed, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(speed, tmp_path, "T9")
    assert "there is no section 'T9'" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark is Linux's")
def test_memory_is_measured_in_a_process_of_its_own(speed, tmp_path):
    row = run(speed, tmp_path, "memory")["memory"]["rows"][0]
    assert 0 <= row["peak_bytes"] < 4 * row["n"] ** 2
    assert row["softmin_s"] > 0


def run_derivatives(derivatives, out, only, *arguments):
    derivatives.main(["--quick", "--out", str(out), "--only", only, *arguments])
    return json.loads((out / "derivatives.json").read_text())["sections"]


def test_derivatives_are_right_and_what_is_missing_is_named(derivatives, tmp_path):
    sections = run_derivatives(derivatives, tmp_path, "errors,times,hessian", "--cache", str(tmp_path / "references"))
    for name, section in sections.items():
        for table in section["tables"]:
            for row in table["rows"]:
                ours = row["method"].startswith("sinkdiv")
                assert bool(row.get("seconds")) is ours, (name, row)
                assert ours or row["note"] == "not installed"
    for table in sections["errors"]["tables"]:
        implicit = [row for row in table["rows"] if row["method"] == "sinkdiv implicit"]
        assert all(row["marginal_error"] <= row["setting"] for row in implicit)
        assert implicit[-1]["gradient_error"] < 1e-6
        assert table["reference_error"] < 1e-12
    sharp, entropic = sections["times"]["tables"][:2]
    assert sharp["reference"]["kind"] == entropic["reference"]["kind"] == "dense"
    assert all(table["rows"][0]["errors"]["gradient"] < 1e-2 for table in sections["times"]["tables"])
    (products,) = sections["hessian"]["tables"]
    assert products["rows"][2]["errors"]["gradient"] < 1e-5
    report = (tmp_path / "derivatives.md").read_text()
    assert "not installed" in report
    assert "no result" in report
    assert (tmp_path / "derivatives.svg").stat().st_size < 300_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark is Linux's")
def test_memory_of_a_gradient_is_measured_in_a_process_of_its_own(derivatives, tmp_path):
    section = run_derivatives(derivatives, tmp_path, "memory", "--methods", "implicit")["memory"]
    (row,) = section["rows"]
    assert 0 <= row["peak_bytes"] < 1e9
    assert row["gradient_norm"] > 0


def test_unknown_sections_of_derivatives_are_refused(derivatives, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_derivatives(derivatives, tmp_path, "second")
    assert "there is no section 'second'" in capsys.readouterr().err


def test_every_loss_of_a_training_step_is_timed(command, tmp_path):
    training = command("training.__main__")
    for only in ("perceptron", "convolutional,generated"):
        training.main(["--quick", "--out", str(tmp_path), "--only", only])
    sections = json.loads((tmp_path / "training_step.json").read_text())["sections"]
    assert list(sections) == ["perceptron", "convolutional", "generated"]
    for section in sections.values():
        for row in section["rows"]:
            assert all(0 < loss < whole for loss, whole in zip(row["loss_seconds"], row["step_seconds"], strict=True))
    report = (tmp_path / "training_step.md").read_text()
    assert report.count("no result") == 3
    assert report.count("| default: debiased ") == 3


def test_every_method_for_cost_matrices_is_judged(command, tmp_path):
    command("matrices.__main__").main(["--quick", "--out", str(tmp_path)])
    sections = json.loads((tmp_path / "matrices.json").read_text())["sections"]
    for name in ("forward", "batch"):
        rows = sections[name]["rows"]
        ours = [row for row in rows if row["method"].startswith("sinkdiv")]
        assert {row["method"] for row in ours} == {f"sinkdiv {way}" for way in ("auto", "sinkhorn", "lbfgs", "newton")}
        assert all(row["marginal_error"] <= row["tol"] == 1e-6 for row in ours)
        assert all(row["note"] == "not installed" for row in rows if row not in ours)
    errors = [row["gradient_error"] for row in sections["gradient"]["rows"] if "gradient_error" in row]
    assert len(errors) == 4
    assert max(errors) < 1e-4
    assert (tmp_path / "matrices.md").read_text().count("no result") == 3


def test_passes_of_every_solver_are_counted(command, tmp_path):
    command("solvers.__main__").main(["--quick", "--out", str(tmp_path), "--only", "suite,small,warm"])
    sections = json.loads((tmp_path / "solvers.json").read_text())["sections"]
    methods = sections["suite"]["methods"]
    for name, counts in methods["sinkdiv"].items():
        assert None not in counts, name
        assert counts == sorted(counts)
        assert all(ours <= theirs + 2 for ours, theirs in zip(counts, methods["alternating"][name], strict=True))
    assert all(row["warm"] > 0 for row in sections["warm"]["rows"])
    report = (tmp_path / "solvers.md").read_text()
    assert "Pairs of problem and tolerance that only alternating solved: 0 of" in report
    assert (tmp_path / "solvers.png").stat().st_size < 300_000


@pytest.fixture
def gpu(command):
    pytest.importorskip("triton")
    return command("gpu.__main__")


def run_gpu(gpu, out, *arguments):
    assert gpu.main(["--quick", "--device", "cpu", "--out", str(out), *arguments]) == 0
    return json.loads((out / "gpu.json").read_text())["sections"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, where lanes that are masked overflow
def test_every_section_for_gpus_runs_on_any_machine(gpu, tmp_path):
    sections = run_gpu(gpu, tmp_path)
    assert list(sections) == list(gpu.BUDGETS)
    for name, section in sections.items():
        assert section["complete"], name
        assert section["facts"]["versions"]["torch"]
        for row in section["rows"]:
            assert not row.get("note", "").startswith("failed"), (name, row)
    for row in sections["errors"]["rows"]:
        # Rounding the points to 11 bits is what TF32 costs: 2¹² times as much as rounding to 23.
        allowed = 4 * row["unit"] * (2**12 if row["table"].endswith("tf32") else 1)
        assert max(row["errors"].values()) < allowed, row
    for row in sections["solves"]["rows"]:
        assert row["marginal_error"] <= 1.5e-3 if "seconds" in row else "note" in row or "reference" in row
    ours = [row for row in sections["solves"]["rows"] if row["method"].startswith("sinkdiv")]
    assert all(row["certificate"]["holds_reference"] and row["errors"]["gradient"] < 1e-2 for row in ours)
    report = (tmp_path / "gpu.md").read_text()
    assert report.count("no result") == len(sections)
    assert "not installed" in report


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_alternative_tiles_are_timed(gpu, tmp_path):
    rows = run_gpu(gpu, tmp_path, "--tune")["tiles"]["rows"]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_section_that_is_out_of_time_keeps_its_rows(gpu, tmp_path):
    section = run_gpu(gpu, tmp_path, "--only", "errors", "--seconds", "0.001")["errors"]
    assert len(section["rows"]) == 1
    assert not section["complete"]
    assert "Not complete" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_one_line_says_so(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_floors_are_those_of_the_white_paper(gpu):
    """An H100's 132 multiprocessors at 1.83 GHz: 3.86e12 exponentials and 495e12 flops in TF32 a second."""
    from benchmarks.gpu.device import Charge, Rates

    each = 132 * 1.83e9
    rates = Rates(132, 1.83e9, 16 * each, 128 * each, 4096 * each, 2048 * each)
    assert Charge(1, 1).floor(10**10, rates) == pytest.approx(2.6e-3, rel=0.01)
    assert Charge(1, 1, tf32_products=2 * 512).floor(10**10, rates) == pytest.approx(20.7e-3, rel=0.01)
    assert Charge(1, 1, half_products=3 * 1024).floor(10**10, rates) == pytest.approx(1.5 * 20.7e-3, rel=0.01)


def test_rounding_is_that_of_the_significant_bits(command, tmp_path):
    """Two float16 numbers keep a coordinate about as well as float32, two bfloat16 ones 2⁶ and TF32 2¹¹ times worse."""
    command("gpu.rounding").main(["--out", str(tmp_path), "--points", "40"])
    rows = [line.split("|")[1:-1] for line in (tmp_path / "rounding.md").read_text().splitlines() if "e-" in line]
    means = {row[0].strip(): float(row[1].split(",")[0]) for row in rows}
    assert means["float16, split in two"] < 4 * means["float32, added in float32"] < 2e-7
    assert 2**5 < means["bfloat16, split in two"] / means["float16, split in two"] < 2**8
    assert 2**10 < means["TF32"] / means["float16, split in two"] < 2**14


def test_numbers_of_two_trees_are_compared(command, tmp_path, capsys):
    values = command("regression.values")
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for file in (first, second):
        assert values.main(["write", str(file), "--only", "zero weights"]) == 0
    assert values.main(["compare", str(first), str(second)]) == 0
    assert ", 0 beyond rounding" in capsys.readouterr().out
    # A change of a number beyond rounding, of a count, and a quantity that is gone are each found.
    found = json.loads(second.read_text())
    problem = found["zero weights"]
    assert "failure" not in problem
    problem["transport: value"]["numbers"][0] *= 1 + 1e-6
    problem["transport: passes"][0] += 2
    del problem["divergence: bounds"]
    second.write_text(json.dumps(found))
    assert values.main(["compare", str(first), str(second)]) == 1
    assert ", 3 beyond rounding" in capsys.readouterr().out


def test_times_of_two_trees_are_compared(command, capsys):
    times = command("regression.times")
    source = str(ROOT / "src")
    assert times.main([source, source, "--only", "T5: 128", "--starts", "1", "--seconds", "0.2", "--cpu"]) == 0
    _, _, row = capsys.readouterr().out.splitlines()
    assert float(row.split("|")[4]) > 0
