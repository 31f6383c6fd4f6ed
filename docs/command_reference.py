"""Writes docs/reference/commands.md from the commands' own help.

python docs/command_reference.py
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from edgeres.cli import main

PAGE = Path(__file__).with_name("reference") / "commands.md"

_HEAD = """\
# Commands

Made from `edgeres COMMAND --help` by `python docs/command_reference.py`; not edited by hand.

Results go to stdout, progress and messages to stderr; `--json` prints exactly one object. [How to read a verdict](../verdict.md#exit-codes) lists the exit codes.
"""


def page() -> str:
    """Returns the page in Markdown: a section for each command, in the order of `edgeres --help`."""
    root = click.Context(main, info_name="edgeres", **main.context_settings)
    sections = [_HEAD]
    for name in main.list_commands(root):
        command = main.commands[name]
        sections += _sections(command, click.Context(command, root, name))
    return "\n".join(sections)


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yields a command's section, and those of its own commands that help shows."""
    yield "\n".join(_section(command, context))
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from _sections(inner, click.Context(inner, context, name))


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}\n"
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        # click keeps the line breaks of a paragraph that begins with \b.
        if not paragraph.startswith("\b"):
            yield f"{' '.join(paragraph.split())}\n"
            continue
        title, *lines = paragraph.removeprefix("\b\n").splitlines()
        language = "bash" if title == "Example:" else "text"
        yield "\n".join([f"```{language}", *(line.removeprefix("  ") for line in lines), "```\n"])
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"`{context.command_path} {usage}`\n"
    if isinstance(command, click.Group):
        return
    yield "| option | meaning |\n| --- | --- |"
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)):
            # A bar ends a table's cell, inside backticks too.
            names, meaning = (" ".join(text.replace("|", r"\|").split()) for text in record)
            yield f"| `{names}` | {meaning} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
