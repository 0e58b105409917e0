"""ε and the blur as tensors: one number for each problem of a batch or of lists."""

import pytest
import torch

import sinkdiv
from problems import cloud, tight, weights
from sinkdiv import checks
from sinkdiv.options import LossOptions, settled

EPS = torch.tensor([0.1, 0.3], dtype=torch.float64)


def lists():
    return [cloud(0, 5), cloud(1, 6)], [cloud(2, 4), cloud(3, 7)], [weights(0, 5), weights(1, 6)], None


@pytest.mark.parametrize("function", [sinkdiv.sinkhorn_divergence, sinkdiv.transport_cost])
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("how", [{}, {"value": "sharp"}, {"solver": sinkdiv.Unrolled(iterations=5)}])
def test_each_problem_of_a_list_has_its_own(function, rho, how):
    xs, ys, *_ = lists()
    found = function(xs, ys, eps=EPS, rho=rho, **how)
    expected = [function(x, y, eps=float(eps), rho=rho, **how) for x, y, eps in zip(xs, ys, EPS, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", sinkdiv.PowerCost(1.5)])
def test_blurs_become_cost_units_as_a_number_does(cost):
    """And may have another dtype than the points."""
    blurs = torch.tensor([0.25, 0.5])
    units = settled("", LossOptions, {"blur": blurs, "cost": cost}).eps
    assert units.dtype == torch.float64
    for blur, eps in zip(blurs, units, strict=True):
        assert float(eps) == settled("", LossOptions, {"blur": float(blur), "cost": cost}).eps


def test_numbers_of_a_batch():
    """Equal ones are the number; a tensor without axis is a number too."""
    x, y = cloud(0, 5, batch=2), cloud(1, 4, batch=2)
    expected = sinkdiv.sinkhorn_divergence(x, y, eps=0.1, **tight())
    assert torch.equal(sinkdiv.sinkhorn_divergence(x, y, eps=EPS[[0, 0]], **tight()), expected)
    assert torch.equal(sinkdiv.sinkhorn_divergence(x, y, eps=EPS[0], **tight()), expected)
    C = torch.cdist(x, y)
    assert torch.equal(sinkdiv.solve_matrix(C, eps=EPS[[0, 0]]).value, sinkdiv.solve_matrix(C, eps=0.1).value)


BAD = {
    "three for two": (torch.ones(3), r"eps.*each of 2 problems.*\(2,\).*\(3,\)"),
    "a matrix": (torch.ones(2, 1), r"eps.*\(B,\).*\(2, 1\)"),
    "none": (torch.ones(0), r"eps.*\(B,\).*\(0,\)"),
    "a zero": (torch.tensor([1.0, 0.0]), r"eps.*positive finite"),
    "an infinity": (torch.tensor([1.0, torch.inf]), r"eps.*positive finite"),
    "NaN": (torch.tensor([1.0, torch.nan]), r"eps.*positive finite"),
    "a NaN alone": (torch.tensor(torch.nan), r"eps.*positive finite"),
    "integers": (torch.tensor([1, 2]), r"eps.*floating"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_tensors_are_refused_by_name(what):
    eps, message = BAD[what]
    xs, ys, *_ = lists()
    batch = torch.stack([xs[0]] * 2), torch.stack([ys[0]] * 2)
    for function in (sinkdiv.solve, sinkdiv.solve_divergence, sinkdiv.sinkhorn_divergence, sinkdiv.transport_cost):
        for inputs in ((xs, ys), batch):
            with pytest.raises(ValueError, match=message):
                function(*inputs, eps=eps)
    with pytest.raises(ValueError, match=message):
        sinkdiv.SinkhornDivergence(eps=eps)(*batch)
    with pytest.raises(ValueError, match=message):
        sinkdiv.solve_matrix(torch.ones(2, 3, 3), eps=eps)


def test_one_problem_takes_a_number():
    with pytest.raises(ValueError, match=r"^blur.*one problem.*number"):
        sinkdiv.solve(cloud(0, 5), cloud(1, 4), blur=EPS[:1])


def test_a_blur_that_overflows_in_cost_units_is_refused():
    with pytest.raises(ValueError, match=r"blur.*cost units"):
        sinkdiv.SinkhornDivergence(blur=torch.tensor([0.1, 1e300], dtype=torch.float64))


@pytest.mark.parametrize("name", ["eps", "blur"])
def test_there_is_no_derivative_in_it(name):
    xs, ys, *_ = lists()
    with pytest.raises(NotImplementedError, match=rf"derivative in {name}.*detach"):
        sinkdiv.solve(xs, ys, **{name: EPS.clone().requires_grad_()})


def test_it_is_on_the_device_of_the_samples(monkeypatch):
    """Shown with the meta device, whose numbers cannot be looked at, as while a CUDA graph is captured."""
    monkeypatch.setattr(checks, "is_captured", lambda tensor: tensor.is_meta)
    xs, ys, *_ = lists()
    with pytest.raises(ValueError, match=r"^eps.*device cpu.*meta"):
        sinkdiv.solve(xs, ys, eps=EPS.to("meta"))
    batch = [torch.stack([one[0]] * 2).to("meta") for one in (xs, ys)]
    with pytest.raises(ValueError, match=r"^eps.*on the CPU while a CUDA graph is captured"):
        sinkdiv.solve(*batch, eps=EPS.to("meta"), tol=None)
