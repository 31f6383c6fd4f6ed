"""Modules in the shape of NVIDIA's, made from the names that the real bindings of each version have.

`api/*.json` lists the public names and parameters of the real classes. `FakeTensorRT` makes a class
of each from the double below that has its name, so that

- a name that the version lacks is an AttributeError, and a wrong argument a TypeError;
- a class that derives from NVIDIA's may override only what NVIDIA calls: anything else is a TypeError;
- every name that is read, set, called or overridden is recorded.

What the doubles do is only as much as a build needs: `Answers` says what a test can choose of it,
`Record` what a build did.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast

import pytest
from inspected import as_requested

from edgeres.machine.cuda import CudaDevice, NoCudaDevice
from edgeres.targets.tensorrt import builder

API = Path(__file__).parent / "api"

VERSIONS = ("8.6", "10.3", "10.16", "11.4", "rtx")
"""Versions whose names are known, by the name of their file."""

Message = tuple[str, str]
"""Severity and text."""

Name = tuple[str, str]
"""A class of NVIDIA's, and a name in it."""


@dataclass(slots=True)
class Record:
    """What a build did with a module."""

    touched: set[Name] = field(default_factory=set)
    """Whatever was read, set, called or overridden."""
    creation_flags: set[str] | None = None
    """Of the network; None until one was created."""
    parsed: bytes | None = None
    """The ONNX file."""
    parser_flags: set[str] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)
    """Of IBuilderConfig."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Attributes of IBuilderConfig that were set."""
    pools: dict[str, int] = field(default_factory=dict)
    """Memory limits in bytes."""
    profiles: list[dict[str, tuple[Any, ...]]] = field(default_factory=list)
    """Shapes by name of an input."""
    capabilities: dict[int, str] = field(default_factory=dict)
    caches: list[bytes] = field(default_factory=list)
    """Serialised timing caches that were read."""
    runtime: dict[str, Any] = field(default_factory=dict)
    """Attributes of Runtime that were set."""


@dataclass(slots=True)
class Answers:
    """What a module answers to a build; a test changes what it is about."""

    image_shape: tuple[int, ...] = (-1, 3, 32, 32)
    """Of the parsed network's input."""
    layers: Sequence[Any] = ()
    """Of the parsed network; `FakeTensorRT.layer` makes one."""
    refusals: Sequence[str] = ()
    """Errors of the parser."""
    ignored: frozenset[str] = frozenset()
    """Flags and memory pools whose setters do nothing, as NVIDIA's with what they do not take."""
    dla_cores: int = 0
    dla_foreign: frozenset[str] = frozenset()
    """Layers that the DLA cannot run."""
    takes_cache: bool = True
    cache_messages: Sequence[Message] = ()
    """What reading a timing cache logs."""
    messages: Sequence[Message] = ()
    """What the builder logs."""
    phases: Sequence[tuple[str, str | None, int]] = ()
    """Phases of the build for the progress monitor: name, parent, steps."""
    plan: bytes | None = b"plan"
    loads: bool = True
    """Whether the runtime takes the plan."""
    inspected: str | None = None
    """The engine inspector's JSON; None makes one whose layers run in the requested precisions."""
    inspected_with_context: str | None = None
    """The same for an inspector that has an execution context; None: no more than without."""


class Double:
    """An object of NVIDIA's; only names of its real class can be read, set or overridden."""

    _module: ClassVar[FakeTensorRT]
    _name: ClassVar[str]
    """Of the real class."""
    _real: ClassVar[frozenset[str]]
    """Names that it has."""

    def __init_subclass__(cls) -> None:
        base = cls.__mro__[1]
        # A class made from a double has names; what derives from such a class is code under test.
        if (real := getattr(base, "_real", None)) is not None:
            overridden = {name for name in vars(cls) if not name.startswith("_")}
            if not overridden <= real:
                raise TypeError(f"NVIDIA's {cls._name} does not call {sorted(overridden - real)}")
            cls._touch(overridden)

    @classmethod
    def _touch(cls, names: Iterable[str]) -> None:
        cls._module.record.touched |= {(cls._name, name) for name in names}

    def __getattribute__(self, name: str) -> Any:
        kind = type(self)
        if name in kind._real:
            kind._touch([name])
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self)
        is_derived = "_real" not in vars(kind)
        if not (is_derived or name.startswith("_")):
            if name not in kind._real:
                raise AttributeError(f"{kind._name} has no attribute '{name}' in this version")
            kind._touch([name])
        super().__setattr__(name, value)


class ILogger(Double):
    """To be derived from."""

    def log(self, severity: Any, msg: str) -> None:
        """Is overridden."""


class IProgressMonitor(Double):
    """To be derived from."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Is overridden."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Is overridden."""
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Is overridden."""


class IOptimizationProfile(Double):
    """Shapes of the inputs."""

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        """Keeps the smallest, optimal and largest shape."""
        self._module.record.profiles.append({name: (low, best, high)})


class ITimingCache(Double):
    """Timings as bytes."""

    _timings = b""

    def serialize(self) -> bytes:
        """Returns what was read, and one kernel more."""
        return self._timings + b"+kernel"


class IBuilderConfig(Double):
    """The settings of a build."""

    _cache: Any = None

    def set_flag(self, flag: Any) -> None:
        """Keeps the flag's name, unless it is to be ignored."""
        self._module.record.flags |= {flag.name} - self._module.answers.ignored

    def get_flag(self, flag: Any) -> bool:
        """Returns whether it was set."""
        return flag.name in self._module.record.flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """Keeps the limit, unless it is to be ignored."""
        if pool.name not in self._module.answers.ignored:
            self._module.record.pools[pool.name] = size

    def get_memory_pool_limit(self, pool: Any) -> int:
        """Returns it, or all of a GPU's memory."""
        return self._module.record.pools.get(pool.name, 1 << 33)

    def add_optimization_profile(self, profile: Any) -> int:
        """Returns its index."""
        return len(self._module.record.profiles) - 1

    def create_timing_cache(self, timings: bytes) -> Any:
        """Reads timings; NVIDIA's takes what it cannot read for none, and warns."""
        self._module.record.caches.append(timings)
        if timings:
            self._module.log(self._module.answers.cache_messages)
        return self._module.make("ITimingCache", _timings=timings)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """Returns whether the timings are this device's."""
        assert ignore_mismatch is False
        self._cache = cache
        return self._module.answers.takes_cache

    def get_timing_cache(self) -> Any:
        """Returns the timings of the build."""
        return self._cache

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        """Keeps the capability's name."""
        self._module.record.capabilities[index] = capability.name
        return True

    def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802  # NVIDIA's name
        """Returns whether the layer is none of the foreign ones."""
        return layer.name not in self._module.answers.dla_foreign


class ITensor(Double):
    """A tensor of the parsed network."""

    name = ""
    dtype: Any = None
    shape: tuple[int, ...] = ()


class ILayer(Double):
    """A layer of the parsed network."""

    name = ""
    metadata = ""
    type: Any = None
    _inputs: Sequence[Any] = ()
    _outputs: Sequence[Any] = ()

    @property
    def num_inputs(self) -> int:
        """Of its tensors."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """Of its tensors."""
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        """Returns one; None where an optional one is absent."""
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        """Returns one."""
        return self._outputs[index]


class INetworkDefinition(Double):
    """The parsed network."""

    @property
    def num_layers(self) -> int:
        """Of the parsed network."""
        return len(self._module.answers.layers)

    def get_layer(self, index: int) -> Any:
        """Returns one of them."""
        return self._module.answers.layers[index]

    def get_input(self, index: int) -> Any:
        """Returns the image."""
        assert index == 0
        return self._module.make("ITensor", name="input", shape=self._module.answers.image_shape)


class ParserError(Double):
    """One reason."""

    _text = ""

    def desc(self) -> str:
        """Returns it."""
        return self._text


class OnnxParser(Double):
    """NVIDIA's parser."""

    def __init__(self, network: Any, logger: Any) -> None:
        """Takes what it fills."""

    @property
    def num_errors(self) -> int:
        """Of the refusal."""
        return len(self._module.answers.refusals)

    def get_error(self, index: int) -> Any:
        """Returns one of them."""
        return self._module.make("ParserError", _text=self._module.answers.refusals[index])

    def parse(self, model: bytes) -> bool:
        """Keeps the model."""
        self._module.record.parsed = model
        return not self._module.answers.refusals

    def set_flag(self, flag: Any) -> None:
        """Keeps the flag's name."""
        self._module.record.parser_flags.add(flag.name)


class Builder(Double):
    """NVIDIA's builder."""

    def __init__(self, logger: Any) -> None:
        """Takes the logger, which the module keeps when it is the first of the process."""
        self._module.loggers.append(logger)

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802  # NVIDIA's name
        """Of the machine."""
        return self._module.answers.dla_cores

    def create_network(self, flags: int) -> Any:
        """Keeps the creation flags."""
        known = cast(Any, self._module).NetworkDefinitionCreationFlag
        self._module.record.creation_flags = {flag.name for flag in known if flags >> flag & 1}
        return self._module.make("INetworkDefinition")

    def create_builder_config(self) -> Any:
        """Returns an empty one."""
        return self._module.make("IBuilderConfig")

    def create_optimization_profile(self) -> Any:
        """Returns an empty one."""
        return self._module.make("IOptimizationProfile")

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        """Logs, reports its phases until the monitor stops it, and returns the plan."""
        answers, record = self._module.answers, self._module.record
        record.settings = _attributes(config)
        self._module.log(answers.messages)
        monitor: Any = record.settings.get("progress_monitor")
        for name, parent, steps in answers.phases if monitor else ():
            monitor.phase_start(name, parent, steps)
            if not all(monitor.step_complete(name, step) for step in range(steps)):
                return None
            monitor.phase_finish(name)
        return answers.plan


class IExecutionContext(Double):
    """A context, for its shapes."""

    def set_input_shape(self, name: str, shape: Any) -> bool:
        """Takes any."""
        return True


class EngineInspector(Double):
    """What an engine is made of."""

    execution_context: Any = None

    def get_engine_information(self, format_: Any) -> str:
        """Returns JSON, with more in it once there is a context."""
        assert format_.name == "JSON"
        answers, record = self._module.answers, self._module.record
        without = answers.inspected or as_requested(record.parsed or b"", record.flags)
        if self.execution_context is None:
            return without
        return answers.inspected_with_context or without


class ICudaEngine(Double):
    """An engine on the device."""

    def create_engine_inspector(self) -> Any:
        """Returns its inspector."""
        return self._module.make("EngineInspector")

    def create_execution_context(self) -> Any:
        """Returns a context."""
        return self._module.make("IExecutionContext")


class Runtime(Double):
    """What loads engines."""

    def __init__(self, logger: Any) -> None:
        """Takes the logger."""

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        """Returns the engine, or None as NVIDIA's does on failure."""
        self._module.record.runtime = _attributes(self)
        return self._module.make("ICudaEngine") if self._module.answers.loads else None


DOUBLES = {kind.__name__: kind for kind in Double.__subclasses__()}


class _Lacking:
    """In the place of a name that the version at hand does not have."""

    def __init__(self, owner: str, name: str) -> None:
        self._message = f"{owner} has no attribute '{name}' in this version"

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(self._message)

    # With a setter as well, Python asks this object before it looks at the instance's own values.
    def __set__(self, instance: object, value: object) -> None:
        raise AttributeError(self._message)


class _NoDouble:
    """In the place of a name that the version has and no double answers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise AssertionError(f"{owner.__name__}.{self._name} has no double: write one")


class FakeTensorRT(ModuleType):
    """The module of one version."""

    def __init__(self, version: str, *, lacking: Name | None = None) -> None:
        """Makes the classes and enumerations that this version has.

        Args:
            version: one of `VERSIONS`.
            lacking: a name to leave out although the version has it.
        """
        api = json.loads((API / f"{version}.json").read_text())
        super().__init__(api["module"])
        self.__version__ = api["version"]
        self.record = Record()
        self.answers = Answers()
        self.loggers: list[Any] = []
        for name, members in api["enumerations"].items():
            # NVIDIA's enumerations count from 0.
            setattr(self, name, cast(Any, IntEnum)(name, members, start=0))
        for name, members in api["classes"].items():
            if name in DOUBLES:
                real = frozenset(members)
                if lacking is not None and lacking[0] == name:
                    real -= {lacking[1]}
                setattr(self, name, self._class(name, real, api["parameters"].get(name, {})))
        cast(Any, self).ILogger.Severity = cast(Any, self).Severity

    def _class(
        self, name: str, real: frozenset[str], parameters: dict[str, Sequence[str]]
    ) -> type[Double]:
        """Returns the double with the real class's names and no others."""
        own = vars(DOUBLES[name])
        public = {key for key in own if not key.startswith("_")}
        body: dict[str, Any] = {
            **{key: _Lacking(name, key) for key in public - real},
            **{key: _NoDouble(key) for key in real - public},
            **{
                key: _with_parameters(own[key], parameters[key])
                for key in parameters
                if key in own and key in real | {"__init__"}
            },
        }
        return type(name, (DOUBLES[name],), {**body, "_module": self, "_name": name, "_real": real})

    def make(self, kind: str, /, **values: Any) -> Any:
        """Returns an object of a class, with values that no caller set."""
        double = getattr(self, kind)()
        # Past __setattr__: what the double itself keeps is not touched by the code under test.
        vars(double).update(values)
        return double

    def log(self, messages: Sequence[Message]) -> None:
        """Logs to the first logger that this process made, as NVIDIA's modules do."""
        for severity, text in messages:
            self.loggers[0].log(cast(Any, self).Severity[severity], text)

    def tensor(self, name: str, dtype: str) -> Any:
        """Returns a tensor of the parsed network, of a member of DataType."""
        return self.make("ITensor", name=name, dtype=cast(Any, self).DataType[dtype])

    def layer(self, kind: str, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Returns a layer of the parsed network, named in its metadata as NVIDIA's parser does."""
        return self.make(
            "ILayer",
            name=name,
            metadata=f"[ONNX Layer: {name}]",
            type=cast(Any, self).LayerType[kind],
            _inputs=inputs,
            _outputs=outputs,
        )


def _attributes(double: Double) -> dict[str, Any]:
    """Returns the attributes that were set on a double."""
    return {key: value for key, value in vars(double).items() if not key.startswith("_")}


def _with_parameters(method: Callable[..., Any], parameters: Sequence[str]) -> Callable[..., Any]:
    """Returns a method that takes the real one's arguments alone; a `?` ends an optional one's name."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
            *(
                inspect.Parameter(
                    name.rstrip("?"),
                    kind,
                    default=None if name.endswith("?") else inspect.Parameter.empty,
                )
                for name in parameters
            ),
        ]
    )

    @functools.wraps(method)
    def call(*given: Any, **named: Any) -> Any:
        return method(*signature.bind(*given, **named).args)

    return call


def put_in_place(
    monkeypatch: pytest.MonkeyPatch, trt: FakeTensorRT, device: CudaDevice | NoCudaDevice | None
) -> FakeTensorRT:
    """Makes `import` find the module, on a machine with this GPU; None is a machine without one."""
    monkeypatch.setitem(sys.modules, trt.__name__, trt)
    monkeypatch.setattr(builder, "has_nvidia_gpu", lambda: device is not None)
    monkeypatch.setattr(builder, "find_cuda_device", lambda: device)
    return trt


def tensorrt_8_6() -> FakeTensorRT:
    """Returns JetPack 6.0's: weakly typed networks alone."""
    return FakeTensorRT("8.6")


def tensorrt_10_3() -> FakeTensorRT:
    """Returns JetPack 6.2's: both, and the flags of both."""
    return FakeTensorRT("10.3")


def tensorrt_11() -> FakeTensorRT:
    """Returns JetPack 7.2.2's: strongly typed networks alone."""
    return FakeTensorRT("11.4")


def tensorrt_rtx() -> FakeTensorRT:
    """Returns TensorRT for RTX, which builds for a named GPU."""
    return FakeTensorRT("rtx")
