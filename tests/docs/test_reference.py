"""The references are those of the code: commands from click's help, Python from docstrings."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_reference import PAGE, page

import edgeres
from edgeres.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
PUBLIC: tuple[str, ...] = tuple(getattr(edgeres, "__all__", ()))


def test_the_command_reference_is_what_the_commands_say() -> None:
    """After an option changed, `python docs/command_reference.py` writes the page anew."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run python docs/command_reference.py"


COMMANDS = {
    name: command
    for top, each in main.commands.items()
    for name, command in (
        {f"{top} {inner}": command for inner, command in each.commands.items()}
        if isinstance(each, click.Group)
        else {top: each}
    ).items()
    if not command.hidden
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_row(name: str) -> None:
    """Each option that is not hidden, with all its names, in the section of its command."""
    (section,) = re.findall(
        rf"^## edgeres {name}$(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    rows = " ".join(re.findall(r"^\| `([^`]*)` \|", section, re.MULTILINE))
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    assert options
    for option in options:
        for spelling in () if option.hidden else (*option.opts, *option.secondary_opts):
            assert re.search(rf"(?<![\w-]){spelling}(?![\w-])", rows), spelling


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name: str) -> None:
    """A docstring whose first line is a sentence."""
    value = getattr(edgeres, name)
    if inspect.isclass(value) or callable(value):
        first = (inspect.getdoc(value) or "").split("\n")[0]
        assert first.endswith("."), f"{name}: {first!r}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built with every warning an error."""
    for module in ("sphinx", "myst_parser"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (pip install '.[docs]'): no site was built")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-d", folder / "cache", DOCS, folder / "html"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_has_every_page(site: Path) -> None:
    """Each Markdown file of docs/ is a page that the index leads to."""
    index = (site / "index.html").read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md"):
        target = path.relative_to(DOCS).with_suffix(".html")
        assert (site / target).is_file()
        assert target.name == "index.html" or f'href="{target.as_posix()}"' in index


def test_the_site_has_every_command_and_every_public_name(site: Path) -> None:
    """Commands as headings, names with an anchor of their own."""
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>edgeres ([\w-]+)<", commands) == list(main.commands)
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert [name for name in PUBLIC if f'id="edgeres.{name}"' not in python] == []
