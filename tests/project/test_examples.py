"""Every example runs as it stands, says what it found, and stays short enough to be copied."""

import re
import runpy
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
#: The smallest sizes at which a script still shows what it is about.
SMALL = {
    "align_clouds": {"count": 40, "steps": 10},
    "choose_blur": {"count": 60},
    "cost_matrix": {"stores": 6, "customers": 8},
    "different_sizes": {"pairs": 4},
    "learned_cost": {"count": 60, "steps": 20},
    "map_new_points": {"count": 100},
    "outliers": {"count": 40, "outliers": 4},
    "summarise_cloud": {"count": 100, "few": 6, "steps": 8},
    "training_loop": {"steps": 8},
}
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")


def run(script, capsys):
    """What the script prints at its small size."""
    state = torch.random.get_rng_state()
    try:
        runpy.run_path(str(script))["main"](**SMALL[script.stem])
    finally:
        torch.random.set_rng_state(state)
    return capsys.readouterr().out


@pytest.mark.filterwarnings("error::sinkdiv.ConvergenceWarning", "error::sinkdiv.DerivativeWarning")
@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_runs_without_a_warning_and_prints_numbers(script, capsys):
    printed = run(script, capsys)
    assert len(NUMBER.findall(printed)) >= 3
    assert "nan" not in printed


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_is_short_and_listed(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 80
    assert f"[{script.name}]({script.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_divergence_brings_a_cloud_to_its_target(capsys):
    """The docstring of the example: its interval ends near 0, where the transport cost stays away."""
    (script,) = (one for one in SCRIPTS if one.stem == "align_clouds")
    intervals = [list(map(float, NUMBER.findall(line.split("[")[1]))) for line in run(script, capsys).splitlines()[1:3]]
    (_, upper_of_divergence), (lower_of_cost, _) = intervals
    assert upper_of_divergence < 0.1 * lower_of_cost


def test_outliers_get_hardly_any_mass(capsys):
    (script,) = (one for one in SCRIPTS if one.stem == "outliers")
    balanced, soft = (float(NUMBER.findall(line)[-1]) for line in run(script, capsys).splitlines()[1:3])
    assert soft < 1e-3 < 4 / 44 * 0.99 < balanced
