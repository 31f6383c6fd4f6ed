"""Triton's repository: parsed with its own schema, compared with the engine, and mistakes caught."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import warnings
from collections.abc import Callable
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
from edgeres.deploy.pbtxt import parse, render
from edgeres.deploy.repository import check_repository, interface_of
from edgeres.deploy.triton import model_name, triton_files
from edgeres.errors import ArtifactError, ConfigError

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


MISTAKES: dict[str, tuple[Callable[[str], str], str]] = {
    "the batch in dims": (
        lambda text: text.replace("  dims: 3\n", "  dims: 16\n  dims: 3\n", 1),
        "the input has dims [16, 3, 32, 32]; with max_batch_size above 0 the batch is no part",
    ),
    "a batch of one in dims of the output": (
        lambda text: text.replace("  dims: 10\n", "  dims: [ 1, 10 ]\n"),
        "the output has dims [1, 10]",
    ),
    "the channels last": (
        lambda text: text.replace(
            "  dims: 3\n  dims: 32\n  dims: 32\n", "  dims: [32, 32, 3]\n", 1
        ),
        "the input has dims [32, 32, 3]",
    ),
    "another type": (
        lambda text: text.replace("TYPE_FP32", "TYPE_FP16", 1),
        "the input is TYPE_FP16, in the engine TYPE_FP32",
    ),
    "bytes for floats": (
        lambda text: text.replace("TYPE_FP32", "TYPE_UINT8", 1),
        "the input is TYPE_UINT8",
    ),
    "another name of the input": (
        lambda text: text.replace('"input"', '"images"', 1),
        "the input is called images, in the engine input",
    ),
    "another name of the output": (
        lambda text: text.replace('"logits"', '"output"'),
        "the output is called output, in the engine logits",
    ),
    "a batch above the profile": (
        lambda text: text.replace("max_batch_size: 16", "max_batch_size: 32"),
        "max_batch_size is 32, the engine takes at most 16",
    ),
    "no batch": (
        lambda text: text.replace("max_batch_size: 16", "max_batch_size: 0"),
        "dynamic_batching needs a max_batch_size",
    ),
    "a preferred batch above the largest": (
        lambda text: text.replace("preferred_batch_size: 8", "preferred_batch_size: [8, 64]"),
        "preferred_batch_size is 64, max_batch_size 16",
    ),
    "a warm-up above the largest": (
        lambda text: text.replace("batch_size: 1\n", "batch_size: 17\n"),
        "model_warmup has a batch of 17",
    ),
    "another platform": (
        lambda text: text.replace("tensorrt_plan", "onnxruntime_onnx"),
        "has the file model.onnx of onnxruntime_onnx",
    ),
    "a platform that is none": (
        lambda text: text.replace("tensorrt_plan", "tensorrt"),
        "its platform is tensorrt, expected tensorrt_plan or onnxruntime_onnx",
    ),
    "the CPU for a plan": (
        lambda text: text.replace("KIND_GPU", "KIND_CPU"),
        "instance_group is KIND_CPU, the engine runs on KIND_GPU",
    ),
    "labels that are not there": (
        lambda text: text.replace("labels.txt", "names.txt"),
        "label_filename names.txt is not in digits_int8",
    ),
    "another model's name": (
        lambda text: text.replace('name: "digits_int8"', 'name: "resnet50"'),
        "its name is resnet50, and its folder digits_int8",
    ),
    "a second input": (
        lambda text: text + "input { name: 'x' }".replace("'", '"'),
        "it has 2 inputs, the engine one",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(mistake: str, plan: EngineArtifact) -> None:
    """In the text, as somebody's editor leaves it; unchanged it is accepted."""
    change, said = MISTAKES[mistake]
    files = {
        path.removeprefix("models/"): content
        for path, content in triton_files(plan, TRITON, None).items()
    }
    interface = interface_of(plan, on_gpu=True)
    check_repository(files, "digits_int8", interface)
    text = files["digits_int8/config.pbtxt"].decode()
    changed = change(text)
    assert changed != text
    files["digits_int8/config.pbtxt"] = changed.encode()
    with pytest.raises(ConfigError) as caught:
        check_repository(files, "digits_int8", interface)
    assert said in str(caught.value)


@pytest.mark.parametrize("count", [9, 11])
def test_as_many_labels_as_classes(count: int, plan: EngineArtifact) -> None:
    """One more or one less shifts what a client reads."""
    files = {
        path.removeprefix("models/"): content
        for path, content in triton_files(plan, TRITON, None).items()
    }
    files["digits_int8/labels.txt"] = b"x\n" * count
    with pytest.raises(ConfigError, match=f"labels.txt names {count} classes, the engine has 10"):
        check_repository(files, "digits_int8", interface_of(plan, on_gpu=True))


def test_an_engine_names_its_classes_and_no_others(plan: EngineArtifact) -> None:
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


def test_the_text_that_is_written_is_read_back(plan: EngineArtifact, schema: Any) -> None:
    """Strings with quotes, numbers below zero, and what others write: commas, comments, lists."""
    text = config_of(triton_files(plan, TRITON, None))
    message = parse(text, "x")
    assert schema(render(message)) == schema(text)
    other = (
        'name: "a \\"b\\" \\\\"  # comment\ninput [ { dims: [ -1, 3 ], name: "x" }, { name: "y" } ]'
    )
    read = parse(other, "x")
    assert read["name"] == ['a "b" \\']
    assert [one["name"] for one in read["input"]] == [["x"], ["y"]]  # type: ignore[index]
    assert read["input"][0]["dims"] == [-1, 3]  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "input {",
        "name: @",
        "}",
        "input [ { } ",
        "a: " + "[" * 5000,
        "a {" * 5000,
        "a: [{b:" * 5000,
        'a: "\\x"',
        'a: "\n"',
        "a: " + "9" * 5000,
        "a: b # c\n" * 100_000 + "@",
    ],
    ids=lambda text: text[:12],
)
def test_a_text_that_is_none_is_refused(text: str) -> None:
    """With the place, and no traceback."""
    with pytest.raises(ArtifactError, match=r"config\.pbtxt"):
        parse(text, "config.pbtxt")


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
