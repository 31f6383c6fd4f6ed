"""Anyone's engine: with a manifest of edgeres, an ONNX file of any tool, or a plan that is vouched for.

What a manifest would have is read from the file where its format shows it, and taken from a
reference or from options where it does not. Stages above see an `EngineArtifact` in each case.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeres.batch_independence import QUANTIZED_TOLERANCE
from edgeres.core.artifacts import (
    FOREIGN,
    TRUSTED,
    EngineArtifact,
    Manifest,
    OnnxArtifact,
    TensorSpec,
    contract_of,
    is_engine,
    load_engine,
)
from edgeres.core.contract import Contract
from edgeres.core.contract_options import NO_OPTIONS, ContractOptions
from edgeres.errors import ConfigError
from edgeres.input_files import ENGINE, exists, read_bytes
from edgeres.normalization import normalize
from edgeres.onnx_file import load_onnx
from edgeres.targets.base import cpu_target, targets
from edgeres.version import __version__

ONNX_SUFFIX = ".onnx"
"""Ending of an ONNX file's name, which needs no manifest to be run: it is a graph and no code."""


def load_any_engine(
    path: Path,
    *,
    reference: OnnxArtifact | Manifest | None = None,
    options: ContractOptions = NO_OPTIONS,
    trust: bool = False,
) -> EngineArtifact:
    """Reads an engine, whoever made it.

    Args:
        path: an engine with its manifest, an ONNX file, or a plan.
        reference: what lends its preprocessing and class names to a file that carries none.
        options: preprocessing of a file that carries none.
        trust: whether a plan without a manifest is run.

    Raises:
        ConfigError: the preprocessing is unknown or given twice, or an ONNX file is to be trusted.
        ArtifactError: the file cannot be read, does not match its manifest, is no classifier, or
            is a plan without a manifest that is not to be trusted.
    """
    if path.suffix == ONNX_SUFFIX and exists(path, ENGINE) and not is_engine(path):
        if trust:
            raise ConfigError(
                f"--trust is for TensorRT plans, and {path} is an ONNX file, which is run without. "
                "Leave --trust out."
            )
        return _onnx_engine(path, reference, options)
    if trust and not is_engine(path):
        return _trusted_plan(path, reference, options)
    engine = load_engine(path)
    # A contract in the manifest cannot be overruled; bench has refused options for a reference
    # that carries one, and passes those for one that does not.
    if reference is None and not options.empty:
        raise ConfigError(
            f"{path} carries its own preprocessing contract ({engine.manifest.contract}). Leave "
            "the preprocessing options out, or build the engine from a model with another one."
        )
    return engine


def batch_tolerance(manifest: Manifest) -> float | None:
    """Returns how far an image's logits in a batch may be from those alone.

    A fraction of their spread, for `check_batch_independence`. None for an engine that edgeres built: its model was checked.
    """
    return QUANTIZED_TOLERANCE if {FOREIGN, TRUSTED}.intersection(manifest.flags) else None


def _onnx_engine(
    path: Path, reference: OnnxArtifact | Manifest | None, options: ContractOptions
) -> EngineArtifact:
    """Returns an ONNX file as an engine of the CPU, with what its graph shows."""
    model, target = load_onnx(path), cpu_target()
    artifact = model.artifact
    # A reference that carries a contract is never described by options too.
    known = None if reference is None else reference.contract
    contract = contract_of(artifact, options, known)
    # Its operators are what is evaluated; a fixed batch and channels last are no part of that.
    model = normalize(model, contract, operators=False)
    artifact = model.artifact
    layers, precision = target.precisions_of(model)
    manifest = Manifest(
        target=target.name,
        precision=precision,
        engine_sha256=artifact.sha256,
        model_sha256=_model_sha256(reference) or artifact.sha256,
        table_sha256=None,
        method=None,
        edgeres_version=__version__,
        versions={},
        gpu=None,
        compute_capability=None,
        flags=(FOREIGN,),
        contract=contract,
        classes=artifact.classes or (() if reference is None else reference.classes),
        input=artifact.input,
        output=artifact.output,
        activation=artifact.activation,
        layers=layers,
    )
    return EngineArtifact(path=path, manifest=manifest, content=model.content)


def _trusted_plan(
    path: Path, reference: OnnxArtifact | Manifest | None, options: ContractOptions
) -> EngineArtifact:
    """Returns a plan that has no manifest, on the user's word."""
    content = read_bytes(path, ENGINE)
    # TensorRT's plans and those of TensorRT for RTX are distinguished by their first bytes.
    target = next(target for target in targets().values() if target.recognizes(content))
    sha256 = hashlib.sha256(content).hexdigest()
    contract = _plan_contract(path, reference, options)
    # The plan's own bindings are read where it is opened; a reference has them already.
    image = TensorSpec(name="images", shape=(None, *contract.shape))
    manifest = Manifest(
        target=target.name,
        precision=None,
        engine_sha256=sha256,
        model_sha256=_model_sha256(reference) or sha256,
        table_sha256=None,
        method=None,
        edgeres_version=__version__,
        # A plan's own header names versions and GPU, but its layout is undocumented.
        versions={},
        gpu=None,
        compute_capability=None,
        flags=(TRUSTED,),
        contract=contract,
        classes=() if reference is None else reference.classes,
        input=image if reference is None else reference.input,
        output=TensorSpec(name="logits", shape=(None, None))
        if reference is None
        else reference.output,
        activation="" if reference is None else reference.activation,
    )
    return EngineArtifact(path=path, manifest=manifest, content=content)


def _plan_contract(
    path: Path, reference: OnnxArtifact | Manifest | None, options: ContractOptions
) -> Contract:
    if isinstance(reference, OnnxArtifact):
        return contract_of(reference, options)
    if reference is not None:
        return reference.contract
    if options.preset is None:
        raise ConfigError(
            f"{path} has no manifest, so its preprocessing is not known. Pass the ONNX model that "
            "it was built from with --reference, or describe how images are prepared with --preset "
            "and the options beside it."
        )
    return options.resolve(options.preset)


def _model_sha256(reference: OnnxArtifact | Manifest | None) -> str | None:
    if reference is None:
        return None
    return reference.sha256 if isinstance(reference, OnnxArtifact) else reference.model_sha256
