"""An engine to a folder that runs it elsewhere, with the verdict on that very engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeres.core.artifacts import EngineArtifact, is_engine, load_engine
from edgeres.core.deployment import DeployInputs, Deployment, DeployRequest
from edgeres.core.verdict import load_verdict
from edgeres.deploy import GoldenPair, deploy, write_folder
from edgeres.deploy.deepstream import approximated
from edgeres.deploy.folder import check_new_folder
from edgeres.errors import ConfigError, MismatchError
from edgeres.input_files import JSON, read_bytes
from edgeres.onnx_file import load_onnx
from edgeres.plurals import counted
from edgeres.targets.loading import load_any_engine

VERDICT = "verdict.json"


def deploy_engine(inputs: DeployInputs, request: DeployRequest) -> Deployment:
    """Writes a folder that runs an engine elsewhere, whole or not at all.

    Args:
        inputs: engine, folder, and what goes along.
        request: where to, and how.

    Raises:
        ConfigError: the destination cannot express the preprocessing or serve the engine, its
            preprocessing is not known, or the folder has files.
        MismatchError: the verdict is on another engine, or on other preprocessing.
        ArtifactError: a file cannot be read or written.
        DataError: the image of the golden pair cannot be decoded.
        RunnerError: inference failed.
    """
    check_new_folder(inputs.output)
    lender = None
    if (path := inputs.reference) is not None:
        lender = load_engine(path).manifest if is_engine(path) else load_onnx(path).artifact
    engine = load_any_engine(inputs.engine, reference=lender, options=inputs.contract)
    sha256 = engine.manifest.engine_sha256
    more: dict[str, bytes] = {}
    notes: list[str] = []
    if request.approximate:
        engine, note = _approximation(engine, inputs.verdict)
        notes.append(note)
    if inputs.verdict is None:
        notes.append("No verdict goes along: pass --verdict with the JSON of bench on this engine.")
    else:
        evaluated = load_verdict(inputs.verdict).provenance.engine.sha256
        if evaluated != sha256:
            raise MismatchError(
                f"{inputs.verdict} is the verdict on an engine with sha256 {evaluated[:12]}, and "
                f"{inputs.engine} has {sha256[:12]}. Run bench on this one."
            )
        more[VERDICT] = read_bytes(inputs.verdict, JSON)
    files, golden = deploy(engine, request, inputs.image)
    if not isinstance(golden, GoldenPair):
        notes.append(golden)
    files = {**files, **more}
    write_folder(inputs.output, files)
    return Deployment(
        destination=request.destination,
        folder=str(inputs.output),
        engine_sha256=sha256,
        files=tuple(sorted(files)),
        golden=tuple(one.index for one in golden.top) if isinstance(golden, GoldenPair) else (),
        notes=tuple(notes),
    )


def _approximation(engine: EngineArtifact, verdict: Path | None) -> tuple[EngineArtifact, str]:
    """Returns an engine with nvinfer's nearest to its preprocessing, and what that costs."""
    contract = engine.manifest.contract
    nearest = approximated(contract)
    if nearest == contract:
        raise ConfigError(
            f"DeepStream prepares images as {engine.path} takes them: nothing is approximated. Leave "
            "--approximate out."
        )
    measure = f"edgeres bench {engine.path} --as deepstream --json ... > verdict.json"
    if verdict is None:
        raise ConfigError(
            f"--approximate prepares images otherwise than {engine.path} was evaluated with: "
            f"{nearest}, where its contract is {contract}. What that costs has to be measured: run "
            f"{measure} and pass --verdict verdict.json."
        )
    saved = load_verdict(verdict)
    emulated = saved.provenance.emulated
    if emulated is None or emulated.contract != nearest:
        measured = "by its contract" if emulated is None else f"as {emulated.contract}"
        raise MismatchError(
            f"{verdict} was measured on images prepared {measured}, and nvinfer would prepare them "
            f"as {nearest}: the cost of that is not known. Run {measure}."
        )
    note = (
        f"Images are prepared approximately: {nearest}, where the contract is {contract}. With "
        f"this the drop of top-1 is {saved.accuracy.drop_pp:.2f} pp on "
        f"{counted(saved.accuracy.samples, 'image')} ({saved.outcome or 'no outcome'}), emulated "
        "on the CPU."
    )
    manifest = replace(engine.manifest, contract=nearest)
    return replace(engine, manifest=manifest), note
