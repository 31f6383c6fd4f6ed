"""Modules in the shape of NVIDIA's, made from what the real bindings of each version have.

`api/*.json` lists the public names and parameters of the real classes. A name that a version
lacks is an AttributeError here too, a wrong argument a TypeError, and every name that is touched
is recorded. What the classes do is only as much as a build needs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from inspected import as_asked

API = Path(__file__).parent / "api"

VERSIONS = ("8.6", "10.3", "10.16", "11.4", "rtx")
"""Versions whose names are known, by the name of their file."""

SHAPE = (-1, 3, 32, 32)

Message = tuple[str, str]
"""Severity and text."""


@dataclass(slots=True)
class Record:
    """What a build asked of a module, and what the module is to answer."""

    touched: set[tuple[str, str]] = field(default_factory=set)
    """Class and name of everything that was read, set or called."""
    lacking: str = ""
    """A name that no class has, although the version does."""
    flags: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    """Attributes of IBuilderConfig that were set."""
    pools: dict[str, int] = field(default_factory=dict)
    profiles: list[dict[str, tuple[Any, ...]]] = field(default_factory=list)
    capabilities: dict[int, str] = field(default_factory=dict)
    parser_flags: set[str] = field(default_factory=set)
    caches: list[bytes] = field(default_factory=list)
    """Serialised timing caches that were read."""
    creation_flags: set[str] | None = None
    """None until a network was made."""
    parsed: bytes | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    plan: bytes | None = b"plan"
    refusals: Sequence[str] = ()
    messages: Sequence[Message] = ()
    """What the builder logs."""
    cache_messages: Sequence[Message] = ()
    """What reading a timing cache logs."""
    takes_cache: bool = True
    ignored: frozenset[str] = frozenset()
    """Setters that do nothing, as NVIDIA's do with what they do not take."""
    image_shape: tuple[int, ...] = SHAPE
    phases: Sequence[tuple[str, str | None, int]] = ()
    """Phases of the build that the progress monitor hears of: name, parent, steps."""
    dla_cores: int = 0
    dla_foreign: frozenset[str] = frozenset()
    """Layers that the DLA cannot run."""
    layers: Sequence[Any] = ()
    """The parsed network's layers; `FakeTensorRT.layer` makes one."""
    inspected: str | None = None
    """The engine inspector's JSON; None makes one whose layers are what was asked for."""
    inspected_with_context: str | None = None
    loads: bool = True


class _Lacking:
    """A name that the version at hand does not have."""

    def __init__(self, owner: str, name: str) -> None:
        self._said = f"{owner} has no attribute '{name}' in this version"

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError(self._said)


class _Unused:
    """A name that the version has and no double answers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise AssertionError(f"{owner.__name__}.{self._name} has no double: write one")


class Double:
    """An object of NVIDIA's; only names of its real class can be read or set."""

    _record: Record
    _real: frozenset[str]

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            own = object.__getattribute__(self, "_record")
            own.touched.add((type(self).__name__, name))
            if name == own.lacking:
                raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and type(self).__name__ not in {"Logger", "Monitor"}:
            if name not in self._real or name == self._record.lacking:
                raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
            self._record.touched.add((type(self).__name__, name))
        object.__setattr__(self, name, value)


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
        self._record.profiles.append({name: (low, best, high)})


class ITimingCache(Double):
    """Timings as bytes."""

    _timings = b""

    def serialize(self) -> bytes:
        """Returns what was read, and one kernel more."""
        return self._timings + b"+kernel"


class IBuilderConfig(Double):
    """The settings of a build."""

    def set_flag(self, flag: Any) -> None:
        """Keeps the flag's name, unless it is to be ignored."""
        if flag.name not in self._record.ignored:
            self._record.flags.add(flag.name)

    def get_flag(self, flag: Any) -> bool:
        """Returns whether it was set."""
        return flag.name in self._record.flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """Keeps the limit, unless it is to be ignored."""
        if pool.name not in self._record.ignored:
            self._record.pools[pool.name] = size

    def get_memory_pool_limit(self, pool: Any) -> int:
        """Returns it, or all of a GPU's memory."""
        return self._record.pools.get(pool.name, 1 << 33)

    def add_optimization_profile(self, profile: Any) -> int:
        """Returns its index."""
        return len(self._record.profiles) - 1

    def create_timing_cache(self, timings: bytes) -> Any:
        """Reads timings; NVIDIA's takes what it cannot read for none, and warns."""
        self._record.caches.append(timings)
        if timings:
            self._say(self._record.cache_messages)
        cache = self._make("ITimingCache")
        return _filled(cache, _timings=timings)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """Returns whether the timings are this device's."""
        assert ignore_mismatch is False
        object.__setattr__(self, "_cache", cache)
        return self._record.takes_cache

    def get_timing_cache(self) -> Any:
        """Returns the timings of the build."""
        return self._cache

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        """Keeps the capability's name."""
        self._record.capabilities[index] = capability.name
        return True

    def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802  # NVIDIA's name
        """Returns whether the layer is none of the foreign ones."""
        return layer.name not in self._record.dla_foreign

    _cache: Any = None
    _make: Callable[[str], Any]
    _say: Callable[[Sequence[Message]], None]


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
        return len(self._record.layers)

    def get_layer(self, index: int) -> Any:
        """Returns one of them."""
        return self._record.layers[index]

    def get_input(self, index: int) -> Any:
        """Returns the image."""
        assert index == 0
        return _filled(self._make("ITensor"), name="input", shape=self._record.image_shape)

    _make: Callable[[str], Any]


class ParserError(Double):
    """One reason."""

    _text = ""

    def desc(self) -> str:
        """Returns it."""
        return self._text


class OnnxParser(Double):
    """NVIDIA's parser."""

    _make: Callable[[str], Any]

    @property
    def num_errors(self) -> int:
        """Of the refusal."""
        return len(self._record.refusals)

    def get_error(self, index: int) -> Any:
        """Returns one of them."""
        error = self._make("ParserError")
        return _filled(error, _text=self._record.refusals[index])

    def parse(self, model: bytes) -> bool:
        """Keeps the model."""
        self._record.parsed = model
        return not self._record.refusals

    def set_flag(self, flag: Any) -> None:
        """Keeps the flag's name."""
        self._record.parser_flags.add(flag.name)


class Builder(Double):
    """NVIDIA's builder."""

    _make: Callable[[str], Any]
    _creation: Callable[[int], set[str]]
    _say: Callable[[Sequence[Message]], None]

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802  # NVIDIA's name
        """Of the machine."""
        return self._record.dla_cores

    def create_network(self, flags: int) -> Any:
        """Keeps the creation flags."""
        self._record.creation_flags = self._creation(flags)
        return self._make("INetworkDefinition")

    def create_builder_config(self) -> Any:
        """Returns an empty one."""
        return self._make("IBuilderConfig")

    def create_optimization_profile(self) -> Any:
        """Returns an empty one."""
        return self._make("IOptimizationProfile")

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        """Logs, tells its progress until it is stopped, and returns the plan."""
        self._record.settings = {k: v for k, v in vars(config).items() if not k.startswith("_")}
        self._say(self._record.messages)
        watched: Any = self._record.settings.get("progress_monitor")
        for name, parent, steps in self._record.phases:
            watched.phase_start(name, parent, steps)
            if not all(watched.step_complete(name, step) for step in range(steps)):
                return None
            watched.phase_finish(name)
        return self._record.plan


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
        record = self._record
        known = record.inspected or as_asked(record.parsed or b"", record.flags)
        if self.execution_context is None:
            return known
        return record.inspected_with_context or known


class ICudaEngine(Double):
    """An engine on the device."""

    _make: Callable[[str], Any]

    def create_engine_inspector(self) -> Any:
        """Returns its inspector."""
        return self._make("EngineInspector")

    def create_execution_context(self) -> Any:
        """Returns a context."""
        return self._make("IExecutionContext")


class Runtime(Double):
    """What loads engines."""

    _make: Callable[[str], Any]

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        """Returns the engine, or None as NVIDIA's does on failure."""
        own = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        self._record.runtime = own
        return self._make("ICudaEngine") if self._record.loads else None


DOUBLES: Mapping[str, type[Double]] = {
    kind.__name__: kind
    for kind in (
        Builder,
        EngineInspector,
        IBuilderConfig,
        ICudaEngine,
        IExecutionContext,
        ILayer,
        ILogger,
        INetworkDefinition,
        IOptimizationProfile,
        IProgressMonitor,
        ITensor,
        ITimingCache,
        OnnxParser,
        ParserError,
        Runtime,
    )
}


def _filled(double: Any, **values: Any) -> Any:
    """Returns a double with values that nobody set on it."""
    for name, value in values.items():
        object.__setattr__(double, name, value)
    return double


def _enumeration(name: str, members: Sequence[str]) -> Any:
    """Returns an enumeration that counts from 0, as NVIDIA's do."""
    return cast(Any, IntEnum)(name, members, start=0)


def _checked(method: Any, name: str, parameters: Sequence[str]) -> Any:
    """Returns a method that takes the real one's arguments alone."""
    least = sum(not parameter.endswith("?") for parameter in parameters)
    known = {parameter.rstrip("?") for parameter in parameters}

    @functools.wraps(method)
    def call(self: Any, *given: Any, **named: Any) -> Any:
        count = len(given) + len(named)
        if not (set(named) <= known and least <= count <= len(parameters)):
            raise TypeError(f"{name} takes {list(parameters)}, not {count} and {list(named)}")
        return method(self, *given, *named.values())

    return call


class FakeTensorRT(ModuleType):
    """The module of one version, with what was asked of it in `record`."""

    def __init__(self, version: str) -> None:
        """Takes the names that this version has, one of `VERSIONS`."""
        api = json.loads((API / f"{version}.json").read_text())
        super().__init__(api["module"])
        self.record = Record()
        self.__version__ = api["version"]
        self._heard: list[Any] = []
        for name, members in api["enumerations"].items():
            setattr(self, name, _enumeration(name, members))
        self._classes = {
            name: self._class(name, members, api["parameters"].get(name, {}))
            for name, members in api["classes"].items()
            if name in DOUBLES
        }
        for name in self._classes:
            setattr(self, name, self._entry(name))
        self._classes["ILogger"].Severity = self.Severity

    def _class(
        self, name: str, members: Sequence[str], parameters: Mapping[str, Sequence[str]]
    ) -> Any:
        """Returns a double that has the real class's names and no others."""
        own = {key for key in vars(DOUBLES[name]) if not key.startswith("_")}
        body: dict[str, Any] = {key: _Lacking(name, key) for key in own - set(members)}
        body |= {key: _Unused(key) for key in set(members) - own}
        body |= {
            key: _checked(vars(DOUBLES[name])[key], key, parameters[key])
            for key in own & set(members) & set(parameters)
        }
        more = {
            "_record": self.record,
            "_real": frozenset(members),
            "_make": staticmethod(self._make),
            "_say": staticmethod(self._say),
            "_creation": staticmethod(self._creation),
        }
        return type(name, (DOUBLES[name],), body | more)

    def _entry(self, name: str) -> Any:
        """Returns what `trt.Name` is: a class, or for these three the call that makes one."""
        if name == "Builder":
            return self._builder
        if name in {"OnnxParser", "Runtime"}:
            return lambda *given: self._made_for(name, given)
        return self._classes[name]

    def _builder(self, logger: Any) -> Any:
        self._heard.append(logger)
        return self._make("Builder")

    def _made_for(self, name: str, given: tuple[Any, ...]) -> Any:
        assert len(given) == {"OnnxParser": 2, "Runtime": 1}[name]
        return self._make(name)

    def tensor(self, name: str, dtype: str) -> Any:
        """Returns a tensor of the parsed network, of a member of DataType."""
        return _filled(self._make("ITensor"), name=name, dtype=cast(Any, self).DataType[dtype])

    def layer(self, kind: str, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """Returns a layer of the parsed network, named in its metadata as NVIDIA's parser does."""
        return _filled(
            self._make("ILayer"),
            name=name,
            metadata=f"[ONNX Layer: {name}]",
            type=cast(Any, self).LayerType[kind],
            _inputs=inputs,
            _outputs=outputs,
        )

    def _make(self, name: str) -> Any:
        return self._classes[name]()

    def _creation(self, mask: int) -> set[str]:
        flags = cast(Any, self).NetworkDefinitionCreationFlag
        return {flag.name for flag in flags if mask >> flag & 1}

    def _say(self, messages: Sequence[Message]) -> None:
        """Logs to the first logger that this process made, as NVIDIA's modules do."""
        for severity, text in messages:
            self._heard[0].log(cast(Any, self).Severity[severity], text)


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
