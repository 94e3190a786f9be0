"""Builds the documentation site: `sphinx-build -W -c docs . site`.

The source folder is the repository, not docs/, so that every relative link between its
files works on the site as it does in any viewer of Markdown: to README.md, to pictures
in benchmarks/. Pages stay plain Markdown; what only the site needs is here.
"""

import re
import textwrap
from collections.abc import Callable
from typing import Any

from sphinx.ext import napoleon

from keras_mgpu_strategy import __version__

project = "keras_mgpu_strategy"
version = release = __version__

CONTENTS = {
    "": ("start", "migrating", "troubleshooting"),
    "Guides": (
        "guide/inputs",
        "guide/images",
        "guide/padding",
        "guide/outputs",
        "guide/embeddings",
        "guide/ensembles",
        "guide/resuming",
        "guide/evaluation",
        "guide/own_models",
        "guide/ray",
        "guide/threads_and_processes",
        "guide/services",
        "guide/make_parallel",
        "guide/precision",
        "guide/compiling",
    ),
    "Reference": ("reference/python", "reference/command_line"),
    "Background": ("design", "performance", "one_gpu", "alternatives"),
    "Project": ("README <../README>", "../*"),
}
"""Caption -> pages, in the order of the navigation. A page in none is an error."""

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [".*", "site"]
myst_heading_anchors = 4  # links to headings, as they are written everywhere else

default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
_GOOGLE_STYLE = napoleon.Config(napoleon_use_param=False)

html_theme = "furo"
html_title = "keras_mgpu_strategy"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "redirect.html"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_CLASS = re.compile(r"`([A-Z]\w+(?:\.\w+)?)`")


def _add_contents(app: Any, docname: str, source: list[str]) -> None:
    """Gives the first page the navigation, which a viewer of Markdown would show."""
    if docname != root_doc:
        return
    for caption, pages in CONTENTS.items():
        options = ":hidden:\n:glob:\n" + f":caption: {caption}\n" * bool(caption)
        lines = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n{options}\n{lines}\n```\n"


def _mark_up(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings have sections in Google's style, and code as Markdown has it.

    A class or method in backticks becomes a link where the reference has it.
    """
    text = _FENCE.sub(_code_block, "\n".join([*lines, ""]))
    text = _CLASS.sub(r":py:obj:`.\1`", text)
    lines[:] = text.splitlines()
    # Before a colon in the first line of a property the style expects a type.
    if what != "property":
        style = napoleon.GoogleDocstring(
            lines, _GOOGLE_STYLE, app, what, name, obj, options
        )
        lines[:] = style.lines()


def _code_block(fence: re.Match[str]) -> str:
    code = textwrap.indent(fence[2], "    ")
    return f".. code-block:: {fence[1] or 'python'}\n\n{code}"


def setup(app: Any) -> None:
    """Connects the two."""
    handlers: dict[str, Callable[..., None]] = {
        "source-read": _add_contents,
        "autodoc-process-docstring": _mark_up,
    }
    for event, handler in handlers.items():
        app.connect(event, handler)
