"""A recovery travels in the calibration table: it comes back as it was, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_artifacts import TABLE

from edgeres.core.methods import Method, Recover
from edgeres.core.recovery import Corrected, LayerError, Recovery
from edgeres.core.table import CalibrationTable, load_table, save_table
from edgeres.core.target import Target
from edgeres.errors import ArtifactError
from edgeres.files import save_json

RECOVERY = Recovery(
    kind=Recover.ADAROUND,
    method=Method.ENTROPY,
    seed=3,
    samples=8,
    held_out=2,
    lowerings={
        Target.TENSORRT: Corrected(before_db=20.5, after_db=21.25, biases={"conv": (0.125, -1.5)})
    },
    equalization={"relu": (0.5, 2.0)},
    rounding={"conv": b"\x80\x01"},
    layers=(LayerError(name="conv", before=0.5, after=0.25),),
)


def with_recovery(recovery: Recovery = RECOVERY) -> CalibrationTable:
    """Returns a table that carries the recovery."""
    return replace(TABLE, recovery=recovery)


def test_a_table_keeps_its_recovery(tmp_path: Path) -> None:
    """Bits, factors and figures come back as they were, and the hash with them."""
    save_table(tmp_path / "table.json", with_recovery())
    loaded = load_table(tmp_path / "table.json")
    assert loaded == with_recovery()
    assert loaded.sha256 == with_recovery().sha256


def test_the_hash_covers_every_bit() -> None:
    """One rounding bit more is another table."""
    flipped = replace(RECOVERY, rounding={"conv": b"\x80\x00"})
    hashes = {table.sha256 for table in (TABLE, with_recovery(), with_recovery(flipped))}
    assert len(hashes) == 3


Damage = Callable[[dict[str, Any]], object]

DAMAGES: dict[str, tuple[Damage, str]] = {
    "base64": (lambda r: r["rounding"].update(conv="gA!="), "rounding of 'conv' is not base64"),
    "kind": (lambda r: r.update(kind="magic"), "'magic' is not a valid Recover"),
    "none": (lambda r: r.update(kind="none"), "of the kind none, expected bias or adaround"),
    "method": (lambda r: r.update(method="guess"), "'guess' is not a valid Method"),
    "zero": (lambda r: r["equalization"].update(relu=[0]), "equalization factor 0.0, expected"),
    "negative": (lambda r: r["equalization"].update(relu=[-1]), "equalization factor -1.0"),
    "huge": (lambda r: r["equalization"].update(relu=[1e9]), "equalization factor 1000000000.0"),
    "text": (
        lambda r: r["lowerings"]["tensorrt"]["biases"].update(conv=["much"]),
        "could not convert string to float",
    ),
    "scalar": (
        lambda r: r["lowerings"]["tensorrt"]["biases"].update(conv=7),
        "'int' object is not iterable",
    ),
    "infinite": (
        lambda r: r["lowerings"]["tensorrt"]["biases"].update(conv=["inf"]),
        "recovery holds inf, expected finite",
    ),
    "missing": (lambda r: r.pop("seed"), "KeyError('seed')"),
    "layers": (lambda r: r.update(layers=[{}]), "KeyError('name')"),
    "list": (lambda r: r.update(rounding=["conv"]), "'list' object has no attribute 'items'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_recovery_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever is wrong with it, loading says that the table is damaged, and why."""
    damage, said = DAMAGES[name]
    raw = with_recovery().to_dict()
    damage(raw["recovery"])
    save_json(tmp_path / "table.json", raw)
    with pytest.raises(ArtifactError) as caught:
        load_table(tmp_path / "table.json")
    assert said in str(caught.value)
    assert "is a damaged calibration table" in str(caught.value)
