"""Sessions open on the CPU alone, and every refusal is a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import QUICK, Digits
from networks import images, network

from edgeres.errors import RunnerError
from edgeres.session import open_session, run_session

SERIALIZED = network("identity").SerializeToString()


def test_bytes_and_path_open_the_same(tmp_path: Path) -> None:
    """A model in memory and its file compute the same."""
    path = tmp_path / "model.onnx"
    path.write_bytes(SERIALIZED)
    feed = {"image": images(2)}
    (from_bytes,) = run_session(open_session(SERIALIZED), ["logits"], feed)
    (from_path,) = run_session(open_session(path), ["logits"], feed)
    np.testing.assert_array_equal(from_bytes, from_path)


def test_only_the_cpu_is_asked_for() -> None:
    """No session falls to a device that happens to be listed, and threads are as wanted."""
    session = open_session(SERIALIZED, threads=1)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process has one core alone")
def test_threads_stay_on_the_cores_of_the_process(tmp_path: Path) -> None:
    """One that was bound to a core computes there alone, as the kernel lists its threads."""
    path = tmp_path / "model.onnx"
    path.write_bytes(SERIALIZED)
    code = (
        "import os, sys; from edgeres.session import open_session\n"
        "core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, {core})\n"
        "session = open_session(open(sys.argv[1], 'rb').read())\n"
        "threads = map(int, os.listdir('/proc/self/task'))\n"
        "print(set().union(*map(os.sched_getaffinity, threads)) == {core})"
    )
    line = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(line, capture_output=True, check=True, text=True).stdout == "True\n"


def test_the_graph_that_runs_can_be_read_back(tmp_path: Path) -> None:
    """The optimised file shows ONNX Runtime's fusions, not the model's own nodes."""
    path = tmp_path / "optimized.onnx"
    open_session(SERIALIZED, optimized=path)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "Relu" in {node.op_type for node in network("identity").graph.node}
    assert "Relu" not in kinds


def test_an_output_belongs_to_the_caller() -> None:
    """A second run does not touch what the first one returned."""
    session = open_session(SERIALIZED)
    (first,) = run_session(session, ["logits"], {"image": images(2, 0)})
    kept = first.copy()
    run_session(session, ["logits"], {"image": images(2, 1)})
    np.testing.assert_array_equal(first, kept)


def _unknown_operator() -> bytes:
    model = network("identity")
    model.graph.node[1].op_type = "Frobnicate"
    return bytes(model.SerializeToString())


def _broken_graph() -> bytes:
    model = network("identity")
    model.graph.node[1].input[0] = "nothing"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model",
        SERIALIZED[: len(SERIALIZED) // 2],
        _unknown_operator(),
        _broken_graph(),
    ],
    ids=["empty", "text", "cut off", "unknown operator", "broken graph"],
)
def test_what_onnx_runtime_refuses_is_a_runner_error(content: bytes, tmp_path: Path) -> None:
    """From memory and from a file, with the version that refused and what to do."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(RunnerError, match=r"ONNX Runtime \d.* refused .*/model.onnx: "):
        open_session(path)
    with pytest.raises(RunnerError, match=r"(?s)refused the model: .*export it again"):
        open_session(content)


def test_a_missing_file_is_a_runner_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(RunnerError, match=r"refused .*absent.onnx"):
        open_session(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 8), (2, 4, 16, 16), (3, 16, 16)], ids=["size", "channels", "rank"]
)
def test_images_of_another_shape_are_a_runner_error(shape: tuple[int, ...]) -> None:
    """ONNX Runtime's message on its input arrives as an EdgeresError."""
    session = open_session(SERIALIZED)
    with pytest.raises(RunnerError, match="INVALID_ARGUMENT"):
        run_session(session, ["logits"], {"image": np.zeros(shape, np.float32)})


LINES = (
    "calibrate {model} --data {train} --samples 20 -o {out}/table.json",
    "build-engine {model} --calibration {out}/table.json -o {out}/engine.onnx",
    "bench {out}/engine.onnx --reference {model} --data {test} " + QUICK,
)


def written_at_home(digits: Digits, folder: Path) -> list[str]:
    """Returns what the commands leave in an empty HOME and TMPDIR."""
    home, temporary, out = (folder / name for name in ("home", "tmp", "out"))
    for path in (home, temporary, out):
        path.mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "ORT_DISABLE_TELEMETRY" and not name.startswith("XDG_")
    }
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    for line in LINES:
        words = digits.words(line, out=out)
        subprocess.run(
            [sys.executable, "-m", "edgeres", *words],
            env=environment,
            check=True,
            capture_output=True,
        )
    return [str(path.relative_to(folder)) for part in (home, temporary) for path in part.rglob("*")]


def test_nothing_is_written_at_home(digits: Digits, tmp_path: Path) -> None:
    """No identifier of the device, no database and no session file of ONNX Runtime's telemetry."""
    assert written_at_home(digits, tmp_path) == []


READ_WHILE_LOADING = """
import builtins, os, sys
import edgeres.session

load = builtins.__import__
def importing(name, *more):
    if name == "onnxruntime" and name not in sys.modules:
        print(os.environ.get("ORT_DISABLE_TELEMETRY"))
    return load(name, *more)
builtins.__import__ = importing

try:
    edgeres.session.open_session(b"")
except edgeres.session.RunnerError:
    pass
"""


@pytest.mark.parametrize(("users", "read"), [(None, "1"), ("0", "0"), ("1", "1")])
def test_telemetry_is_off_before_the_library_loads_unless_the_user_set_it(
    users: str | None, read: str
) -> None:
    """ONNX Runtime reads the variable while it loads; what it then writes depends on the machine.

    So the variable is what can be checked everywhere, at that very moment.
    """
    environment = {name: text for name, text in os.environ.items() if "ORT_" not in name}
    run = subprocess.run(
        [sys.executable, "-c", READ_WHILE_LOADING],
        env=environment | ({} if users is None else {"ORT_DISABLE_TELEMETRY": users}),
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == [read]


def test_a_name_that_is_no_text_is_a_runner_error() -> None:
    """ONNX Runtime's own message quotes it, and cannot be decoded."""
    for name in (b"logits", b"image"):
        damaged = SERIALIZED.replace(name, b"\xc0" + name[1:], 1)
        with pytest.raises(RunnerError, match=r"ONNX Runtime .* refused the model"):
            open_session(damaged)
