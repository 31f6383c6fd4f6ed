"""Whatever is counted has the form of its number: in the source, and in what commands print."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run
from digits import Digits

import edgeres
from edgeres.plurals import counted, plural

NOUNS = [
    "activation",
    "addition",
    "batch",
    "block",
    "board",
    "channel",
    "class",
    "convolution",
    "copy",
    "core",
    "file",
    "folder",
    "function",
    "group",
    "image",
    "inference",
    "job",
    "kernel",
    "label",
    "layer",
    "logit",
    "mistake",
    "node",
    "operator",
    "photo",
    "point",
    "product",
    "query",
    "reformat",
    "sample",
    "stream",
    "tensor",
    "thread",
    "unit",
    "value",
    "verdict",
    "worker",
]
"""What the toolkit counts."""

SEVERAL = "|".join(plural(noun, 2) for noun in NOUNS)

VERBS = frozenset(
    [
        "and",
        "are",
        "as",
        "has",
        "have",
        "holds",
        "in",
        "is",
        "names",
        "no",
        "of",
        "or",
        "prepares",
        "returned",
        "take",
        "takes",
        "than",
        "without",
    ]
)
"""Words after which a noun is not what the value before it counts."""


def uncounted(source: str) -> Iterator[str]:
    """Yields each value of an f-string that a plural follows, whatever the value is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            logged = rf"(?:%d|\{{\}}) (?:[a-z-]+ ){{0,2}}(?:{SEVERAL})\b"
            yield from re.findall(logged, node.value)
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, text in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            said = str(text.value)
            # Of a sum of two kinds, such as convolutions and additions, there are always several.
            phrase = re.match(rf" ((?:[a-z-]+ ){{0,2}})({SEVERAL})\b(?! (?:and|or)\b)", said)
            words = ast.unparse(value.value)
            is_figure = value.format_spec is not None or re.search(r"\b[A-Z_]{3,}\b", words)
            if phrase and not is_figure and not VERBS & set(phrase[1].split()):
                yield f"{{{words}}}{phrase[0]}"


ALLOWED = {
    "{'3x3' if is_first else '1x1'} convolutions",  # a size
    "{in_units(cost.activations)} activations",  # in millions
    "{precision.upper()} units",  # a kind
    "{request.precision.upper()} convolutions",  # a kind
}


def test_every_count_of_a_message_has_its_form() -> None:
    """By `counted` or `plural`: no message is right for several alone."""
    package = Path(edgeres.__file__).parent
    found = {
        f"{path.relative_to(package)}: {one}"
        for path in package.rglob("*.py")
        for one in uncounted(path.read_text(encoding="utf-8"))
        if one not in ALLOWED
    }
    assert found == set()


@pytest.mark.parametrize(
    "message",
    [
        '"%d images"',
        'f"{n} images"',
        'f"{len(x)} held-out images of y"',
        'f"{a} of the {b} classes"',
    ],
)
def test_a_count_without_its_form_would_be_noticed(message: str) -> None:
    """With words between the number and the noun, too."""
    assert len([*uncounted(message)]) == 1


@pytest.mark.parametrize(
    "message", ["f\"{counted(n, 'image')}\"", 'f"{path} has images"', 'f"{MOST} images"']
)
def test_what_is_no_count_is_left_alone(message: str) -> None:
    """A name before a verb, and limits that are never one."""
    assert [*uncounted(message)] == []


@pytest.mark.parametrize(
    ("noun", "several"),
    [("image", "images"), ("class", "classes"), ("batch", "batches"), ("query", "queries")],
)
def test_one_is_singular(noun: str, several: str) -> None:
    """And nothing else is."""
    assert [counted(n, noun) for n in (0, 1, 2)] == [f"0 {several}", f"1 {noun}", f"2 {several}"]


def test_commands_speak_of_one_image(digits: Digits, tmp_path: Path) -> None:
    """No output has a 1 before a plural: a calibration, a verdict, a page and a deployment of one."""
    lines = [
        "calibrate {model} --data {train} --samples 1 --method max -o {out}/t.json",
        "inspect {out}/t.json",
        "bench {engine} --reference {model} --data {test} --samples 1 --max-drop 1 --iterations 8 "
        "--no-energy --report {out}/r.html --output {out}/v.json --history {out}/h.jsonl",
        "compare {out}/v.json",
        "compare --history {out}/h.jsonl",
        "deploy {engine} --to python -o {out}/d",
    ]
    outputs = []
    for line in lines:
        done = run(*digits.words(line, out=tmp_path))
        outputs.append(done.output)
    outputs.append((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "1 image" in outputs[0]
    assert "1 image" in outputs[2]
    wrong = rf"(?<![\w.,])1 (?:[a-z-]+ )?(?:{SEVERAL})\b.*"
    assert [one for output in outputs for one in re.findall(wrong, output)] == []
