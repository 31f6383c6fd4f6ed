"""The shapes of a plan's optimization profile: batch sizes, and image sizes where a model has them open."""

from __future__ import annotations

from pathlib import Path

from edgeres.core.contract import Contract
from edgeres.core.requests import BuildConfig
from edgeres.errors import ConfigError

Shape = tuple[int, ...]

_DYNAMIC = -1


def input_shapes(
    declared: Shape, config: BuildConfig, contract: Contract, path: Path
) -> tuple[Shape, Shape, Shape]:
    """Returns the smallest, optimal and largest shape of the image tensor.

    Args:
        declared: NVIDIA's, (N, 3, H, W), with -1 for what the model leaves open.
        config: batch sizes and image sizes.
        contract: its size is the image's where the model leaves it open.
        path: the model, for the message.

    Raises:
        ConfigError: the model takes no other batch or size than its own.
    """
    batch = _along("--batch", declared[0], config.batch, path)
    sizes = config.input_size or (contract.size,) * 3
    if config.input_size is not None:
        _check_sizes(declared, config.input_size, contract, path)
    sides = [tuple(s if d == _DYNAMIC else d for d in declared[2:]) for s in sizes]
    low, best, high = ((n, declared[1], *side) for n, side in zip(batch, sides, strict=True))
    return low, best, high


def _along(
    option: str, declared: int, wanted: tuple[int, int, int], path: Path
) -> tuple[int, int, int]:
    """Returns the profile along one dimension; one that the model fixes takes its own value alone."""
    if declared == _DYNAMIC:
        return wanted
    if wanted in {(declared,) * 3, BuildConfig().batch}:
        return (declared,) * 3
    raise ConfigError(
        f"{path} takes batches of {declared} alone, and {option} is "
        f"{':'.join(map(str, wanted))}. Export it with a dynamic batch, or pass {option} {declared}."
    )


def _check_sizes(
    declared: Shape, wanted: tuple[int, int, int], contract: Contract, path: Path
) -> None:
    spelled = ":".join(map(str, wanted))
    if _DYNAMIC not in declared[2:]:
        raise ConfigError(
            f"{path} takes images of {declared[2]}x{declared[3]} alone, and --input-size is "
            f"{spelled}. Export it with dynamic height and width, or leave --input-size out."
        )
    if wanted[1] != contract.size:
        raise ConfigError(
            f"--input-size {spelled} is fastest at {wanted[1]} pixels, and the preprocessing "
            f"contract makes images of {contract.size}. Put {contract.size} in the middle."
        )
