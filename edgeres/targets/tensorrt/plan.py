"""A deserialised plan: NVIDIA's logger, runtime and engine, and what the engine takes and gives.

The same calls serve TensorRT 8.6 to 11 and TensorRT for RTX. The primary context must be current.
"""

from __future__ import annotations

import contextlib
from typing import Any

from edgeres.core.artifacts import EngineArtifact
from edgeres.errors import RunnerError
from edgeres.targets.tensorrt.execution import Bindings
from edgeres.targets.tensorrt.logger import captured_log

_PROFILE = 0
_IMAGE_AXES = 4


class Plan:
    """An engine in the device's memory, until `release`."""

    def __init__(self, trt: Any, artifact: EngineArtifact) -> None:
        """Deserialises the plan.

        Args:
            trt: `tensorrt` or `tensorrt_rtx`.
            artifact: a plan that `preflight` has found to belong here.

        Raises:
            RunnerError: TensorRT refused it, or it is no image classifier.
        """
        self._logging = contextlib.ExitStack()
        self._log = self._logging.enter_context(captured_log(trt))
        self._engine: Any = None
        self._runtime: Any = None
        with contextlib.ExitStack() as undo:
            # A traceback would keep them alive beyond the context that they need to end.
            undo.callback(self.release)
            self._runtime = trt.Runtime(self._log.logger)
            self._engine = self._loaded(trt, artifact)
            self.bindings = self._read_bindings(trt, artifact)
            undo.pop_all()

    def execution(self) -> Any:
        """Returns a new `IExecutionContext`.

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

    def release(self) -> None:
        """Lets engine, runtime and log go, in that order; execution contexts must be gone."""
        self._engine = None
        self._runtime = None
        self._logging.close()

    def _loaded(self, trt: Any, artifact: EngineArtifact) -> Any:
        if "VERSION_COMPATIBLE" in artifact.manifest.flags:
            # Such a plan brings the runtime of its own version along, as code.
            self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        if self._log.callback_error is not None:
            raise self._log.callback_error
        if engine is None:
            raise RunnerError(
                f"{trt.__name__} {trt.__version__} could not load {artifact.path}: "
                f"{self._log.worst()} Build the engine again on this machine."
            )
        return engine

    def _read_bindings(self, trt: Any, artifact: EngineArtifact) -> Bindings:
        """Returns the one input and the one output, with the shapes of the largest batch."""
        indices = range(self._engine.num_io_tensors)
        names = [self._engine.get_tensor_name(index) for index in indices]
        given = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        made = [n for n in names if n not in given]
        floats = all(self._engine.get_tensor_dtype(n) == trt.float32 for n in names)
        if len(given) != 1 or len(made) != 1 or not floats:
            raise RunnerError(
                f"{artifact.path} takes {given} and gives {made}, float32: {floats}; edgeres runs "
                "classifiers with one float32 tensor on each side. Build the engine with edgeres."
            )
        smallest, _, largest = self._profile(given[0])
        logits = tuple(self._engine.get_tensor_shape(made[0]))
        if len(largest) != _IMAGE_AXES or len(logits) != 2 or min(largest) < 1:
            raise RunnerError(
                f"{artifact.path} maps {largest} to {logits}; edgeres runs classifiers from "
                "(N, 3, H, W) to (N, classes). Build the engine with edgeres."
            )
        return Bindings(
            input=given[0],
            output=made[0],
            images=largest,
            logits=(largest[0], logits[-1]),
            smallest=smallest[0],
        )

    def _profile(self, name: str) -> tuple[tuple[int, ...], ...]:
        """Returns the smallest, optimal and largest shape; the same three where none is dynamic."""
        fixed = tuple(self._engine.get_tensor_shape(name))
        if min(fixed) > 0:
            return fixed, fixed, fixed
        shapes = self._engine.get_tensor_profile_shape(name, _PROFILE)
        return tuple(tuple(shape) for shape in shapes)
