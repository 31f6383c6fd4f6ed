"""What a build needs, before it starts: boards share one small memory with the whole system.

The estimate counts what must exist at once and leaves out what NVIDIA's libraries take for
themselves, so it shows what cannot fit, never that a build will.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeres.core.cost import VALUE_BYTES
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError
from edgeres.machine.cuda import CudaDevice
from edgeres.plurals import counted
from edgeres.quantization.cost import peak_activations, stored_bytes
from edgeres.quantization.graph import Graph

WEIGHT_COPIES = 3
"""The ONNX file in memory, the parsed network, and the engine with its serialised plan."""

LEAST_WORKSPACE_MIB = 32
"""Least that is worth trying. Measured with TensorRT for RTX 1.7.1 at batch 16: resnet20 built in
16 MiB and not in 8, ResNet-50 in FP16 in 32 and not in 16."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildMemory:
    """Memory in MiB that a build holds at once, at the least."""

    weights_mib: float
    activations_mib: float
    """The largest set of tensors alive at one time, for the largest batch."""

    @property
    def total_mib(self) -> float:
        """All copies of the weights, and the activations."""
        return WEIGHT_COPIES * self.weights_mib + self.activations_mib


def estimate_build_memory(graph: Graph, images: int, floats: Precision) -> BuildMemory:
    """Returns what a build of this network needs at the least.

    Args:
        graph: of the network as it is built.
        images: of the largest batch.
        floats: precision that activations are counted in.
    """
    peak = images * peak_activations(graph) * VALUE_BYTES[floats]
    return BuildMemory(weights_mib=stored_bytes(graph) / _MIB, activations_mib=peak / _MIB)


def workspace_limit_mib(
    needed: BuildMemory, config: BuildRequest, device: CudaDevice | None, free_mib: int | None
) -> int | None:
    """Returns the workspace limit to set; None leaves TensorRT's own, all of the GPU's memory.

    A GPU with memory of its own gets the requested limit. On a board, where the GPU's memory is
    the processor's, the limit is what is free beyond the estimate, and no more than requested.

    Args:
        needed: what the build holds besides.
        config: batch sizes and the requested workspace.
        device: the GPU; None where the plan is for one that is not here.
        free_mib: memory of the machine that new work can have; None where it is unavailable.

    Raises:
        BuildError: not even the estimate fits, or the requested workspace does not.
    """
    requested = config.options.workspace_mib
    if device is None:
        return requested
    if not device.integrated:
        # The builder's own copies of the weights are in the host's memory here: one is enough.
        on_gpu = needed.weights_mib + needed.activations_mib + (requested or 0)
        if on_gpu > device.memory_mib:
            raise BuildError(
                f"The engine needs at least {on_gpu:.0f} MiB on the GPU, and {device.name} has "
                f"{device.memory_mib}. Pass a smaller --batch or --workspace (now "
                f"{counted(config.batch[-1], 'image')} at most)."
            )
        return requested
    if free_mib is None:
        return requested
    left = int(free_mib - needed.total_mib)
    workspace = requested or LEAST_WORKSPACE_MIB
    if left < workspace:
        raise BuildError(
            f"The build needs at least {needed.total_mib:.0f} MiB and a workspace of {workspace} "
            f"MiB, and {free_mib} MiB are free on this board. Close what else runs (the desktop "
            "takes about a gigabyte: sudo init 3), add swap, or pass a smaller --batch or "
            f"--workspace (now {counted(config.batch[-1], 'image')} at most)."
        )
    return requested or left
