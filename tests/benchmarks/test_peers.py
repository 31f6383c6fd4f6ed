"""The comparison with other quantizers, with tools that are here and peers that are made to fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import Digits
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks import peers, quantization
from benchmarks.peer_networks import PeerError, Served, SessionNetwork, interleaved, last_words
from benchmarks.peer_quantizers import serve
from benchmarks.peers import COLUMNS, FLOAT, PINNED, Limits, Work, attempted, compared, environments
from benchmarks.results import Case
from edgeres.core.methods import Method
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.evaluation.benchmark import BLOCK, SETTLING
from edgeres.images import batches, load_dataset, select
from edgeres.onnx_file import load_onnx
from edgeres.session import open_session, run_session
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable)
SAMPLES = 32

Images = NDArray[np.float32]


@pytest.fixture
def work(digits: Digits, tmp_path: Path) -> Work:
    """The digits' network and images as every tool gets them."""
    case = Case(name="digits", export="", calibration="train.npz", validation="test.npz")
    limits = Limits(samples=SAMPLES, memory_gib=8)
    return peers.prepared(case, digits.model, digits.train.parent, limits, tmp_path)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """An interpreter that fails like a tool that lacks a library."""
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho 'no module named | tool' >&2\nexit 3\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def child(code: str) -> list[str]:
    """Returns the command of a child that has the script's functions."""
    paths = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    return [sys.executable, "-c", paths + textwrap.dedent(code)]


def brightest(image: Images) -> Images:
    """Takes the place of a network: the class of an image is the place of its largest value."""
    return image.reshape(1, -1)


class Recorded:
    """A network that records what is requested of it."""

    def __init__(self, name: str, requests: list[tuple[str, int]], fails_after: int = 99) -> None:
        """Takes its name in `requests`, and how many requests it answers."""
        self.name, self.requests, self.left = name, requests, fails_after

    def take(self, count: int) -> list[float]:
        """Notes the request."""
        if self.left == 0:
            raise PeerError(f"{self.name} is gone")
        self.left -= 1
        self.requests.append((self.name, count))
        return [1.0] * count

    def classes(self, images: Path) -> NDArray[np.int64]:
        """Is never called."""
        raise NotImplementedError

    def close(self) -> None:
        """Holds nothing."""


def test_serve_answers_each_request_with_a_line(tmp_path: Path) -> None:
    """Durations of the first image, and the class of every image of a file."""
    images = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    np.save(tmp_path / "i m.npy", images)
    requests = io.StringIO(f"go 4\nclasses {tmp_path / 'i m.npy'}\n")
    replies = io.StringIO()
    serve(brightest, images[:1], requests, replies)
    ready, durations, found = map(json.loads, replies.getvalue().splitlines())
    assert (ready, len(durations), found) == ("ready", 4, [0, 1, 2])
    assert min(durations) > 0


def test_serve_refuses_what_is_no_request() -> None:
    """It says what is understood."""
    with pytest.raises(SystemExit, match=r"'stop' is no request; expected go N or classes FILE"):
        serve(brightest, np.zeros((1, 3, 1, 1), np.float32), io.StringIO("stop\n"), io.StringIO())


SERVING = """
import numpy as np
from benchmarks.peer_quantizers import reply_stream, serve
with reply_stream() as replies:
    print("what a tool prints is no reply")
    serve(lambda x: x.reshape(1, -1), np.zeros((1, 3, 1, 1), np.float32), sys.stdin, replies)
"""


def test_a_child_is_timed_and_judged_through_its_pipe(tmp_path: Path) -> None:
    """What it prints besides goes elsewhere, and it ends with the requests."""
    np.save(tmp_path / "images.npy", np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    with closing(Served(child(SERVING))) as served:
        assert len(served.take(7)) == 7
        assert served.classes(tmp_path / "images.npy").tolist() == [0, 1, 2]
        assert len(served.take(2)) == 2
    assert served._child.returncode == 0


def test_a_child_that_cannot_start_says_why() -> None:
    """The reason is the last line that it printed."""
    with pytest.raises(PeerError, match=r"^ended with 1: OSError: no such plugin$"):
        Served(child("print('loading', file=sys.stderr); raise OSError('no such plugin')"))


def test_a_child_that_ends_between_requests_says_why() -> None:
    """Both where its reply is awaited and where it no longer reads the request."""
    served = Served(child("print('1', flush=True); input(); raise ValueError('odd shape')"))
    with pytest.raises(PeerError, match="ended with 1: ValueError: odd shape"):
        served.take(1)


def test_turns_alternate_and_settle() -> None:
    """Each turn begins with the next network, and the first inferences of a block do not count."""
    requests: list[tuple[str, int]] = []
    samples, failures = interleaved({name: Recorded(name, requests) for name in "abc"}, turns=3)
    counted = "".join(name for name, count in requests if count == BLOCK)
    assert counted == "abc" + "bca" + "cab"
    assert [count for _, count in requests] == [SETTLING, BLOCK] * 9
    assert ({len(ms) for ms in samples.values()}, failures) == ({3 * BLOCK}, {})


def test_a_network_that_fails_drops_out_and_the_others_go_on() -> None:
    """Its samples are dropped, and its reason is reported."""
    requests: list[tuple[str, int]] = []
    networks = {"a": Recorded("a", requests, fails_after=3), "b": Recorded("b", requests)}
    samples, failures = interleaved(networks, turns=3)
    assert (list(samples), len(samples["b"]), failures) == (["b"], 3 * BLOCK, {"a": "a is gone"})


def test_images_are_those_that_edgeres_draws(work: Work, digits: Digits) -> None:
    """In its order, preprocessed by the model's contract; all validation images with labels."""
    contract = load_onnx(digits.model).artifact.contract
    assert contract is not None
    drawn = select(load_dataset(digits.train, labelled=False), SAMPLES, 0)
    expected = np.concatenate([b.images for b in batches(drawn, contract, batch_size=5)])
    np.testing.assert_array_equal(np.load(work.calibration), expected)
    test = load_dataset(digits.test)
    assert test.labels is not None
    assert work.labels.tolist() == test.labels.tolist()
    assert len(np.load(work.validation, mmap_mode="r")) == len(test)


def test_right_images_are_counted_as_by_hand(work: Work, digits: Digits) -> None:
    """The same number as one inference of all images gives."""
    session = open_session(digits.model)
    feed = {session.get_inputs()[0].name: np.load(work.validation)}
    logits = run_session(session, [session.get_outputs()[0].name], feed)[0]
    expected = int((logits.argmax(axis=1) == work.labels).sum())
    assert work.count_correct(SessionNetwork(digits.model, work.first)) == expected


def test_edgeres_own_row_is_what_its_commands_make(work: Work, digits: Digits) -> None:
    """Byte for byte the engine of the same table, with its cost and versions."""
    found = attempted(work, "edgeres", "max", PYTHON)
    assert "note" not in found.row, found.row
    config = CalibrationRequest(method=Method.MAX, samples=SAMPLES)
    table = calibrate_model(digits.model, digits.train, config)
    expected = work.folder / "expected.onnx"
    build_from_model(BuildInputs(model=digits.model, table=table, output=expected), BuildRequest())
    assert (work.folder / "edgeres max.onnx").read_bytes() == expected.read_bytes()
    assert found.row["peak_mib"] > found.row["beyond_mib"] > 0
    assert "edgeres " in found.row["versions"]


@pytest.mark.parametrize(("activations", "kind"), [("s8", np.int8), ("u8", np.uint8)])
def test_onnxruntime_quantizes_as_its_row_says(
    work: Work, activations: str, kind: type[np.generic]
) -> None:
    """Activations of the named type, weights per channel, and accuracy near FP32's."""
    found = attempted(work, "onnxruntime", f"MinMax {activations}", PYTHON)
    assert "note" not in found.row, found.row
    zero_points = zero_points_of(onnx.load(work.folder / f"onnxruntime MinMax {activations}.onnx"))
    assert {points.dtype for points in zero_points["activations"]} == {np.dtype(kind)}
    assert all(points.ndim == 1 and points.dtype == np.int8 for points in zero_points["weights"])
    if activations == "s8":
        assert not any(points.any() for points in zero_points["activations"])
    assert found.row["right"] > 0.9 * found.row["samples"]


def zero_points_of(model: onnx.ModelProto) -> dict[str, list[NDArray[np.generic]]]:
    """Returns the zero points of what is quantized at run time and of the convolutions' weights."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    return {
        "activations": [
            stored[node.input[2]]
            for node in model.graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] not in stored
        ],
        "weights": [
            stored[node.input[2]]
            for node in model.graph.node
            if node.op_type == "DequantizeLinear" and node.output[0] in weights
        ],
    }


def test_a_peer_that_fails_is_a_row_with_the_reason(work: Work, broken: Path) -> None:
    """FP32 keeps its figures, and a bar in the reason does not break the table."""
    fp32, nncf = compared(work, {"nncf": broken})
    assert (fp32["tool"], fp32["variant"]) == FLOAT
    assert (fp32["speedup"], fp32["right"] > 0, fp32["p50_ms"] >= fp32["p10_ms"] > 0) == (
        1.0,
        True,
        True,
    )
    assert nncf == {
        "tool": "nncf",
        "variant": "default",
        "note": "ended with 3: no module named / tool",
    }


def test_a_file_that_onnx_runtime_refuses_is_a_row_with_the_reason(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool ended well and wrote nothing that can be loaded."""
    cost = {"seconds": 1, "peak_mib": 2, "beyond_mib": 1, "versions": {"nncf": "1"}}
    monkeypatch.setattr(peers, "ran", lambda command: json.dumps(cost))
    found = attempted(work, "nncf", "default", PYTHON)
    assert found.network is None
    assert "nncf default.onnx" in found.row["note"]


Runs = list[list[str]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Notes the commands that would be run, in their place; `fail` among the words fails."""
    noted: Runs = []

    def run(command: Sequence[object]) -> str:
        words = [str(word) for word in command]
        noted.append(words)
        if "fail" in words:
            raise PeerError("ended with 1: no matching distribution")
        folder = Path(words[-1] if "venv" in words else words[0]).parent
        folder.mkdir(parents=True, exist_ok=True)
        if "venv" in words:
            Path(words[-1]).mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(peers, "ran", run)
    return noted


def test_an_environment_is_made_once(runs: Runs, tmp_path: Path) -> None:
    """The first time by venv and pip; then it is taken as it is, until other packages are named."""
    pythons, refused = environments(["nncf"], tmp_path)
    assert refused == []
    assert pythons == {"edgeres": PYTHON, "nncf": tmp_path / "nncf" / "bin" / "python"}
    assert [run[1:3] for run in runs] == [["-m", "venv"], ["-m", "pip"]]
    assert runs[1][-3:] == PINNED["nncf"][0].split()
    environments(["nncf"], tmp_path)
    assert len(runs) == 2


def test_an_environment_of_other_packages_is_made_anew(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that is raised here reaches whoever has the old one."""
    environments(["nncf"], tmp_path)
    monkeypatch.setattr(peers, "PINNED", {"nncf": ("nncf==9",)})
    environments(["nncf"], tmp_path)
    assert runs[-1][-1] == "nncf==9"


def test_a_peer_that_cannot_be_installed_is_a_row_and_is_tried_again(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on, and what is half made is not taken for whole."""
    monkeypatch.setattr(peers, "PINNED", {"nncf": ("fail",), "openvino": ("openvino",)})
    expected = {"tool": "nncf", "note": "not installed: ended with 1: no matching distribution"}
    for _ in range(2):
        pythons, refused = environments(["nncf", "openvino"], tmp_path)
        assert list(pythons) == ["edgeres", "openvino"]
        assert refused == [expected]
    assert sum("fail" in run for run in runs) == 2


def test_every_row_has_every_column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rows of peers that were refused fit the table of the others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(peers, "environment_of", lambda tool, cache: PeerError(str(cache)))
    monkeypatch.setattr(peers, "prepared", lambda *given: None)
    monkeypatch.setattr(peers, "compared", lambda work, pythons: iter([{"tool": "FP32"}]))
    case = Case(name="a", export="", calibration="", validation="")
    limits = Limits(samples=1, memory_gib=1)
    rows = list(peers.peer_rows({case: tmp_path}, tmp_path, peers=["nncf"], limits=limits))
    assert [tuple(row) for row in rows] == [("network", *COLUMNS)] * 2
    assert rows[1]["note"] == f"not installed: {tmp_path / 'edgeres' / 'peers'}"


def test_the_peak_counts_from_where_it_was_restarted() -> None:
    """80 MiB that came and went are seen, and what was there before is not.

    In a process of its own: the memory that a long run has free already would hide them.
    """
    code = """
    import numpy
    from benchmarks.peer_quantizers import peak_mib, restarted_peak_mib
    numpy.ones(20 * 2**20)
    before = restarted_peak_mib()
    numpy.ones(10 * 2**20)
    print(peak_mib() - before)
    """
    done = subprocess.run(child(code), capture_output=True, text=True, check=True)
    assert 75 <= int(done.stdout) <= 95


def test_a_peak_does_not_begin_with_its_parent_s() -> None:
    """As it does for a child that is started from a process that holds much."""
    held = np.ones(50 * 2**20)
    assert quantization.peak_mib(["-c", "pass"]) < 100 < held.nbytes / 2**20


def test_memory_beyond_the_limit_fails_in_the_child() -> None:
    """With Python's own error, before the machine runs out."""
    code = """
    import numpy
    from benchmarks.peer_quantizers import limit_memory
    limit_memory(0.25)
    numpy.ones(2**20)
    numpy.ones(2**26)
    """
    done = subprocess.run(child(code), capture_output=True, text=True, check=False)
    assert "Unable to allocate 512. MiB" in last_words(done.stderr)


def test_last_words_are_one_line_for_a_cell() -> None:
    """Neither blank lines nor bars, and not without end."""
    assert last_words("a\n b | c \n\n") == "b / c"
    assert last_words(" \n") == "no output"
    assert len(last_words("x" * 1000)) == 300


@pytest.mark.parametrize("line", ["--part peers", "--part cost --peer nncf"])
def test_peers_are_named_where_they_are_compared(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the part without a peer nor a peer without the part is passed over."""
    monkeypatch.setattr(sys, "argv", ["quantization", "--shared", ".", *line.split()])
    with pytest.raises(SystemExit, match="2"):
        quantization.main()
    assert "--part peers needs --peer" in capsys.readouterr().err


def test_parts_that_run_without_being_named() -> None:
    """All; the peers only where one is named."""
    known = list(quantization.PARTS)
    assert parts("") == known
    assert parts("--peer nncf") == [*known, "peers"]
    assert parts("--peer nncf --part peers") == ["peers"]


def parts(line: str) -> list[str]:
    """Returns the parts that a command line asks for."""
    words = ["--shared", ".", *line.split()]
    return list(quantization.parts_of(quantization.arguments().parse_args(words)))
