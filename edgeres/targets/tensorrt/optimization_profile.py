"""The shapes of a plan's optimization profile: batch sizes, and image sizes where a model has them open."""

from __future__ import annotations

from edgeres.core.artifacts import OnnxArtifact
from edgeres.core.contract import Contract
from edgeres.core.requests import BuildRequest
from edgeres.errors import ConfigError

Shape = tuple[int, ...]

_DYNAMIC = -1


def profile_shapes(
    declared: Shape, config: BuildRequest, contract: Contract, model: OnnxArtifact
) -> tuple[Shape, Shape, Shape]:
    """Returns the smallest, optimal and largest shape of the image tensor.

    Args:
        declared: NVIDIA's, (N, C, H, W), with -1 for what the model leaves open.
        config: batch sizes and image sizes.
        contract: its size is the image's where the model leaves it open.
        model: what the network was made from. A file of one batch size gets a plan for that batch
            unless another one is requested, although its graph takes any by now.

    Raises:
        ConfigError: the model takes no other batch or size than its own.
    """
    batch, sizes, path = config.batch, config.input_size, model.path
    if model.batch is not None and batch == BuildRequest().batch:
        batch = (model.batch,) * 3
    if declared[0] != _DYNAMIC:
        fixed = (declared[0],) * 3
        # The default profile was not requested, so it gives way to the model's own batch.
        if batch not in {fixed, BuildRequest().batch}:
            raise ConfigError(
                f"{path} takes batches of {declared[0]} alone, and --batch is "
                f"{':'.join(map(str, batch))}. Export it with a dynamic batch, or pass --batch "
                f"{declared[0]}."
            )
        batch = fixed
    if sizes is not None:
        spelled = ":".join(map(str, sizes))
        if _DYNAMIC not in declared[2:]:
            raise ConfigError(
                f"{path} takes images of {declared[2]}x{declared[3]} alone, and --input-size is "
                f"{spelled}. Export it with dynamic height and width, or leave --input-size out."
            )
        if contract.height != contract.width:
            raise ConfigError(
                f"--input-size {spelled} is of squares, and the preprocessing contract makes images "
                f"of {contract.height}x{contract.width}. Leave --input-size out."
            )
        if sizes[1] != contract.height:
            raise ConfigError(
                f"--input-size {spelled} is fastest at {sizes[1]} pixels, and the preprocessing "
                f"contract makes images of {contract.height}. Put {contract.height} in the middle."
            )
    own = (contract.height, contract.width)
    sides = [own] * 3 if sizes is None else [(size, size) for size in sizes]
    smallest, optimal, largest = (
        (n, declared[1], *(own if side == _DYNAMIC else side for side, own in pairs))
        for n, pairs in zip(
            batch, (zip(declared[2:], wanted, strict=True) for wanted in sides), strict=True
        )
    )
    return smallest, optimal, largest
