"""Sources of the documentation: complete, without dead links. `make docs` builds it and fails on any warning."""

import ast
import importlib.util
import io
import re
from pathlib import Path

import nbformat
import pytest
from docutils.core import publish_doctree

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}

_spec = importlib.util.spec_from_file_location("book", DOCS / "book.py")
book = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(book)

_spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
conf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conf)


def modules():
    for path in sorted((ROOT / "fusedff").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not parts[-1].startswith("__"):
            yield ".".join(parts)


def test_api_has_every_module_once():
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    assert sorted(re.findall(r"automodule:: (\S+)", pages)) == sorted(["fusedff", *modules()])


def test_docstrings_are_read_without_a_warning():
    """As the book reads them: a list needs a blank line before it, a name in backticks no letter after it."""
    problems = {}
    for path in sorted((ROOT / "fusedff").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and (text := ast.get_docstring(node)):
                lines, said = text.splitlines(), io.StringIO()
                conf._as_restructured_text(None, None, None, None, None, lines)
                settings = {"warning_stream": said, "report_level": 2}
                publish_doctree("\n".join([".. default-role:: literal", "", *lines]), settings_overrides=settings)
                if said.getvalue():
                    problems[f"{path.name}, {getattr(node, 'name', 'module')}"] = said.getvalue()
    assert not problems


PAGES = [*DOCS.glob("*.md"), *(DOCS / "extending").glob("*.md"), ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.name)
def test_links_lead_to_pages_and_notebooks_that_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "_notebooks/" in target:
            assert target.rpartition("_notebooks/")[2] in NOTEBOOKS, target
        elif "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_links_of_notebooks_lead_to_files_here_and_in_the_book(path):
    """The book has its notebooks in docs/_notebooks; those of other notebooks and of solutions are beside them."""

    def links(notebook):
        cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        return [target for target in re.findall(r"\]\(([^)#]+)\)", "\n".join(cells)) if "://" not in target]

    here = nbformat.read(path, 4)
    for target in links(here):
        assert (path.parent / target).exists(), target
    for target in links(book.as_page(here, path.name)):
        if not target.endswith(".ipynb"):
            assert (DOCS / "_notebooks" / path.parent.relative_to(ROOT / "notebooks") / target).resolve().exists(), (
                target
            )


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_to_markdown_outside_the_book_are_downloads(page):
    if page.relative_to(DOCS).parts[0].startswith("_"):
        return
    source = [page.read_text()]
    conf._outside_pages_are_files(None, page.stem, source)
    for target in re.findall(r"\]\(([^)#]+\.md)\)", source[0]):
        assert "://" in target or (page.parent / target).resolve().is_relative_to(DOCS), target


def test_every_path_through_the_book_is_offered_and_every_notebook_is_on_one():
    index = (DOCS / "index.md").read_text()
    for reader in ("You are a student", "You are a practitioner", "You develop methods"):
        assert reader in index
    assert NOTEBOOKS == set(re.findall(r"_notebooks/(\d\w+)", index))


def test_the_side_bar_has_the_number_of_every_notebook_and_solution():
    for page, folder in (("index.md", "_notebooks/"), ("solutions.md", "_notebooks/solutions/")):
        entries = re.findall(rf"^(\d\d) .+ <{folder}(\w+)>$", (DOCS / page).read_text(), re.M)
        assert [number for number, name in entries if name.startswith(number)] == [
            name[:2] for name in sorted(NOTEBOOKS)
        ]
        assert {name for _, name in entries} == NOTEBOOKS


def test_glossary_explains_words_of_both_fields():
    terms = re.findall(r"^([^\s:#][^\n]*)\n: ", (DOCS / "glossary.md").read_text(), re.M)
    assert len(terms) == len(set(terms)) >= 30
    assert {"phonon", "embedding", "elastic constants, C_ij", "overfitting"} <= set(terms)


def executed(preset="smoke", status="completed"):
    """A notebook as papermill leaves it."""
    parameters = nbformat.v4.new_code_cell('PRESET = "demo"\nRUNS = None', metadata={"tags": ["parameters"]})
    injected = nbformat.v4.new_code_cell(f'PRESET = "{preset}"', metadata={"tags": ["injected-parameters"]})
    cells = [nbformat.v4.new_markdown_cell("# Title"), parameters, injected, nbformat.v4.new_code_cell("x")]
    for cell, state in zip(cells[1:], ("completed", "completed", status), strict=True):
        cell.metadata["papermill"] = {"status": state}
    metadata = {"papermill": {"parameters": {"PRESET": preset}}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


@pytest.mark.parametrize(("status", "current"), [("completed", True), ("pending", False), ("failed", False)])
def test_a_half_executed_notebook_is_not_current(tmp_path, status, current):
    source = executed()
    source.cells = [cell for cell in source.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    nbformat.write(source, tmp_path / "source.ipynb")
    nbformat.write(executed(status=status), tmp_path / "executed.ipynb")
    assert book.is_current(tmp_path / "source.ipynb", tmp_path / "executed.ipynb") == current


def test_an_empty_file_is_no_executed_notebook(tmp_path):
    nbformat.write(executed(), tmp_path / "source.ipynb")
    (tmp_path / "executed.ipynb").touch()
    assert not book.is_current(tmp_path / "source.ipynb", tmp_path / "executed.ipynb")


@pytest.mark.parametrize("preset", ["smoke", "demo"])
def test_a_page_shows_the_preset_that_made_it_and_says_what_smoke_is_worth(preset):
    page = book.as_page(executed(preset), "n.ipynb")
    text = "\n".join(cell.source for cell in page.cells)
    assert re.findall(r"^PRESET = .*$", text, re.M) == [f'PRESET = "{preset}"']
    assert ("mean nothing" in text) == (preset == "smoke")


def test_a_page_shows_the_end_of_every_progress_and_no_folder_of_the_machine():
    parameters = {"RUNS": "/home/someone/fusedff/runs"}
    printed = (
        "sampling: 0/25\nsampling: 20/25, 6 s left\nsampling: 25/25, 0 s left\nratio: 1/2 of it\n"
        "/tmp/ipykernel_1/2.py:5: UserWarning: look at frame 3\n  trained = train(\n"
        "kept in /home/someone/fusedff/runs/demo\n"
    )
    assert book._as_read(printed, parameters) == (
        "sampling: 25/25, 0 s left\nratio: 1/2 of it\nUserWarning: look at frame 3\nkept in runs/demo\n"
    )


def test_a_page_opens_on_binder_where_the_address_of_the_repository_is_known():
    links = ["mybinder.org" in cell.source for cell in book.as_page(executed(), "00_a.ipynb").cells]
    assert not any(links)
    page = book.as_page(executed(), "solutions/00_a.ipynb", "someone/fusedff")
    (link,) = [cell.source for cell in page.cells if "mybinder.org" in cell.source]
    assert link.endswith("/v2/gh/someone/fusedff/HEAD?urlpath=lab/tree/notebooks/solutions/00_a.ipynb)")


def page_of(output):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    return book.as_page(notebook, "n.ipynb")


def test_links_to_the_glossary_lead_there_from_a_notebook_and_from_its_page():
    assert (ROOT / "notebooks" / "../docs/glossary.md").exists()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("the [stress](../docs/glossary.md)")])
    assert book.as_page(notebook, "n.ipynb").cells[0].source == "the [stress](../glossary.md)"
    notebook.cells[0].source = "![curve](../benchmarks/results/learning.png)"
    assert book.as_page(notebook, "n.ipynb").cells[0].source == "![curve](../../benchmarks/results/learning.png)"


def test_a_failed_cell_is_not_published():
    with pytest.raises(RuntimeError, match=r"n\.ipynb, cell .*: ValueError: no"):
        page_of(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]))


def test_a_picture_without_words_is_not_published():
    picture = nbformat.v4.new_output("display_data", {"image/png": "aGk=", "text/plain": "<Figure>"})
    with pytest.raises(RuntimeError, match="without alternative text"):
        page_of(picture)


def test_widgets_are_left_out_since_no_kernel_runs():
    widget = nbformat.v4.new_output("display_data", {book.WIDGET: {"model_id": "1"}, "text/plain": "NGLWidget()"})
    assert page_of(widget).cells[0].outputs == []
