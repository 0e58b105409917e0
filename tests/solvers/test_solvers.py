"""What a solve promises: a tolerance that holds, a bound on the work, a status, one warning, a callback."""

import pickle
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sinkdiv
from problems import array, cloud, costs, weights
from sinkdiv import Status

COSTS = ["sqeuclidean", "euclidean"]
FUNCTIONS = [sinkdiv.solve, sinkdiv.transport_cost, sinkdiv.solve_divergence, sinkdiv.sinkhorn_divergence]


def marginal_error(t, x, y, a, b, eps, name, rho):
    """The relative L1 errors of both marginals, added up, in float64 from the returned potentials alone."""
    f, g, a, b = (torch.tensor(array(tensor)) for tensor in (t.f, t.g, a, b))
    P = a[:, None] * b[None, :] * ((f[:, None] + g[None, :] - torch.tensor(costs(x, y, name))) / eps).exp()
    if rho is not None:
        a, b = a * (-f / rho).exp(), b * (-g / rho).exp()
    else:
        b = b * (a.sum() / b.sum())
    return float((P.sum(1) - a).abs().sum() / a.sum() + (P.sum(0) - b).abs().sum() / b.sum())


@given(
    seed=st.integers(0, 999),
    eps=st.floats(0.03, 2.0),
    tol=st.sampled_from([1e-1, 1e-2, 1e-3, 1e-4]),
    name=st.sampled_from(COSTS),
    rho=st.sampled_from([None, 0.4]),
    itself=st.booleans(),
)
def test_met_tolerance_is_a_marginal_error(dtype, route, seed, eps, tol, name, rho, itself):
    """`converged` means that the plan's true marginal error, computed from the potentials in float64, is below tol."""
    x, a = cloud(seed, 11, dtype=dtype), weights(seed, 11, dtype=dtype)
    y, b = (x, a) if itself else (cloud(seed + 1, 9, dtype=dtype) + 0.3, weights(seed + 1, 9, dtype=dtype))
    t = sinkdiv.solve(x, y, a, b, eps=eps, rho=rho, cost=name, tol=tol)
    assert t.converged is True
    assert t.status is Status.CONVERGED
    # An exponent of size cost/ε carries that many units of rounding.
    rounding = 20 * torch.finfo(dtype).eps * (1 + costs(x, y, name).max() / eps)
    true_error = marginal_error(t, x, y, a, b, eps, name, rho)
    assert true_error <= tol + rounding
    assert float(t.marginal_error) == pytest.approx(true_error, abs=rounding)


@pytest.mark.parametrize("mass", [1e-3, 1.0, 50.0])
def test_tolerance_is_relative_to_the_mass(dtype, route, mass):
    """Balanced: the plan for masses m is m times the plan for masses 1, after the same number of passes."""
    x, y = cloud(120, 9, dtype=dtype), cloud(121, 8, dtype=dtype)
    a, b = weights(120, 9, dtype=dtype), weights(121, 8, dtype=dtype)
    unit = sinkdiv.solve(x, y, a, b, eps=0.1, tol=1e-3)
    scaled = sinkdiv.solve(x, y, mass * a, mass * b, eps=0.1, tol=1e-3)
    assert scaled.passes == unit.passes
    torch.testing.assert_close(scaled.marginal_error, unit.marginal_error, rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.plan() / mass, unit.plan(), rtol=0, atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("max_passes", [2, 3, 4, 7, 20])
@pytest.mark.parametrize("itself", [False, True])
def test_work_is_bounded(dtype, route, max_passes, itself):
    """Passes are softmins over all pairs; never more of them than allowed."""
    x = cloud(122, 9, dtype=dtype)
    y = x if itself else cloud(123, 8, dtype=dtype)
    with pytest.warns(sinkdiv.ConvergenceWarning):
        t = sinkdiv.solve(x, y, eps=0.002, tol=1e-30, solver=sinkdiv.Auto(max_passes=max_passes))
    assert 0 < t.passes <= max_passes
    assert t.converged is False
    assert torch.isfinite(t.value)
    assert torch.isfinite(t.marginal_error)


@pytest.mark.parametrize("fixture", ["streamed", "tiled"])
def test_passes_are_counted(fixture, request, monkeypatch):
    """Each softmin over all pairs is one pass, and a value needs none besides."""
    from sinkdiv.geometry.pairwise import PairwiseGeometry

    request.getfixturevalue(fixture)
    counted = []
    softmin = PairwiseGeometry.softmin
    monkeypatch.setattr(PairwiseGeometry, "softmin", lambda *args: counted.append(1) or softmin(*args))
    x, y = cloud(124, 9), cloud(125, 8)
    for second in (y, x):
        counted.clear()
        t = sinkdiv.solve(x, second, eps=0.1)
        assert torch.isfinite(t.value)
        assert t.passes == len(counted)


def test_best_iterate_is_kept_when_the_tolerance_is_out_of_reach(route):
    """Not converged: the best iterate's certificate, not that of whichever came last (design)."""
    x, y = cloud(126, 40, dtype=torch.float32), cloud(127, 40, dtype=torch.float32)
    for second in (y, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
            t = sinkdiv.solve(x, second, eps=0.02, tol=1e-30, solver=sinkdiv.Auto(max_passes=1001))
        assert float(t.marginal_error) == pytest.approx(min(error for _, error in t.history), rel=1e-6)


def test_history_ends_with_the_result(route):
    """(passes, marginal error) at each test, in order."""
    t = sinkdiv.solve(cloud(128, 9), cloud(129, 8), eps=0.1, tol=1e-6)
    passes, errors = zip(*t.history, strict=True)
    assert list(passes) == sorted(set(passes))
    assert passes[-1] == t.passes
    assert errors[-1] == pytest.approx(float(t.marginal_error))
    assert errors[-1] <= 1e-6 < min(errors[:-1])


# Status and warning.


def test_status_sentences():
    assert str(Status.CONVERGED).startswith("converged")
    for status in (Status.MAX_PASSES, Status.PRECISION, Status.STOPPED):
        assert str(status).startswith("not converged")
    assert "max_passes" in str(Status.MAX_PASSES)
    assert "float64" in str(Status.PRECISION)
    assert "callback" in str(Status.STOPPED)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_warning_for_one_call(function, route):
    """It names the remedy, points at this file, and counts the problems of a batch and of a divergence together."""
    x, y = cloud(130, 9, batch=2), cloud(131, 8, batch=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(x, y, eps=0.05, tol=1e-12, solver=sinkdiv.Auto(max_passes=4))
    assert [warning.category for warning in caught] == [sinkdiv.ConvergenceWarning]
    message = str(caught[0].message)
    problems = 6 if function in FUNCTIONS[2:] else 2
    assert message.startswith(f"{problems} of {problems} ")
    assert "max_passes" in message
    assert caught[0].filename == __file__


@pytest.mark.parametrize("function", FUNCTIONS)
def test_warning_can_be_filtered_and_made_an_error(function):
    x, y = cloud(132, 9), cloud(133, 8)
    options = {"eps": 0.002, "tol": 1e-12, "solver": sinkdiv.Auto(max_passes=4)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", sinkdiv.ConvergenceWarning)
        function(x, y, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", sinkdiv.ConvergenceWarning)
        with pytest.raises(sinkdiv.ConvergenceWarning):
            function(x, y, **options)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_warning_when_all_is_well(function):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(cloud(134, 9), cloud(135, 8), eps=0.2)


def test_tolerance_below_the_arithmetic_is_called_by_its_name(route):
    """float32 cannot hold marginals to 1e-12, even if its rounded sums agree by luck; float64 can."""
    x, y = cloud(136, 40), cloud(137, 40)
    with pytest.warns(sinkdiv.ConvergenceWarning, match="float64"):
        t = sinkdiv.solve(x.float(), y.float(), eps=0.02, tol=1e-12, solver=sinkdiv.Auto(max_passes=1000))
    assert t.status is Status.PRECISION
    assert t.converged is False
    assert sinkdiv.solve(x, y, eps=0.02, tol=1e-12, solver=sinkdiv.Auto(max_passes=20_000)).converged is True


def test_too_few_passes_are_called_by_their_name(dtype, route):
    with pytest.warns(sinkdiv.ConvergenceWarning, match="max_passes"):
        t = sinkdiv.solve(
            cloud(138, 9, dtype=dtype),
            cloud(139, 8, dtype=dtype),
            eps=0.01,
            tol=1e-4,
            solver=sinkdiv.Auto(max_passes=10),
        )
    assert t.status is Status.MAX_PASSES


def test_in_a_batch_only_those_that_failed_are_reported(route):
    """One easy problem and one that is too hard for the passes allowed."""
    x, y = cloud(140, 9, batch=2), cloud(141, 8, batch=2)
    x[0], y[0] = x[0] * 0.01, y[0] * 0.01
    with pytest.warns(sinkdiv.ConvergenceWarning, match="1 of 2 "):
        t = sinkdiv.solve(x, y, eps=0.005, tol=1e-8, solver=sinkdiv.Auto(max_passes=20))
    assert t.converged.tolist() == [True, False]
    assert t.status == (Status.CONVERGED, Status.MAX_PASSES)
    assert t.passes[0] < t.passes[1] <= 20


def test_divergence_converges_if_all_three_problems_do(route):
    x, y = cloud(142, 9), cloud(143, 8)
    assert sinkdiv.solve_divergence(x, y, eps=0.2).converged is True
    with pytest.warns(sinkdiv.ConvergenceWarning, match="of 3"):
        d = sinkdiv.solve_divergence(x, y, eps=0.01, tol=1e-6, solver=sinkdiv.Auto(max_passes=40))
    assert d.aa.converged is True
    assert d.ab.converged is False
    assert d.converged is False
    batch = sinkdiv.solve_divergence(x[None], y[None], eps=0.2)
    assert batch.converged.tolist() == [True]


# Callbacks and progress.


@pytest.mark.parametrize("itself", [False, True])
def test_callback_sees_every_check(route, itself):
    """Passes grow, ε falls to its target (where a self problem begins), the error is NaN until then, and the last check
    has nothing unfinished."""
    seen = []
    x = cloud(144, 9)
    t = sinkdiv.solve(x, x if itself else cloud(145, 8), eps=0.01, solver=sinkdiv.Auto(callback=seen.append))
    assert [check.passes for check in seen] == sorted({check.passes for check in seen})
    assert [check.eps for check in seen] == sorted((check.eps for check in seen), reverse=True)
    assert (seen[0].eps > 0.01) != itself
    assert seen[-1].eps == pytest.approx(0.01)
    for check in seen:
        assert (check.marginal_error != check.marginal_error) == (check.eps > 0.0100001)
    assert seen[-1].unfinished == 0
    assert all(check.unfinished == 1 for check in seen[:-1])
    assert seen[-1].passes == t.passes
    assert seen[-1].marginal_error == pytest.approx(float(t.marginal_error))


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("rho", [None, 0.5])
@pytest.mark.parametrize("checks", [1, 2, 8])
def test_callback_ends_the_solve(route, itself, rho, checks):
    """By returning True; what it leaves is consistent: marginals of its plan, at the target ε."""
    seen = []

    def stop(check):
        seen.append(check)
        return len(seen) >= checks

    x = cloud(146, 9)
    with pytest.warns(sinkdiv.ConvergenceWarning, match="callback"):
        t = sinkdiv.solve(
            x, x if itself else cloud(147, 8), eps=0.01, rho=rho, tol=1e-12, solver=sinkdiv.Auto(callback=stop)
        )
    assert len(seen) == checks
    assert t.status is Status.STOPPED
    assert t.converged is False
    rows, columns = t.marginals()
    torch.testing.assert_close(rows, t.plan().sum(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(columns, t.plan().sum(0), rtol=0, atol=1e-10)
    assert torch.isfinite(t.marginal_error)


def test_only_true_ends_the_solve(route):
    """A callback that returns something else, say the length of a list, does not."""
    seen = []
    t = sinkdiv.solve(
        cloud(148, 9), cloud(149, 8), eps=0.1, solver=sinkdiv.Auto(callback=lambda check: seen.append(check) or "go on")
    )
    assert t.converged is True
    assert len(seen) > 1


def test_a_callback_that_says_stop_when_all_is_done_changes_nothing(route):
    t = sinkdiv.solve(
        cloud(150, 9), cloud(151, 8), eps=0.1, solver=sinkdiv.Auto(callback=lambda check: check.unfinished == 0)
    )
    assert t.status is Status.CONVERGED


def test_exceptions_of_a_callback_reach_the_caller():
    def fail(check):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sinkdiv.sinkhorn_divergence(cloud(152, 9), cloud(153, 8), eps=0.1, solver=sinkdiv.Auto(callback=fail))


def test_progress_is_drawn_on_stderr_and_ends_its_line(capsys):
    """Passes and marginal error; nothing on stdout; nothing at all unless asked."""
    x, y = cloud(154, 9), cloud(155, 8)
    sinkdiv.solve(x, y, eps=0.05)
    assert capsys.readouterr() == ("", "")
    t = sinkdiv.solve(x, y, eps=0.05, solver=sinkdiv.Auto(progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{t.passes} passes" in err
    assert "marginal error" in err
    assert err.endswith("\n")


@pytest.mark.parametrize("status", list(Status))
def test_statuses_survive_a_pickle(status):
    """Workers hand them back to the main process."""
    assert pickle.loads(pickle.dumps(status)) is status
