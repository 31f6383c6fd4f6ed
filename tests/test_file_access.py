"""Files are read, looked up and printed in one place each: nothing goes around it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import pytest
from test_structure import modules

READS = frozenset(
    {
        "open", "fdopen", "FileIO", "read_bytes", "read_text", "readlink", "fromfile", "memmap",
        "loadtxt", "genfromtxt", "load", "loads", "load_file", "load_model_from_string",
        "safe_open", "ZipFile", "TarFile", "mmap",
    }
)  # fmt: skip
"""What opens, reads or parses a file."""

LOOKS = frozenset(
    {
        "exists", "lexists", "is_file", "isfile", "is_dir", "isdir", "is_symlink", "stat", "lstat",
        "iterdir", "glob", "rglob", "scandir", "listdir", "samefile", "getsize",
    }
)  # fmt: skip
"""What asks the system for a file, and raises at a name that is too long or a closed folder."""

WRITES = frozenset(
    {"write_bytes", "write_text", "touch", "mkdir", "unlink", "rename", "symlink_to", "savez",
     "savez_compressed", "rmtree"}
)  # fmt: skip
"""What changes files."""

PRINTS = frozenset({"echo", "secho", "print", "Console", "StreamHandler", "stdout", "stderr"})
"""What reaches a terminal."""

WATCHED = READS | LOOKS | WRITES | PRINTS

WHOLE = ("edgeres.input_files", "edgeres.files", "edgeres.cli.output")
"""The places themselves."""

ALLOWED: Mapping[str, tuple[str, ...]] = {
    # Parsers of other projects, each behind `foreign_parser` or on bytes that are edgeres' own.
    "edgeres.images.decode": ("Image.open",),
    "edgeres.images.npz": ("zipfile.ZipFile", "archive.open"),
    "edgeres.networks.weights_file": ("torch.load", "zipfile.ZipFile", "safetensors.torch.load"),
    "edgeres.networks.onnx_export": ("onnx.load_model_from_string",),
    "edgeres.onnx_file": ("onnx.load_model_from_string", "path.open"),
    "edgeres.targets.onnxruntime.build": ("onnx.load_model_from_string",),
    "edgeres.serialization": ("json.loads", "temporary.write_text"),
    # The folders of a data set, where every OSError becomes one sentence.
    "edgeres.images.load": (
        "path.stat", "path.is_dir", "path.iterdir", "folder.iterdir", "entry.iterdir",
        "(path / LABELS_FILE).is_file", "(path / file).is_file",
    ),
    # Where this installation has its own files.
    "edgeres.images.embedded": ("(folder / name).is_file",),
    # Temporary files of `atomic_write`, and what only looks for a name.
    "edgeres.core.described": (
        "temporary.write_bytes", "temporary.write_text", "described.write_text",
    ),
    "edgeres.workflows.demo": (
        "temporary.write_bytes", "temporary.open", "np.savez_compressed", "os.path.lexists",
    ),
    "edgeres.workflows.trt_cache": ("temporary.write_text",),
    # Opens an engine's runner, not a file.
    "edgeres.targets.base": ("target_of(engine.manifest).open",),
    "edgeres.targets.tensorrt.target": ("self.open",),
    "edgeres.workflows.bench_pair": ("target.open",),
    "edgeres.runtime": ("target_of(engine.manifest).open",),
    # A folder that appears whole, and what this installation puts into it.
    "edgeres.deploy.folder": (
        "path.exists", "path.is_dir", "path.is_symlink", "path.iterdir", "file.parent.mkdir",
        "file.write_bytes", "temporary.rename", "temporary.mkdir", "path.parent.iterdir",
        "os.open", "shutil.rmtree",
        "(resources.files('edgeres.deploy') / 'templates' / name).read_text",
    ),
    # The style sheet of this installation.
    "edgeres.report.bare_page": (
        "(resources.files('edgeres.report.html') / 'report.css').read_text",
    ),
    # A quoted token of a text that was read already.
    "edgeres.deploy.pbtxt": ("json.loads",),
    # Fields of a value, not files.
    "edgeres.estimation.model": ("work.load", "work.loads"),
    # What the shell left as a pattern; the files that match go through the one reader.
    "edgeres.workflows.predict": ("glob.glob",),
    "edgeres.targets.onnxruntime.profile": ("onnx.load_model_from_string",),
    # A line of the progress of a job on another machine.
    "edgeres.progress": ("json.loads",),
    # What this run has written itself, and may find again.
    "edgeres.workflows.sweep": (
        "path.exists", "verdict.exists", "table.read_bytes", "manifest_path(engine).exists",
    ),
    # What a job's command has printed on another machine.
    "edgeres.cli.remote": ("click.echo", "result.stdout"),
    # Folders of this run's own.
    "edgeres.cli.spread": ("own.mkdir",),
    # What LoadGen has left in a folder of this run's own.
    "edgeres.evaluation.loadgen": ("Path(name).iterdir",),
    # A temporary file of `atomic_write`.
    "edgeres.images.part": ("temporary.open", "np.savez"),
    "edgeres.report.predictions": ("rich.console.Console",),
    "edgeres.report.tables": ("rich.console.Console",),
    # Before the command line, whose output passes one place, is loaded.
    "edgeres.__main__": ("sys.stderr",),
    # A type alone.
    "edgeres.cli.progress_display": ("rich.console.Console",),
    # Emptied before another program takes the process over, or the process becomes two.
    "edgeres.cli.boards": ("sys.stdout",),
    "edgeres.processes": ("sys.stdout", "sys.stderr"),
}  # fmt: skip
"""Expressions by module: the only ones outside the places themselves."""

SYSTEM = ("edgeres.machine.", "edgeres.fleet.")
"""Modules that read Linux's own files about itself, below a root that tests replace, and a board's
own store of jobs, which no user writes to."""


def accesses(sources: Mapping[str, str]) -> Iterator[str]:
    """Yields `module: expression` for whatever touches a file or a terminal outside its place."""
    for module, source in sources.items():
        if module in WHOLE or module.startswith(SYSTEM):
            continue
        for node in ast.walk(ast.parse(source)):
            # Not calls alone: a method may be handed on, as to map().
            if isinstance(node, ast.Attribute) and node.attr in WATCHED:
                yield f"{module}: {ast.unparse(node)}"
            elif isinstance(node, ast.Name) and node.id in {"open", "print"}:
                yield f"{module}: {node.id}"
            elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("edgeres"):
                yield from (
                    f"{module}: {node.module}.{name.name}"
                    for name in node.names
                    if name.name in WATCHED
                )


def test_files_are_touched_in_their_places_alone() -> None:
    """A new place is a decision: it joins `ALLOWED` with its reason, or goes through the one reader.

    An allowance that nobody needs any more goes.
    """
    allowed = {f"{module}: {each}" for module, parts in ALLOWED.items() for each in parts}
    assert set(accesses(modules())) == allowed


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("with open(path) as file: pass", "open"),
        ("path.open('rb')", "path.open"),
        ("Path(name).read_text()", "Path(name).read_text"),
        ("list(map(Path.read_bytes, paths))", "Path.read_bytes"),
        ("def f():\n import json\n return json.load(file)", "json.load"),
        ("np.load(path)", "np.load"),
        ("np.fromfile(path)", "np.fromfile"),
        ("Image.open(path)", "Image.open"),
        ("torch.load(path, weights_only=True)", "torch.load"),
        ("onnx.load(path)", "onnx.load"),
        ("from onnx import load", "onnx.load"),
        ("from zipfile import ZipFile", "zipfile.ZipFile"),
        ("safetensors.safe_open(path)", "safetensors.safe_open"),
        ("os.fdopen(3)", "os.fdopen"),
        ("path.is_file()", "path.is_file"),
        ("os.path.exists(path)", "os.path.exists"),
        ("path.write_text(text)", "path.write_text"),
        ("click.echo(model.name)", "click.echo"),
        ("print(model.name)", "print"),
        ("sys.stdout.write(name)", "sys.stdout"),
        ("from rich.console import Console", "rich.console.Console"),
    ],
)
@pytest.mark.parametrize("module", ["edgeres.workflows.new", "edgeres.serialization"])
def test_a_new_way_around_is_found(module: str, source: str, said: str) -> None:
    """Called, handed on or imported, in a new module and in one that is allowed other things."""
    assert list(accesses({module: source})) == [f"{module}: {said}"]


def test_the_places_themselves_are_left_alone() -> None:
    """And so are methods of edgeres' own that are imported by name."""
    source = "open(path)\npath.read_bytes()"
    assert list(accesses(dict.fromkeys((*WHOLE, f"{SYSTEM[0]}sysfs"), source))) == []
    source = "from edgeres.input_files import read_bytes, exists\nread_bytes(path, MODEL)"
    assert list(accesses({"edgeres.workflows.new": source})) == []
