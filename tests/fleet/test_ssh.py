"""Commands on a board behind a real sshd: the same results, nothing sent twice, clean ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from digits import Digits
from sshd import ROOT, SSHD, Loopback, edgeres_on, sshd

from edgeres.errors import ArtifactError, ConfigError
from edgeres.fleet.inputs import job_input
from edgeres.fleet.job import Job
from edgeres.fleet.ssh import SshBoard, SshConnection, ssh_connection
from edgeres.fleet.store import Part
from edgeres.progress import silent

pytestmark = pytest.mark.usefixtures("one_core")

QUICK = ("--no-energy", "--iterations", 5, "--warmup", 0, "--no-diagnose", "--samples", 96)


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """A running sshd that this user's key opens; needs Debian's openssh-server."""
    if SSHD is None:
        pytest.skip("no sshd is installed (openssh-server): nothing was run over ssh")
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def lab(loopback: Loopback, tmp_path: Path) -> Path:
    """A folder with a boards.toml of one board, whose home is new."""
    write_inventory(tmp_path, loopback.board(tmp_path.name))
    return tmp_path


def write_inventory(folder: Path, command: str, host: str = "127.0.0.1") -> None:
    """Writes boards.toml with one board."""
    (folder / "boards.toml").write_text(
        f'[desk]\nhost = "{host}"\nedgeres = "{command}"\ntags = ["cpu"]\n'
    )


def test_build_and_bench_there_are_those_here(
    loopback: Loopback, lab: Path, digits: Digits
) -> None:
    """Engine byte for byte, accuracy key by key, code and report; files are sent once."""
    build = ("build-engine", digits.model, "--calibration", digits.table)
    done = edgeres_on(loopback, *build, "-o", "there.onnx", "--on", "desk", cwd=lab)
    assert (done.returncode, done.stdout) == (0, "")
    assert "there.onnx: int8 for onnxruntime" in done.stderr
    assert (lab / "there.onnx").read_bytes() == digits.engine.read_bytes()
    assert (lab / "there.onnx.json").exists()
    bench = ("bench", "there.onnx", "--reference", digits.model, "--data", digits.test, *QUICK)
    here = edgeres_on(loopback, *bench, "--max-drop", 20, "--json", cwd=lab)
    assert here.returncode == 0, here.stderr
    log = loopback.folder / "copied"
    log.write_text("")
    there = edgeres_on(loopback, *bench, "--max-drop", 20, "--json", "--on", "tag:cpu", cwd=lab)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["accuracy"] == json.loads(here.stdout)["accuracy"]
    # The model was sent for the build.
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["put"] * 3
    log.write_text("")
    more = ("--max-drop=-5", "--markdown", "v.md")
    failed = edgeres_on(loopback, *bench, *more, "--on", "tag:cpu", cwd=lab)
    assert (failed.returncode, failed.stdout.split()[0]) == (3, "FAIL")
    assert "FAIL" in (lab / "v.md").read_text()
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["get"]


def test_the_error_is_that_of_there(loopback: Loopback, lab: Path, digits: Digits) -> None:
    """An error's with its sentence, a wrong option before ssh."""
    bench = ("bench", digits.engine, "--reference", digits.model, "--data", digits.test, *QUICK)
    wrong = edgeres_on(
        loopback, "bench", digits.engine, "--reference", digits.engine, "--data", digits.table,
        "--on", "desk", cwd=lab,
    )  # fmt: skip
    assert wrong.returncode != 0
    assert wrong.stderr.startswith("Error: On desk: ")
    unknown = edgeres_on(loopback, *bench, "--max-drp", 5, "--on", "desk", cwd=lab)
    assert (unknown.returncode, "Did you mean" in unknown.stderr) == (2, True)


def test_boards_are_listed_with_their_holder(loopback: Loopback, lab: Path) -> None:
    """One that is held, one that cannot be reached, one whose edgeres is missing."""
    with (lab / "boards.toml").open("a") as file:
        file.write('[gone]\nhost = "127.0.0.2"\n[bare]\nhost = "127.0.0.1"\nedgeres = "absent"\n')
    lock = loopback.folder / "boards" / lab.name / "lock"
    code = (
        "from edgeres.fleet.lock import board_lock\n"
        "with board_lock('ann@lab', 'edgeres bench', lambda _: None): print(flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=loopback.environment(EDGERES_BOARD_LOCK=str(lock)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    done = edgeres_on(loopback, "boards", "list", "--json", cwd=lab)
    holder.communicate(b"\n")
    desk, gone, bare = json.loads(done.stdout)["boards"]
    assert (desk["reachable"], desk["tags"], desk["holder"]) == (
        True, ["cpu"], f"ann@lab: edgeres bench (process {holder.pid})",
    )  # fmt: skip
    assert desk["facts"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (gone["reachable"], "cannot be reached" in gone["problem"]) == (False, True)
    assert (bare["reachable"], "does not run on" in bare["problem"]) == (False, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_here_is_the_end_there(
    loopback: Loopback, lab: Path, digits: Digits, number: signal.Signals
) -> None:
    """Ctrl-C, and a client that is killed: the command there ends, and the board is free."""
    bench = ("bench", digits.engine, "--reference", digits.model, "--data", digits.test)
    # A shell without job control starts what runs in the background with Ctrl-C ignored.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from edgeres.cli import main; main()"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, bench), "--iterations=1000000", "--on=desk"],
        cwd=lab,
        env=loopback.environment(EDGERES_PROGRESS="json"),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert client.stderr is not None
    with client, client.stderr as progress:
        next(line for line in progress if b"Evaluating" in line)
        client.send_signal(number)
    lock = loopback.folder / "boards" / lab.name / "lock"
    code = (
        "from edgeres.fleet.lock import board_lock\n"
        "with board_lock('next', 'x', lambda _: None): pass"
    )
    environment = loopback.environment(EDGERES_BOARD_LOCK=str(lock))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=60)


def test_a_broken_transfer_goes_on(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line breaks twice; what has arrived is not sent again, and nothing half is taken in."""
    monkeypatch.setenv("PATH", loopback.environment()["PATH"])
    size, cutter, edgeres = 1_000_000, loopback.cutter, loopback.board(tmp_path.name)
    store = loopback.folder / "boards" / tmp_path.name / "cache/edgeres/files"
    (tmp_path / "sent").write_bytes(random.Random(7).randbytes(size))
    sent = job_input(tmp_path / "sent", "data")
    passed = []
    for cutter.most in (300_000, 500_000, None):
        with ssh_connection(SshBoard(host="cut", edgeres=edgeres)) as connection:
            job = Job(words=("doctor", "--json"), files=sent.files)
            # Whoever breaks off is waited for, in case it still writes.
            for part in store.glob("*.part"):
                os.utime(part, (time.time() - 60,) * 2)
            if cutter.most is None:
                assert connection.run(job, sent.by_hash, tmp_path, silent).exit_code == 0
            else:
                with pytest.raises(
                    ArtifactError, match=r"cut: \w.*\. Run the command again: what has"
                ):
                    connection.run(job, sent.by_hash, tmp_path, silent)
                assert [path.suffix for path in store.iterdir()] == [".part"]
        passed.append(cutter.passed)
    assert [path.name for path in store.iterdir()] == [sent.files[0].sha256]
    # Less than the file, with all that ssh itself exchanges.
    assert passed[-1] < size


def test_a_killed_client_leaves_nothing_half(loopback: Loopback, lab: Path, digits: Digits) -> None:
    """The same command then succeeds, with the same engine."""
    line = ("build-engine", digits.model, "--calibration", digits.table, "-o", "e.onnx")
    words = [sys.executable, "-m", "edgeres", *map(str, line), "--on", "desk"]
    client = subprocess.Popen(words, cwd=lab, env=loopback.environment(), start_new_session=True)
    jobs = loopback.folder / "boards" / lab.name / "cache/edgeres/jobs"
    while not [*jobs.glob("*/job.json")]:
        assert client.poll() is None
        time.sleep(0.01)
    client.kill()
    client.wait()
    assert not (lab / "e.onnx").exists()
    assert edgeres_on(loopback, *line, "--on", "desk", cwd=lab).returncode == 0
    assert (lab / "e.onnx").read_bytes() == digits.engine.read_bytes()


def test_a_job_s_options_cannot_lead_out_of_its_folder(loopback: Loopback, lab: Path) -> None:
    """Whoever sends a job does not choose which files of the board it reads or writes."""
    command = loopback.board(lab.name)
    for word in ("--reference=/etc/passwd", "--reference=../../x", "--html=/tmp/x"):
        word = word.replace("--html", "--report")
        job = {
            "kind": "job", "schema_version": 1, "edgeres": "0.1.0", "files": [], "outputs": [],
            "words": ["bench", "in/e", word, "--data=in/d"], "holder": "x", "columns": 80,
        }  # fmt: skip
        receipt = subprocess.run(
            f"{command} boards receive", shell=True, input=json.dumps(job).encode(),
            capture_output=True, check=True,
        )  # fmt: skip
        name = json.loads(receipt.stdout)["job"]
        done = subprocess.run(
            f"{command} boards run {name}", shell=True, capture_output=True, check=False, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (done.returncode, "outside its folder" in done.stderr) == (2, True)


def test_a_host_with_another_key_is_refused(loopback: Loopback, lab: Path) -> None:
    """Nothing here weakens how ssh checks a host."""
    known = loopback.folder / "known_hosts"
    kept = known.read_text()
    other = (loopback.folder / "user.pub").read_text().split()[:2]
    known.write_text(f"[127.0.0.1]:{loopback.port} {' '.join(other)}\n")
    done = edgeres_on(loopback, "doctor", "--on", "desk", cwd=lab)
    known.write_text(kept)
    assert done.returncode == 1
    assert "IDENTIFICATION HAS CHANGED" in done.stderr


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", "a b"])
def test_a_host_is_no_option(host: str) -> None:
    """Ssh would run what such an option names."""
    with pytest.raises(ConfigError, match="is no host"):
        SshBoard(host=host)


@pytest.mark.parametrize(
    "path", ["/tmp/x\n!touch ran", "/tmp/x\r!touch ran", "relative", "-oProxyCommand=x", "/a\x1bb"]
)
def test_a_path_cannot_become_a_command(tmp_path: Path, path: str) -> None:
    """Sftp would run what follows a line break; a board names the paths that files go to."""
    sent = tmp_path / "file"
    sent.write_text("x")
    connection = SshConnection(SshBoard(host="board"), tmp_path / "socket")
    part = Part(sha256="0" * 64, path=path, present=0)
    with pytest.raises(ArtifactError, match="cannot be copied over ssh"):
        connection._send([part], {"0" * 64: sent}, silent)
    elsewhere = Part(sha256="1" * 64, path="/tmp/x", present=0)
    with pytest.raises(ArtifactError, match="not of this job"):
        connection._send([elsewhere], {"0" * 64: sent}, silent)


def test_a_file_whose_name_is_a_command_is_refused(
    loopback: Loopback, lab: Path, digits: Digits
) -> None:
    """In a folder of images, before anything is sent."""
    (lab / "val").mkdir()
    (lab / "val" / "a\n!touch ran").write_text("x")
    done = edgeres_on(
        loopback, "bench", digits.engine, "--reference", digits.model, "--data", "val", "--on",
        "desk", cwd=lab,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be sent" in done.stderr
    assert not (lab / "ran").exists()


def test_a_sweep_over_ssh_is_grouped_and_resumed(
    loopback: Loopback, lab: Path, digits: Digits
) -> None:
    """A board that cannot run edgeres fails alone, each time; what is done is not done again."""
    with (lab / "boards.toml").open("a") as file:
        file.write('[shelf]\nhost = "127.0.0.1"\nedgeres = "absent"\ntags = ["cpu"]\n')
    line = digits.words(
        "sweep {model} --data {test} --precision fp32 --samples 20 --iterations 2 -o out --json "
        "--on tag:cpu"
    )
    written = []
    for _ in range(2):
        done = edgeres_on(loopback, *line, cwd=lab)
        assert (done.returncode, "1 of 2 runs failed, the first on shelf" in done.stderr) == (
            1, True,
        )  # fmt: skip
        desk, shelf = json.loads(done.stdout)["runs"]
        assert (desk["board"], shelf["board"], shelf["failed"]) == ("desk", "shelf", True)
        (group,) = json.loads(done.stdout)["groups"]
        assert [board["name"] for board in group["boards"]] == ["desk"]
        written.append((lab / "out" / desk["verdict"]).stat().st_mtime_ns)
    assert written[0] == written[1]
