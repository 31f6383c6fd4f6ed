"""A module in the shape of `tensorrt` whose engines compute with ONNX Runtime.

A plan is an ONNX file. `execute_async_v3` puts the computation on the CUDA stream as a call of the
host, on the addresses that were set, so that it happens when the driver comes to it and can be
captured in a graph. Names that the real bindings lack are AttributeErrors here too.
"""

from __future__ import annotations

import ctypes
import sys
import time
import weakref
from collections.abc import Callable
from enum import Enum, IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgeres.machine.cuda import load_driver

_HOST_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

SMALLEST, LARGEST = 1, 16


class Severity(IntEnum):
    """`ILogger.Severity`."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class TensorIOMode(IntEnum):
    """`TensorIOMode`."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


class FakeProfiler:
    """`IProfiler`, to be derived from."""


class FakeLogger:
    """`ILogger`, to be derived from."""

    Severity = Severity


class TensorFormat(Enum):
    """How a tensor lies in memory."""

    LINEAR = 0
    HWC = 1


class FakeExecution:
    """`IExecutionContext`."""

    __slots__ = ("__weakref__", "_addresses", "_batch", "_engine", "_shapes_set", "profiler")

    def __init__(self, engine: FakeEngine) -> None:
        """Takes the engine that it runs."""
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._batch = 0
        self._shapes_set = [0]
        self.profiler: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Takes a shape within the profile."""
        self._engine.fake.calls.append("set_input_shape")
        self._batch = shape[0]
        self._shapes_set[0] += 1
        assert name == self._engine.input
        return SMALLEST <= shape[0] <= LARGEST and shape[1:] == self._engine.shape[1:]

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Takes an address."""
        self._addresses[name] = address
        return name in {self._engine.input, self._engine.output}

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Puts the computation on a stream."""
        fake = self._engine.fake
        fake.enqueued += 1
        if fake.refuse_at is not None and fake.enqueued > fake.refuse_at:
            return False
        call = _HOST_CALL(self._computation())
        fake.held.append(call)
        fake.check_context()
        code: int = fake.driver.cuLaunchHostFunc(ctypes.c_void_p(stream_handle), call, None)
        return code == 0

    def _computation(self) -> Callable[[Any], None]:
        """Returns the call that computes the batch of now on the addresses of now."""
        engine, shape = self._engine, (self._batch, *self._engine.shape[1:])
        session, inward, outward = engine.session, engine.input, engine.output
        pause_s, profiler = engine.fake.sleep_s, self.profiler
        # Not by way of the engine, which would live as long as the pretend driver keeps the call.
        layers = engine.fake.layers if profiler else ()
        kind = ctypes.c_uint8 if engine.takes_bytes else ctypes.c_float
        channels_last = engine.takes_bytes and engine.fake.format is TensorFormat.HWC
        now, shapes_set = self._shapes_set, self._shapes_set[0]
        source, target = self._addresses[inward], self._addresses[outward]

        def compute(_: Any) -> None:
            # NVIDIA leaves undefined what a graph does when its context was changed since.
            assert now[0] == shapes_set, "a graph outlived the shape that it was captured for"
            time.sleep(pause_s)
            if channels_last:
                stored = _array(source, (shape[0], *shape[2:], shape[1]), kind)
                images = np.ascontiguousarray(stored.transpose(0, 3, 1, 2))
            else:
                images = _array(source, shape, kind)
            (logits,) = session.run([outward], {inward: images})
            _array(target, logits.shape)[:] = logits
            for number, layer in enumerate(layers):
                profiler.report_layer_time(layer, 0.5 + number)

        return compute


class FakeRtxExecution(FakeExecution):
    """`IExecutionContext` of TensorRT for RTX, which tells what can be captured."""

    __slots__ = ()

    def is_stream_capturable(self, stream: int) -> bool:
        """Never, for a plan that was not built for it."""
        assert stream
        return False


class FakeEngine:
    """`ICudaEngine`: one input, one output, dynamic batch."""

    __slots__ = (
        "__weakref__", "classes", "fake", "input", "output", "session", "shape", "takes_bytes"
    )  # fmt: skip

    OWN = frozenset({"OWN", *__slots__[1:]})
    """Names of the double's own, which no code under test may use."""

    num_io_tensors = 2

    def __init__(self, fake: FakeRuntimeModule, plan: bytes) -> None:
        """Loads an ONNX file."""
        model = onnx.load_model_from_string(plan)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.fake = fake
        self.session = onnxruntime.InferenceSession(
            plan, options, providers=["CPUExecutionProvider"]
        )
        self.input, self.output = str(model.graph.input[0].name), str(model.graph.output[0].name)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        self.shape = (-1, *(dim.dim_value for dim in dims[1:]))
        self.takes_bytes = model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        self.classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value

    def get_tensor_name(self, index: int) -> str:
        """Input first."""
        names: tuple[str, str] = (self.input, self.output)
        return names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Whether it is read or written."""
        return TensorIOMode.INPUT if name == self.input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        """That of the ONNX file: uint8 where it takes bytes, or else float32."""
        given = "uint8" if name == self.input and self.takes_bytes else "float32"
        return self.fake.dtypes.get(name, given)

    def get_tensor_format(self, name: str) -> TensorFormat:
        """How the image lies in memory; its shape has the channels first either way."""
        assert name == self.input
        return self.fake.format

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """-1 is dynamic."""
        return self.shape if name == self.input else (-1, self.classes)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        """Smallest, optimal and largest."""
        assert (name, profile_index) == (self.input, 0)
        return [(batch, *self.shape[1:]) for batch in (SMALLEST, SMALLEST, LARGEST)]

    def create_execution_context(self) -> FakeExecution | None:
        """Makes one, where there is memory."""
        self.fake.check_context()
        if self.fake.contexts_left == 0:
            self.fake.logger.log(Severity.ERROR, "Cuda error: out of memory.")
            return None
        self.fake.contexts_left -= 1
        made = self.fake.execution(self)
        self.fake.watch("context", made)
        return made


class FakeRuntime:
    """`Runtime`."""

    __slots__ = ("__weakref__", "_fake", "engine_host_code_allowed")

    def __init__(self, fake: FakeRuntimeModule) -> None:
        """Takes the module, which keeps count."""
        self._fake = fake
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> FakeEngine | None:
        """Loads a plan; one that is no ONNX file is refused as NVIDIA's runtime does."""
        self._fake.check_context()
        self._fake.host_code_allowed = self.engine_host_code_allowed
        if serialized_engine == b"plan":
            self._fake.logger.log(Severity.ERROR, "Magic tag does not match.")
            return None
        engine = FakeEngine(self._fake, serialized_engine)
        self._fake.watch("engine", engine)
        return engine


class FakeRuntimeModule(ModuleType):
    """The module, and what became of what it made."""

    TensorIOMode = TensorIOMode
    ILogger = FakeLogger
    IProfiler = FakeProfiler
    TensorFormat = TensorFormat
    float32 = "float32"
    uint8 = "uint8"

    def __init__(self, name: str = "tensorrt", version: str = "10.3.0") -> None:
        """Takes what the module is to call itself."""
        super().__init__(name)
        self.__version__ = version
        self.driver: Any = load_driver()
        self.logger: Any = None
        self.calls: list[str] = []
        self.held: list[Any] = []
        self.ended: list[str] = []
        self.alive: dict[str, int] = {}
        self.dtypes: dict[str, str] = {}
        self.format = TensorFormat.LINEAR
        self.enqueued = 0
        self.layers: list[str] = []
        self.sleep_s = 0.0
        self.refuse_at: int | None = None
        self.contexts_left = -1
        self.execution = FakeExecution
        self.host_code_allowed = False

    def Runtime(self, logger: Any) -> FakeRuntime:  # noqa: N802  # the name in NVIDIA's module
        """Makes the runtime; only where a CUDA context is current."""
        self.check_context()
        self.logger = logger
        made = FakeRuntime(self)
        self.watch("runtime", made)
        return made

    def watch(self, kind: str, made: Any) -> None:
        """Counts what lives, and keeps the order in which it ends."""
        self.alive[kind] = self.alive.get(kind, 0) + 1
        weakref.finalize(made, self._end, kind).atexit = False

    def check_context(self) -> None:
        """What CUDA is needed for ends the process without a context."""
        current = ctypes.c_void_p()
        self.driver.cuCtxGetCurrent(ctypes.byref(current))
        assert current.value, "no CUDA context is current"

    def _end(self, kind: str) -> None:
        self.check_context()
        self.alive[kind] -= 1
        self.ended.append(kind)


def _array(address: int, shape: tuple[int, ...], kind: type[Any] = ctypes.c_float) -> NDArray[Any]:
    """Returns the values at an address, float32 unless told otherwise, not copied."""
    memory = (kind * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)


def put_in_place(monkeypatch: pytest.MonkeyPatch, **options: str) -> FakeRuntimeModule:
    """Puts a double where `import` finds TensorRT; the pretend driver must be loaded."""
    module = FakeRuntimeModule(**options)
    module.__spec__ = ModuleSpec(module.__name__, None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module
