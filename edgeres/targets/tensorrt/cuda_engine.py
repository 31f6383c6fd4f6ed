"""A deserialised plan: NVIDIA's logger, runtime and engine, and its input and output tensors.

The same calls serve TensorRT 8.6 to 11 and TensorRT for RTX. The primary context must be current.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeres.core.artifacts import EngineArtifact, TensorSpec
from edgeres.errors import MismatchError, RunnerError
from edgeres.plurals import counted
from edgeres.targets.runner import fed_to
from edgeres.targets.tensorrt.logger import captured_log

IMAGE_AXES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """Input and output of an engine, with the shapes of the largest batch."""

    input: str
    output: str
    images: tuple[int, ...]
    """(N, 3, H, W), N the largest batch."""
    logits: tuple[int, ...]
    """(N, classes)."""
    smallest: int
    """Images in the smallest batch that the engine takes."""
    dtype: str = "float32"
    """Of the images."""
    channels_last: bool = False
    """Whether their memory is (N, H, W, C), although the binding is (N, C, H, W)."""

    @property
    def memory(self) -> tuple[int, ...]:
        """Shape of the images in memory."""
        batch, channels, *sides = self.images
        return (batch, *sides, channels) if self.channels_last else self.images

    def fed(self, images: NDArray[Any], name: str) -> NDArray[Any]:
        """Returns images, floats of (N, C, H, W) or bytes of (N, H, W, C), as the memory has them.

        Raises:
            MismatchError: they are of another type, or the batch or the images have another size.
        """
        spec = TensorSpec(name=self.input, shape=(None, *self.memory[1:]), dtype=self.dtype)
        turned = fed_to(spec, images, name)
        self.check(turned, name)
        return turned

    @property
    def largest(self) -> int:
        """Images in the largest batch that the engine takes."""
        return self.images[0]

    def check(self, images: NDArray[Any], name: str) -> None:
        """Checks that the engine takes a batch.

        Args:
            images: as the memory has them.
            name: of the runner, for the message.

        Raises:
            MismatchError: the images or the batch have another size.
        """
        if images.ndim != IMAGE_AXES or images.shape[1:] != self.memory[1:]:
            raise MismatchError(
                f"{name} takes images of shape {('N', *self.memory[1:])}, not {images.shape}. "
                "Check that data and engine belong to the same model."
            )
        if not self.smallest <= len(images) <= self.largest:
            raise MismatchError(
                f"{name} takes batches of {self.smallest} to {counted(self.largest, 'image')}, not "
                f"{len(images)}. Pass another batch size, or build the engine with --batch "
                f"{max(1, min(self.smallest, len(images)))}:{self.largest}:{max(self.largest, len(images))}."
            )


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
