"""Commands on workers of a real Dask scheduler behind TLS: the same results, and clean ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_cluster import RunningCluster, certificates, dask_cluster
from digits import Digits
from sshd import ROOT, free_port

from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.errors import ConfigError, MismatchError
from edgeres.fleet.cluster import Cluster
from edgeres.fleet.lock import VARIABLE, board_lock
from edgeres.fleet.scheduler import Scheduler
from edgeres.serialization import to_json
from edgeres.workflows import bench_engine


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A scheduler with two boards, of which one runs nothing that lives long."""
    pytest.importorskip("distributed", reason="distributed is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    # Python runs this module before anything else: the runtime that crashes, and a worker of
    # another Python.
    (folder / "crash").mkdir()
    (folder / "crash" / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'edgeres.fleet.child' in sys.orig_argv:\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "if 'dask' in sys.orig_argv:\n"
        "    from distributed import versions\n"
        "    real = versions.get_system_info\n"
        "    versions.get_system_info = lambda: real() | {'python': '3.9.1.final.0'}\n"
    )
    with dask_cluster(folder) as running:
        path = running.environment["PYTHONPATH"]
        running.worker("desk", "--tag", "cpu")
        running.worker("bad", "--tag", "broken", PYTHONPATH=f"{folder / 'crash'}:{path}")
        running.wait_for_workers(2)
        yield running


def test_a_build_there_is_the_build_here(
    cluster: RunningCluster, digits: Digits, tmp_path: Path
) -> None:
    """Byte for byte, on the worker with the tag; nothing is sent a second time."""
    line = ("build-engine", digits.model, "--calibration", digits.table)
    store = cluster.folder / "boards" / "desk" / "cache" / "edgeres" / "files"
    arrived = []
    for name in ("a.onnx", "b.onnx"):
        done = cluster.edgeres(
            *line, "-o", name, "--scheduler", cluster.address, "--on", "tag:cpu", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).read_bytes() == digits.engine.read_bytes()
        arrived.append({path.name: path.stat().st_mtime_ns for path in store.iterdir()})
    assert arrived[0] == arrived[1]


def test_a_crash_is_one_error_of_one_board(cluster: RunningCluster, tmp_path: Path) -> None:
    """The signal has its name, no second worker is tried, and the worker lives on."""
    jobs = [cluster.folder / "boards" / name / "cache/edgeres/jobs" for name in ("desk", "bad")]
    ran = [len([*each.glob("*/out")]) for each in jobs]
    there = ("--scheduler", cluster.address, "--on", "tag:broken", "--mixed-python")
    done = cluster.edgeres("doctor", *there, cwd=tmp_path)
    assert (done.returncode, "ended by SIGSEGV" in done.stderr) == (139, True), done.stderr
    assert [len([*each.glob("*/out")]) for each in jobs] == [ran[0], ran[1] + 1]
    assert cluster.edgeres("doctor", *there, cwd=tmp_path).returncode == 139


def test_another_python_is_refused(cluster: RunningCluster, tmp_path: Path) -> None:
    """With both versions, before anything is sent; of the workers that are meant alone."""
    done = cluster.edgeres("doctor", "--scheduler", cluster.address, "--on=bad", cwd=tmp_path)
    assert done.returncode == 6
    here = ".".join(map(str, sys.version_info[:2]))
    assert f"Worker bad runs Python 3.9, this machine {here}." in done.stderr
    assert "--mixed-python" in done.stderr


class _Workers:
    """What a client tells of a scheduler whose worker has an edgeres of some version."""

    def __init__(self, version: str | None) -> None:
        """Takes the version; None: the worker has no edgeres."""
        self._version = version

    def scheduler_info(self, n_workers: int) -> object:
        """Names one worker."""
        return {"workers": {"tls://b": {"name": "desk", "resources": {"board": 1}}}}

    def get_versions(self, packages: object) -> object:
        """Reports the same Python on both sides."""
        host = {"python": "3.11.7.final.0"}
        worker = {"host": host, "packages": {"edgeres": self._version}}
        return {"client": {"host": host}, "workers": {"tls://b": worker}}


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("0.1.9", None),
        ("0.2.0", "0.2.0 .* 0.1.0"),
        ("1.1.0", "1.1.0 .* 0.1.0"),
        (None, "no edgeres"),
    ],
)
def test_another_edgeres_is_refused(version: str | None, told: str | None) -> None:
    """With both numbers, unless the last one alone differs."""
    check = Cluster(_Workers(version), Scheduler(address="tls://a:1")).check
    if told is None:
        check()
        return
    with pytest.raises(MismatchError, match=told):
        check()


def test_an_error_there_is_told_as_an_error(
    cluster: RunningCluster, digits: Digits, tmp_path: Path
) -> None:
    """A verdict that fails keeps its code; what no worker has is refused with what there is."""
    there = ("--scheduler", cluster.address, "--on")
    done = cluster.edgeres(
        "build-engine", digits.table, "-o", "e.onnx", *there, "desk", cwd=tmp_path
    )
    assert (done.returncode, done.stderr.startswith("Error: On desk: ")) == (2, True), done.stderr
    done = cluster.edgeres("doctor", *there, "tag:cpus", cwd=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'tag:cpu'?" in done.stderr


def test_a_sweep_runs_on_every_worker_of_the_tag(
    cluster: RunningCluster, digits: Digits, tmp_path: Path
) -> None:
    """Each combination there, as a run of that worker."""
    line = digits.words("sweep {model} --data {test} --precision fp32 --samples 20 --iterations 2")
    there = ("--scheduler", cluster.address, "--on", "tag:cpu")
    done = cluster.edgeres(*line, "-o", "out", "--json", *there, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["board"], run["verdict"]) == (
        "desk",
        "boards/desk/verdicts/onnxruntime.fp32.b1.json",
    )


def test_a_lost_worker_changes_no_verdict(
    cluster: RunningCluster, digits: Digits, tmp_path: Path
) -> None:
    """Its parts go to another worker, and what comes is what one machine gives."""
    spare = cluster.worker("spare", "--tag", "cpu")
    cluster.wait_for_workers(3)
    there = ("--scheduler", cluster.address, "--on", "tag:cpu")
    jobs = cluster.folder / "boards/spare/cache/edgeres/jobs"
    quick = (
        "--no-energy",
        "--iterations=5",
        "--warmup=0",
        "--no-diagnose",
        "--json",
        "--samples=96",
    )
    words = ("bench", digits.engine, "--reference", digits.model, "--data", digits.test, *quick)
    client = cluster.started(*words, *there, cwd=tmp_path)
    with client:
        while not [*jobs.glob("*/out")]:
            assert client.poll() is None
            time.sleep(0.01)
        spare.kill()
        try:
            printed, messages = client.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            # A part that nobody runs must end the test, not wait with it.
            os.killpg(client.pid, signal.SIGKILL)
            raise
    assert client.returncode == 0, messages
    inputs = BenchInputs(engine=digits.engine, reference=digits.model, data=digits.test)
    config = BenchRequest(energy=False, iterations=1, warmup=0, diagnose=False, samples=96)
    here = to_json(bench_engine(inputs, config))
    told = json.loads(printed)
    assert told["accuracy"] == here["accuracy"]
    assert told["provenance"]["data"]["fingerprint"] == here["provenance"]["data"]["fingerprint"]


def test_a_foreign_certificate_is_refused(cluster: RunningCluster, tmp_path: Path) -> None:
    """One of another authority, by a scheduler whose own certificate is trusted."""
    foreign = certificates(tmp_path / "tls")
    own = cluster.environment["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"]
    trusting = foreign | {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": own}
    done = cluster.edgeres("doctor", "--scheduler", cluster.address, cwd=tmp_path, more=trusting)
    assert (done.returncode, "cannot be reached" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_here_is_the_end_there(
    cluster: RunningCluster,
    digits: Digits,
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C, and a client that is killed: the command there ends, and the board is free."""
    bench = ("bench", digits.engine, "--reference", digits.model, "--data", digits.test)
    client = cluster.started(
        *bench, "--iterations=1000000", "--scheduler", cluster.address, "--on=desk", cwd=tmp_path
    )
    assert client.stderr is not None
    with client, client.stderr as progress:
        next(line for line in progress if b"Evaluating" in line)
        client.send_signal(number)
    monkeypatch.setenv(VARIABLE, str(cluster.folder / "boards/desk/lock"))
    ended_by = time.monotonic() + 60
    with board_lock("next", "x", lambda _: None):
        assert time.monotonic() < ended_by


def test_a_lost_scheduler_ends_its_workers_and_their_jobs(digits: Digits, tmp_path: Path) -> None:
    """Soon, and to whoever waits for the job in one sentence."""
    psutil = pytest.importorskip("psutil", reason="distributed is not installed")
    bench = ("bench", digits.engine, "--reference", digits.model, "--data", digits.test)
    with dask_cluster(tmp_path / "cluster") as own:
        worker = own.worker("desk")
        own.wait_for_workers(1)
        there = ("--iterations=1000000", "--scheduler", own.address)
        client = own.started(*bench, *there, cwd=tmp_path)
        assert client.stderr is not None
        with client, client.stderr as messages:
            next(line for line in messages if b"Evaluating" in line)
            board = psutil.Process(worker.pid)
            processes = [board, *board.children(recursive=True)]
            assert any("edgeres.fleet.child" in each.cmdline() for each in processes)
            own.processes[0].kill()
            errors = [line for line in messages if not line.startswith(b"\x1e")]
            # Dask itself would wait 30 seconds for the thread that waits for the job.
            _, alive = psutil.wait_procs(processes, timeout=15)
        assert not alive
        assert client.returncode == 1
        (error,) = errors
        assert error.startswith(f"Error: The scheduler {own.address} was lost: ".encode())


def test_a_worker_without_a_scheduler_ends(tmp_path: Path) -> None:
    """It waits as long as it was told to."""
    pytest.importorskip("distributed", reason="distributed is not installed")
    words = ("boards", "worker", f"localhost:{free_port()}", "--death-timeout")
    done = subprocess.run(
        [sys.executable, "-m", "edgeres", *words, "0.2"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Timed out starting worker" in done.stderr


@pytest.mark.parametrize(
    ("address", "fine"),
    [
        ("tls://10.0.0.2:8786", True),
        ("tcp://127.0.0.1:8786", True),
        ("localhost:8786", True),
        ("tcp://[::1]:8786", True),
        ("tcp://10.0.0.2:8786", False),
        ("10.0.0.2:8786", False),
        ("tcp://127.0.0.1.example.org:8786", False),
        ("ws://10.0.0.2:8786", False),
        ("", False),
        ("tls://", False),
    ],
)
def test_a_scheduler_elsewhere_is_encrypted(address: str, fine: bool) -> None:
    """Unless it is allowed in so many words."""
    if fine:
        Scheduler(address=address)
        return
    with pytest.raises(ConfigError):
        Scheduler(address=address)
    if address.startswith("tcp"):
        Scheduler(address=address, plain_tcp=True)
