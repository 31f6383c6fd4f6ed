"""Sphinx's settings: the Markdown pages as they are, and the Python reference from docstrings."""

from __future__ import annotations

import inspect

from sphinx.application import Sphinx

import edgeres

project = "edgeres"
release = version = edgeres.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "alabaster"
html_theme_options = {"description": "A trained ResNet to an INT8 engine, with a verdict"}
html_show_sourcelink = False
myst_heading_anchors = 3
default_role = "code"  # docstrings write `names` as Markdown does
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

API_PAGE = "reference/python"
MARK = "<!-- every name of edgeres.__all__ -->"


def api_sections() -> str:
    """Returns autodoc's directives for every public name: functions, values and errors apart."""
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": [], "Others": []}
    for name in getattr(edgeres, "__all__", ()):
        value = getattr(edgeres, name)
        if inspect.isclass(value):
            error = issubclass(value, BaseException)
            kinds["Errors" if error else "Classes"].append(
                f".. autoexception:: edgeres.{name}"
                if error
                else f".. autoclass:: edgeres.{name}\n   :members:"
            )
        elif callable(value):
            kinds["Functions"].append(f".. autofunction:: edgeres.{name}")
        else:
            kinds["Others"].append(f".. autodata:: edgeres.{name}")
    return "\n".join(
        f"## {kind}\n\n```{{eval-rst}}\n" + "\n\n".join(directives) + "\n```\n"
        for kind, directives in kinds.items()
        if directives
    )


def fill_api_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the directives where the page has its mark."""
    if docname == API_PAGE:
        source[0] = source[0].replace(MARK, api_sections())


def setup(app: Sphinx) -> None:
    """Registers the hook."""
    app.connect("source-read", fill_api_page)
