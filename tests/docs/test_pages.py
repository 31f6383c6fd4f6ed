"""Pages for people: their links lead somewhere, and what they name exists."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from test_structure import LAYERS

from edgeres.cli import main
from edgeres.plurals import plural
from edgeres.serialization import SCHEMA_VERSION

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("edgeres", "tests", "scripts", "docs", "benchmarks", "training", "calibration")


def pages() -> dict[str, str]:
    """Returns every Markdown page of the repository by its path."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("calibration/*.md")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def anchors(text: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and MyST form them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(files: Mapping[str, str]) -> list[str]:
    """Returns `page: target` for each relative link that leads nowhere."""
    found = []
    for page, text in files.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            path = (ROOT / page).parent / target if target else ROOT / page
            known = path.exists() and (not anchor or anchor in anchors(path.read_text("utf-8")))
            if not known:
                found.append(f"{page}: {link}")
    return found


def unknown_paths(files: Mapping[str, str]) -> list[str]:
    """Returns `page: path` for each file or module that a page names and that is not there.

    A name in capitals stands for the reader's own, as in `edgeres/targets/NAME/`.
    """
    found = []
    for page, text in files.items():
        named = re.findall(rf"(?<![\w/.~])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", text)
        modules = re.findall(r"python -m ((?:benchmarks|training)\.\w+)", text)
        names = (*named, *(f"{module.replace('.', '/')}.py" for module in modules))
        own = [name for name in names if not re.search(r"[A-Z]{2}", name)]
        found += [f"{page}: {name}" for name in own if not (ROOT / name).exists()]
    return found


def command_lines(text: str) -> Iterator[list[str]]:
    """Yields the words of every `edgeres COMMAND ...` in a page's blocks of commands."""
    for block in re.findall(r"^```(?:bash|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].rpartition("/")[2] == "edgeres":
                yield words[1:]


def unknown_options(files: Mapping[str, str]) -> list[str]:
    """Returns `page: command option` for each option in a block that the command does not have."""
    found = []
    for page, text in files.items():
        for name, *words in command_lines(text):
            command = main.commands.get(name)
            if isinstance(command, click.Group) and words:
                command = command.commands.get(words[0])
            params = [] if command is None else command.params
            options = [p for p in params if isinstance(p, click.Option)]
            known = {s for o in options for s in (*o.opts, *o.secondary_opts)} | {"-h", "--help"}
            given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            found += [f"{page}: {name} {option}" for option in sorted(given - known)]
    return found


def unmarked_blocks(files: Mapping[str, str]) -> list[str]:
    """Returns `page: first line` for each block of commands that neither runs nor says why not."""
    block = re.compile(r"^(.*)\n```(?:bash|console|sh|shell)\n(.*)$", re.MULTILINE)
    return [
        f"{page}: {first}"
        for page, text in files.items()
        for above, first in block.findall(text)
        if not re.fullmatch(r"<!-- (run|not run: .+) -->", above)
    ]


def unknown_names(files: Mapping[str, str]) -> list[str]:
    """Returns `page: name` for each name of edgeres that a block of Python takes and that is not there."""
    found = []
    for page, text in files.items():
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    module, names = str(node.module), [alias.name for alias in node.names]
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    module, names = node.value.id, [node.attr]
                else:
                    continue
                if module.partition(".")[0] == "edgeres":
                    found += [f"{page}: {module}.{n}" for n in names if not has_name(module, n)]
    return found


def has_name(module: str, name: str) -> bool:
    """Returns whether a module is there and has that name."""
    try:
        return hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return False


def test_links_lead_somewhere() -> None:
    """To a file of the repository and a heading in it; addresses elsewhere are not followed."""
    assert broken_links(pages()) == []


def test_a_broken_link_is_found() -> None:
    """A file that is not there, and a heading that is not in it."""
    text = "[a](docs/none.md) [b](README.md#no-such-heading) [c](README.md) [d](https://a.b/c)"
    assert broken_links({"x.md": text}) == [
        "x.md: docs/none.md",
        "x.md: README.md#no-such-heading",
    ]


def test_files_that_pages_name_exist() -> None:
    """Paths within the repository, and modules that are run."""
    assert unknown_paths(pages()) == []


def test_a_file_that_is_not_there_is_found() -> None:
    """By its path or as a module."""
    text = "`edgeres/none.py` `edgeres/targets/NAME/` `python -m training.none`, docs/guide.md."
    assert unknown_paths({"x.md": text}) == ["x.md: edgeres/none.py", "x.md: training/none.py"]


def test_options_in_commands_exist() -> None:
    """In every block of every page, whether it is run by the tests or not."""
    assert unknown_options(pages()) == []


def test_an_option_that_does_not_exist_is_found() -> None:
    """Over continued lines, with and without a value."""
    block = (
        "```bash\nedgeres bench a \\\n    --maxdrop=1 --json  # --no\n.venv/bin/edgeres no -x\n```"
    )
    assert unknown_options({"x.md": f"{block}\n"}) == ["x.md: bench --maxdrop", "x.md: no -x"]


def test_every_block_of_commands_runs_or_says_why_not() -> None:
    """In every page, so that a reader can rely on what stands there."""
    # The reference is made from help texts, whose examples are parsed by the tests of commands.
    own = {page: text for page, text in pages().items() if "reference/" not in page}
    assert unmarked_blocks(own) == []


def test_a_block_without_a_mark_is_found() -> None:
    """One that has none, and one whose reason is empty."""
    text = "a\n```bash\nx\n```\n<!-- not run:  -->\n```console\n$ y\n```\n<!-- run -->\n```bash\nz\n```\n"
    assert unmarked_blocks({"x.md": text}) == ["x.md: x", "x.md: $ y"]


def quoted_part(value: ast.expr) -> str:
    """Returns a part of a message as the page quotes it, with N for a value that is put in."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    call = value.value if isinstance(value, ast.FormattedValue) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "counted":
        return f"N {plural(ast.literal_eval(call.args[1]), 2)}"
    return "N"


def test_messages_quoted_by_troubleshooting_are_those_of_the_code() -> None:
    """Each heading in quotes is searched for by a user who has just read it."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r'"([^"]+)"', "\n".join(re.findall(r"^### (.*)$", page, re.MULTILINE)))
    strings = set()
    for path in (ROOT / "edgeres").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                strings.add("".join(map(quoted_part, node.values)))
            elif isinstance(node, ast.Constant):
                strings.add(str(node.value))
    system = {os.strerror(errno.ENOSPC), os.strerror(errno.EACCES)}
    unknown = [q for q in quoted if q not in system and not any(q in s for s in strings)]
    assert len(quoted) > 5
    assert unknown == []


def test_names_in_python_blocks_exist() -> None:
    """Whatever a page imports from edgeres, or takes as an attribute of it."""
    assert unknown_names(pages()) == []


def test_a_name_that_does_not_exist_is_found() -> None:
    """In a module, as a module, and as an attribute."""
    code = (
        "from edgeres.none import a\nfrom edgeres.errors import b, DataError\nedgeres.c(a.edgeres)"
    )
    assert unknown_names({"x.md": f"```python\n{code}\n```\n"}) == [
        "x.md: edgeres.none.a",
        "x.md: edgeres.errors.b",
        "x.md: edgeres.c",
    ]


def test_the_drawing_of_the_layers_is_the_structure() -> None:
    """docs/architecture.md has the floors of test_structure's table, from the top down."""
    text = pages()["docs/architecture.md"]
    drawing = text.split("## Layers")[1].split("```")[1]
    # A bar alone stands between two floors; a floor may take several lines.
    rows = [
        [name for line in floor.splitlines() for name in line[:54].split()]
        for floor in re.split(r"^ *\| *$", drawing, flags=re.MULTILINE)
    ]
    floors = [set(parts) - {"edgeres", "__main__"} for parts in reversed(LAYERS)]
    assert [set(row) for row in rows] == [floor for floor in floors if floor]


def test_the_glossary_is_in_order_and_defines_each_term_once() -> None:
    """By the alphabet, without regard to case, each with a sentence."""
    text = pages()["docs/glossary.md"]
    entries = re.findall(r"^\*\*(.+?)\*\* -- (.+)$", text, re.MULTILINE)
    terms = [term.lower() for term, _ in entries]
    assert terms == sorted(set(terms))
    assert all(meaning.rstrip().endswith(".") for _, meaning in entries)
    assert text.count("**") == 2 * len(entries)


def test_every_kind_of_json_is_in_the_versioning_policy() -> None:
    """With the schema version that the package writes."""
    rows = re.findall(
        r"^\| `(edgeres-[\w-]+)` \| (\d+) \|", pages()["docs/versioning.md"], re.MULTILINE
    )
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "edgeres").rglob("*.py")]
    assignment = re.compile(r"""(?:\bkind: ClassVar\[str\]|_KIND) = "(edgeres-[\w-]+)\"""")
    kinds = {kind for source in sources for kind in assignment.findall(source)}
    assert dict(rows) == dict.fromkeys(kinds, str(SCHEMA_VERSION))


def test_the_workflow_runs_every_python_that_the_package_names() -> None:
    """The classifiers of pyproject.toml, no more and no fewer, on both architectures."""
    classifiers = re.findall(
        r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (pythons,) = re.findall(r"python: \[(.*)\]", workflow)
    (machines,) = re.findall(r"os: \[(.*)\]", workflow)
    assert pythons.replace('"', "").split(", ") == classifiers
    assert machines.split(", ") == ["ubuntu-24.04", "ubuntu-24.04-arm"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_way_to_the_other_pages_is_there(name: str) -> None:
    """Both lead to how the package is laid out."""
    assert "(docs/architecture.md" in pages()[name]
