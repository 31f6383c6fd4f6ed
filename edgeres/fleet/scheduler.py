"""Where a Dask scheduler is, and the command line of a worker; loads nothing of Dask."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgeres.errors import ConfigError, DependencyError
from edgeres.fleet.inventory import TAG
from edgeres.installation import install_hint, is_installed

BOARD = "board"
"""Resource of a worker: a job takes 1, so that one runs at a time."""

SCHEDULER_TIMEOUT_S = 60.0
"""How long a worker waits for its scheduler to be there, as those of Dask's own clusters do."""

_DASK = "distributed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A Dask scheduler, and which of its workers are meant."""

    address: str
    on: str | None = None
    """`tag:NAME`, or the name of a worker; None: any."""
    plain_tcp: bool = False
    """Allow a scheduler elsewhere without TLS."""
    mixed_python: bool = False
    """Allow workers with another minor version of Python."""

    def __post_init__(self) -> None:
        check_address(self.address, plain_tcp=self.plain_tcp)


def check_address(address: str, *, plain_tcp: bool) -> None:
    """Checks that a scheduler is reached by TLS, or on this machine.

    Raises:
        ConfigError: it is not.
    """
    scheme, _, rest = address.rpartition("://")
    try:
        host = urlsplit(f"//{rest}").hostname or ""
    except ValueError:
        host = ""
    if not host or scheme not in {"tls", "tcp", ""}:
        raise ConfigError(
            f"{address!r:.80} is no address of a scheduler; expected tls://HOST:PORT."
        )
    # Dask takes an address without a scheme for tcp.
    if scheme != "tls" and not plain_tcp and not _is_loopback(host):
        raise ConfigError(
            f"{address} is not encrypted, and whoever reaches a scheduler runs code on its workers. "
            f"Use tls://{rest} with certificates, or pass --plain-tcp on a network of your own."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def worker_command(
    address: str,
    tags: Sequence[str],
    name: str,
    *,
    death_timeout_s: float = SCHEDULER_TIMEOUT_S,
    plain_tcp: bool,
) -> tuple[str, ...]:
    """Returns the command line of a Dask worker for one board.

    Args:
        address: of the scheduler.
        tags: that jobs are placed by.
        name: of the board.
        death_timeout_s: how long to wait for a scheduler that is not there.
        plain_tcp: allow one elsewhere without TLS.

    Raises:
        ConfigError: an address without TLS, or a tag that Dask cannot take.
        DependencyError: distributed is not installed.
    """
    check_address(address, plain_tcp=plain_tcp)
    check_installed("edgeres boards worker")
    if wrong := [tag for tag in tags if not re.fullmatch(r"[\w.:-]+", tag)]:
        raise ConfigError(f"{wrong[0]!r:.60} is no tag; expected letters, digits, - . and _.")
    resources = " ".join([f"{BOARD}=1", *(f"{TAG}{tag}=1" for tag in tags)])
    return (
        sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--name", name,
        "--resources", resources, "--no-nanny", "--no-dashboard", "--death-timeout",
        f"{death_timeout_s:g}",
    )  # fmt: skip


def check_installed(what: str) -> None:
    """Checks that Dask can be imported.

    Raises:
        DependencyError: it cannot.
    """
    if not is_installed(_DASK):
        raise DependencyError(
            f"{what} needs distributed, which is not installed. {install_hint(_DASK)}"
        )
