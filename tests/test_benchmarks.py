"""The speed benchmark runs without any other library, on sizes that measure nothing."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MODULES = ("speed", "sections", "report", "measuring", "passes", "peers", "workloads")
PEERS = ("geomloss", "pykeops", "ot", "ott", "jax")


@pytest.fixture
def speed(monkeypatch):
    """The script as a module, on a machine where no other library is installed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)
    import speed

    yield speed
    for name in MODULES:
        sys.modules.pop(name, None)


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
