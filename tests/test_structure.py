"""The structure that review cannot hold by eye: who imports whom, what loads when, how long it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("version", "errors", "printable", "plurals"),
    ("installation", "names", "files", "processes", "progress", "statistics"),
    ("input_files",),
    ("serialization",),
    ("machine",),
    ("core", "session", "graph_names", "weight_grids"),
    ("graph_values",),
    ("graph_checks", "graph_structure", "batch_independence", "byte_input"),
    ("onnx_file", "testing"),
    ("normalization",),
    ("images", "networks", "quantization"),
    ("targets",),
    ("estimation", "runtime"),
    ("calibration", "evaluation", "deploy"),
    ("report",),
    ("workflows",),
    ("fleet",),
    ("api", "cli"),
    ("edgeres", "__main__"),
)
"""The floors of the package from the ground up: a part imports itself and what lies below it."""

TARGETS = ("onnx", "onnxruntime", "tensorrt")
"""Folders of `edgeres.targets`, of which none knows another."""

TARGET_NAMES = (*TARGETS, "tensorrt-rtx")

PACKAGE_NAMES_IN = ("edgeres.installation", "edgeres.machine", "edgeres.report.doctor")
"""Where the same words are names of Python and Debian packages, not of targets."""

MAX_TARGET_MENTIONS = 6
"""Modules outside `edgeres.targets` and the command line that know a certain target, each counted
once for each that it knows. A new target must need none; the number only goes down."""

OWNERS: Mapping[str, tuple[str, ...]] = {
    "torch": ("edgeres.networks", "edgeres.calibration.recovery.adaround"),
    "safetensors": ("edgeres.networks",),
    "torchvision": ("edgeres.networks.published",),
    "timm": ("edgeres.networks.published",),
    "onnxruntime": ("edgeres.session", "edgeres.targets.onnxruntime"),
    "tensorrt": ("edgeres.targets.tensorrt",),
    "tensorrt_rtx": ("edgeres.targets.tensorrt",),
    "pycuda": ("edgeres.targets.tensorrt",),
    "pynvml": ("edgeres.machine",),
    "PIL": ("edgeres.images",),
    "cv2": ("edgeres.images.opencv",),
    "jinja2": ("edgeres.report.html",),
    "markupsafe": ("edgeres.report.html",),
    "mlperf_loadgen": ("edgeres.evaluation.loadgen",),
    "distributed": ("edgeres.fleet.cluster", "edgeres.fleet.worker"),
    "msgspec": ("edgeres.serialization",),
    "rich": ("edgeres.report", "edgeres.cli"),
    "click": ("edgeres.cli",),
}
"""Modules and packages that alone may import a library."""

HEAVY = frozenset({"torch", "onnx", "onnxruntime", "numpy", "scipy", "PIL", "cv2"})
"""Libraries that neither `import edgeres.cli` nor `edgeres --help` may load."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

FOREIGN = re.compile(
    r"(?<![\w.])[/](?:work|root)\b"
    r"|\b(?:pypi|npmjs)[.](?:org|com)\b|\bpythonhosted[.]|\b(?:deb|download|pypi)[.](?:debian|pytorch|nvidia)"
)
"""Folders of one machine and hosts of package indexes."""


def modules(package: Path = ROOT / "edgeres") -> dict[str, str]:
    """Returns the source of every module of a package by its dotted name."""
    return {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path.read_text(encoding="utf-8")
        for path in sorted(package.rglob("*.py"))
    }


def imports(source: str) -> Iterator[str]:
    """Yields the dotted name of whatever the source imports; a relative one starts with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _imported_by_call(node)


def _imported_by_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func).rpartition(".")[2]
    if called in {"import_module", "__import__"} and isinstance(node.args[0], ast.Constant):
        yield str(node.args[0].value)


def part(name: str) -> str:
    """Returns the part of the package, a name in `LAYERS`, that a dotted name belongs to."""
    inside = name.split(".")[1:]
    return inside[0] if inside else "edgeres"


def floor(name: str) -> int | None:
    """Returns the floor that a part of the package stands on, from 0; None where it has none."""
    return next((index for index, parts in enumerate(LAYERS) if name in parts), None)


def wrong_direction(sources: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each import that does not go to the same part or to a lower floor."""
    found = []
    for module, source in sources.items():
        own = part(module)
        if (own_floor := floor(own)) is None:
            found.append(f"{module} has no place among the layers")
            continue
        for name in imports(source):
            if name.startswith("."):
                found.append(f"{module} imports {name}: write the whole name")
            elif name.split(".")[0] == "edgeres" and part(name) != own:
                other = floor(part(name))
                if other is None or other >= own_floor:
                    found.append(f"{module} imports {name}")
            elif target(name) and target(module) and target(name) != target(module):
                found.append(f"{module} imports {name}")
    return found


def target(name: str) -> str | None:
    """Returns the folder of `edgeres.targets` that a module is in; None for the others."""
    parts = name.split(".")
    return (
        parts[2]
        if parts[:2] == ["edgeres", "targets"] and parts[2:3] and parts[2] in TARGETS
        else None
    )


def target_mentions(sources: Mapping[str, str]) -> list[str]:
    """Returns `module: target` for each module that imports a target's folder or spells its name."""
    found: dict[str, None] = {}
    for module, source in sources.items():
        if module.startswith(("edgeres.targets", "edgeres.cli", *PACKAGE_NAMES_IN)):
            continue
        spelled = (
            node.value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and node.value in TARGET_NAMES
        )
        imported = filter(None, map(target, imports(source)))
        found |= dict.fromkeys(f"{module}: {name}" for name in (*imported, *spelled))
    return list(found)


def misplaced_libraries(sources: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each import of a library outside the modules that own it."""
    return [
        f"{module} imports {name}"
        for module, source in sources.items()
        for name in imports(source)
        if (owners := OWNERS.get(name.split(".")[0]))
        and not any(f"{module}.".startswith(f"{owner}.") for owner in owners)
    ]


def too_long(sources: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each file and each function above the limits."""
    found = []
    for module, source in sources.items():
        if (lines := len(source.splitlines())) > MAX_FILE_LINES:
            found.append(f"{module} has {lines} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # A command's parameters and its help are long without being hard to read.
                body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
                lines = (node.end_lineno or node.lineno) - body[0].lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found.append(f"{module}.{node.name} has {lines} lines")
    return found


def texts() -> dict[str, str]:
    """Returns every text file of the repository by its path."""
    names = ("edgeres", "tests", "scripts", "benchmarks", "training", "calibration", "docs")
    folders = [ROOT / name for name in (*names, ".ci", ".github")]
    paths = [*ROOT.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
    binary = {".npz", ".onnx", ".png", ".pyc", ".safetensors", ".ttf"}
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in paths
        if path.is_file() and path.suffix not in binary and path.name != ".git"
    }


def foreign_words(files: Mapping[str, str]) -> list[str]:
    """Returns `path: word` for each folder of one machine or host of a package index."""
    return [
        f"{path}: {match[0]}" for path, text in files.items() for match in FOREIGN.finditer(text)
    ]


def run_python(script: str) -> tuple[str, set[str]]:
    """Returns what a script prints in a fresh interpreter, and the top-level modules it loads."""
    report = "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script + report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, {name.split(".")[0] for name in done.stderr.split()}


def test_imports_run_one_way() -> None:
    """Every import of every module follows `LAYERS`."""
    assert wrong_direction(modules()) == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        (
            "edgeres.images.load",
            "from edgeres.networks import find_spec",
            "edgeres.networks.find_spec",
        ),
        ("edgeres.core.requests", "import edgeres.onnx_file", "edgeres.onnx_file"),
        ("edgeres.workflows.demo", "from edgeres import cli", "edgeres.cli"),
        (
            "edgeres.machine.gpu",
            "from edgeres.core.verdict import Check",
            "edgeres.core.verdict.Check",
        ),
        (
            "edgeres.evaluation.evaluate",
            "def f():\n from edgeres.calibration import x",
            "edgeres.calibration.x",
        ),
        (
            "edgeres.core.verdict",
            "if TYPE_CHECKING:\n from edgeres.images import Dataset",
            "edgeres.images.Dataset",
        ),
        (
            "edgeres.session",
            "importlib.import_module('edgeres.networks.onnx_export')",
            "edgeres.networks.onnx_export",
        ),
    ],
)
def test_an_import_against_the_direction_is_found(module: str, source: str, said: str) -> None:
    """At the top, inside a function, under TYPE_CHECKING or by name."""
    assert wrong_direction({module: source}) == [f"{module} imports {said}"]


def test_imports_along_the_direction_are_left_alone() -> None:
    """A module may import its own part, a lower one and the version."""
    source = "from edgeres.version import __version__\nfrom edgeres.images import a\nimport edgeres.errors"
    assert wrong_direction({"edgeres.images.load": source}) == []
    assert (
        wrong_direction(
            {"edgeres.evaluation.evaluate": "from edgeres.targets.runner import Runner"}
        )
        == []
    )


def test_a_relative_import_and_an_unknown_module_are_found() -> None:
    """Neither can be placed, so neither passes in silence."""
    assert wrong_direction({"edgeres.images.load": "from ..errors import DataError"}) == [
        "edgeres.images.load imports ..errors.DataError: write the whole name"
    ]
    assert wrong_direction({"edgeres.extra": ""}) == ["edgeres.extra has no place among the layers"]


def test_every_layer_exists() -> None:
    """The table names nothing that the package no longer has."""
    assert {part(module) for module in modules()} == {name for parts in LAYERS for name in parts}


def test_few_modules_know_a_certain_target() -> None:
    """Everything above the targets asks the registry; whoever needs one name less lowers the limit."""
    assert len(target_mentions(modules())) == MAX_TARGET_MENTIONS


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("edgeres.workflows.build", "if t.name == 'tensorrt-rtx': pass", ["tensorrt-rtx"]),
        ("edgeres.evaluation.a", "from edgeres.targets.onnxruntime.b import c, d", ["onnxruntime"]),
        ("edgeres.evaluation.a", "def f():\n import edgeres.targets.tensorrt", ["tensorrt"]),
        ("edgeres.evaluation.a", '"""For tensorrt."""\nfrom edgeres.targets.base import x', []),
        ("edgeres.machine.a", "PACKAGES = ('tensorrt',)", []),
        ("edgeres.targets.base", "'tensorrt'", []),
    ],
)
def test_a_mention_of_a_target_is_found(module: str, source: str, expected: list[str]) -> None:
    """As a string or an import, wherever in the source; in prose and as a package it is none."""
    assert target_mentions({module: source}) == [f"{module}: {name}" for name in expected]


def test_libraries_stay_with_their_owners() -> None:
    """torch, the runtimes, Pillow, rich and click appear only where `OWNERS` has them."""
    assert misplaced_libraries(modules()) == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("edgeres.workflows.export", "from torch import nn", "torch.nn"),
        ("edgeres.calibration.observe", "def f():\n import onnxruntime", "onnxruntime"),
        ("edgeres.targets.engine_files", "import pycuda.driver", "pycuda.driver"),
        ("edgeres.machine.machine", "import_module('tensorrt')", "tensorrt"),
        ("edgeres.exporter", "import torch", "torch"),
        ("edgeres.errors", "from click import ClickException", "click.ClickException"),
    ],
)
def test_a_library_outside_its_owners_is_found(module: str, source: str, said: str) -> None:
    """Wherever in the source, and although another module's name begins like an owner's."""
    assert misplaced_libraries({module: source}) == [f"{module} imports {said}"]


def test_an_owner_imports_its_library() -> None:
    """A package owns with all its modules."""
    assert misplaced_libraries({"edgeres.networks.resnet": "import torch.nn"}) == []


def test_importing_the_commands_is_light() -> None:
    """`import edgeres.cli` loads no heavy library."""
    assert run_python("import edgeres.cli")[1] & HEAVY == set()


def test_help_is_light() -> None:
    """`edgeres --help` prints the usage and loads no heavy library."""
    printed, loaded = run_python(
        "import contextlib, sys; sys.argv = ['edgeres', '--help']\n"
        "from edgeres.cli import main\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    assert printed.startswith("Usage: edgeres")
    assert loaded & HEAVY == set()


def test_showing_an_artifact_is_light() -> None:
    """`inspect` and `explain` answer at once: what statistics take of SciPy waits for its use."""
    slow = ("scipy.stats", "scipy.optimize", "torch", "jinja2")
    loads = "import sys, edgeres.report, edgeres.workflows\n"
    script = loads + "{}print(*(name for name in {} if name in sys.modules))"
    assert run_python(script.format("", slow))[0].split() == []
    use = "from edgeres.statistics import mcnemar_p; mcnemar_p(1, 2)\n"
    assert run_python(script.format(use, slow))[0].split() == ["scipy.stats", "scipy.optimize"]


@pytest.mark.parametrize("command", ["estimate", "explain"])
def test_an_estimate_is_light(command: str) -> None:
    """A name alone is answered at once: no runtime, no statistics, no torch, no image library."""
    line = f"['edgeres', '{command}', 'resnet18', '--board', 't4', '--json']"
    printed, loaded = run_python(
        f"import contextlib, sys; sys.argv = {line}\n"
        "from edgeres.cli import main\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    assert '"latency_ms"' in printed
    assert loaded & (HEAVY | {"rich", "jinja2", "tensorrt"}) == {"numpy", "onnx"}


def test_a_heavy_import_is_seen() -> None:
    """The same look into a fresh interpreter finds numpy where it was loaded."""
    assert run_python("import numpy.linalg")[1] & HEAVY == {"numpy"}


def test_files_and_functions_are_short() -> None:
    """No module over 400 lines, no function over 60."""
    assert too_long(modules()) == []


def test_what_is_too_long_is_found() -> None:
    """One line above either limit is said, the limit itself is not."""
    at_limit = "async def f():\n" + " x = 0\n" * MAX_FUNCTION_LINES
    filler = "\n" * (MAX_FILE_LINES - MAX_FUNCTION_LINES - 1)
    assert too_long({"edgeres.a": at_limit + filler}) == []
    assert too_long({"edgeres.a": at_limit + " x = 0\n" + filler}) == [
        "edgeres.a has 401 lines",
        "edgeres.a.f has 61 lines",
    ]


def test_nothing_names_one_machine_or_an_index() -> None:
    """The repository speaks of no folder of one machine and no host of a package index."""
    assert foreign_words(texts()) == []


@pytest.mark.parametrize(
    "word", ["/" + "work", "/" + "root", "pypi" + ".org", "files.pythonhosted" + "."]
)
def test_such_a_word_is_found(word: str) -> None:
    """With its file; the same letters within another word are none."""
    assert foreign_words({"a.md": f"see {word}/data"}) == [f"a.md: {word.removeprefix('files.')}"]
    assert foreign_words({"a.md": "a network/worker, my/root, ../work/pypi"}) == []
