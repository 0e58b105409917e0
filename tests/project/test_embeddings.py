"""The encoder-only embeddings and the scores they are judged by."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embeddings():
    """The module of the command, with few points to measure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        import experiments.embeddings.__main__ as embeddings

        patch.setattr(embeddings, "MEASURED", 80)
        yield embeddings
    for name in [name for name in sys.modules if name.partition(".")[0] in ("experiments", "benchmarks")]:
        del sys.modules[name]


def run(embeddings, out, *arguments) -> int:
    """The exit status."""
    with pytest.raises(SystemExit) as end:
        embeddings.main(["--out", str(out), "--seeds", "1", "--batch", "64", *arguments])
    return end.value.code


@pytest.fixture(scope="module")
def results(embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("embeddings")
    assert run(embeddings, out, "--steps", "60") == 0
    return out


def test_every_case_comes_nearer_to_its_prior(embeddings, results) -> None:
    for case in embeddings.CASES:
        record = json.loads((results / "records" / f"{case}-0.json").read_text())
        before, after = (record[stage]["divergence"] for stage in ("before", "after"))
        assert after["upper"] < before["lower"] / 3
        for found in (before, after, record["after"]["divergence_of_draws"]):
            assert found["lower"] <= found["value"] <= found["upper"]
        assert record["machine"]["versions"]["torch"]
    table = (results / "table.md").read_text()
    assert f"{1000 * after['value']:.2f}" in table
    assert "nan" not in table
    assert 1000 < (results / "embeddings.png").stat().st_size < 300_000


def test_a_second_command_repeats_nothing_and_refuses_other_settings(embeddings, results, capsys) -> None:
    assert run(embeddings, results, "--steps", "60") == 0
    assert capsys.readouterr().err.count("finished before") == 3
    assert "was made with steps 60, not 61" in run(embeddings, results, "--steps", "61")


def test_a_run_depends_on_its_settings_alone(embeddings) -> None:
    settings = embeddings.Run("square", 3, 5, 32)
    first = embeddings.train(settings)
    torch.rand(7)
    second = embeddings.train(settings)
    assert first["after"] == second["after"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "torus"), "invalid choice: 'torus'"),
        (("--steps", "0"), "--steps must be at least 1, not 0"),
        (("--batch", "1"), "--batch must be at least 2, not 1"),
    ],
)
def test_wrong_arguments_are_named(embeddings, tmp_path, capsys, arguments, complaint) -> None:
    assert run(embeddings, tmp_path / "results", *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_unrolled_coordinates_are_lengths_on_the_sheet(embeddings) -> None:
    """Between near points of the roll, distances on the sheet are those in space, to second order."""
    sheet = embeddings._sheet(4000, 0)
    space, flat = (torch.cdist(each, each) for each in (10 * sheet.points.double(), sheet.true.double()))
    near = (space > 0.05) & (space < 0.5)
    assert near.sum() > 1000
    assert ((flat / space)[near] - 1).abs().max() < 0.01


def test_equal_area_map_keeps_uniform_uniform(embeddings) -> None:
    from experiments.embeddings.report import equal_area

    points = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    longitude, height = equal_area((points / points.norm(dim=1, keepdim=True)).numpy()).T
    # Kolmogorov's 99.9% bound: 1.95/√n.
    assert kstest(longitude, "uniform", (-math.pi, 2 * math.pi)).statistic < 1.95 / math.sqrt(4000)
    assert kstest(height, "uniform", (-1, 2)).statistic < 1.95 / math.sqrt(4000)


def test_neighbourhoods_of_known_maps(embeddings) -> None:
    from experiments.frame.scores import NEIGHBOURS, neighbourhoods

    points = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    rotated = points @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert neighbourhoods(points, rotated) == {"trustworthiness": 1.0, "continuity": 1.0, "kept": 1.0}
    shuffled = neighbourhoods(points, points[torch.randperm(400, generator=torch.Generator().manual_seed(1))])
    assert shuffled["kept"] == pytest.approx(NEIGHBOURS / 399, abs=4 * np.sqrt(NEIGHBOURS / 399 / 4000))
    assert shuffled["trustworthiness"] == pytest.approx(0.5, abs=0.05)
    assert shuffled["continuity"] == pytest.approx(0.5, abs=0.05)


def test_votes_of_separate_clusters_are_right(embeddings) -> None:
    from experiments.frame.scores import votes

    labels = torch.arange(90) % 3
    points = 5 * torch.nn.functional.one_hot(labels, 3) + torch.rand(90, 3, generator=torch.Generator().manual_seed(0))
    assert votes(points[:60], labels[:60], points[60:], labels[60:]) == 1
    assert votes(points[:60], labels[:60], points[60:], (labels[60:] + 1) % 3) == 0
