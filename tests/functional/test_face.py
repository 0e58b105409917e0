"""What a user sees: the names, the members, the signatures and the documents of the public face."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys

import pytest
import torch

import sinkdiv
from problems import cloud
from sinkdiv.declarations import options_of
from sinkdiv.mmd import KernelOptions
from sinkdiv.options import LossOptions, MatrixOptions, TransportOptions
from sinkdiv.solvers.choice import SOLVERS

#: What takes which options.
TAKES = {
    sinkdiv.solve: TransportOptions,
    sinkdiv.solve_divergence: TransportOptions,
    sinkdiv.solve_matrix: MatrixOptions,
    sinkdiv.sinkhorn_divergence: LossOptions,
    sinkdiv.transport_cost: LossOptions,
    sinkdiv.SinkhornDivergence: LossOptions,
    sinkdiv.TransportCost: LossOptions,
    sinkdiv.mmd: KernelOptions,
    sinkdiv.MMD: KernelOptions,
}

OF_SOLVERS = ["max_passes", "warm_start", "precision", "progress", "callback"]

#: Functions, classes and members, whose examples are run.
SHOWN = [getattr(sinkdiv, name) for name in sinkdiv.__all__ if name != "__version__"]


def members(thing):
    return [name for name in dir(thing) if not name.startswith("_")]


# Members.


def test_a_transport_shows_what_is_the_users():
    t = sinkdiv.solve(cloud(0, 5), cloud(1, 4), eps=0.1)
    assert members(t) == [
        "apply", "apply_transpose", "barycentric_map", "bounds", "converged", "f", "g", "history", "marginal_error",
        "marginals", "passes", "plan", "potentials_at", "sharp", "status", "unregularised_bounds", "value",
    ]  # fmt: skip


def test_a_divergence_shows_what_is_the_users():
    d = sinkdiv.solve_divergence(cloud(0, 5), cloud(1, 4), eps=0.1)
    assert members(d) == ["aa", "ab", "bb", "bounds", "converged", "sharp", "value"]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_holds_its_options_and_no_more(name):
    solver = SOLVERS[name]()
    assert list(options_of(type(solver))) == OF_SOLVERS
    assert SOLVERS[name](max_passes=7) == SOLVERS[name](max_passes=7) != solver
    assert repr(SOLVERS[name](max_passes=7)) == f"{SOLVERS[name].__name__}(max_passes=7)"
    with pytest.raises(AttributeError):
        solver.max_passes = 3
    with pytest.raises(TypeError):
        SOLVERS[name](7)


# Signatures and documents.


@pytest.mark.parametrize("thing", TAKES, ids=lambda thing: thing.__name__)
def test_signatures_and_documents_name_every_option(thing):
    """With its default, its type and its meaning, in full: no document sends its reader to another one."""
    parameters = inspect.signature(thing).parameters
    text = " ".join(inspect.getdoc(thing).split())
    for name, option in options_of(TAKES[thing]).items():
        shown = parameters[name]
        assert shown.kind is inspect.Parameter.KEYWORD_ONLY
        assert shown.default == option.default or shown.default is option.default
        assert shown.annotation is not inspect.Parameter.empty
        assert f"{name}: {option.meaning}" in text
    assert not re.search(r"as in `", text)
    assert "{" not in text
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


@pytest.mark.parametrize("thing", TAKES, ids=lambda thing: thing.__name__)
def test_documents_name_every_argument(thing):
    documented = inspect.getdoc(thing)
    if inspect.isclass(thing):
        documented += inspect.getdoc(thing.forward)
        arguments = inspect.signature(thing.forward).parameters
    else:
        arguments = inspect.signature(thing).parameters
    for name in arguments.keys() - {"self"}:
        assert re.search(rf"^ +{name}: ", documented, re.MULTILINE), name


@pytest.mark.parametrize("solver", [*SOLVERS.values(), sinkdiv.Unrolled], ids=lambda solver: solver.__name__)
def test_solvers_document_their_options(solver):
    text = " ".join(inspect.getdoc(solver).split())
    for name, option in options_of(solver).items():
        assert f"{name}: {option.meaning}" in text
        assert inspect.signature(solver).parameters[name].default == option.default


def test_python_may_drop_all_documents():
    code = "import sinkdiv; assert sinkdiv.solve.__doc__ is None; print(sinkdiv.Auto(max_passes=3))"
    result = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "Auto(max_passes=3)"


def test_documents_fit_into_120_columns():
    for thing in TAKES:
        assert max(map(len, thing.__doc__.splitlines())) <= 120


def test_a_subclass_has_its_own_signature():
    class Scaled(sinkdiv.SinkhornDivergence):
        def __init__(self, scale):
            super().__init__(blur=0.1)
            self.scale = scale

    assert list(inspect.signature(Scaled).parameters) == ["scale"]


@pytest.mark.parametrize("thing", TAKES, ids=lambda thing: thing.__name__)
def test_a_wrong_keyword_is_an_error_like_pythons_own(thing):
    points = () if inspect.isclass(thing) else (cloud(0, 5), cloud(1, 4))[: 1 if thing is sinkdiv.solve_matrix else 2]
    with pytest.raises(TypeError, match=rf"{thing.__name__}\(\) got an unexpected keyword argument 'blurr'"):
        thing(*points, blurr=0.1)
    with pytest.raises(TypeError, match=r"solve_matrix\(\) missing 1 required keyword-only argument: 'eps'"):
        sinkdiv.solve_matrix(torch.ones(2, 2))


def test_every_public_thing_has_an_example():
    """Functions, classes, and the members of solved problems."""
    without = {"Check", "Status", "ConvergenceWarning", "DerivativeWarning"}
    things = {thing.__name__: thing for thing in SHOWN if thing.__name__ not in without}
    for solved in (sinkdiv.Transport, sinkdiv.Divergence):
        things |= {f"{solved.__name__}.{name}": getattr(solved, name) for name in members(solved)}
    for name, thing in things.items():
        assert ">>> " in thing.__doc__, name


@pytest.mark.parametrize(
    "module",
    ["functional", "losses", "mmd", "transport", "divergence", "solvers.choice", "costs.point_costs", "costs.features"],
)
def test_examples_run(module):
    torch.manual_seed(0)
    found = doctest.DocTestFinder().find(
        importlib.import_module(f"sinkdiv.{module}"), extraglobs={"sinkdiv": sinkdiv, "torch": torch}
    )
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for one in found:
        runner.run(one)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0


# Options are checked once and remembered.


def test_equal_numbers_of_other_types_are_not_mistaken_for_each_other():
    """True equals 1, but is no number; what is remembered of plain options knows their types."""
    x, y = cloud(0, 5), cloud(1, 4)
    sinkdiv.transport_cost(x, y, eps=1.0, rho=1)
    for wrong in ({"eps": True}, {"eps": 1.0, "rho": True}, {"eps": 1.0, "tol": True}, {"eps": 1.0, "rho": (1, True)}):
        with pytest.raises(ValueError, match="True"):
            sinkdiv.transport_cost(x, y, **wrong)


def test_what_is_remembered_keeps_nothing_alive():
    """Modules, functions and tensors among the options are the caller's."""
    import gc
    import weakref

    def call():
        features, seen = torch.nn.Linear(2, 2, dtype=torch.float64), []
        x, y = cloud(0, 5), cloud(1, 4)
        sinkdiv.transport_cost(x, y, eps=1.0, cost=features, solver=sinkdiv.Auto(callback=lambda check: seen.append(1)))
        return weakref.ref(features)

    features = call()
    gc.collect()
    assert features() is None
