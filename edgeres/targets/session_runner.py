"""Runs an ONNX file on ONNX Runtime's CPU kernels, and several of its sessions side by side."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from edgeres.core.artifacts import TensorSpec
from edgeres.core.verdict import KernelTime
from edgeres.errors import ConfigError, MismatchError, RunnerError
from edgeres.machine import usable_cores
from edgeres.onnx_file import LoadedModel, LoweredNetwork
from edgeres.quantization.fp16.computed import computed_in_fp32
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime.kernels import on_integer_kernels
from edgeres.targets.onnxruntime.profile import kernel_times
from edgeres.targets.runner import Runner, fed_to

if TYPE_CHECKING:
    from typing_extensions import Self


class SideBySide:
    """Runners that are open together; `infer` takes a free one and waits where there is none."""

    def __init__(self, runners: tuple[Runner, ...]) -> None:
        """Keeps what to open.

        Args:
            runners: at least one, of the same engine.
        """
        self.name: str = runners[0].name
        self.input: TensorSpec = runners[0].input
        self.output: TensorSpec = runners[0].output
        self._runners = runners
        self._free: SimpleQueue[Runner] = SimpleQueue()
        self._resources = ExitStack()

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`, (N, 3, H, W) float32.

        Raises:
            MismatchError: the images' shape is not one that the engine takes.
            RunnerError: the runtime failed.
        """
        runner = self._free.get()
        try:
            return runner.infer(images)
        finally:
            self._free.put(runner)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for runner in self._runners:
                self._free.put(opened.enter_context(runner))
            self._resources = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._free = SimpleQueue()
        self._resources.close()


_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
"""ONNX Runtime's names of what a classifier's input may be."""


class OnnxRuntimeRunner:
    """A session that is open between `__enter__` and `__exit__`.

    `infer` only reads its argument; each result is a fresh array of the caller's.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        input: TensorSpec,
        output: TensorSpec,
        name: str,
        threads: int = 0,
        integer: bool = True,
    ) -> None:
        """Keeps what to open; nothing is loaded yet.

        Args:
            model: a serialised model or the path of an ONNX file.
            input: (N, 3, H, W) float32.
            output: (N, classes) float32.
            name: short text on what this is.
            threads: threads within an operator; 0: one for each physical core.
            integer: whether Q/DQ may become integer kernels; False computes in float between the
                roundings.
        """
        self._title = name
        self.name = f"{name} on onnxruntime-cpu"
        self.input = input
        self.output = output
        self._model = model
        self._threads = threads
        self._integer = integer
        self._session: Any = None

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Returns the logits, (N, classes) float32, of `images`, (N, 3, H, W) float32.

        Raises:
            MismatchError: the images' shape is not one that the model takes.
            RunnerError: ONNX Runtime failed, or the runner is not open.
        """
        if self._session is None:
            raise RunnerError(f"{self.name} is not open. Use it in a with statement.")
        images = fed_to(self.input, images, self.name)
        expected = self.input.shape
        fits = len(images.shape) == len(expected) and all(
            size in (None, given) for size, given in zip(expected, images.shape, strict=True)
        )
        if not fits:
            shown = tuple("N" if size is None else size for size in expected)
            raise MismatchError(
                f"{self.name} takes images of shape {shown}, not {images.shape}. "
                "Check that data and engine belong to the same model."
            )
        try:
            return run_session(self._session, [self.output.name], {self.input.name: images})[0]
        except RunnerError as error:
            raise RunnerError(f"{self.name} failed: {error}") from error

    def with_streams(self, count: int, *, graph: bool) -> Runner:
        """Returns as many sessions, each with cores of its own; there is no CUDA graph to replay.

        Raises:
            ConfigError: there are fewer cores.
        """
        cores = usable_cores()
        if count > cores:
            raise ConfigError(
                f"--streams {count} needs as many cores, and ONNX Runtime has {cores} here: more "
                f"sessions would take turns on one. Pass --streams {cores} or less."
            )
        sessions = (
            OnnxRuntimeRunner(
                self._model,
                input=self.input,
                output=self.output,
                name=self._title,
                # What does not divide goes to the first ones: every core works, and for one session.
                threads=cores // count + (number < cores % count),
                integer=self._integer,
            )
            for number in range(count)
        )
        return SideBySide(tuple(sessions))

    def kernel_times(
        self, images: NDArray[np.float32], *, iterations: int
    ) -> tuple[KernelTime, ...]:
        """Returns the kernels of a session of its own that is profiled; see `Profiled`.

        Raises:
            RunnerError: ONNX Runtime failed.
        """
        return kernel_times(
            self._model,
            {self.input.name: fed_to(self.input, images, self.name)},
            self.output.name,
            iterations=iterations,
            threads=self._threads,
        )

    def __enter__(self) -> Self:
        """Loads the model.

        Raises:
            RunnerError: ONNX Runtime refused it.
            MismatchError: its input or output is not the described one.
        """
        session = open_session(self._model, threads=self._threads, integer=self._integer)
        given = session.get_inputs()[0].type
        if _TYPES[self.input.dtype] != given:
            raise MismatchError(
                f"{self.name} takes {given}, but is described with {self.input.dtype}: its images "
                "would be normalized twice, or not at all. Build or export it again."
            )
        names = [tensor.name for tensor in (*session.get_inputs(), *session.get_outputs())]
        if names != [self.input.name, self.output.name]:
            raise MismatchError(
                f"{self.name} has the input and output {' and '.join(names)}, but is described "
                f"with {self.input.name} and {self.output.name}. Build or export it again."
            )
        self._session = session
        return self

    def __exit__(self, *error: object) -> None:
        self._session = None


def model_runner(model: LoadedModel, *, any_size: bool = False) -> OnnxRuntimeRunner:
    """Returns the runner of an FP32 model on the CPU, not yet open.

    Args:
        model: what it runs.
        any_size: whether it takes images of other heights and widths too, which a network with a
            global pool computes; another one fails on them.
    """
    if any_size:
        # The arithmetic of a byte input has the image's size, and that of normalised values not.
        model = model.prepared
    artifact, content, input = model.artifact, model.content, model.artifact.input
    if any_size:
        opened = onnx.ModelProto()
        opened.CopyFrom(model.proto)
        # What was inferred for one size would contradict the others.
        del opened.graph.value_info[:]
        for value in opened.graph.input:
            if value.name == input.name:
                for axis in (2, 3):
                    value.type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
        content = opened.SerializeToString()
        input = replace(input, shape=(*input.shape[:2], None, None))
    return OnnxRuntimeRunner(content, input=input, output=artifact.output, name=artifact.path.name)


def network_runner(network: LoweredNetwork, name: str) -> OnnxRuntimeRunner:
    """Returns the runner of a simulated network on the CPU, not yet open."""
    network = network.fed_as(planar=True)
    source = network.source
    return simulation_runner(network.model, input=source.input, output=source.output, name=name)


def simulation_runner(
    model: onnx.ModelProto, *, input: TensorSpec, output: TensorSpec, name: str
) -> OnnxRuntimeRunner:
    """Returns the runner of a typed network as another runtime would compute it, not yet open.

    Convolutions of integers are summed in int32, as a GPU sums them, in a third of the time that
    float32 takes. All else is computed in float32 between its roundings, those to FP16 included.
    """
    computed = computed_in_fp32(model)
    integer = any(tensor.data_type == TensorProto.INT8 for tensor in computed.graph.initializer)
    if integer:
        # ONNX Runtime's own fusions would round float biases to int32 in units that may overflow.
        computed = on_integer_kernels(computed)
    return OnnxRuntimeRunner(
        computed.SerializeToString(), input=input, output=output, name=name, integer=integer
    )
