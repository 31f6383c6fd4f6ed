"""A real sshd on loopback, with keys and a port of its own, and boards that are homes behind it."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from commands import run

ROOT = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Cutter:
    """A port that leads to another, until so many bytes went through in both directions."""

    def __init__(self, port: int) -> None:
        """Listens, and leads to the port."""
        self.most: int | None = None
        """Bytes after which a connection is cut; None: never."""
        self.passed = 0
        """Bytes of the last connection."""
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Takes no further connections."""
        self._listening.close()

    def _serve(self) -> None:
        # Closing the port ends the thread.
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._lead(client)

    def _lead(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            self.passed = 0
            others = {client: server, server: client}
            while True:
                for ready in select.select([*others], [], [])[0]:
                    content = b""
                    with suppress(ConnectionError):
                        content = ready.recv(1 << 14)
                    if self.most is not None:
                        content = content[: self.most - self.passed]
                    if not content:
                        return
                    self.passed += len(content)
                    with suppress(ConnectionError):
                        others[ready].sendall(content)


@dataclass(frozen=True)
class Loopback:
    """Where sshd listens, and the folder of `ssh` and `sftp` that reach it."""

    folder: Path
    port: int
    cutter: Cutter
    """What the host `cut` leads through."""

    def environment(self, **more: str) -> dict[str, str]:
        """Returns the environment of a client: its PATH leads to ssh with this server's keys."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), **more}

    def board(self, name: str) -> str:
        """Returns the command that runs edgeres as on a board: a cache and a lock of its own."""
        home = self.folder / "boards" / name
        home.mkdir(parents=True, exist_ok=True)
        return (
            f"env HOME={home} XDG_CACHE_HOME={home}/cache EDGERES_BOARD_LOCK={home}/lock "
            f"PYTHONPATH={ROOT} OMP_NUM_THREADS=1 {sys.executable} -m edgeres"
        )


def edgeres_on(
    loopback: Loopback, *words: object, cwd: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs an edgeres command in this process, with the boards.toml of a folder."""
    return edgeres_in(cwd, loopback.environment(**more), *words)


def edgeres_in(
    folder: Path, environment: Mapping[str, str], *words: object
) -> subprocess.CompletedProcess[str]:
    """Runs an edgeres command in this process, as one of its own would run in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = run(*words, env=environment)
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess([*map(str, words)], done.exit_code, done.stdout, done.stderr)


@contextmanager
def sshd(folder: Path) -> Iterator[Loopback]:
    """Runs sshd until the block ends."""
    assert SSHD is not None
    # sshd refuses keys in a folder that others could write to.
    folder.chmod(0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    (folder / "authorized_keys").chmod(0o600)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin prohibit-password\n"
        "StrictModes no\nSubsystem sftp internal-sftp\nMaxStartups 100\nMaxSessions 50\n"
    )
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    cutter = Cutter(port)
    (folder / "ssh_config").write_text(
        f"Host cut\n  HostName 127.0.0.1\n  Port {cutter.port}\n"
        f"  HostKeyAlias [127.0.0.1]:{port}\n"
        f"Host *\n  Port {port}\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n"
    )
    (folder / "bin").mkdir()
    for program in ("ssh", "sftp"):
        script = folder / "bin" / program
        # What sftp is told is kept, so that a test can count the files that were copied.
        tee = f"tee -a {folder}/copied | " if program == "sftp" else "exec "
        program = f"{shutil.which(program)} -F {folder}/ssh_config"
        script.write_text(f'#!/bin/sh\n{tee}{program} "$@"\n')
        script.chmod(0o755)
    # The folder that sshd separates its privileges in exists where its service ever ran.
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    )
    with closing(cutter):
        try:
            wait_for(port)
            yield Loopback(folder, port, cutter)
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """Returns a port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    """Waits until something listens on a port of this machine."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
