"""The vocabulary of names, messages, help and pages: this field's terms, not the project's own.

`python tests/test_words.py` prints how many unwanted words each area has, and how many its docstrings;
with the names of areas it lists them. An area is a folder of `edgeres`, `edgeres` for the modules beside the folders, `benchmarks`,
`training`, `scripts`, `help` for the commands' help, or `pages` for README.md, CHANGELOG.md and docs/.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from edgeres.cli import main

ROOT = Path(__file__).resolve().parents[1]

CLEAN: tuple[str, ...] = (
    "benchmarks",
    "calibration",
    "cli",
    "evaluation",
    "help",
    "images",
    "machine",
    "networks",
    "pages",
    "quantization",
    "report",
    "statistics",
    "targets",
    "training",
    "workflows",
    "core",
    "edgeres",
)
"""Areas that have none of the words; an area that was cleaned is added here."""

CLEAN_DOCSTRINGS: tuple[str, ...] = (
    "benchmarks",
    "calibration",
    "cli",
    "evaluation",
    "images",
    "machine",
    "quantization",
    "report",
    "statistics",
    "targets",
    "training",
    "workflows",
    "core",
    "edgeres",
    "networks",
    "scripts",
)
"""Areas whose docstrings have none of the phrases either."""

PHRASES: Mapping[str, str] = {
    r"judg(?:e|es|ed|ing|ement)": "evaluate",
    r"t(?:ell|ells|old|elling)": "show, report, return",
    r"sa(?:y|ys|id|ying)": "report, show, state, name",
    r"observ(?:e|es|ed|ing) the ranges": "collect activation ranges",
    r"(?<!left to )right(?! to left|-hand)": "correct",
    r"(?:labels?|images?|classes) (?:lost|gained)|(?:lost|gained) (?:labels?|images?|classes)": (
        "newly wrong, newly correct"
    ),
    r"of the images drawn": "random seed for sampling images",
    r"images at once": "batch size",
    r"inferences (?:of each )?before them": "warm-up runs",
    r"held against|holds? .{1,60} against": "compared with",
    r"in turns": "interleaved",
    r"ask(?:s|ed|ing)? for": "requested",
    r"as a part of it": "as a fraction",
    r"h(?:old|olds|eld) still": "unstable",
    r"not told here": "unavailable",
    r"flatter(?:s|ed|ing)?": "optimistically biased",
    r"not surely": "not significantly",
    r"w(?:in|ins|on) (?:\w+ )?back": "recover",
    r"as often right": "dominated by",
    r"drop of -": "top-1 +",
    r"pip install '?edgeres": "pip install '.[EXTRA]', from a clone",
    # Of the values of an f-string, `messages` keeps a format in percent.
    r"(?<!`)(?:\d+|\{\})%|\{:[^}]*%\}": "a space before the sign, as plurals.percent has it",
}
"""What prose must not have, as patterns of whole words, and what it has instead."""

NAMES: Mapping[str, str] = {
    **dict.fromkeys(("judge", "judges", "judged", "judging"), "evaluate, evaluator, evaluated"),
    **dict.fromkeys(("tell", "tells", "told", "untold"), "report, progress, describe"),
    **dict.fromkeys(("say", "says", "said"), "message, text, report"),
    **dict.fromkeys(("ask", "asks", "asked"), "requested, request"),
    "seen": "observed, ranges",
    "held": "held_out_batches, and what it holds",
    "found": "what it is: matches, rows, device",
    "made": "what it is: engine, rows",
    "whole": "complete, atomic",
    "again": "repeated, overlap",
    "contest": "bench pair",
    **dict.fromkeys(("doubt", "doubts"), "validity checks"),
    **dict.fromkeys(("twin", "lane"), "what a maintainer would search for"),
    "watch": "monitor",
    "extras": "optional dependencies, details",
    "stages": "modules, steps",
    "right": "correct",
    "flattered": "biased",
    **dict.fromkeys(("gained", "lost"), "newly_correct, newly_wrong"),
}
"""What no part of a name may be, and what it may be instead."""

ALLOWED_NAMES: Mapping[str, str] = {
    "networks.stages": "a ResNet's stages are the papers' term",
    "report.stages": "a ResNet's stages are the papers' term",
    "cli.judge_data": "of the option --judge-data",
    "core.asked": "a JSON key of the audit",
    "core.gained": "a JSON key of the verdict",
    "core.lost": "a JSON key of the verdict",
}
"""`area.name` of what keeps its name, with the reason: options, JSON keys and terms of the field."""

ALLOWED_TEXT: Mapping[str, str] = {
    "--judge-data": "an option that exists",
}
"""What prose may quote, with the reason."""


def areas() -> dict[str, list[Path]]:
    """Returns the Python files of each folder of the package, of `edgeres` and of the others."""
    package = ROOT / "edgeres"
    folders = [path for path in sorted(package.iterdir()) if (path / "__init__.py").exists()]
    folders += [ROOT / name for name in ("benchmarks", "training", "scripts")]
    return {"edgeres": sorted(package.glob("*.py"))} | {
        folder.name: sorted(folder.rglob("*.py")) for folder in folders
    }


def unwanted_phrases(text: str) -> list[str]:
    """Returns `phrase: replacement` for each phrase in a text, in the order of the table."""
    for allowed in ALLOWED_TEXT:
        text = text.replace(allowed, "")
    return [
        f"{match[0]!r}: {instead}"
        for pattern, instead in PHRASES.items()
        for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])", text, re.IGNORECASE)
    ]


def placeholder(value: ast.expr) -> str:
    """Returns what stands for a value of an f-string: `{}`, with the sign where percent is its format."""
    spec = value.format_spec if isinstance(value, ast.FormattedValue) else None
    return "{}%" if spec is not None and ast.unparse(spec).endswith("%'") else "{}"


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and text of each string of a module that is prose: not a docstring, not a key."""
    tree = ast.parse(source)
    # A string that stands alone documents a module, a function, a field or a constant.
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (
                p.value if isinstance(p, ast.Constant) else placeholder(p) for p in node.values
            )
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_key = re.fullmatch(
                r"[\w.-]*", node.value
            )  # or an option, or a value of an enumeration
            if not is_key and id(node) not in alone | inside:
                yield node.lineno, node.value


def names(source: str) -> Iterator[tuple[int, str]]:
    """Yields line and name of each function, class, parameter, attribute and variable that is bound."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs) and node.name:
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def unwanted_names(source: str, area: str = "") -> list[str]:
    """Returns `line N, name: replacement` for each name with an unwanted part."""
    return [
        f"line {line}, {name}: {NAMES[part]}"
        for line, name in names(source)
        # "held_out" is the field's own; the rest is split at underscores and capitals.
        for part in re.findall("[a-z]+", re.sub("([A-Z])|held_out", r"_\1", name).lower())
        if part in NAMES and f"{area}.{name}" not in ALLOWED_NAMES
    ]


def in_docstrings(area: str) -> list[str]:
    """Returns `file:line: phrase` for the docstrings of an area's modules, classes and fields."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}: {phrase}"
        for path in areas().get(area, ())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for phrase in unwanted_phrases(str(node.value.value))
    ]


def in_help() -> list[str]:
    """Returns `command, option: phrase` for the help of every command."""
    found = []
    for name, command in (("edgeres", main), *main.commands.items()):
        texts = {"": f"{command.help} {command.get_short_help_str(200)}"}
        texts |= {
            option.opts[0]: f"{option.help} {option.metavar}"
            for option in command.params
            if isinstance(option, click.Option)
        }
        found += [
            f"{name} {option}: {phrase}"
            for option, text in texts.items()
            for phrase in unwanted_phrases(text)
        ]
    return found


def in_pages() -> list[str]:
    """Returns `page:line: phrase` for the pages that people read; the commands' is their help."""
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        f"{path.relative_to(ROOT)}:{number}: {phrase}"
        for path in paths
        if path.name != "commands.md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for phrase in unwanted_phrases(line)
    ]


def in_package(area: str) -> list[str]:
    """Returns each unwanted phrase of a message or a template, and each unwanted name."""
    found = []
    for path in areas()[area]:
        source, file = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        found += [
            f"{file}:{line}: {phrase}"
            for line, text in messages(source)
            for phrase in unwanted_phrases(text)
        ]
        found += [f"{file}: {name}" for name in unwanted_names(source, area)]
        found += [f"{file}, file's {name}" for name in unwanted_names(f"{path.stem} = 0")]
    for path in (ROOT / "edgeres" / area).rglob("*.j2"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            prose = re.sub(r"<[^>]*>|\{[{%#].*?[}%#]\}", " ", line)
            found += [f"{path.relative_to(ROOT)}:{number}: {p}" for p in unwanted_phrases(prose)]
    return found


def unwanted(area: str) -> list[str]:
    """Returns a line for each unwanted word of an area."""
    special = {"help": in_help, "pages": in_pages}
    return special[area]() if area in special else in_package(area)


@pytest.mark.parametrize("area", CLEAN)
def test_clean_areas_stay_clean(area: str) -> None:
    """A word of the table is answered with what to write instead."""
    assert unwanted(area) == []


@pytest.mark.parametrize("area", CLEAN_DOCSTRINGS)
def test_clean_docstrings_stay_clean(area: str) -> None:
    """The same words, of what is read in the code and in the Python reference."""
    assert in_docstrings(area) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Images to judge on", "'judge'"),
        ("512 images at once", "'images at once'"),
        ("9167 right", "'right'"),
        ("is held against the limit", "'held against'"),
        ("Images lost: 3", "'Images lost'"),
        ("the precision asked for", "'asked for'"),
        ("with 98% of the tensors", "'98%'"),
        ("an error of 8.4%", "'4%'"),
        ("took {}% of the time", "'{}%'"),
        ("{:.1%}", "'{"),
    ],
)
def test_a_phrase_is_found(text: str, expected: str) -> None:
    """As whole words, in whatever case."""
    assert [found.split(":")[0] for found in unwanted_phrases(text)] == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "from left to right",
        "essay",
        "--judge-data",
        "right-hand side",
        "untold",
        "upright",
        "95 %",
        "`10%@624`",
    ],
)
def test_other_words_are_left_alone(text: str) -> None:
    """Parts of words, options that exist, and directions."""
    assert unwanted_phrases(text) == []


def test_messages_are_found_and_docstrings_and_keys_are_not() -> None:
    """An f-string is one text with its values left out."""
    source = (
        '"""Judges."""\nx = 1\n"""Judged."""\n'
        "raise E(f'{x} was judged ' 'in turns')\ny = {'judged': 'held against'}"
    )
    assert list(messages(source)) == [(4, "{} was judged in turns"), (5, "held against")]


def test_names_are_found_by_their_parts() -> None:
    """Functions, classes, parameters, attributes, variables, targets of loops and of `as`."""
    source = (
        "class FoundJudge: pass\n"
        "def tell(told, *, key=0): self.seen_range = key\n"
        "for again, other in x: pass\n"
        "with a as held: pass\n"
        "import b as twin\n"
        "foundation = stopwatch = retold = whole.used(made)\n"
    )
    lines = [line.split(":")[0] for line in unwanted_names(source)]
    assert sorted(lines) == [
        "line 1, FoundJudge",
        "line 1, FoundJudge",
        "line 2, seen_range",
        "line 2, tell",
        "line 2, told",
        "line 3, again",
        "line 4, held",
        "line 5, twin",
    ]


def test_what_is_allowed_exists() -> None:
    """A reason is not kept for a name or an option that is gone."""
    bound = {
        f"{area}.{name}"
        for area, paths in areas().items()
        for path in paths
        for _, name in names(path.read_text(encoding="utf-8"))
    }
    assert set(ALLOWED_NAMES) - bound == set()
    options = {opt for c in main.commands.values() for p in c.params for opt in p.opts}
    assert set(ALLOWED_TEXT) - options == set()


if __name__ == "__main__":
    chosen = sys.argv[1:]
    for each in chosen or (*areas(), "help", "pages"):
        lines, documented = unwanted(each), in_docstrings(each)
        counts = f"{len(lines):5} {len(documented):5}  {each}"
        sys.stdout.write("\n".join([*lines, *documented, ""] if chosen else [counts, ""]))
