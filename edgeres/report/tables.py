"""The tables that everything on a terminal shares. Text in them is never read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_ANY_WIDTH = 10_000
"""Columns in which every table fits."""

_LEAST_WORDS = 16
"""Columns in which a cell of words is still readable."""


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


class FittingTable(Table):
    """A table of figures; on a terminal that is too narrow, its rows one below the other."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the table, or each row as names and values: no figure is ever cut or broken."""
        if self._least_width(console, options) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text(str(self.title))
        first, *others = self.columns
        for name, *cells in zip(*(column.cells for column in self.columns), strict=True):
            label = f"{first.header}: " if first.header else ""
            yield Text.assemble((label, "bold"), name if isinstance(name, Text) else str(name))
            grid = Table.grid(padding=(0, 2))
            grid.add_column(overflow="fold")
            grid.add_column(overflow="fold")
            for column, cell in zip(others, cells, strict=True):
                grid.add_row(f"  {' '.join(str(column.header).split())}", cell)
            yield grid

    def _least_width(self, console: Console, options: ConsoleOptions) -> int:
        """Returns the columns in which no figure breaks: words may, where their column folds."""
        unbounded = options.update(max_width=_ANY_WIDTH)
        width = console.measure(self, options=unbounded).maximum
        for column in self.columns:
            if not column.no_wrap:
                cells = [column.header, *column.cells]
                longest = max(Text(str(cell)).cell_len for cell in cells)
                width -= max(longest - _LEAST_WORDS, 0)
        return width


def ruled_table(
    first: str, *others: str, name_width: int | None = None, gap: int = 2
) -> FittingTable:
    """Returns an empty table with a rule below its header: names first, then columns of numbers.

    Args:
        first: header of the names.
        others: headers of the numbers.
        name_width: least width of the names.
        gap: spaces between columns beside the box's own; 0 fits eight columns in 80.
    """
    table = FittingTable(
        box=SIMPLE_HEAD,
        padding=(0, gap // 2, 0, gap - gap // 2),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    table.add_column(first, min_width=name_width, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def plain_table(
    *headers: str, numbers: Sequence[str] = (), title: str | None = None
) -> FittingTable:
    """Returns an empty table without rules.

    Args:
        headers: of the first columns, whose long cells fold.
        numbers: headers of the columns of numbers behind them.
        title: a line above.
    """
    table = FittingTable(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for header in headers:
        table.add_column(header, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table
