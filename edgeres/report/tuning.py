"""What a search over calibration images found, as a sentence or a table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from edgeres.tuning import Choice, Sensitivity


def describe_choice(choice: Choice) -> str:
    """Returns what method auto picked for one lowering, and why."""
    found = ", ".join(f"{method} {quality:.1f}" for method, quality in choice.sqnr_db.items())
    factors = ", ".join(f"{group} x {factor:.2f}" for group, factor in choice.factors.items())
    return (
        f"{choice.target}: {choice.method} is best on {choice.images} held-out images "
        f"(logits' SQNR in dB: {found}); "
        f"{factors + f' make it {choice.tuned_db:.1f}' if factors else 'no factor improves it'}"
    )


def sensitivity_table(found: Sensitivity) -> Table:
    """Returns a row for each block and layer, the blocks first, the most harmful first."""
    table = Table(
        title=f"Logits' SQNR in dB on {found.images} held-out images, {found.method}; "
        f"all quantized: {found.all_db:.1f}",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("unit", overflow="fold")
    table.add_column("kind")
    for header in ("only this", "all but this", "gain"):
        table.add_column(header, justify="right")
    for unit in sorted(found.units, key=lambda unit: (unit.kind, -unit.without_db)):
        gain = unit.without_db - found.all_db
        values = (f"{unit.alone_db:.1f}", f"{unit.without_db:.1f}", f"{gain:+.2f}")
        table.add_row(Text(unit.unit), unit.kind, *values)
    return table
