"""A machine behind OpenSSH: `ssh` runs, `sftp` copies, with the user's own configuration and keys.

Nothing here changes how a host is checked. One connection carries all steps of a job; where it is
lost, sshd closes the command's stdin there, and the job ends.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from edgeres.errors import ArtifactError, ConfigError, DependencyError
from edgeres.fleet.job import Job, JobError, JobResult, sha256_of
from edgeres.fleet.order import run_order
from edgeres.fleet.status import BoardStatus
from edgeres.fleet.store import Part, Receipt
from edgeres.printable import printable
from edgeres.progress import Progress, silent
from edgeres.serialization import from_json, json_text, parse_json

T = TypeVar("T")

_UNREACHABLE = 255
"""Exit code of ssh itself. Source: ssh(1), EXIT STATUS."""
_FILES_AT_ONCE = 64
"""Copied between two steps of the progress."""
_TRANSFERS = 2
"""Attempts to send files: a part can be taken over by another transfer, which may break it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshBoard:
    """How a board is reached, and what runs edgeres there."""

    host: str
    """As ssh takes it: a name of its configuration, or USER@HOST."""
    edgeres: str = "edgeres"
    """The command there, for the shell: `~/edgeres/.venv/bin/edgeres`."""

    def __post_init__(self) -> None:
        # ssh would take it for an option, of which some run commands here.
        if not self.host or self.host.startswith("-") or any(c.isspace() for c in self.host):
            raise ConfigError(f"{self.host!r:.80} is no host; expected [USER@]HOST.")


class SshConnection:
    """An open connection to a board."""

    def __init__(self, board: SshBoard, socket: Path) -> None:
        """Opens nothing yet: the first command does."""
        self._board = board
        self._options = (
            "-o", "ControlMaster=auto", "-o", f"ControlPath={socket}", "-o", "ControlPersist=60",
            "-o", "ServerAliveInterval=15",
        )  # fmt: skip

    def run(
        self, job: Job, sources: Mapping[str, Path], target: Path, progress: Progress
    ) -> JobResult:
        """Sends what is missing there, runs a job, and brings its outputs back.

        Args:
            job: what to run.
            sources: the files to send, by SHA-256.
            target: folder that the outputs are written to, by their names in the job.
            progress: receives the transfer, and the command's own progress.

        Raises:
            JobError: edgeres there refused the job.
            ArtifactError: the host cannot be reached, or a file did not arrive as it is.
            DependencyError: there is no ssh here.
        """
        attempt = 0
        while True:
            attempt += 1
            receipt = self._request(("boards", "receive"), Receipt, json_text(job).encode())
            self._send(receipt.missing, sources, progress)
            try:
                result = self._request(("boards", "run", receipt.job), JobResult, None, progress)
                break
            except JobError:
                if attempt == _TRANSFERS or not receipt.missing:
                    raise
        self._fetch(result, target, progress)
        return result

    def close(self) -> None:
        """Ends the connection."""
        subprocess.run(
            ["ssh", *self._options, "-O", "exit", "--", self._board.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def status(self) -> BoardStatus:
        """Returns what the board is, and who measures there.

        Raises:
            JobError: the command failed.
            ArtifactError: the host cannot be reached, or answers otherwise.
        """
        return self._request(("boards", "status", "--json"), BoardStatus, b"")

    def _request(
        self,
        words: Sequence[str],
        answer: type[T],
        text: bytes | None,
        progress: Progress | None = None,
    ) -> T:
        raw = self._output(words, text, progress)
        host = self._board.host
        try:
            parsed = parse_json(raw)
        except ValueError as error:
            raise ArtifactError(
                f"edgeres on {host} answered no JSON ({error}): {raw[:200]!r}. Does its shell print "
                "something at login?"
            ) from error
        remedy = "Install the same version of edgeres on both machines."
        return from_json(parsed, answer, source=f"The answer of {host} is damaged", remedy=remedy)

    def _output(self, words: Sequence[str], text: bytes | None, progress: Progress | None) -> bytes:
        """Returns what an edgeres command there prints; without a text, its stdin stays open."""
        remote = f"{self._board.edgeres} {shlex.join(words)}"
        line = ["ssh", "-T", *self._options, "--", self._board.host, remote]
        try:
            answer = run_order(line, text=text, progress=progress or silent)
        except FileNotFoundError as error:
            raise _no_ssh(line[0]) from error
        if answer.exit_code:
            raise self._error(answer.exit_code, words, answer.messages)
        return answer.printed

    def _error(self, code: int, words: Sequence[str], messages: str) -> ArtifactError | JobError:
        host = self._board.host
        if code == _UNREACHABLE:
            return ArtifactError(
                f"{host} cannot be reached, or the connection was lost: {messages or 'ssh is silent'}. "
                f"Check `ssh {host} true`."
            )
        if code == 127 or "No such command" in messages:
            return JobError(
                f"`{self._board.edgeres} {words[0]}` does not run on {host}: {messages}. Install "
                "this version of edgeres there, and name its command in boards.toml: "
                'edgeres = "~/edgeres/.venv/bin/edgeres".'
            )
        return JobError(f"On {host}: {messages.removeprefix('Error: ')}", code)

    def _send(
        self, missing: Sequence[Part], sources: Mapping[str, Path], progress: Progress
    ) -> None:
        lines = []
        if unknown := [part.sha256 for part in missing if part.sha256 not in sources]:
            raise ArtifactError(
                f"{self._board.host} requests a file that is not of this job ({unknown[0]:.12}). Install "
                "the same version of edgeres on both machines."
            )
        for part in missing:
            # -a goes on where a broken transfer ended, and refuses a file that is not there.
            verb = "put -a" if part.present else "put"
            lines.append(f"{verb} {_quoted(sources[part.sha256])} {_quoted(part.path)}")
        self._copy(lines, "Sending files", progress)

    def _fetch(self, result: JobResult, target: Path, progress: Progress) -> None:
        lines = []
        for file in result.outputs:
            (target / file.name).parent.mkdir(parents=True, exist_ok=True)
            there = PurePosixPath(result.folder, file.name)
            lines.append(f"get {_quoted(there)} {_quoted(target / file.name)}")
        self._copy(lines, "Fetching files", progress)
        for file in result.outputs:
            if sha256_of(target / file.name) != file.sha256:
                raise ArtifactError(f"{file.name} arrived damaged. Run the command again.")

    def _copy(self, lines: Sequence[str], stage: str, progress: Progress) -> None:
        for start in range(0, len(lines), _FILES_AT_ONCE):
            progress(stage, start, len(lines))
            few = "".join(f"{line}\n" for line in lines[start : start + _FILES_AT_ONCE])
            done = _completed(
                ["sftp", "-q", *self._options, "-b", "-", "--", self._board.host], few.encode()
            )
            if done.returncode:
                # Where the connection ends first, sftp says nothing.
                reason = done.stderr.decode(errors="replace").strip() or "the connection broke"
                raise ArtifactError(
                    f"Files were not copied between here and {self._board.host}: {reason}. Run the "
                    "command again: what has arrived is not sent twice."
                )
        if lines:
            progress(stage, len(lines), len(lines))


@contextmanager
def ssh_connection(board: SshBoard) -> Iterator[SshConnection]:
    """Yields a connection to a board, which ends with the block."""
    # The path of a socket may have some 100 characters, which a user's TMPDIR can exceed.
    with tempfile.TemporaryDirectory(prefix="edgeres-", dir="/tmp") as folder:
        connection = SshConnection(board, Path(folder) / "ssh")
        try:
            yield connection
        finally:
            connection.close()


def _completed(line: Sequence[str], text: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(line, input=text, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise _no_ssh(line[0]) from error


def _no_ssh(program: str) -> DependencyError:
    return DependencyError(
        f"{program} is not installed, which carries files and commands to a board. On Debian and "
        "Ubuntu: sudo apt install openssh-client."
    )


def _quoted(path: Path | PurePosixPath | str) -> str:
    """Returns a path as sftp reads it: quoted, with its globbing characters escaped.

    Raises:
        ArtifactError: it is relative, or has a control character.
    """
    # sftp runs what follows a line break and `!` as a command of this machine's shell, and the
    # other machine names paths too. A relative one could begin as an option does.
    if not str(path).startswith("/") or printable(str(path)) != str(path):
        raise ArtifactError(
            f"The path {printable(str(path))!r:.200} cannot be copied over ssh: expected an absolute "
            "path of printable characters. Rename it."
        )
    escaped = "".join(f"\\{c}" if c in '\\"*?[]' else c for c in str(path))
    return f'"{escaped}"'
