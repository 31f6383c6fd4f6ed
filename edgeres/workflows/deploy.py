"""An engine to a folder that runs it elsewhere, with the verdict on that very engine."""

from __future__ import annotations

from edgeres.core.artifacts import is_engine, load_engine
from edgeres.core.deployment import DeployInputs, Deployment, DeployRequest
from edgeres.core.verdict import evaluated_engine
from edgeres.deploy import GoldenPair, deploy, write_folder
from edgeres.deploy.folder import check_new_folder
from edgeres.errors import MismatchError
from edgeres.input_files import JSON, read_bytes
from edgeres.onnx_file import load_onnx
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
        MismatchError: the verdict is on another engine.
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
    if inputs.verdict is None:
        notes.append("No verdict goes along: pass --verdict with the JSON of bench on this engine.")
    else:
        evaluated = evaluated_engine(inputs.verdict)
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
