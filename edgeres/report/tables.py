"""The tables that everything on a terminal shares. Text in them is never read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, OverflowMethod, RenderResult
from rich.table import Table
from rich.text import Text

_ANY_WIDTH = 10_000
"""Columns in which every table fits."""


def plain(words: str) -> Text:
    """Returns words with plain spaces: what does not break in a page is searched for in a log."""
    return Text(words.replace("\N{NO-BREAK SPACE}", " "))


def fact_grid(
    facts: Iterable[tuple[str, str]], *, name_style: str = "", name_width: int | None = None
) -> Table:
    """Returns names and sentences side by side; a long sentence stays in its column."""
    grid = Table.grid(padding=(0, 2))
    # A name folds where it must: that of a layer may be longer than the line, and is not cut.
    grid.add_column(min_width=name_width, overflow="fold")
    grid.add_column(overflow="fold")
    for name, sentence in facts:
        grid.add_row(Text(name, name_style), plain(sentence))
    return grid


def ruled_table(
    first: str,
    *others: str,
    name_width: int | None = None,
    gap: int = 2,
    fold: bool = False,
) -> Table:
    """Returns an empty table with a rule below its header: names first, then columns of numbers.

    Args:
        first: header of the names.
        others: headers of the numbers.
        name_width: least width of the names.
        gap: spaces between columns beside the box's own; 0 fits eight columns in 80.
        fold: whether a number that does not fit is folded; otherwise it is cut.
    """
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, gap // 2, 0, gap - gap // 2),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    table.add_column(first, min_width=name_width, no_wrap=True)
    for name in others:
        overflow: OverflowMethod = "fold" if fold else "ellipsis"
        table.add_column(name, justify="right", no_wrap=not fold, overflow=overflow)
    return table


@dataclass(frozen=True, slots=True)
class Fitting:
    """A table of numbers; on a terminal that is too narrow, its rows one below the other."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table, or each row as names and values: no number is ever cut."""
        unbounded = options.update(max_width=_ANY_WIDTH)
        if console.measure(self.table, options=unbounded).maximum <= options.max_width:
            yield self.table
            return
        first, *others = self.table.columns
        for name, *cells in zip(*(column.cells for column in self.table.columns), strict=True):
            yield Text.assemble((f"{first.header}: ", "bold"), name)
            grid = Table.grid(padding=(0, 2))
            for column, cell in zip(others, cells, strict=True):
                grid.add_row(f"  {column.header}", cell)
            yield grid


def plain_table(*headers: str, numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """Returns an empty table without rules.

    Args:
        headers: of the first columns, whose long cells fold.
        numbers: headers of the columns of numbers behind them.
        title: a line above.
    """
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right")
    return table
