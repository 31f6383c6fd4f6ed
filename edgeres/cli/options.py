"""Options that commands share, and what they parse to."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from enum import Enum, EnumMeta
from fractions import Fraction
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from edgeres.cli.output import check_stdout_is_free
from edgeres.core.contract import PRESETS
from edgeres.core.contract_options import ContractOptions
from edgeres.names import nearest

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

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
            f"{value!r} is not three numbers such as 0.485,0.456,0.406, or one for gray"
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
        raise click.BadParameter(f"{value!r:.60} is no number such as 1/255")
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
            f"{value!r} is not a number of pixels such as 224, or height and width such as 64x96"
        )
    first, *second = map(int, parts)
    return (first, second[0]) if second else first


def _resize(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, int] | str | None:
    """Returns what `lengths` does, or `none` as it is."""
    # None: the option is absent, and the preset's resize stays; 'none' switches it off.
    return value if value == "none" else lengths(ctx, param, value)


def separated(
    parse: Callable[[str], T],
) -> Callable[[click.Context, click.Parameter, str | None], tuple[T, ...]]:
    """Returns a callback that parses each part of a text such as `1,4,8`, and takes it once."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[T, ...]:
        parts = [] if value is None else value.split(",")
        return tuple(dict.fromkeys(parse(part.strip()) for part in parts))

    return callback


def batch_size(text: str) -> int:
    """Returns the number of images that a text such as `8` stands for."""
    if not is_count(text):
        raise click.BadParameter(f"{text!r} is no size of a batch; expected numbers such as 1,4,8")
    return int(text)


def was_typed(option: str) -> bool:
    """Returns whether the running command was given an option on its line."""
    # The value alone does not show it: a default may have been typed too.
    source = click.get_current_context().get_parameter_source(option)
    return source is ParameterSource.COMMANDLINE


class Names(click.Choice[T]):
    """A choice, in any case, that names the nearest where none is met."""

    def __init__(self, names: Iterable[T], *, case_sensitive: bool = False) -> None:
        """Takes names, or an enumeration of them."""
        super().__init__(names, case_sensitive=case_sensitive)

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Returns how a choice is typed: click itself would take the name of an enumeration's member."""
        return super().normalize_choice(str(choice), ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Returns the choice that `value` spells."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            # click's own message lists every choice; the nearest is most likely meant.
            hint = nearest(value, map(str, self.choices))
            raise click.BadParameter(error.message + hint, ctx, param) from None


def request_options(request: type) -> Callable[..., Callable[[F], F]]:
    """Returns `click.option` for the fields of a request: type and default are the field's.

    A field without a default is an option that must be given. What is passed to the function that
    is returned takes precedence over the field.
    """
    hints = get_type_hints(request)
    defaults = {field.name: field.default for field in fields(request)}

    def option(*names: str, **attributes: Any) -> Callable[[F], F]:
        field = str(click.Option(names).name)
        kind, default = hints[field], attributes.get("default", defaults[field])
        if isinstance(kind, UnionType):
            # Of `int | None`, the int: None is the absence of the option.
            kind = get_args(kind)[0]
        known: dict[str, Any] = {"required": default is MISSING}
        if default is not MISSING:
            known["default"] = str(default) if isinstance(default, Enum) else default
        if kind is bool:
            known["is_flag"] = True
        elif isinstance(kind, EnumMeta):
            known["type"] = Names(kind)
        elif kind in {int, float, str, Path}:
            known["type"] = PATH if kind is Path else kind
        return click.option(*names, **known | attributes)

    return option


def gathered(name: str, request: Callable[..., object]) -> Callable[[F], F]:
    """Returns a decorator that makes one value of a command's arguments that are fields of it.

    It stands below the options, and takes what those and the decorators between them made.

    Args:
        name: the command's argument that receives the value.
        request: the class of the value.
    """
    own = {field.name for field in fields(request)}  # type: ignore[arg-type]

    def add(command: F) -> F:
        # wraps() also hands on the options that `command` has so far.
        @functools.wraps(command)
        def with_value(*positional: object, **given: object) -> object:
            value = request(**{key: given.pop(key) for key in own & given.keys()})
            return command(*positional, **given, **{name: value})

        return with_value  # type: ignore[return-value]

    return add


def stacked(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Returns several decorators as one; help lists their options in this order."""

    def add(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


reference_option = click.option(
    "--reference",
    type=PATH,
    help="ONNX model or engine that lends preprocessing and class names to an ENGINE without.",
)

trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Run a plan that has no manifest. A plan is code: only do so with one of your own.",
)


def output_option(text: str) -> Callable[[F], F]:
    """Adds `-o/--output`."""
    return click.option("-o", "--output", type=PATH, required=True, help=text)


_described = request_options(ContractOptions)

preprocessing_options = stacked(
    _described("--preset", type=Names(PRESETS), help="Preprocessing by name."),
    _described(
        "--scale",
        type=str,
        metavar="X",
        callback=_fraction,
        help="Factor on values of 0..255: 1/255.",
    ),
    _described(
        "--mean", metavar="a,b,c", callback=_per_channel, help="Mean per channel, after scaling."
    ),
    _described(
        "--std", metavar="a,b,c", callback=_per_channel, help="Standard deviation per channel."
    ),
    _described("--color", help="Order of the channels, or gray."),
    _described("--channels", metavar="1|3", help="Of the network's input; 1 is gray."),
    _described(
        "--resize",
        type=str,
        metavar="N|HxW|none",
        callback=_resize,
        help="Short side before the crop, or both sides; 'none' crops the image as it is.",
    ),
    _described(
        "--resize-mode",
        help="What is kept: shape (shortest, letterbox) or all of the image (squash).",
    ),
    _described(
        "--resize-library", help="Whose resize: Pillow's antialiases. OpenCV turns by EXIF."
    ),
    _described("--interpolation", help="Filter of the resize."),
    _described(
        "--pad-value", metavar="V", help="Pixels beside a letterbox, 0 to 255.  [default: 0]"
    ),
    gathered("contract", ContractOptions),
)
"""Adds those that describe preprocessing, but for `--input-size`; the command gets a `contract`."""

contract_options = stacked(
    preprocessing_options,
    _described(
        "--input-size",
        type=str,
        metavar="N|HxW",
        callback=lengths,
        help="Side of the crop in pixels, or height and width.",
    ),
)
"""Adds them all: what a command receives as its `contract`."""


def _set_level(ctx: click.Context, param: click.Parameter, value: int) -> int:
    step = logging.DEBUG if value > 1 else logging.INFO
    # click calls this for -v and for -q, with 0 where one was not typed: that must change nothing.
    if value:
        level = logging.ERROR if param.name == "quiet" else step
        logging.getLogger("edgeres").setLevel(level)
        ctx.meta["edgeres.quiet"] = param.name == "quiet"
    return value


def _checked(command: F) -> F:
    """Adds the check that no output of a command goes where its result goes."""

    @functools.wraps(command)
    def checked(*positional: object, **given: object) -> object:
        typed = click.get_current_context().params
        paths = [value for value in typed.values() if isinstance(value, Path)]
        check_stdout_is_free(paths, as_json=bool(typed["as_json"]))
        return command(*positional, **given)

    return checked  # type: ignore[return-value]


def _level_option(*names: str, help: str) -> Callable[[F], F]:
    return click.option(
        *names, count=True, expose_value=False, callback=_set_level, show_default=False, help=help
    )


common_options = stacked(
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    _level_option("-v", "--verbose", help="Log more; twice for everything."),
    _level_option("-q", "--quiet", help="No progress, only errors."),
    _checked,
)
"""Adds `--json`, `-v` and `-q`; the last two act on the log and the progress alone."""
