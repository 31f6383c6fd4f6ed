"""What TensorRT's IProfiler reports of each layer, with the network's operator that it computes.

Source: NVIDIA TensorRT, IProfiler: `reportLayerTime` is called once a layer and inference, in
milliseconds, after the inference has ended.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from edgeres.core.artifacts import Manifest
from edgeres.core.audit import AUDITED, EngineLayer
from edgeres.core.verdict import KernelTime

_REFORMAT = "Reformat"
"""What TensorRT calls layers that it adds between others: `Reformatting CopyNode for ...`."""


def layer_recorder(trt: Any) -> Any:
    """Returns an IProfiler of a module that keeps, in `times_ms`, every layer's times by name."""

    class Recorder(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            # pybind11 requires the base's own __init__, not super()'s.
            trt.IProfiler.__init__(self)
            self.times_ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times_ms.setdefault(layer_name, []).append(ms)

    return Recorder()


def kernels_of(
    times_ms: dict[str, list[float]], manifest: Manifest, *, skipped: int
) -> tuple[KernelTime, ...]:
    """Returns the layers that were recorded as kernels, in the order of execution.

    Args:
        times_ms: of each layer, one for each inference.
        manifest: of the plan; its audit names the operators of each layer.
        skipped: first inferences, which are left out.
    """
    audit = manifest.audit
    layers = {} if audit is None else {layer.name: layer for layer in audit.layers}
    types = {layer.name: layer.op_type for layer in manifest.layers}
    kernels = []
    for name, each in times_ms.items():
        layer = layers.get(name, EngineLayer(name=name, kind="layer", precision=None))
        # Of several operators in one kernel the convolution or addition has the work.
        nodes = sorted(layer.nodes, key=lambda node: types.get(node) not in AUDITED)
        source = nodes[0] if nodes else name
        kernels.append(
            KernelTime(
                name=source,
                operator=types.get(source, layer.kind),
                kind=layer.kind,
                ms=median(each[skipped:] or each),
                precision=layer.precision,
                is_reformat=layer.is_reformat or name.startswith(_REFORMAT),
            )
        )
    return tuple(kernels)
