"""A real sshd on loopback, with keys and a port of its own, and boards that are homes behind it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass(frozen=True)
class Loopback:
    """Where sshd listens, and the folder of `ssh` and `sftp` that reach it."""

    folder: Path
    port: int

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
    """Runs an edgeres command that uses the boards.toml of a folder."""
    return subprocess.run(
        [sys.executable, "-m", "edgeres", *map(str, words)],
        cwd=cwd,
        env=loopback.environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )


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
    (folder / "ssh_config").write_text(
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
    try:
        wait_for(port)
        yield Loopback(folder, port)
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
