"""Opens ONNX Runtime sessions on the CPU, for every stage that needs one.

`onnxruntime.get_available_providers()` is no proof of a device, so only the CPU provider is
ever requested, and no session falls back to another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.errors import RunnerError
from edgeres.machine import int8_may_saturate, usable_cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ERRORS_ONLY = 3
_EXACT_PRODUCTS = "session.x64quantprecision"
"""Turns s8 weights to u8, whose kernel is exact where the other may saturate, and slower where it
may not: 2.4 times on ResNet-50 with AVX-512 VNNI. Source: onnxruntime,
onnxruntime_session_options_config_keys.h, kOrtSessionOptionsAvx2PrecisionMode."""
_NO_INTEGERS = "session.disable_quant_qdq"
"""Keeps Q/DQ as they are, where fusions would make integer kernels of them. Source: the same file,
kOrtSessionOptionsDisableQuantQDQ."""
_DROPS_RELU = "ReluQuantRewrite"
"""Leaves out a ReLU before a QuantizeLinear whose least number is zero, which it also takes FP8's to
be: negative values then stay. Source: onnxruntime, core/optimizer/relu_quant_fusion.cc."""
_FATAL_ONLY = 4


def open_session(
    model: bytes | Path,
    *,
    threads: int = 0,
    optimized: Path | None = None,
    memory_pattern: bool = True,
    integer: bool = True,
    portable: bool = False,
    profile: Path | None = None,
) -> Any:
    """Returns an `onnxruntime.InferenceSession` of a serialised model or a file.

    Args:
        model: the serialised model, or its path.
        threads: threads within an operator; 0: one per physical core that this process may use.
        optimized: where to write the graph that ONNX Runtime really runs, after its fusions.
        memory_pattern: plan one block for all activations, a little faster than taking and
            giving back each; where many must be kept at once, the block is far larger than they.
        integer: run what stands between DequantizeLinear and QuantizeLinear on integer kernels
            where there is one; False computes in float32 between the roundings.
        portable: leave out the fusions to operators of ONNX Runtime's own.
        profile: beginning of the name of the file that ONNX Runtime's profiler writes.

    Raises:
        RunnerError: ONNX Runtime refused the model.
    """
    # Read while the library loads. Without it version 1.32 on Linux writes an identifier of the
    # device and a database under HOME and a session file under TMPDIR; the call below does not
    # prevent that. A user's own setting of the variable stays.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Takes 0.1 s, and only work with a model needs it.
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if int8_may_saturate():
        options.add_session_config_entry(_EXACT_PRODUCTS, "1")
    # Left to itself, ONNX Runtime takes a thread for each core of the machine and binds it there,
    # whether this process may run on that core or not.
    if not threads and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        threads = usable_cores()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = memory_pattern
    if not integer:
        options.add_session_config_entry(_NO_INTEGERS, "1")
    if portable:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = str(model) if isinstance(model, Path) else model
    # Integer kernels have the ReLU in their least number; floats lose nothing by keeping it.
    left_out = [] if integer else [_DROPS_RELU]
    try:
        session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
        )
    except _refusals() as error:
        named = model if isinstance(model, Path) else "the model"
        raise RunnerError(
            f"ONNX Runtime {onnxruntime.__version__} refused {named}: {error}. "
            "Check the file with `edgeres inspect`, or export it again."
        ) from error
    # The wrapper keeps the serialised model for a fallback that is never wanted: a second copy.
    session._model_bytes = None
    return session


def run_session(
    session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]
) -> list[NDArray[np.float32]]:
    """Returns the named outputs of a session, fresh arrays of the caller's.

    Raises:
        RunnerError: ONNX Runtime failed; the message is its own.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    # What it raises ONNX Runtime prints as well: once is enough, in the error.
    options.log_severity_level = _FATAL_ONLY
    try:
        values: list[NDArray[np.float32]] = session.run(list(outputs), feed, options)
    except _refusals() as error:
        raise RunnerError(str(error)) from error
    return values


def _refusals() -> tuple[type[Exception], ...]:
    """Returns the exceptions that ONNX Runtime raises; they share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.EPFail,
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        # Its message quotes a name of the file that is no UTF-8.
        UnicodeDecodeError,
    )
