"""A Dask scheduler and workers as processes, with TLS certificates of a test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sshd import ROOT, edgeres_in, free_port, wait_for


@dataclass
class RunningCluster:
    """A scheduler, and the workers that were started."""

    folder: Path
    port: int
    environment: dict[str, str]
    """Dask's configuration of the certificates, for everyone."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return f"tls://127.0.0.1:{self.port}"

    def worker(self, name: str, *options: str, **more: str) -> subprocess.Popen[bytes]:
        """Starts a worker whose board has a home and a lock of its own."""
        home = self.folder / "boards" / name
        home.mkdir(parents=True)
        own = {
            "HOME": str(home),
            "XDG_CACHE_HOME": f"{home}/cache",
            "EDGERES_BOARD_LOCK": f"{home}/lock",
        }
        words = ("edgeres", "boards", "worker", self.address, "--name", name, *options)
        return self.start(words, home, own | more)

    def start(
        self, words: Sequence[str], folder: Path, more: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Starts a module of Python that lives as long as the cluster."""
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                env=self.environment | dict(more),
                cwd=folder,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def wait_for_workers(self, count: int) -> None:
        """Waits until so many are registered."""
        registered = 0
        for _ in range(600):
            logs = [path.read_text() for path in self.folder.glob("boards/*/log")]
            registered = sum("Registered to" in log for log in logs)
            if registered >= count:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{registered} of {count} workers came")

    def started(self, *words: object, cwd: Path) -> subprocess.Popen[bytes]:
        """Starts an edgeres command whose progress can be read from its stderr."""
        # A shell without job control starts what runs in the background with Ctrl-C ignored.
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from edgeres.cli import main; main()"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            cwd=cwd,
            env=self.environment | {"EDGERES_PROGRESS": "json"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def edgeres(
        self, *words: object, cwd: Path, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs an edgeres command in this process, with this cluster's certificates."""
        import dask

        environment = self.environment | dict(more or {})
        # Dask has read the variables when it was imported.
        own = {
            name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-"): text
            for name, text in environment.items()
            if name.startswith("DASK_DISTRIBUTED__")
        }
        with dask.config.set(own):
            return edgeres_in(cwd, environment, *words)


def certificates(folder: Path) -> dict[str, str]:
    """Makes an authority and one certificate by it; returns Dask's configuration of both."""
    folder.mkdir(parents=True)
    subject = ["-subj", "/CN=edgeres test", "-days", "2", "-nodes"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    _openssl(folder, ["req", "-x509", *new, *subject, "-keyout", "ca.key", "-out", "ca.pem"])
    _openssl(
        folder,
        [
            "req",
            "-x509",
            *new,
            *subject,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
    )
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    return {f"{prefix}CA_FILE": str(folder / "ca.pem")} | {
        f"{prefix}{role}__{name.upper()}": str(folder / f"{name}.pem")
        for role in ("SCHEDULER", "WORKER", "CLIENT")
        for name in ("cert", "key")
    }


@contextmanager
def dask_cluster(folder: Path) -> Iterator[RunningCluster]:
    """Runs a scheduler until the block ends, and whatever workers are started."""
    environment = os.environ | certificates(folder / "tls") | {"PYTHONPATH": str(ROOT)}
    cluster = RunningCluster(folder, free_port(), environment)
    words = ("dask", "scheduler", "--host", cluster.address, "--no-dashboard")
    cluster.start(words, folder, {})
    try:
        wait_for(cluster.port)
        yield cluster
    finally:
        for process in cluster.processes:
            process.kill()
            process.wait()


def _openssl(folder: Path, words: Sequence[str]) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
