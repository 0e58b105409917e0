"""Where a solve waits for the device: at its door, at its tests and, if it did not converge, once at its end.

On a CPU nothing waits, so reads are counted there, as the operations that hand numbers to Python. Whether a program
reads anything at all is shown with meta tensors, which have shapes, but no numbers.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sinkdiv
from problems import cloud, tight, weights
from sinkdiv import Status, checks, measures
from sinkdiv.solvers import progress

aten = torch.ops.aten

#: Operations whose result, or whose shape, the host has to know.
READS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.item,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.unique_dim,
    aten._unique2,
    aten.repeat_interleave,
}


class Reads(TorchDispatchMode):
    """Counts what would make the host wait if the tensors were on an accelerator."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        masked = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.count += packet in READS or masked
        return function(*args, **(kwargs or {}))

    def __enter__(self):
        original = torch.Tensor.tolist
        self._patch = pytest.MonkeyPatch()
        # The lists of CPU tensors are made without an operation; those of others by one copy to the host.
        self._patch.setattr(torch.Tensor, "tolist", lambda tensor: [self._counted(), original(tensor)][1])
        return super().__enter__()

    def __exit__(self, *raised):
        self._patch.undo()
        return super().__exit__(*raised)

    def _counted(self):
        self.count += 1


def samples(seed=0, n=12, m=10, *, weighted=True, dtype=torch.float64, batch=None):
    x, y = cloud(800 + seed, n, dtype=dtype, batch=batch), cloud(810 + seed, m, dtype=dtype, batch=batch) + 0.2
    if not weighted:
        return x, y
    return x, y, weights(800 + seed, n, dtype=dtype, batch=batch), weights(810 + seed, m, dtype=dtype, batch=batch)


# How often tests are made, and that nobody notices.


def test_reads_can_be_counted():
    """The counter is no test if it does not count."""
    x = torch.rand(4)
    for read in (
        lambda: float(x.sum()),
        lambda: bool((x > 2).any()),
        lambda: x.tolist(),
        lambda: x[x > 0.5],
        lambda: x.nonzero(),
        lambda: torch.equal(x, x + 1),
        lambda: x.clone().masked_select(x > 0),
    ):
        with Reads() as reads:
            read()
        assert reads.count == 1
    with Reads() as reads:
        torch.where(x > 0.5, x, 0.0).sum() + x[:2].amax() + x.double()[torch.tensor([0, 1])]
    assert reads.count == 0


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_a_solve_reads_at_its_door_and_at_its_tests(streamed, monkeypatch, itself, every):
    """One read for all samples, one for the spread of the costs, one for each test, none at the end."""
    tests = []
    original = progress.Progress._test
    monkeypatch.setattr(progress.Progress, "_test", lambda self: tests.append(1) or original(self))
    monkeypatch.setattr(progress, "interval", lambda *_: every)
    x, y, a, b = samples()
    with Reads() as reads:
        t = sinkdiv.solve(x, x, a, a, eps=0.01) if itself else sinkdiv.solve(x, y, a, b, eps=0.01)
    assert t.converged is True
    steps = t.passes // (1 if itself else 2)
    assert len(tests) == 1 + -(-(steps - 1) // every)
    assert reads.count == len(tests) + 2


def test_a_loss_and_its_gradient_read_no_more(streamed):
    """Three solves; the envelope's gradient needs no number on the host."""
    x, y, a, b = samples()
    with Reads() as reads:
        d = sinkdiv.solve_divergence(x.requires_grad_(), y, a, b, eps=0.05)
    solved = reads.count
    tests = d.ab.passes // 2 + d.aa.passes + d.bb.passes
    assert solved == 1 + 3 + tests
    with Reads() as reads:
        torch.autograd.grad(d.value, x)
    assert reads.count == 0


@pytest.mark.parametrize("number", [1, 5])
def test_a_list_is_checked_by_one_read(number, streamed):
    xs, ys, aa, bb = (list(one) for one in zip(*(samples(k, 5 + k, 4) for k in range(number)), strict=True))
    with Reads() as reads:
        measures.check_ragged(xs, ys, aa, bb)
    assert reads.count == 1


def outcome(t):
    return t.f, t.g, t.marginal_error, t.passes, t.status, t.history, t.value


PROBLEMS = {
    "plain": lambda x, y, a, b: sinkdiv.solve(x, y, a, b, eps=0.01),
    "symmetric": lambda x, y, a, b: sinkdiv.solve(x, x, a, a, eps=0.01),
    "unbalanced": lambda x, y, a, b: sinkdiv.solve(x, y, a, b, eps=0.01, rho=0.3),
    "spent": lambda x, y, a, b: sinkdiv.solve(x, y, a, b, eps=0.001, tol=1e-9, solver=sinkdiv.Auto(max_passes=23)),
    "annealing": lambda x, y, a, b: sinkdiv.solve(x, y, a, b, eps=1e-5, tol=1e-9, solver=sinkdiv.Auto(max_passes=5)),
    "out of reach": lambda x, y, a, b: sinkdiv.solve(
        x.float(), y.float(), eps=0.01, tol=1e-12, solver=sinkdiv.Auto(max_passes=200)
    ),
    "batch": lambda x, y, a, b: sinkdiv.solve(
        torch.stack([x, 0.1 * x, 3 * x]),
        torch.stack([y, y, y]),
        eps=0.01,
        tol=1e-6,
        solver=sinkdiv.Auto(max_passes=300),
    ),
    "matrix": lambda x, y, a, b: sinkdiv.solve_matrix(torch.cdist(x, y), a, b, eps=0.01, solver=sinkdiv.Sinkhorn()),
    "newton": lambda x, y, a, b: sinkdiv.solve_matrix(
        torch.cdist(x, y), a, b, eps=0.003, tol=1e-8, solver=sinkdiv.Newton()
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("every", [2, 5, 1000])
@pytest.mark.filterwarnings("ignore::sinkdiv.ConvergenceWarning")
def test_tests_may_come_late(streamed, monkeypatch, name, every):
    """Potentials, error, passes, status and history are bit for bit those of a solve that is tested at each step."""
    from sinkdiv.solvers import gibbs

    monkeypatch.setattr(gibbs, "QUICK_ENTRIES", 0)
    expected = outcome(PROBLEMS[name](*samples()))
    monkeypatch.setattr(progress, "interval", lambda *_: every)
    for found, want in zip(outcome(PROBLEMS[name](*samples())), expected, strict=True):
        assert torch.equal(found, want) if isinstance(want, torch.Tensor) else found == want


def test_callbacks_see_each_test(streamed, monkeypatch):
    """The newest step of each, the last of them that with which all was done; one that says stop ends the solve."""
    x, y, a, b = samples()
    every_step, seen = [], []
    sinkdiv.solve(x, y, a, b, eps=0.01, tol=1e-6, solver=sinkdiv.Auto(callback=every_step.append))
    monkeypatch.setattr(progress, "interval", lambda *_: 4)
    t = sinkdiv.solve(x, y, a, b, eps=0.01, tol=1e-6, solver=sinkdiv.Auto(callback=seen.append))
    kept = [*every_step[:-1][::4], every_step[-1]]
    assert [repr(check) for check in seen] == [repr(check) for check in kept]
    assert seen[-1].passes == t.passes
    with pytest.warns(sinkdiv.ConvergenceWarning, match="callback"):
        t = sinkdiv.solve(
            x, y, a, b, eps=0.01, tol=1e-6, solver=sinkdiv.Auto(callback=lambda check: check.passes >= 10)
        )
    assert t.status is Status.STOPPED
    assert t.passes == 10


def test_tests_come_often_where_passes_are_long():
    """Each step on a CPU; on an accelerator less often after many steps, and more often the longer a pass takes."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert all(progress.interval(steps, 100, cpu) == 1 for steps in (1, 1000))
    for pairs in (10**4, 10**9, 10**12):
        intervals = [progress.interval(steps, pairs, gpu) for steps in range(1, 1001)]
        assert intervals[0] == 1
        assert intervals == sorted(intervals)
        # At most a tenth of the steps, and of the first twenty none but one, can be made in vain.
        assert all(every <= 2 + steps / 10 for steps, every in enumerate(intervals, 1))
    assert progress.interval(1000, 10**4, gpu) > progress.interval(1000, 10**9, gpu) > 1
    assert progress.interval(1000, 10**12, gpu) == 1


# A fixed number of passes.


def without_numbers(*tensors):
    """Tensors on the meta device, which have shapes and dtypes: asking for a number is an error."""
    return [tensor.to("meta") for tensor in tensors]


@pytest.fixture
def captured(monkeypatch):
    """As while a CUDA graph is captured: nobody can look at a number."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # unknown to the meta device
    monkeypatch.setattr(checks, "is_captured", lambda tensor: tensor.is_meta)


FIXED = {"tol": None, "solver": sinkdiv.Auto(max_passes=20)}

LOSSES = {
    "divergence": lambda x, y, a, b: sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.05, **FIXED),
    "unbalanced": lambda x, y, a, b: sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.05, rho=0.3, **FIXED),
    "euclidean": lambda x, y, a, b: sinkdiv.transport_cost(x, y, a, b, blur=0.1, cost="euclidean", **FIXED),
    "unrolled": lambda x, y, a, b: sinkdiv.sinkhorn_divergence(
        x, y, a, b, eps=0.05, derivative="unrolled", tol=None, solver=sinkdiv.Unrolled(iterations=5)
    ),
    "cosine": lambda x, y, a, b: sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.05, cost="cosine", **FIXED),
    "power": lambda x, y, a, b: sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.05, cost=sinkdiv.PowerCost(1.5), **FIXED),
    "features": lambda x, y, a, b: sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.05, cost=torch.nn.Tanh(), **FIXED),
    "module": lambda x, y, a, b: sinkdiv.SinkhornDivergence(eps=0.05, **FIXED)(x, y, a, b),
    "matrix": lambda x, y, a, b: sinkdiv.solve_matrix(torch.cdist(x, y).square(), a, b, eps=0.05, **FIXED).value,
    "function": lambda x, y, a, b: sinkdiv.transport_cost(
        x, y, a, b, eps=0.05, cost=lambda x, y: torch.cdist(x, y), **FIXED
    ),
}


def value_and_gradients(loss, inputs):
    leaves = [one.clone().requires_grad_() for one in inputs]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value.sum(), leaves)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("batch", [None, 3])
def test_nothing_is_read_while_a_graph_is_captured(captured, name, batch):
    """Value and gradients, from the door to the end, of tensors that have no numbers."""
    inputs = without_numbers(*samples(batch=batch))
    value, *grads = value_and_gradients(LOSSES[name], inputs)
    assert value.is_meta
    assert [grad.shape for grad in grads] == [one.shape for one in inputs]


def test_what_is_captured_takes_no_tolerance(captured, monkeypatch):
    """It is refused by name; and if it were not, there would be no numbers to test."""
    x, y = without_numbers(*samples(weighted=False))
    with pytest.raises(ValueError, match="tol must be None"):
        sinkdiv.sinkhorn_divergence(x, y, eps=0.05)
    monkeypatch.setattr(checks, "is_captured", lambda tensor: False)
    with pytest.raises(Exception, match="meta"):
        sinkdiv.sinkhorn_divergence(x, y, eps=0.05)


def test_shapes_and_dtypes_are_checked_while_a_graph_is_captured(captured):
    x, y, a, b = without_numbers(*samples())
    with pytest.raises(ValueError, match="dimension"):
        sinkdiv.transport_cost(x, y[:, :1], eps=0.05, **FIXED)
    with pytest.raises(ValueError, match="one weight for each"):
        sinkdiv.transport_cost(x, y, a[:-1], b, eps=0.05, **FIXED)
    with pytest.raises(ValueError, match="dtype"):
        sinkdiv.transport_cost(x, y.float(), eps=0.05, **FIXED)


@pytest.mark.parametrize("name", ["divergence", "unbalanced", "unrolled", "matrix"])
def test_outside_a_capture_only_the_door_reads(streamed, name):
    """Values of the samples are checked by one read; the solve, its end and the gradient have none."""
    with Reads() as reads:
        value_and_gradients(LOSSES[name], samples())
    problems = {"unrolled": 0, "matrix": 1}.get(name, 3)
    # On a CPU, where nothing waits, costs that overflow are still refused.
    assert reads.count == 1 + problems


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("max_passes", [2, 7, 40])
def test_just_so_many_passes_are_spent(route, itself, max_passes):
    """An even number where both sides take turns; what comes out is that of a tolerance that is never met."""
    x, y, a, b = samples()
    if itself:
        y, b = x, a
    t = sinkdiv.solve(x, y, a, b, eps=0.1, tol=None, solver=sinkdiv.Auto(max_passes=max_passes))
    assert t.passes == (max_passes if itself else max_passes - max_passes % 2)
    assert t.status is Status.FIXED
    assert t.converged is False
    assert t.history == ()
    assert "not tested" in repr(t)
    with pytest.warns(sinkdiv.ConvergenceWarning):
        same = sinkdiv.solve(x, y, a, b, eps=0.1, tol=1e-300, solver=sinkdiv.Auto(max_passes=max_passes))
    for name in ("value", "f", "g", "marginal_error"):
        assert torch.equal(getattr(t, name), getattr(same, name))
    rows, columns = t.marginals()
    error = (rows - a).abs().sum() + (columns - b).abs().sum()
    torch.testing.assert_close(t.marginal_error, error, rtol=1e-6, atol=1e-13)


def test_losses_of_a_fixed_number_of_passes(route):
    """With passes to spare, those of a converged solve; nothing warns (warnings are errors here)."""
    inputs = samples()
    options = {"eps": 0.1, "rho": 0.5}
    found = value_and_gradients(
        lambda *z: sinkdiv.sinkhorn_divergence(*z, tol=None, solver=sinkdiv.Auto(max_passes=400), **options), inputs
    )
    want = value_and_gradients(lambda *z: sinkdiv.sinkhorn_divergence(*z, **tight(), **options), inputs)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


def test_derivatives_that_need_linear_systems_are_there_too(route):
    """Of a fixed number of passes: sharp gradients, and second derivatives."""
    x, y, a, b = samples()

    def second(**how):
        leaf = x.clone().requires_grad_()
        sharp, entropic = (
            sinkdiv.transport_cost(leaf, y, a, b, eps=0.2, value=v, **how) for v in ("sharp", "entropic")
        )
        (grad,) = torch.autograd.grad(entropic, leaf, create_graph=True)
        return *torch.autograd.grad(sharp, leaf), *torch.autograd.grad(grad.square().sum(), leaf)

    for one, other in zip(second(tol=None, solver=sinkdiv.Auto(max_passes=400)), second(**tight()), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_batches_lists_and_matrices_take_no_tolerance(route):
    x, y, a, b = samples(batch=3)
    t = sinkdiv.solve(x, y, a, b, eps=0.1, **FIXED)
    assert t.status == (Status.FIXED,) * 3
    assert t.passes.tolist() == [20] * 3
    assert t.converged.tolist() == [False] * 3
    values = sinkdiv.sinkhorn_divergence(list(x), list(y), list(a), list(b), eps=0.1, **FIXED)
    torch.testing.assert_close(values, sinkdiv.sinkhorn_divergence(x, y, a, b, eps=0.1, **FIXED), rtol=0, atol=1e-12)
    C = (x[:, :, None] - y[:, None]).square().sum(-1)
    for solver in (sinkdiv.Auto, sinkdiv.Sinkhorn):
        matrix = sinkdiv.solve_matrix(C, a, b, eps=0.1, tol=None, solver=solver(max_passes=20))
        assert matrix.passes.tolist() == [20] * 3
        torch.testing.assert_close(matrix.value, t.value, rtol=0, atol=1e-10)


def test_what_goes_by_tests_needs_a_tolerance():
    x, y = samples(weighted=False)
    for solver in (sinkdiv.Auto(progress=True), sinkdiv.Auto(callback=print)):
        with pytest.raises(ValueError, match="tol=None"):
            sinkdiv.solve(x, y, eps=0.1, tol=None, solver=solver)
    for solver in (sinkdiv.Newton(), sinkdiv.LBFGS()):
        with pytest.raises(ValueError, match=rf"solver={type(solver).__name__}\(\)"):
            sinkdiv.solve_matrix(torch.cdist(x, y), eps=0.1, tol=None, solver=solver)
    for wrong in (0, -1.0, True, "1e-3", float("nan")):
        with pytest.raises(ValueError, match="tol"):
            sinkdiv.solve(x, y, eps=0.1, tol=wrong)


def test_a_module_says_that_it_has_no_tolerance():
    assert "tol=None" in repr(sinkdiv.SinkhornDivergence(eps=0.1, tol=None))
