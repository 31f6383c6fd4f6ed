"""What a target is, and which there are.

A target is a runtime that engines are built for. What is known of one stands in its folder beside
this file; everything above asks a `Target` and never compares names. A folder joins by itself:
its `__init__` has `TARGETS`, the targets that it brings, and loads nothing heavy.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import edgeres.targets
from edgeres.core.bench_requests import Timing
from edgeres.core.precision import Precision
from edgeres.errors import ArtifactError, ConfigError
from edgeres.machine.machine import has_nvidia_gpu
from edgeres.names import nearest
from edgeres.progress import Progress, silent

if TYPE_CHECKING:
    import onnx

    from edgeres.core.artifacts import EngineArtifact, LayerPrecision, Manifest
    from edgeres.core.audit import Audit
    from edgeres.core.contract import Contract
    from edgeres.core.methods import Method
    from edgeres.core.requests import BuildRequest
    from edgeres.core.table import CalibrationTable
    from edgeres.onnx_file import LoadedModel, LoweredNetwork
    from edgeres.quantization.lowering import Lowering, Mix
    from edgeres.targets.runner import Runner


@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """A runtime that engines are built for and run on."""

    name: str
    """As `--target` and the manifests have it."""
    suffix: str
    """Usual ending of its engines' names, such as `.plan`."""
    precisions: tuple[Precision, ...]
    """Precisions that engines can be built in."""
    timings: tuple[Timing, ...]
    """What a latency sample can cover."""
    uses_gpu: bool
    takes_profile: bool
    """Whether a builder fixes the batch sizes, here or later, and takes what stays float in an INT8
    engine in FP16 or FP32."""
    is_timed: bool = True
    """Whether its engines are run as they will be; else accuracy alone is evaluated."""
    evaluates_references: bool = False
    """Whether FP32 references and simulations are evaluated on it: one target does."""
    triton_platform: str | None = None
    """Triton's name of the backend that serves its engines; None where there is none."""
    program_imports: tuple[str, ...] = ()
    """What a Python program imports to run its engines."""
    program_requirements: tuple[str, ...] = ()
    """Packages that such a program needs."""
    is_simulated: bool = False
    """Whether `bench --simulate` stands for its placement: one target's does."""

    @abstractmethod
    def is_installed(self) -> bool:
        """Returns whether the package that builds for it is there, without loading it."""

    def obstacle(self) -> str | None:
        """Returns why its engines cannot be built and run on this machine; None where they can."""
        if not self.is_installed():
            return f"{self.name} is not installed here"
        if self.uses_gpu and not has_nvidia_gpu():
            return f"{self.name} needs an NVIDIA GPU, and this machine shows none"
        return None

    @abstractmethod
    def check_request(self, request: BuildRequest) -> None:
        """Checks that the target can serve a request, whatever the network.

        Raises:
            ConfigError: a precision or an option that it does not have.
        """

    def check_builder(self) -> None:  # noqa: B027  # most targets need nothing else
        """Checks that what builds for it is installed, before minutes of work for it.

        Raises:
            DependencyError: it is not.
        """

    def float_branches(self, engine: EngineArtifact) -> Mapping[str, tuple[str, ...]]:
        """Returns, by the name of each residual addition, its inputs without Q/DQ.

        Empty where the engine does not show them.

        Raises:
            ArtifactError: the engine is not what its manifest calls it.
        """
        return {}

    @abstractmethod
    def lowering(self) -> Lowering:
        """Returns how networks are quantized for it; targets may share one."""

    @abstractmethod
    def lower(
        self,
        model: LoadedModel,
        request: BuildRequest,
        table: CalibrationTable | None,
        method: Method | None,
        mix: Mix,
    ) -> LoweredNetwork:
        """Returns the network in the requested precision, ready to be built.

        Args:
            model: the FP32 model.
            request: precision and float type.
            table: thresholds, for INT8; with FP16 they show what would overflow.
            method: which of its thresholds; None takes the table's own.
            mix: operators to keep from INT8.

        Raises:
            QuantizationError: the network cannot be lowered, or a value overflows FP16.
            ArtifactError: the table lacks a tensor, or its recovery does not fit the network.
            DependencyError: the target's package is not installed.
        """

    @abstractmethod
    def build(
        self,
        network: LoweredNetwork,
        request: BuildRequest,
        contract: Contract,
        *,
        output: Path,
        progress: Progress = silent,
    ) -> EngineArtifact:
        """Builds an engine and writes it with its manifest.

        Args:
            network: lowered by this target.
            request: precision, profile and options.
            contract: preprocessing that the engine expects.
            output: the engine file; its manifest is `output` with `.json` added.
            progress: receives how far a long build is.

        Raises:
            BuildError: the target refused the network.
            CoverageError: it runs layers in another precision than requested.
            ConfigError: the target lacks what was requested.
            MismatchError: the timing cache is another GPU's or version's.
            DependencyError: the target's package is not installed.
            ArtifactError: the files cannot be written.
        """

    def simulated(
        self, model: onnx.ModelProto, non_negative: Set[str] = frozenset()
    ) -> onnx.ModelProto:
        """Returns a network of Q/DQ pairs in the form that this target computes fastest.

        Args:
            model: lowered for another target, with what this one has no kernels for; all of a
                network or a part of one.
            non_negative: tensors that are never negative, beside those that this shows of `model`.
        """
        return model

    @abstractmethod
    def audit(self, engine: EngineArtifact) -> Audit | None:
        """Returns what an engine runs in which precision; None where nothing is known of it.

        Raises:
            RunnerError: the runtime refused it.
        """

    @abstractmethod
    def open(self, engine: EngineArtifact) -> Runner:
        """Returns the runner of an engine, not yet open.

        Raises:
            MismatchError: this machine cannot run it.
        """

    def timed_reference(
        self,
        model: LoadedModel,
        contract: Contract,
        *,
        batch: int,
        progress: Progress = silent,
    ) -> Runner | None:
        """Returns the FP32 model on this target, so that latencies of like are compared.

        Args:
            model: the reference.
            contract: its preprocessing.
            batch: images per inference that it is timed with.
            progress: receives how far a long build is.

        Returns:
            None where the runner that accuracy was evaluated with is on this target already.

        Raises:
            DependencyError: the target's package is not installed.
            BuildError: no GPU, or the builder refused.
            ArtifactError: the cache folder cannot be written.
        """
        return None

    def recognizes(self, engine: bytes) -> bool:
        """Returns whether an engine without a manifest is one of this target's."""
        return False

    def precisions_of(self, model: LoadedModel) -> tuple[tuple[LayerPrecision, ...], Precision]:
        """Returns what each layer of an ONNX file of another tool is to run in, and the file.

        Only the target that runs ONNX files as they are can answer.
        """
        raise NotImplementedError(f"{self.name} runs no ONNX files")

    def audit_model(
        self, model: bytes, layers: tuple[LayerPrecision, ...], precision: Precision
    ) -> Audit:
        """Returns what an ONNX file of another tool runs in which precision.

        Args:
            model: the file's bytes.
            layers: of `precisions_of`.
            precision: the file's.

        Raises:
            RunnerError: the runtime refused it.
        """
        raise NotImplementedError(f"{self.name} runs no ONNX files")

    def portable_request(self) -> BuildRequest | None:
        """Returns a request for an INT8 engine that this machine can build; None without one."""
        return None


@functools.cache
def targets() -> Mapping[str, Target]:
    """Returns every target by its name, in the order of the folders."""
    folders = [info.name for info in pkgutil.iter_modules(edgeres.targets.__path__) if info.ispkg]
    modules = (importlib.import_module(f"edgeres.targets.{name}") for name in folders)
    return {target.name: target for module in modules for target in module.TARGETS}


def find_target(name: str) -> Target:
    """Returns the target of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in targets():
        raise ConfigError(
            f"No target '{name}'.{nearest(name, targets())} Available: {', '.join(targets())}."
        )
    return targets()[name]


def target_of(manifest: Manifest) -> Target:
    """Returns the target that an engine was built for.

    Raises:
        ArtifactError: this edgeres does not know it.
    """
    if manifest.target not in targets():
        raise ArtifactError(
            f"The engine was built for the target '{manifest.target}' by edgeres "
            f"{manifest.edgeres_version}; this one has {', '.join(targets())}. Use that version, "
            "or build the engine again."
        )
    return targets()[manifest.target]


def cpu_target() -> Target:
    """Returns the target that runs on every machine, and on which references are evaluated."""
    return next(target for target in targets().values() if target.evaluates_references)


def simulated_target() -> Target:
    """Returns the target whose placement a simulation on the CPU stands for."""
    return next(target for target in targets().values() if target.is_simulated)


def lowerings() -> tuple[Lowering, ...]:
    """Returns the ways in which networks are lowered, each once."""
    unique = dict.fromkeys(target.lowering() for target in targets().values())
    # Tables list the measured one first, in whatever order the folders come.
    return tuple(sorted(unique, key=lambda lowering: not lowering.has_cpu_kernels))


def build_engine(
    network: LoweredNetwork,
    request: BuildRequest,
    contract: Contract,
    *,
    output: Path,
    progress: Progress = silent,
) -> EngineArtifact:
    """Builds an engine by the target that the request names; see `Target.build`."""
    target = find_target(request.target)
    target.check_request(request)
    return target.build(network, request, contract, output=output, progress=progress)


def engine_runner(engine: EngineArtifact) -> Runner:
    """Returns the runner of an engine, not yet open; see `Target.open`."""
    return target_of(engine.manifest).open(engine)
