"""Options of `build-engine` that only NVIDIA's builder takes, and the profiles that it builds for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgeres.cli.options import Names, is_count, lengths, option_group, was_typed
from edgeres.core.builder_options import OPTIMIZATION_LEVELS, HardwareCompatibility, TensorRTOptions
from edgeres.core.requests import BuildRequest
from edgeres.targets.base import find_target

F = TypeVar("F", bound=Callable[..., Any])
Profile = tuple[int, int, int]

DEFAULTS = BuildRequest()


def batch_profile(ctx: click.Context, param: click.Parameter, value: str) -> Profile:
    """Returns the smallest, optimal and largest batch of `1:8:32`, or of one number for all."""
    parts = value.split(":")
    # isdecimal first: int() would accept "-1", " 8" and "1_6" too.
    if len(parts) not in {1, 3} or not all(is_count(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a batch such as 8 or 1:8:32", ctx, param)
    low, best, high = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return low, best, high


def sizes(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, int] | Profile | None:
    """Returns what `lengths` does, or the smallest, optimal and largest of `160:224:288`."""
    if value is None or ":" not in value:
        return lengths(ctx, param, value)
    parts = value.split(":")
    if len(parts) != 3 or not all(is_count(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a size such as 224 or 160:224:288", ctx, param)
    low, best, high = map(int, parts)
    return low, best, high


INPUT_SIZES = click.option(
    "--input-size",
    metavar="N|HxW|MIN:OPT:MAX",
    callback=sizes,
    help="Side of the crop, or height and width; three sides for a TensorRT plan of a model with dynamic sizes.",
)


engine_options = option_group(
    "options",
    TensorRTOptions,
    click.option(
        "--workspace",
        "workspace_mib",
        type=int,
        metavar="MIB",
        help="Scratch memory of one kernel. [default: TensorRT's; what fits on a board]",
    ),
    click.option(
        "--optimization-level",
        type=int,
        metavar=f"{OPTIMIZATION_LEVELS[0]}-{OPTIMIZATION_LEVELS[-1]}",
        help="Effort of the builder. [default: TensorRT's, 3]",
    ),
    click.option(
        "--timing-cache",
        type=click.Path(),
        metavar="FILE",
        help="Kernel timings, read if the file is there and kept in it.",
    ),
    click.option(
        "--hardware-compatibility",
        type=Names(HardwareCompatibility),
        default=HardwareCompatibility.NONE.value,
        show_default=True,
        help="Other GPUs that the plan runs on.",
    ),
    click.option("--version-compatible", is_flag=True, help="Later versions may load the plan."),
    click.option("--refit", is_flag=True, help="Weights can be replaced afterwards."),
    click.option("--strip-weights", is_flag=True, help="Leave the weights out of the plan."),
    click.option("--sparsity", is_flag=True, help="Use kernels for 2:4 sparse weights."),
    click.option(
        "--dla", "dla_core", type=int, metavar="CORE", help="Build for a Jetson's DLA core."
    ),
    click.option(
        "--gpu-fallback", is_flag=True, help="Layers that the DLA cannot run go to the GPU."
    ),
)
"""Adds the options of NVIDIA's builder; the command receives them as `options`."""


def check_effect(config: BuildRequest) -> None:
    """Refuses an option that was typed and would have no effect on this target or precision."""
    for_tensorrt = find_target(config.target).takes_profile
    if was_typed("batch") and not for_tensorrt:
        raise click.UsageError(
            f"--batch is for TensorRT plans; an engine for {config.target} takes any batch. Leave it out."
        )
    # In an FP16 or FP32 plan nothing is left beside the precision itself.
    has_float_layers = for_tensorrt and config.precision.quantizes
    if was_typed("float_layers") and not has_float_layers:
        raise click.UsageError(
            "--float-layers is for int8 and mixed plans of TensorRT. Leave it out."
        )
