"""A module in the shape of `tensorrt` that records what a build asks of it.

The enumerations hold what the real bindings of each version have; a name that a version lacks
is an AttributeError here too, and so is an attribute that a real object would not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any, cast

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

INPUT = SimpleNamespace(name="input", shape=(-1, 3, 32, 32))

Message = tuple[str, str]
"""Severity and text."""


def _enumeration(name: str, members: Sequence[str]) -> Any:
    """Returns an enumeration that counts from 0, as NVIDIA's do."""
    return cast(Any, IntEnum)(name, members, start=0)


class FakeLogger:
    """`ILogger`, to be derived from."""

    Severity = _enumeration("Severity", SEVERITIES)


@dataclass(slots=True)
class FakeProfile:
    """`IOptimizationProfile`."""

    shapes: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def set_shape(self, name: str, *shapes: Any) -> None:
        """Keeps the smallest, optimal and largest shape."""
        self.shapes[name] = shapes


@dataclass(slots=True)
class FakeConfig:
    """`IBuilderConfig` of a TensorRT that builds for its own GPU."""

    profiling_verbosity: Any = None
    flags: set[str] = field(default_factory=set)
    profiles: list[FakeProfile] = field(default_factory=list)

    def set_flag(self, flag: Any) -> None:
        """Keeps the flag's name."""
        self.flags.add(flag.name)

    def add_optimization_profile(self, profile: FakeProfile) -> None:
        """Keeps the profile."""
        self.profiles.append(profile)


@dataclass(slots=True)
class FakeRtxConfig(FakeConfig):
    """`IBuilderConfig` of TensorRT for RTX."""

    num_compute_capabilities: int = 0
    capabilities: dict[int, str] = field(default_factory=dict)

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        """Keeps the capability's name."""
        self.capabilities[index] = capability.name
        return True


class FakeTensorRT(ModuleType):
    """The module, with what was asked of it."""

    def __init__(
        self,
        version: str,
        creation_flags: Sequence[str],
        builder_flags: Sequence[str] = ("TF32",),
        capabilities: Sequence[str] = (),
    ) -> None:
        """Takes the names that this version has.

        Args:
            version: as `__version__` says it.
            creation_flags: of NetworkDefinitionCreationFlag, from value 0 on.
            builder_flags: of BuilderFlag.
            capabilities: of ComputeCapability; with any, this is TensorRT for RTX.
        """
        super().__init__("tensorrt_rtx" if capabilities else "tensorrt")
        self.__version__ = version
        self.NetworkDefinitionCreationFlag = _enumeration("CreationFlag", creation_flags)
        self.BuilderFlag = _enumeration("BuilderFlag", builder_flags)
        self.ProfilingVerbosity = _enumeration("Verbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
        if capabilities:
            self.ComputeCapability = _enumeration("ComputeCapability", capabilities)
        self.ILogger = FakeLogger
        self.config = FakeRtxConfig() if capabilities else FakeConfig()
        self.plan: bytes | None = b"plan"
        self.refusals: Sequence[str] = ()
        self.messages: Sequence[Message] = ()
        self.mask: int | None = None
        self.parsed: bytes | None = None

    def Builder(self, logger: Any) -> Any:  # noqa: N802  # the name in NVIDIA's module
        """Returns a `Builder`."""
        return SimpleNamespace(
            logger=logger,
            create_network=self._create_network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=FakeProfile,
            build_serialized_network=lambda _, config: self._build(logger, config),
        )

    def OnnxParser(self, _network: Any, _logger: Any) -> Any:  # noqa: N802  # as above
        """Returns an `OnnxParser`."""
        return SimpleNamespace(
            parse=self._parse,
            num_errors=len(self.refusals),
            get_error=lambda index: SimpleNamespace(desc=lambda: self.refusals[index]),
        )

    def _create_network(self, mask: int) -> Any:
        self.mask = mask
        return SimpleNamespace(get_input=lambda index: (INPUT,)[index])

    def _parse(self, model: bytes) -> bool:
        self.parsed = model
        return not self.refusals

    def _build(self, logger: Any, config: Any) -> bytes | None:
        assert config is self.config
        for severity, text in self.messages:
            logger.log(FakeLogger.Severity[severity], text)
        return self.plan


def tensorrt_8_6() -> FakeTensorRT:
    """Returns JetPack 6.0's: weakly typed networks alone."""
    return FakeTensorRT("8.6.2", ["EXPLICIT_BATCH"], ["FP16", "INT8", "TF32"])


def tensorrt_10_3() -> FakeTensorRT:
    """Returns JetPack 6.2's: both, and the flags of both."""
    return FakeTensorRT("10.3.0", ["EXPLICIT_BATCH", "STRONGLY_TYPED"], ["FP16", "INT8", "TF32"])


def tensorrt_11() -> FakeTensorRT:
    """Returns JetPack 7.2.2's: strongly typed networks alone."""
    return FakeTensorRT("11.4.0", ["STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS"])


def tensorrt_rtx() -> FakeTensorRT:
    """Returns TensorRT for RTX, which builds for a named GPU."""
    known = ["NONE", "CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121"]
    return FakeTensorRT("1.7.1", ["STRONGLY_TYPED"], capabilities=known)
