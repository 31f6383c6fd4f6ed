"""Triton's repository: parsed with its own schema, compared with the engine, and mistakes caught."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from commands import passed, refusal
from digits import Digits

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.deployment import DeployRequest, Destination
from edgeres.deploy.folder import write_folder
from edgeres.deploy.triton import model_name, triton_files
from edgeres.errors import ConfigError

TRITON = DeployRequest(destination=Destination.TRITON)
TENSORS = replace(TRITON, tensors=True)
NAMES = tuple(f"class {index}" for index in range(10))


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's own message of a model's configuration, and what parses its text."""
    try:
        file = distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    except PackageNotFoundError:
        pytest.skip("tritonclient, whose schema reads a configuration, is not installed")
    # By its path: the package around it would load grpc.
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    from google.protobuf import text_format

    return lambda text: text_format.Parse(text, module.ModelConfig())


@pytest.fixture
def cpu(digits: Digits) -> EngineArtifact:
    """The digits' INT8 engine with class names."""
    engine = load_engine(digits.engine)
    return replace(engine, manifest=replace(engine.manifest, classes=NAMES))


@pytest.fixture
def plan(cpu: EngineArtifact) -> EngineArtifact:
    """The same as a plan for batches of 1 to 16."""
    manifest = replace(cpu.manifest, target="tensorrt", batch=(1, 8, 16))
    return replace(cpu, manifest=manifest, path=Path("digits.int8.plan"))


def config_of(files: Any) -> str:
    """Returns the text of the one configuration."""
    (text,) = (content.decode() for path, content in files.items() if path.endswith("config.pbtxt"))
    return str(text)


def test_a_plan_s_configuration_is_read_by_triton_s_schema(
    plan: EngineArtifact, schema: Any
) -> None:
    """Every field that is set, as the engine has it."""
    files = triton_files(plan, replace(TRITON, instances=2), None)
    config = schema(config_of(files))
    assert (config.name, config.platform, config.max_batch_size) == (
        "digits_int8",
        "tensorrt_plan",
        16,
    )
    (image,), (logits,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("input", 11, [3, 32, 32])
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", 11, [10])
    assert logits.label_filename == "labels.txt"
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, 1)
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    (warmup,) = config.model_warmup
    assert (warmup.batch_size, list(warmup.inputs["input"].dims)) == (1, [3, 32, 32])
    assert files["models/digits_int8/1/model.plan"] == plan.content
    assert files["models/digits_int8/labels.txt"].decode().splitlines() == list(NAMES)


@pytest.mark.parametrize("request_", [TRITON, TENSORS], ids=["images", "tensors"])
def test_an_engine_of_the_cpu_is_served_either_way(
    request_: DeployRequest, cpu: EngineArtifact, schema: Any
) -> None:
    """By the Python backend from images, by ONNX Runtime's from tensors; both on the CPU."""
    files = triton_files(cpu, request_, None)
    config = schema(config_of(files))
    assert config.instance_group[0].kind == 2
    if request_.tensors:
        assert config.platform == "onnxruntime_onnx"
        assert files["models/digits_int8/1/model.onnx"] == cpu.content
        return
    assert config.backend == "python"
    assert [one.name for one in config.input] == ["IMAGE", "FRAME"]
    assert all(one.optional for one in config.input)
    compile(files["models/digits_int8/1/model.py"], "model.py", "exec")
    # The engine is one that edgeres loads, whatever its contract came from.
    manifest = json.loads(files["models/digits_int8/1/engine.onnx.json"])
    assert manifest["classes"] == list(NAMES)


def test_a_fixed_batch_has_it_in_dims(cpu: EngineArtifact, schema: Any) -> None:
    """With max_batch_size 0, and without batching or warm-up by batches."""
    manifest = replace(
        cpu.manifest,
        batch=(4, 4, 4),
        input=replace(cpu.manifest.input, shape=(4, 3, 32, 32)),
        output=replace(cpu.manifest.output, shape=(4, 10)),
    )
    config = schema(config_of(triton_files(replace(cpu, manifest=manifest), TENSORS, None)))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [4, 3, 32, 32]
    assert not config.HasField("dynamic_batching")


def test_as_many_labels_as_classes(plan: EngineArtifact) -> None:
    """One more or one less shifts what a client reads; so does a name of two lines."""
    for names in (NAMES[1:], (*NAMES, "one more")):
        other = replace(plan, manifest=replace(plan.manifest, classes=names))
        with pytest.raises(ConfigError, match=f"names {len(names)} classes, and has 10"):
            triton_files(other, TRITON, None)
    for name in ("a\nb", "a\n", "a\x0b"):
        other = replace(plan, manifest=replace(plan.manifest, classes=(name, *NAMES[1:])))
        with pytest.raises(ConfigError, match="class 0 has a line break"):
            triton_files(other, TRITON, None)


def test_what_triton_cannot_serve_is_refused(plan: EngineArtifact) -> None:
    """A smallest batch above 1, a runtime without a backend, an option of another destination."""
    of_four = replace(plan, manifest=replace(plan.manifest, batch=(4, 8, 16)))
    with pytest.raises(ConfigError, match="Build it with --batch 1:4:16"):
        triton_files(of_four, TRITON, None)
    rtx = replace(plan, manifest=replace(plan.manifest, target="tensorrt-rtx"))
    with pytest.raises(ConfigError, match="which Triton has no backend for"):
        triton_files(rtx, TRITON, None)
    with pytest.raises(ConfigError, match="--tensors and --instances are for --to triton"):
        DeployRequest(destination=Destination.PYTHON, tensors=True)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.int8.plan", "a_int8"), ("resnet 50 (new).onnx", "resnet_50_new"), ("___.plan", "model")],
)
def test_a_model_s_name_is_one_that_a_url_takes(file: str, name: str) -> None:
    """Letters, digits, underscores and hyphens."""
    assert model_name(Path(file)) == name


def test_text_is_written_as_triton_s_schema_reads_it(plan: EngineArtifact, schema: Any) -> None:
    """Names with quotes, backslashes and accents."""
    for name in ('a "b"', "a\\b", "é ü"):
        image = replace(plan.manifest.input, name=name)
        named = replace(plan, manifest=replace(plan.manifest, input=image))
        assert schema(config_of(triton_files(named, TRITON, None))).input[0].name == name


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """A folder of a run that lives, whose lock is held, and others' folders stay."""
    names = [f".out.{digit * 16}.tmp" for digit in "0123"] + [".out.tmp", ".other.0.tmp"]
    for name in names:
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / f".out.{'4' * 16}.tmp").symlink_to(tmp_path / ".out.tmp")
    living = os.open(tmp_path / names[0], os.O_RDONLY)
    fcntl.flock(living, fcntl.LOCK_EX)
    write_folder(tmp_path / "out", {"a/b": b"c"})
    os.close(living)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {names[0], ".out.tmp", ".other.0.tmp", f".out.{'4' * 16}.tmp", "out"}
    assert (tmp_path / "out" / "a" / "b").read_bytes() == b"c"


def test_the_command_writes_a_folder_whole_or_not_at_all(digits: Digits, tmp_path: Path) -> None:
    """Into a new folder, once."""
    out = tmp_path / "repository"
    raw = json.loads(passed("deploy", digits.engine, "--to", "triton", "-o", out, "--json"))
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert raw["files"] == written
    assert "README.md" in written
    assert len(raw["golden"]) == 5
    said = refusal("deploy", digits.engine, "--to", "python", "-o", out, code=2)
    assert "is there already, and a deployment is not mixed with other files" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repository"]


def test_a_verdict_goes_along_where_it_is_on_this_engine(digits: Digits, tmp_path: Path) -> None:
    """Another engine's is refused."""
    verdict = tmp_path / "verdict.json"
    line = "bench {engine} --reference {model} --data {test} --samples 20 --iterations 2 --warmup 0"
    verdict.write_text(passed(*digits.words(line), "--no-energy", "--json"))
    out = tmp_path / "with"
    passed("deploy", digits.engine, "--to", "python", "-o", out, "--verdict", verdict)
    assert (out / "verdict.json").read_text() == verdict.read_text()
    said = refusal(
        "deploy", digits.model, "--to", "python", "-o", tmp_path / "x", "--verdict", verdict, code=6
    )
    assert "is the verdict on an engine with sha256" in said
    assert not (tmp_path / "x").exists()
