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


def test_every_decision_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for decision in sorted((ROOT / "docs/decisions").glob("*.md")):
        assert f"](decisions/{decision.name})" in index, decision.name


def test_the_guide_names_everything_that_is_public():
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    assert [name for name in sinkdiv.__all__ if f"`{name}`" not in guide] == ["__version__"]


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
