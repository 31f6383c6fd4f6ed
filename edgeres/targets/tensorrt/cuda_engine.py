"""A deserialised plan: NVIDIA's logger, runtime and engine.

The same calls serve TensorRT 8.6 to 11 and TensorRT for RTX. The primary context must be current.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from edgeres.core.artifacts import EngineArtifact
from edgeres.errors import RunnerError
from edgeres.targets.tensorrt.bindings import IMAGE_AXES, Bindings
from edgeres.targets.tensorrt.logger import captured_log

_PROFILE = 0


class CudaEngine:
    """An ICudaEngine in the device's memory, until `close`."""

    def __init__(self, trt: Any, artifact: EngineArtifact) -> None:
        """Deserialises the plan.

        Args:
            trt: `tensorrt` or `tensorrt_rtx`.
            artifact: a plan that `preflight` has found to belong to this machine.

        Raises:
            RunnerError: TensorRT refused it, or it is no image classifier.
        """
        self._logging = contextlib.ExitStack()
        self._log = self._logging.enter_context(captured_log(trt))
        self._engine: Any = None
        self._runtime: Any = None
        with contextlib.ExitStack() as undo:
            # The traceback of a failure holds `self`: without this, engine and runtime would
            # outlive the CUDA context that they need to end.
            undo.callback(self.close)
            self._runtime = trt.Runtime(self._log.logger)
            if "VERSION_COMPATIBLE" in artifact.manifest.flags:
                # Such a plan brings the runtime of its own version along, as code.
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(artifact.content)
            if self._log.callback_error is not None:
                raise self._log.callback_error
            if self._engine is None:
                raise RunnerError(
                    f"{trt.__name__} {trt.__version__} could not load {artifact.path}: "
                    f"{self._log.worst()} Build the engine again on this machine."
                )
            self.bindings = self._read_bindings(trt, artifact.path)
            undo.pop_all()

    def create_execution_context(self) -> Any:
        """Returns a new IExecutionContext.

        Raises:
            RunnerError: TensorRT refused; most often for want of memory.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise RunnerError(
                f"TensorRT could not make an execution context: {self._log.worst()} "
                "Free memory on the GPU, or use fewer streams."
            )
        return context

    def close(self) -> None:
        """Frees engine, runtime and log, in that order; execution contexts must be gone."""
        self._engine = None
        self._runtime = None
        self._logging.close()

    def _read_bindings(self, trt: Any, path: Path) -> Bindings:
        """Returns the one input and the one output."""
        # No local names the engine: as above, a traceback would keep it.
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        types = {n: self._engine.get_tensor_dtype(n) for n in names}
        byte_inputs = [n for n in inputs if types[n] == getattr(trt, "uint8", None)]
        floats = all(types[n] == trt.float32 for n in names if n not in byte_inputs)
        if len(inputs) != 1 or len(outputs) != 1 or not floats:
            raise RunnerError(
                f"{path} takes {inputs} and gives {outputs}, float32: {floats}; edgeres runs "
                "classifiers with one float32 tensor on each side, or uint8 images. Build the "
                "engine with edgeres."
            )
        smallest = largest = tuple(self._engine.get_tensor_shape(inputs[0]))
        # An engine of fixed shape need not have a profile.
        if min(largest) < 1:
            profile = self._engine.get_tensor_profile_shape(inputs[0], _PROFILE)
            smallest, largest = tuple(profile[0]), tuple(profile[2])
        logits = tuple(self._engine.get_tensor_shape(outputs[0]))
        if len(largest) != IMAGE_AXES or len(logits) != 2 or min(largest) < 1:
            raise RunnerError(
                f"{path} maps {largest} to {logits}; edgeres runs classifiers from "
                "(N, 3, H, W) to (N, classes). Build the engine with edgeres."
            )
        return Bindings(
            input=inputs[0],
            output=outputs[0],
            images=largest,
            logits=(largest[0], logits[-1]),
            smallest=smallest[0],
            dtype="uint8" if byte_inputs else "float32",
            channels_last=bool(byte_inputs)
            and self._engine.get_tensor_format(inputs[0]) == trt.TensorFormat.HWC,
        )
