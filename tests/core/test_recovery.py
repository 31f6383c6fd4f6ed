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
from edgeres.errors import ArtifactError
from edgeres.serialization import save_json, to_json

RECOVERY = Recovery(
    kind=Recover.ADAROUND,
    method=Method.ENTROPY,
    seed=3,
    samples=8,
    held_out=2,
    lowerings={
        "tensorrt": Corrected(before_db=20.5, after_db=21.25, biases={"conv": (0.125, -1.5)})
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
    "base64": (
        lambda r: r["rounding"].update(conv="gA!="),
        "recovery.rounding[...]: Invalid base64 encoded string",
    ),
    "kind": (lambda r: r.update(kind="magic"), "recovery.kind: Invalid enum value 'magic'"),
    "none": (lambda r: r.update(kind="none"), "of the kind none, expected bias or adaround"),
    "method": (lambda r: r.update(method="guess"), "recovery.method: Invalid enum value 'guess'"),
    "zero": (lambda r: r["equalization"].update(relu=[0]), "equalization factor 0.0, expected"),
    "negative": (lambda r: r["equalization"].update(relu=[-1]), "equalization factor -1.0"),
    "huge": (lambda r: r["equalization"].update(relu=[1e9]), "equalization factor 1000000000.0"),
    "text": (
        lambda r: r["lowerings"]["tensorrt"]["biases"].update(conv=["much"]),
        "recovery.lowerings[...].biases[...][0]: Expected float, got str",
    ),
    "scalar": (
        lambda r: r["lowerings"]["tensorrt"]["biases"].update(conv=7),
        "recovery.lowerings[...].biases[...]: Expected array, got int",
    ),
    "infinite": (
        lambda r: r["lowerings"]["tensorrt"]["biases"].update(conv=["inf"]),
        "[0]: Expected float, got str",
    ),
    "missing": (lambda r: r.pop("seed"), "recovery.seed: missing"),
    "layers": (
        lambda r: r.update(layers=[{}]),
        "recovery.layers[0].name: missing",
    ),
    "list": (
        lambda r: r.update(rounding=["conv"]),
        "recovery.rounding: Expected object, got array",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_recovery_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever is wrong with it, loading says that the table is damaged, and why."""
    damage, said = DAMAGES[name]
    raw = to_json(with_recovery())
    damage(raw["recovery"])
    save_json(tmp_path / "table.json", raw)
    with pytest.raises(ArtifactError) as caught:
        load_table(tmp_path / "table.json")
    assert said in str(caught.value)
    assert "is a damaged edgeres-calibration-table file" in str(caught.value)


def test_a_recovery_is_finite() -> None:
    """Neither a bias nor a ratio of a lowering may be infinite."""
    (target, corrected), *_ = RECOVERY.lowerings.items()
    for damaged in (
        replace(corrected, biases={"conv": (float("inf"),)}),
        replace(corrected, after_db=float("nan")),
    ):
        with pytest.raises(ValueError, match=r"recovery has (inf|nan), expected finite"):
            replace(RECOVERY, lowerings={target: damaged})
