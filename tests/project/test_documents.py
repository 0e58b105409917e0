"""The documents hold together: lines are short, links lead somewhere, and what the code cites exists."""

import re
from pathlib import Path

import pytest

import sinkdiv

ROOT = Path(__file__).parents[2]
CODE = ["src", "tests", "benchmarks", "experiments", "examples"]
DOCUMENTS = sorted(
    path
    for folder in ["docs", *CODE, "."]
    for path in (ROOT / folder).glob("**/*.md" if folder != "." else "*.md")
    if "results" not in path.parts
)
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
COLUMNS = 100
MATHEMATICS = (ROOT / "docs/mathematics.md").read_text(encoding="utf-8")
SECTIONS = set(re.findall(r"^#{2,3} (\d(?:\.\d)?)\.? ", MATHEMATICS, re.MULTILINE))
ORACLES = {int(number) for number in re.findall(r"^(\d+)\. \*\*", MATHEMATICS, re.MULTILINE)}


def prose(document):
    """(number, line) of the lines outside tables and code."""
    code = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.startswith("|"):
            yield number, line


def anchors(document):
    """What GitHub calls the headings of a document in links."""
    headings = (line.lstrip("#").strip() for _, line in prose(document) if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_lines_have_at_most_100_columns(document):
    assert not [(number, line) for number, line in prose(document) if len(line) > COLUMNS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(document):
    """Links to files and to headings, and paths in code font."""
    text = document.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
    for path in re.findall(r"`((?:docs|experiments|benchmarks|examples)/[^`\s]*)`", text):
        assert (ROOT / path).exists(), path


def test_decisions_have_their_number_in_their_title():
    for decision in sorted((ROOT / "docs/decisions").glob("*.md")):
        assert decision.read_text(encoding="utf-8").startswith(f"# {decision.name[:4]}: "), decision.name


def test_every_decision_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for decision in sorted((ROOT / "docs/decisions").glob("*.md")):
        assert f"](decisions/{decision.name})" in index, decision.name


def test_the_guide_names_everything_that_is_public():
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    assert [name for name in sinkdiv.__all__ if f"`{name}`" not in guide] == ["__version__"]


#: What the pages that quote times of cost matrices call the benchmark's methods.
QUOTED = {
    "sinkdiv": "sinkdiv auto",
    "**Auto**": "sinkdiv auto",
    "Sinkhorn": "sinkdiv sinkhorn",
    "L-BFGS": "sinkdiv lbfgs",
    "Newton": "sinkdiv newton",
    "POT, stored kernel": "POT sinkhorn",
    "POT sinkhorn": "POT sinkhorn",
}


def measured_milliseconds():
    """Of 1000 × 1000 cost matrices: method → six times, uniform costs before the cloud."""
    results = (ROOT / "benchmarks/results/matrices.md").read_text(encoding="utf-8").split("\n## ")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in results.splitlines()]
    return {name: [float(cell) for cell in cells] for name, *cells in rows if name in QUOTED.values()}


@pytest.mark.parametrize("page", ["docs/performance.md", "docs/decisions/0008-solvers-for-matrices.md"])
def test_quoted_times_of_cost_matrices_are_those_of_the_benchmark(page):
    """To the unit of the last digit that is quoted: a millisecond, and ten of them from 1000 on."""
    measured = measured_milliseconds()
    rows = re.findall(r"^\| (.+?) \| ([\d /]+) \| ([\d /]+) \|$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 2
    for name, uniform, cloud in rows:
        quoted = [float(text) for text in f"{uniform} / {cloud}".split(" / ")]
        for ours, theirs in zip(quoted, measured[QUOTED[name]], strict=True):
            assert abs(ours - theirs) <= (0.5 if theirs < 1000 else 5), (name, ours, theirs)


def citations():
    """(file, sections, oracles) of every mention of the mathematics in the code."""
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for mention in re.findall(r"\bmathematics,? (?:§|oracle)(?:[^.:)\"\n]|\.(?=\d))*", path.read_text("utf-8")):
                sections = re.findall(r"§(\d(?:\.\d)?)", mention)
                oracles = [int(number) for number in re.findall(r"(?<![§.\d])\b(\d+)\b(?!\.\d)", mention)]
                yield path.name, mention, sections, [one for one in oracles if "oracle" in mention]


def test_the_code_cites_sections_and_oracles_that_exist():
    found = list(citations())
    assert len(found) >= 8
    for name, mention, sections, oracles in found:
        assert sections or oracles, (name, mention)
        assert SECTIONS.issuperset(sections), (name, mention)
        assert ORACLES.issuperset(oracles), (name, mention)


def test_every_section_that_a_document_names_exists():
    """In the glossary a section stands alone in brackets, elsewhere after the word "mathematics"."""
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    named = re.findall(r"§(\d(?:\.\d)?)", glossary)
    for document in DOCUMENTS:
        named += re.findall(r"mathematics,? §(\d(?:\.\d)?)", document.read_text(encoding="utf-8"))
    assert named
    assert SECTIONS.issuperset(named)


def test_oracles_are_numbered_without_gaps():
    assert sorted(ORACLES) == list(range(1, len(ORACLES) + 1))


def test_the_papers_that_the_code_names_are_explained():
    """A letter and a year, such as F19, stand for a paper wherever they are used."""
    explained = set(re.findall(r"^- \*\*([A-Z]\d\d)\*\*", MATHEMATICS, re.MULTILINE))
    files = (path for folder in CODE for path in (ROOT / folder).rglob("*.py"))
    used = {name for path in files for name in re.findall(r"\b[FGPQ][12]\d\b", path.read_text(encoding="utf-8"))}
    assert used == explained
