"""Arrows between modules point one way: no module imports, by any way round, what imports it.

Imports for types only and imports inside functions count like all others: they are arrows that a reader follows.
"""

import ast
from pathlib import Path

import pytest

import sinkdiv

ROOT = Path(sinkdiv.__file__).parent

#: The rooms from the lowest to the highest. A module belongs to the room with the longest name that it begins with, and
#: imports from its own room and from lower ones. Rooms in one line do not import each other.
ROOMS = (
    ("declarations", "transforms"),
    ("checks",),
    ("costs", "measures"),
    ("kernels",),
    ("geometry", "mmd"),
    ("solvers",),
    ("certificates", "derivatives", "options"),
    ("differentiable",),
    ("solving", "transport"),
    ("debiased",),
    ("divergence", "evaluation"),
    ("functional", "losses"),
    ("",),  # sinkdiv itself, the public face
    ("generative.errors", "generative.files", "generative.seeds", "generative.tensors", "generative.distributed"),
    ("generative.data", "generative.priors", "generative.networks"),
    ("generative.settings", "generative.posteriors"),
    ("generative.sinkhorn_settings", "generative.critic"),
    ("generative.latent_losses", "generative.generator_loss"),
    ("generative.methods",),
    ("generative.config",),
    ("generative.failures", "generative.callbacks", "generative.launcher"),
    ("generative.models", "generative.features"),
    ("generative.runs", "generative.trainer", "generative.scores"),
    ("generative.report",),
    ("generative.results",),
    ("generative.training",),
    ("generative.worker", "generative.intervals"),
    ("generative",),
    ("cli",),
)


def modules():
    """Names below `sinkdiv` ("" is the package itself) and their files."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path, known):
    """The modules that a file names in its imports; `from package import module` names the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            inner = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("sinkdiv.") in known else module for name in inner]
        for name in names:
            if name == "sinkdiv" or name.startswith("sinkdiv."):
                yield name.removeprefix("sinkdiv").removeprefix(".")


@pytest.fixture(scope="module")
def graph():
    """Every module with the others that it imports; a package that imports its compiled module names itself."""
    files = modules()
    return {name: set(imported(path, files)) - {name} for name, path in files.items()}


def test_every_import_is_of_a_module_that_there_is(graph):
    assert {other for others in graph.values() for other in others} <= graph.keys()


def test_no_module_imports_what_imports_it(graph):
    """Depth-first search; a module met again while it is being followed closes a circle, which is named."""
    finished = set()

    def follow(name, way):
        assert name not in way, " → ".join([*way[way.index(name) :], name])
        if name not in finished:
            for other in sorted(graph[name]):
                follow(other, [*way, name])
            finished.add(name)

    for name in sorted(graph):
        follow(name, [])


def room(name):
    """The line and the place of a module's room in `ROOMS`."""
    fitting = [
        (len(start), level, start)
        for level, line in enumerate(ROOMS)
        for start in line
        if name == start or name.startswith(f"{start}.") or start == "" == name
    ]
    assert fitting, f"{name} has no room"
    return max(fitting)[1:]


def test_arrows_between_rooms_point_one_way(graph):
    wrong = []
    for name, others in graph.items():
        level, start = room(name)
        for other in others:
            other_level, other_start = room(other)
            if other_start != start and other_level >= level:
                wrong.append(f"{name} ({start}) imports {other} ({other_start})")
    assert not wrong, "\n".join(sorted(wrong))
