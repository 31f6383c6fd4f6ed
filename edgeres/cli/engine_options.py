"""Options of `build-engine` that only NVIDIA's builder takes, and the profiles that it builds for."""

from __future__ import annotations

import click

from edgeres.cli.options import gathered, is_count, lengths, request_options, stacked, was_typed
from edgeres.core.builder_options import OPTIMIZATION_LEVELS, TensorRTOptions
from edgeres.core.requests import BuildRequest
from edgeres.targets.base import find_target

Profile = tuple[int, int, int]


def batch_profile(ctx: click.Context, param: click.Parameter, value: str) -> Profile:
    """Returns the smallest, optimal and largest batch of `1:8:32`, or of one number for all."""
    parts = value.split(":")
    # isdecimal first: int() would accept "-1", " 8" and "1_6" too.
    if len(parts) not in {1, 3} or not all(is_count(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a batch such as 8 or 1:8:32")
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
        raise click.BadParameter(f"{value!r} is not a size such as 224 or 160:224:288")
    low, best, high = map(int, parts)
    return low, best, high


INPUT_SIZES = click.option(
    "--input-size",
    "sizes",
    metavar="N|HxW|MIN:OPT:MAX",
    callback=sizes,
    help="Side of the crop, or height and width; three sides for a TensorRT plan of a model with dynamic sizes.",
)


_option = request_options(TensorRTOptions)

engine_options = stacked(
    _option(
        "--workspace",
        "workspace_mib",
        metavar="MIB",
        help="Scratch memory of one kernel. [default: TensorRT's; what fits on a board]",
    ),
    _option(
        "--optimization-level",
        metavar=f"{OPTIMIZATION_LEVELS[0]}-{OPTIMIZATION_LEVELS[-1]}",
        help="Effort of the builder. [default: TensorRT's, 3]",
    ),
    _option(
        "--timing-cache",
        type=click.Path(),
        metavar="FILE",
        help="Kernel timings, read if the file is there and kept in it.",
    ),
    _option("--hardware-compatibility", help="Other GPUs that the plan runs on."),
    _option("--version-compatible", help="Later versions may load the plan."),
    _option("--refit", help="Weights can be replaced afterwards."),
    _option("--strip-weights", help="Leave the weights out of the plan."),
    _option("--sparsity", help="Use kernels for 2:4 sparse weights."),
    _option("--dla", "dla_core", metavar="CORE", help="Build for a Jetson's DLA core."),
    _option("--gpu-fallback", help="Layers that the DLA cannot run go to the GPU."),
    gathered("options", TensorRTOptions),
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
