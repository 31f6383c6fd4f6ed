"""Options that commands share, and what they parse to."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edgeres.cli.output import check_stdout_is_free
from edgeres.core.contract import PRESETS, Color
from edgeres.core.contract_options import ContractOptions
from edgeres.core.resize import Interpolation, ResizeLibrary, ResizeMode
from edgeres.names import nearest

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def _per_channel(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Returns the three numbers of a text such as `0.485,0.456,0.406`, or the one of gray."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in {1, 3}:
        raise click.BadParameter(
            f"{value!r} is not three numbers such as 0.485,0.456,0.406, or one for gray", ctx, param
        )
    return numbers


_DIGITS = 40
"""Characters of a number that is typed; Python itself refuses integers of more than 4300 digits."""


def is_count(text: str) -> bool:
    """Whether a text is a whole number from 0, of no more digits than 64 bits have."""
    # int() would accept "-1", " 8" and "1_6" too.
    return text.isdecimal() and len(text) < 19


def _fraction(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Returns the number of a text such as `1/255` or `0.5`."""
    if value is None:
        return None
    try:
        # 1/255 has no short decimal, and typing 0.00392 would change every pixel. A Fraction holds
        # every digit, and 1e999999999 has a billion of them: a float it is, where it can be.
        number = float(Fraction(value[:_DIGITS])) if "/" in value else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        number = math.nan
    if len(value) > _DIGITS or not math.isfinite(number):
        raise click.BadParameter(f"{value!r:.60} is no number such as 1/255", ctx, param)
    return number


def lengths(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, int] | None:
    """Returns the number of pixels of a text such as `224`, or height and width of `64x96`."""
    if value is None:
        return None
    parts = value.split("x")
    if len(parts) not in {1, 2} or not all(map(is_count, parts)):
        raise click.BadParameter(
            f"{value!r} is not a number of pixels such as 224, or height and width such as 64x96",
            ctx,
            param,
        )
    first, *second = map(int, parts)
    return (first, second[0]) if second else first


def _resize(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, int] | str | None:
    """Returns what `lengths` does, or `none` as it is."""
    # None: the option is absent, and the preset's resize stays; 'none' switches it off.
    return value if value == "none" else lengths(ctx, param, value)


def was_typed(option: str) -> bool:
    """Returns whether the running command was given an option on its line."""
    # The value alone does not show it: a default may have been typed too.
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.COMMANDLINE


class Names(click.Choice):  # type: ignore[type-arg]  # click 8.1's takes no parameter
    """A choice that names the nearest where none is met, and returns an enumeration's member."""

    def __init__(self, names: Iterable[str], *, case_sensitive: bool = False) -> None:
        """Takes names, or an enumeration of them."""
        # click 8.1 takes texts only; 8.2 takes enumerations, and would show their members' names.
        super().__init__([str(name) for name in names], case_sensitive=case_sensitive)
        self._members = {str(name): name for name in names}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the choice that `value` spells, in any case."""
        try:
            return self._members[super().convert(value, param, ctx)]
        except click.BadParameter as error:
            # click's own message lists every choice; the nearest is most likely meant.
            hint = nearest(value, self.choices)
            raise click.BadParameter(error.message + hint, ctx, param) from None


def option_group(
    name: str, build: Callable[..., object], *options: Callable[[F], F]
) -> Callable[[F], F]:
    """Returns a decorator that adds options which together make one value.

    Args:
        name: the command's argument that receives the value.
        build: makes it; its arguments are those of the options.
        options: decorators of click.
    """

    def add(command: F) -> F:
        def declared() -> None:
            """Carries the options, so that their names can be read."""

        # click keeps the options of a function in an attribute until it becomes a command.
        for option in options:
            declared = option(declared)  # type: ignore[arg-type]
        own = [parameter.name for parameter in declared.__click_params__]  # type: ignore[attr-defined]

        # wraps() also hands on the options that `command` has so far, so groups can be stacked.
        @functools.wraps(command)
        def with_value(*positional: object, **given: object) -> object:
            value = build(**{key: given.pop(key) for key in own})
            return command(*positional, **given, **{name: value})

        # click lists options in the order of decoration, the last one first.
        for option in reversed(options):
            with_value = option(with_value)
        return with_value  # type: ignore[return-value]

    return add


def output_option(text: str) -> Callable[[F], F]:
    """Adds `-o/--output`."""
    return click.option("-o", "--output", type=PATH, required=True, help=text)


PREPROCESSING = (
    click.option("--preset", type=Names(PRESETS), help="Preprocessing by name."),
    click.option(
        "--scale", metavar="X", callback=_fraction, help="Factor on values of 0..255: 1/255."
    ),
    click.option(
        "--mean", metavar="a,b,c", callback=_per_channel, help="Mean per channel, after scaling."
    ),
    click.option(
        "--std", metavar="a,b,c", callback=_per_channel, help="Standard deviation per channel."
    ),
    click.option("--color", type=Names(Color), help="Order of the channels, or gray."),
    click.option("--channels", type=int, metavar="1|3", help="Of the network's input; 1 is gray."),
    click.option(
        "--resize",
        metavar="N|HxW|none",
        callback=_resize,
        help="Short side before the crop, or both sides; 'none' crops the image as it is.",
    ),
    click.option(
        "--resize-mode",
        type=Names(ResizeMode),
        help="What is kept: shape (shortest, letterbox) or all of the image (squash).",
    ),
    click.option(
        "--resize-library",
        type=Names(ResizeLibrary),
        help="Whose resize: Pillow's antialiases. OpenCV turns by EXIF.",
    ),
    click.option("--interpolation", type=Names(Interpolation), help="Filter of the resize."),
    click.option(
        "--pad-value",
        type=int,
        metavar="V",
        help="Pixels beside a letterbox, 0 to 255.  [default: 0]",
    ),
)
"""Options that describe preprocessing, but for `--input-size`, which commands read differently."""

contract_options = option_group(
    "contract",
    ContractOptions,
    *PREPROCESSING,
    click.option(
        "--input-size",
        metavar="N|HxW",
        callback=lengths,
        help="Side of the crop in pixels, or height and width.",
    ),
)
"""Adds them; the command receives their value as `contract`."""


def _set_level(ctx: click.Context, param: click.Parameter, value: int) -> int:
    step = logging.DEBUG if value > 1 else logging.INFO
    # click calls this for -v and for -q, with 0 where one was not typed: that must change nothing.
    if value:
        level = logging.ERROR if param.name == "quiet" else step
        logging.getLogger("edgeres").setLevel(level)
        ctx.meta["edgeres.quiet"] = param.name == "quiet"
    return value


def common_options(command: F) -> F:
    """Adds `--json`, `-v` and `-q`; the last two act on the log and the progress alone."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_set_level,
            help="Log more; twice for everything.",
        ),
        click.option(
            "-q",
            "--quiet",
            count=True,
            expose_value=False,
            callback=_set_level,
            help="No progress, only errors.",
        ),
    )

    @functools.wraps(command)
    def checked(*positional: object, **given: object) -> object:
        typed = click.get_current_context().params
        paths = [value for value in typed.values() if isinstance(value, Path)]
        check_stdout_is_free(paths, as_json=bool(typed["as_json"]))
        return command(*positional, **given)

    for option in reversed(options):
        checked = option(checked)
    return checked  # type: ignore[return-value]
