"""What ONNX Runtime's own profiler measures of each kernel."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeres.core.precision import Precision
from edgeres.core.verdict import KernelTime
from edgeres.input_files import JSON, MODEL, read_bytes, read_text
from edgeres.serialization import parse_json
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime.build import (
    is_integer,
    is_reformat,
    operator_name,
    operator_type,
)

WARMUP = 3
"""Inferences that are left out: the first ones allocate memory."""

_FUSED = frozenset({"Relu", "Clip", "BatchNormalization"})
"""Operators that ONNX Runtime computes with the convolution or addition before them."""

_KERNEL = re.compile(r"_kernel_time$")


def kernel_times(
    model: bytes | Path,
    feed: dict[str, NDArray[np.float32]],
    output: str,
    *,
    iterations: int,
    threads: int = 0,
) -> tuple[KernelTime, ...]:
    """Returns the kernels of a model in the order of execution, each with its median time.

    Args:
        model: serialised, or its path.
        feed: the input by its name.
        output: name of the output.
        iterations: inferences, beside those of the warm-up.
        threads: threads within an operator; 0: one for each physical core.

    Raises:
        RunnerError: ONNX Runtime refused the model, or failed.
    """
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        session = open_session(model, threads=threads, profile=Path(folder) / "profile")
        for _ in range(WARMUP + iterations):
            run_session(session, [output], feed)
        events = parse_json(read_text(Path(session.end_profiling()), JSON))
    content = read_bytes(model, MODEL) if isinstance(model, Path) else model
    return _medians(events, onnx.load_model_from_string(content).graph)


def _medians(events: Iterable[Any], graph: onnx.GraphProto) -> tuple[KernelTime, ...]:
    """Returns the kernels of the events of several inferences, with the network's names."""
    nodes = {node.name: node for node in graph.node}
    producers = {output: node for node in graph.node for output in node.output}

    def source(name: str, kind: str) -> tuple[str, str]:
        own = operator_name(name)
        # ONNX Runtime names a convolution in blocked layout by what it and the ReLU fused into it
        # give.
        node = nodes.get(own) or producers.get(own)
        while node is not None and node.op_type in _FUSED and node.input[0] in producers:
            node = producers[node.input[0]]
        return (own, kind) if node is None else (node.name, operator_type(node.op_type))

    times: dict[tuple[str, str], list[float]] = {}
    for event in sorted(events, key=lambda each: float(each.get("ts", 0))):
        if event.get("cat") == "Node" and _KERNEL.search(event["name"]):
            key = _KERNEL.sub("", event["name"]), str(event["args"]["op_name"])
            times.setdefault(key, []).append(event["dur"] / 1000)
    return tuple(
        KernelTime(
            name=source(name, kind)[0],
            operator=source(name, kind)[1],
            kind=kind,
            ms=median(durations[WARMUP:] or durations),
            precision=Precision.INT8
            if is_integer(kind)
            else None
            if is_reformat(kind)
            else Precision.FP32,
            is_reformat=is_reformat(kind),
        )
        for (name, kind), durations in times.items()
    )
