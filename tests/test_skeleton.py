"""Notebooks have the sections of notebooks/TEMPLATE.ipynb, and solutions to their exercises."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = {path.stem: path for path in FOLDER.glob("[0-9]*.ipynb")}
SOLUTIONS = {path.stem: path for path in (FOLDER / "solutions").glob("*.ipynb")}
CLOSING = ["Take-away", "What could go wrong", "Exercises", "References"]


def read(path):
    return nbformat.read(path, as_version=4)


def folded(cell):
    return bool({"hide-input", "remove-cell"} & set(cell.metadata.get("tags", [])))


def headings(notebook):
    """The texts of all headings of the second level."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"^## (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)


def section(notebook, title):
    (cell,) = [cell for cell in notebook.cells if cell.source.startswith(f"## {title}")]
    return cell.source


def sentences(text):
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


@pytest.fixture(params=[*sorted(NOTEBOOKS), "TEMPLATE"])
def notebook(request):
    return read(FOLDER / f"{request.param}.ipynb")


def test_the_title_is_a_question_and_a_table_says_who_after_and_need(notebook):
    first = notebook.cells[0].source
    assert re.match(r"# [^\n]+\?\n", first)
    assert re.findall(r"^\| \*\*(.+?)\*\* \|", first, re.M) == ["Who this is for", "After this you can", "You need"]
    need = re.search(r"^\| \*\*You need\*\* \| (.*) \|$", first, re.M).group(1)
    assert re.search(r"notebook", need), "after which notebook?"
    assert re.search(r"second|minute|hour", need), "how long does it take?"


def test_the_contents_are_the_numbered_sections_and_the_end_is_always_the_same(notebook):
    numbered, closing = headings(notebook)[:-4], headings(notebook)[-4:]
    assert closing == CLOSING
    contents = notebook.cells[0].source.partition("**Contents**")[2]
    assert re.findall(r"^\d+\. .+$", contents, re.M) == numbered
    assert [int(title.split(".")[0]) for title in numbered] == list(range(1, len(numbered) + 1))


def test_the_take_away_is_a_box_of_three_sentences(notebook):
    box = section(notebook, "Take-away").splitlines()[2:]
    assert all(line.startswith("> ") for line in box)
    assert len(sentences(" ".join(line[2:] for line in box))) == 3


def test_after_the_take_away_there_is_only_prose_and_its_last_line_leads_on(notebook):
    at = next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith("## Take-away"))
    assert {cell.cell_type for cell in notebook.cells[at:]} == {"markdown"}
    assert notebook.cells[-1].source.splitlines()[-1].startswith("**Next:** ")
    assert "remove-cell" in notebook.cells[at - 1].metadata["tags"], "the record comes before it, out of sight"


def test_prose_comes_before_code(notebook):
    """What follows a code cell without a word is folded: the drawing of what the cell computed, or its record."""
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if before.cell_type == cell.cell_type == "code":
            assert folded(cell) or "parameters" in before.metadata.get("tags", []), cell.id


def test_folded_cells_are_folded_in_jupyter_and_in_the_book(notebook):
    for cell in notebook.cells:
        assert folded(cell) == cell.metadata.get("jupyter", {}).get("source_hidden", False), cell.id


def test_every_reference_has_a_doi(notebook):
    references = re.findall(r"^\d+\. .+$", section(notebook, "References"), re.M)
    assert references
    for line in references:
        assert re.search(r"\[doi:(10\.\S+)\]\(https://doi\.org/\1\)", line), line


def test_terms_are_linked_to_the_glossary_where_they_are_first_used_and_explained_there(notebook):
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    terms = " ".join(re.findall(r"^([^\s:#][^\n]*)\n: ", glossary, re.M)).lower().replace("-", " ")
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    linked = [word.lower() for word in re.findall(r"\[([^\]]+)\]\(\.\./docs/glossary\.md\)", "\n".join(prose))]
    assert len(linked) >= 2
    for word in set(linked):
        assert word.replace("-", " ").removesuffix("s") in terms, f"{word} is not in the glossary"


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_every_exercise_has_a_solution(name):
    exercises = section(read(NOTEBOOKS[name]), "Exercises")
    assert f"[Solutions](solutions/{name}.ipynb)" in exercises
    numbers = re.findall(r"^(\d+)\. ", exercises, re.M)
    assert headings(read(SOLUTIONS[name])) == [f"Exercise {n}" for n in numbers]


@pytest.mark.parametrize("name", sorted(SOLUTIONS))
def test_a_solution_is_committed_like_a_notebook_and_every_part_ends_on_a_sentence(name):
    notebook = read(SOLUTIONS[name])
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].source == 'PRESET = "demo"\nRUNS = None'
    assert code[0].metadata["tags"] == ["parameters"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert f"(../{name}.ipynb)" in notebook.cells[0].source
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    starts = [n for n, cell in enumerate(notebook.cells) if cell.source.startswith("## Exercise")]
    ends = [*starts[1:], len(notebook.cells) - 1]
    for start, end in zip(starts, ends, strict=True):
        part = notebook.cells[start:end]
        assert any(cell.cell_type == "code" for cell in part)
        assert part[-1].cell_type == "markdown", "what does it show?"
