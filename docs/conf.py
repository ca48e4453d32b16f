"""Sphinx settings of the book; `docs/book.py` (that is: `make docs`) gathers what it is built from."""

import os
import re
from importlib.metadata import version as version_of

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project = "fusedff"
author = copyright = "the fusedff authors"
version = release = version_of("fusedff")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "literal"  # a single backtick in a docstring is code
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

nb_execution_mode = "off"  # `book.py` has seen to it
nb_ipywidgets_js = {}  # no kernel, no widgets: beside each there is a picture
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"fusedff {version}"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_show_sphinx = False
if repository := os.environ.get("GITHUB_REPOSITORY"):  # see `book.py`
    address = f"https://github.com/{repository}"
    html_theme_options = {"footer_icons": [{"name": "source", "url": address, "html": "Source on GitHub", "class": ""}]}
html_math_renderer = "mathml"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def _inline(writer, node):
    writer.body.append(convert(node.astext()))
    raise SkipNode


def _block(writer, node):
    writer.body.append(f'<div class="math" tabindex="0">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def _as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with code in backticks: |x| and F* are to be read as they stand."""
    lines[:] = ["".join(_escaped(part, n) for n, part in enumerate(line.split("`"))) for line in lines]


def _escaped(part, n):
    return f"`{part}`" if n % 2 else re.sub(r"([|*_])", r"\\\1", part)


def _give_captions_a_level(app, page, template, context, doctree):
    """The headings of the table of contents lack the level that screen readers ask for."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def _outside_pages_are_files(app, page, source):
    """Links to Markdown files outside docs/, which are no pages of the book, lead to the files themselves."""
    source[0] = re.sub(
        r"\[([^\]]+)\]\(((?:\.\./)+(?:benchmarks|binder|fusedff)/[^)]+\.md)\)", r"{download}`\1 <\2>`", source[0]
    )


def setup(app):
    """Formulae become MathML: every browser draws it by itself, and screen readers read it."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    app.connect("source-read", _outside_pages_are_files)
    app.connect("autodoc-process-docstring", _as_restructured_text)
    app.connect("html-page-context", _give_captions_a_level, priority=900)  # after the theme
