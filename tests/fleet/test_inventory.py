"""An inventory that cannot be read is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeres.errors import ArtifactError
from edgeres.fleet.inventory import load_inventory


@pytest.mark.parametrize(
    "text",
    ["[nano", f"a = {'9' * 5000}", f"a = {'[' * 5000}", "a = 2024-13-45T00:00:00", 'a = "\\ud800"'],
    ids=["a bracket", "digits", "nesting", "a date", "a surrogate"],
)
def test_what_is_no_toml_is_refused(text: str, tmp_path: Path) -> None:
    """Whatever the parser raises at it."""
    path = tmp_path / "boards.toml"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=r"boards\.toml is not TOML: .*\. Mend that line"):
        load_inventory(path)
