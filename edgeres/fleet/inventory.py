"""The boards of a lab, by name: `boards.toml`.

::

    [orin-desk]
    host = "nvidia@10.0.0.5"
    edgeres = "~/edgeres/.venv/bin/edgeres"
    tags = ["orin-nx", "jetpack-6"]
    power_mode = "25W"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeres.errors import ArtifactError, ConfigError
from edgeres.fleet.ssh import SshBoard
from edgeres.input_files import JSON, exists, foreign_parser, read_text, reason_of
from edgeres.names import nearest
from edgeres.serialization import from_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "boards.toml"
TAG = "tag:"
"""Begins the name of all boards that have a tag."""

_DEFAULTS: Mapping[str, Any] = {"edgeres": "edgeres", "tags": [], "power_mode": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board of the inventory."""

    name: str
    host: str
    edgeres: str
    """What runs edgeres there, for the shell."""
    tags: tuple[str, ...]
    power_mode: str | None
    """Power mode that measurements want, as nvpmodel spells it; None: any."""

    @property
    def ssh(self) -> SshBoard:
        """How it is reached."""
        return SshBoard(host=self.host, edgeres=self.edgeres)


def inventory_file() -> Path | None:
    """Returns the inventory of this folder, else the user's, else None."""
    candidates = (Path(FILE), Path.home() / ".config" / "edgeres" / FILE)
    return next((path for path in candidates if exists(path, JSON)), None)


def load_inventory(path: Path) -> tuple[Board, ...]:
    """Returns the boards of a file, in its order.

    Raises:
        ArtifactError: it cannot be read, or is damaged.
    """
    text = read_text(path, JSON)
    # Beside its own errors: numbers of thousands of digits, and endless nesting.
    with foreign_parser(
        lambda error: ArtifactError(f"{path} is not TOML: {reason_of(error)}. Mend that line.")
    ):
        raw = tomllib.loads(text)
    remedy = 'A board is [NAME] with host = "USER@HOST" and, if wanted, edgeres, tags, power_mode.'
    boards = []
    for name, entry in raw.items():
        source = f"{path} is damaged at [{name}]"
        fields = {**_DEFAULTS, **entry, "name": name} if isinstance(entry, dict) else entry
        boards.append(from_json(fields, Board, source=source, remedy=remedy))
    return tuple(boards)


def find_boards(name: str, boards: tuple[Board, ...]) -> tuple[Board, ...]:
    """Returns the board of a name, all of a tag, or the host that a name is by itself.

    Raises:
        ConfigError: no board has the tag, or the name is no host and near one of the inventory.
    """
    if name.startswith(TAG):
        tag = name.removeprefix(TAG)
        if chosen := tuple(board for board in boards if tag in board.tags):
            return chosen
        tags = sorted({each for board in boards for each in board.tags})
        raise ConfigError(
            f"No board has the tag {tag!r:.60}{nearest(tag, tags)} The inventory has: "
            f"{', '.join(tags) or 'none'}."
        )
    named = tuple(board for board in boards if board.name == name)
    fields = {**_DEFAULTS, "tags": (), "name": name, "host": name}
    return named or (Board(**fields),)
