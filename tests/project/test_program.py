"""The data and the scores of the probabilistic program, and of the Dirichlet priors' experiment."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sinkdiv.generative.data import load_images
from sinkdiv.generative.seeds import Stream, generator

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def experiments():
    """The root of the repository on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("experiments", "benchmarks")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images = load_images("mnist-5k")
    return images.held_out[:60], images.held_out_labels[:60]


def test_canvases_are_a_function_of_their_arguments(digits) -> None:
    from experiments.probabilistic_program import canvases

    state = torch.random.get_rng_state()
    first, second, other = (canvases.make(*digits, 2, seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    for name in ("images", "clean", "labels", "where"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.images, other.images)


def test_canvases_are_digits_under_salt(digits) -> None:
    from experiments.probabilistic_program import canvases

    made = canvases.make(*digits, 2, seed=0)
    assert made.images.shape == (120, canvases.SIDE**2)
    assert made.images.min() == 0
    assert made.images.max() == 1
    assert torch.equal(made.labels, digits[1].repeat(2))
    salted = made.images != made.clean
    assert (made.images[salted] == 1).all()
    # The salt hides where the digit is white already; five standard errors of its rate elsewhere.
    dark = made.clean < 1
    rate = salted[dark].float().mean()
    assert abs(rate - canvases.SALT) < 5 * (canvases.SALT / dark.sum()) ** 0.5
    # The ink grows with the square of the scale; bilinear interpolation keeps a smaller digit's only on average.
    scales = canvases.placement(made.where, (canvases.SIDE, canvases.SIDE))[0]
    ink = made.clean.sum(1) / digits[0].sum(1).repeat(2)
    torch.testing.assert_close(ink, scales.square(), rtol=0.1, atol=0)
    assert abs((ink / scales.square()).mean() - 1) < 0.005


def test_written_canvases_are_read_by_the_trainer(digits, tmp_path) -> None:
    from experiments.probabilistic_program import canvases

    made = canvases.make(*digits, 2, seed=0)
    canvases.write(tmp_path / "canvases.npz", made)
    images = load_images(str(tmp_path / "canvases.npz"))
    assert images.shape == (1, canvases.SIDE, canvases.SIDE)
    read, order = torch.cat([images.train, images.held_out]), torch.cat([images.train_labels, images.held_out_labels])
    assert torch.equal(read.sort(0).values, made.images.sort(0).values)
    assert torch.equal(order.sort().values, made.labels.sort().values)


class Oracle(torch.nn.Module):
    """Codes that are the truth about a canvas, found by its number of white pixels, and a decoder that knows it."""

    def __init__(self, *known) -> None:
        super().__init__()
        self.known = {image.numpy().tobytes(): (part, row) for part in known for row, image in enumerate(part.images)}

    def encode(self, images: Tensor) -> Tensor:
        codes = []
        for image in images:
            part, row = self.known[image.numpy().tobytes()]
            codes.append(torch.cat([torch.nn.functional.one_hot(part.labels[row], 10), part.where[row]]))
        return torch.stack(codes)

    def decoder(self, codes: Tensor) -> Tensor:
        from experiments.probabilistic_program import canvases

        clean = {part.where[row].numpy().tobytes(): part.clean[row] for part, row in self.known.values()}
        digits = torch.stack([clean[code[10:].numpy().tobytes()] for code in codes])
        return torch.logit(1 - (1 - digits) * (1 - canvases.SALT), eps=1e-6)

    def draw_codes(self, count: int, stream: Stream, *position: int) -> Tensor:
        draws = torch.randn(count, 13, generator=generator(0, stream, *position))
        draws[:, :10] = torch.nn.functional.normalize(draws[:, :10], dim=1)
        return draws


def test_scores_of_the_truth_are_perfect(digits) -> None:
    from experiments.probabilistic_program import canvases
    from experiments.probabilistic_program.scores import score

    known, others = canvases.make(*digits, 8, seed=0), canvases.make(*digits, 4, seed=1)
    scores = score(Oracle(known, others), known, others)
    assert scores["what"]["votes"] == 1
    assert scores["where"]["places"] == pytest.approx({"size": 1, "right": 1, "down": 1}, abs=1e-6)
    assert max(scores["what"]["places"].values()) < 0.2
    assert scores["where"]["votes"] < 0.5
    assert scores["clean_mse"] < 1e-10 < scores["clean_mse_of_mean"]
    assert scores["nats"] < scores["nats_of_mean"]
    # Where is normal as its prior is, to the noise of 240 draws; what gathers at ten points of the sphere.
    where, what = scores["where"], scores["what"]
    assert where["divergence"]["value"] < 2 * where["divergence_of_draws"]["value"]
    assert what["divergence"]["lower"] > 3 * what["divergence_of_draws"]["upper"]


def test_program_runs_end_to_end_and_again(digits, tmp_path, monkeypatch, capsys) -> None:
    from experiments.probabilistic_program import __main__ as probabilistic_program
    from experiments.probabilistic_program import canvases, report

    parts = canvases.make(*digits, 5, seed=0), canvases.make(*digits, 1, seed=1)
    for module in (canvases, report):
        monkeypatch.setattr(module, "of", lambda data: parts)
    monkeypatch.setitem(probabilistic_program.SHARED, "hidden", (16,))
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--max-epochs", "1"]
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            probabilistic_program.main([*arguments, "--only", "program", "no-latent-loss"])
        assert end.value.code == 0
    # Trained once: the second command found both runs finished.
    assert capsys.readouterr().err.count("epoch 1/1") == 2
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "out" / "records").iterdir())]
    assert [record["row"] for record in records] == ["no-latent-loss", "program"]
    assert str(tmp_path) not in json.dumps(records)
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"{records[1]['scores']['nats']:.1f}" in table
    assert "nan" not in table
    for picture in ("canvases.png", "moved.png"):
        assert 1000 < (tmp_path / "out" / picture).stat().st_size < 300_000


def test_moved_codes_move_one_part_alone() -> None:
    from experiments.probabilistic_program.report import FARTHEST, STEPS, digits_moved, places_moved

    from sinkdiv.generative.priors import make_prior

    class Model:
        prior = make_prior("sphere@10*normal@3")

    draws = Model.prior.sample(3, 13, torch.Generator().manual_seed(0))
    places = places_moved(draws[0]).reshape(3, STEPS, 13)
    assert torch.equal(places[..., :10], draws[0, :10].expand(3, STEPS, 10))
    for place in range(3):
        assert places[place, 0, 10 + place] == -FARTHEST
        assert (places[place, :, [10 + k for k in range(3) if k != place]] == 0).all()
    digits = digits_moved(Model, draws[0], list(draws[1:])).reshape(2, STEPS, 13)
    assert (digits[..., 10:] == 0).all()
    torch.testing.assert_close(digits[..., :10].norm(dim=-1), torch.ones(2, STEPS))
    torch.testing.assert_close(digits[:, 0, :10], draws[[0, 0], :10])
    torch.testing.assert_close(digits[:, -1, :10], draws[1:, :10])


def test_dirichlet_runs_end_to_end(tmp_path, monkeypatch) -> None:
    from experiments.dirichlet import __main__ as dirichlet

    monkeypatch.setattr(dirichlet, "DATA", ("digits",))
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--max-epochs", "1", "--seeds", "0"]
    with pytest.raises(SystemExit) as end:
        dirichlet.main([*arguments, "--data", "digits", "--only", "half-10"])
    assert end.value.code == 0
    scores = json.loads((tmp_path / "out" / "records" / "digits-half-10-0.json").read_text())["scores"]
    assert sum(map(sum, scores["shares"])) == pytest.approx(1, abs=0.01)
    # Purity cannot be below the share of the commonest class at each vertex, nor votes and weights above one.
    assert 0.1 < scores["purity"] <= 1
    assert 0.1 <= scores["largest"] <= 1
    assert f"{scores['purity']:.3f}" in (tmp_path / "out" / "table.md").read_text()
    for picture in ("vertices.png", "classes.svg"):
        assert 1000 < (tmp_path / "out" / picture).stat().st_size < 300_000


def test_class_of_a_vertex_is_its_commonest() -> None:
    from experiments.dirichlet import __main__ as dirichlet

    vertices, labels = torch.tensor([0, 0, 0, 2, 2, 2]), torch.tensor([5, 5, 1, 7, 3, 3])
    assert dirichlet.class_of_vertex(vertices, labels) == {0: 5, 2: 3}
