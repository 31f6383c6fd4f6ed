"""The builder's options from the command line to the engine, its manifest and the exit code."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import passed, refusal, run
from digits import Digits
from fake_tensorrt import FakeTensorRT, put_in_place

from edgeres.core.artifacts import load_engine
from edgeres.core.builder_options import HardwareCompatibility, TensorRTOptions
from edgeres.core.table import load_table
from edgeres.machine.cuda import CudaDevice

DEVICE = CudaDevice(
    name="RTX", compute_capability="8.6", memory_mib=8192, integrated=False, cuda="12.6"
)
BUILD = "build-engine {model} --calibration {table} --target tensorrt -o {plan} "


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeTensorRT]:
    """Puts the double of a version where `import` finds it, on a machine with a GPU."""

    def install(version: str) -> FakeTensorRT:
        return put_in_place(monkeypatch, FakeTensorRT(version), DEVICE)

    return install


Use = Callable[[str], FakeTensorRT]


def test_every_option_reaches_the_manifest(digits: Digits, use: Use, tmp_path: Path) -> None:
    """And NVIDIA's builder; `inspect` tells what was asked."""
    trt = use("10.16")
    plan = tmp_path / "a.plan"
    line = (
        "--batch 1:2:4 --workspace 128 --optimization-level 5 --timing-cache {timings} "
        "--hardware-compatibility ampere-plus --version-compatible --refit --strip-weights "
        "--require-coverage 100"
    )
    passed(*digits.words(BUILD + line, plan=plan, timings=tmp_path / "timings"))
    manifest = load_engine(plan).manifest
    assert manifest.options == TensorRTOptions(
        workspace_mib=128,
        optimization_level=5,
        timing_cache=str(tmp_path / "timings"),
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
        version_compatible=True,
        refit=True,
        strip_weights=True,
    )
    assert (manifest.batch, manifest.required_coverage) == ((1, 2, 4), 100)
    assert trt.record.flags == {"REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE"}
    assert (tmp_path / "timings").read_bytes() == b"+kernel"
    told = " ".join(passed("inspect", plan).split())
    assert "batch 1:2:4, STRONGLY_TYPED, REFIT, STRIP_PLAN, VERSION_COMPATIBLE" in told
    assert "optimization_level 5" in told


def test_a_dla_engine_is_asked_for(digits: Digits, use: Use, tmp_path: Path) -> None:
    """In FP16, with leave for the GPU."""
    trt = use("10.3")
    trt.answers.dla_cores = 2
    line = "build-engine {model} --precision fp16 --target tensorrt -o {plan} --dla 1 "
    passed(*digits.words(line + "--gpu-fallback", plan=tmp_path / "a.plan"))
    assert trt.record.settings["DLA_core"] == 1
    assert trt.record.flags == {"GPU_FALLBACK"}


def test_layers_that_fell_back_end_with_5(digits: Digits, use: Use, tmp_path: Path) -> None:
    """No engine is left, and the sentence names them; without the limit it is a warning."""
    trt = use("10.3")
    names = [layer.name for layer in load_engine(digits.engine).manifest.layers]
    kinds = dict.fromkeys(names, "Int8") | {"/layer1/layer1.0/conv2/Conv": "Half"}
    layers = [
        {"Name": n, "LayerType": "CaskConvolution", "Weights": {"Type": t}}
        for n, t in kinds.items()
    ]
    trt.answers.inspected = json.dumps({"Layers": layers})
    plan = tmp_path / "a.plan"
    said = refusal(*digits.words(BUILD + "--require-coverage 97", plan=plan), code=5)
    assert said.startswith("Precision coverage is 96.4 %, and --require-coverage is 97: 1 of 28")
    assert "Conv /layer1/layer1.0/conv2/Conv (ran in fp16)" in said
    assert list(tmp_path.iterdir()) == []
    passed(*digits.words(BUILD + "--require-coverage 96", plan=plan))
    assert "not in the requested precision" in passed("inspect", plan)


def test_inspect_tells_the_residual_blocks(digits: Digits) -> None:
    """Each with what its convolutions and addition run in."""
    rows = [line.split() for line in passed("inspect", digits.engine).splitlines()]
    assert ["conv1", "1", "int8", "-", "1"] in rows
    for stage in (1, 2, 3):
        for block in range(3):
            assert [f"layer{stage}.{block}", "2", "int8", "1", "int8", "3"] in rows


def test_inspect_json_has_the_audit(digits: Digits) -> None:
    """With the coverage as a number."""
    audit = json.loads(passed("inspect", digits.engine, "--json"))["audit"]
    assert audit["coverage"] == 100
    assert audit["source"] == "graph after ONNX Runtime's fusions"
    assert len(audit["nodes"]) == 28


@pytest.mark.parametrize("cache", ["a.plan", "a.plan.json"])
def test_a_timing_cache_in_the_place_of_the_engine_is_refused(
    cache: str, digits: Digits, tmp_path: Path
) -> None:
    """Or of its manifest; neither would survive the other."""
    line = BUILD + "--timing-cache {cache}"
    asked = digits.words(line, plan=tmp_path / "a.plan", cache=tmp_path / cache)
    assert "Two outputs would be the same file" in refusal(*asked, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["--input-size 1:2", "--input-size big", "--batch 1:2"])
def test_a_malformed_profile_is_usage(line: str, digits: Digits, tmp_path: Path) -> None:
    """With an example of one."""
    asked = digits.words(BUILD + line, plan=tmp_path / "a.plan")
    answer = run(*asked)
    assert answer.exit_code == 2
    assert "such as" in answer.stderr


def test_calibrate_writes_tensorrts_cache(digits: Digits, tmp_path: Path) -> None:
    """Beside the table and from it: the scale of the image by hand."""
    table, cache = tmp_path / "t.json", tmp_path / "t.cache"
    line = "calibrate {model} --data {train} --samples 20 -o {table} --emit-trt-cache {cache} "
    said = run(*digits.words(line + "--trt-version 8.6.2", table=table, cache=cache))
    assert said.exit_code == 0
    assert f"{cache}: " in said.stderr
    head, first, *rest = cache.read_text().splitlines()
    assert head == "TRT-8602-EntropyCalibration2"
    image = load_table(table).threshold("input").s8 / 127
    assert first == f"input: {struct.pack('>f', image).hex()}"
    assert len(rest) > 28


def test_a_cache_is_written_where_channels_would_be_equalized(
    digits: Digits, tmp_path: Path
) -> None:
    """A cache goes with the file's own weights, so none are; biases stay in the table."""
    table, cache, uneven = tmp_path / "t.json", tmp_path / "t.cache", tmp_path / "uneven.onnx"
    # The same function, with a channel in every block that takes most of its tensor's range.
    model = onnx.load(digits.model)
    weights = {each.name: each for each in model.graph.initializer}
    for stage, block in product((1, 2, 3), (0, 1, 2)):
        for name, at, factor in (
            (f"layer{stage}.{block}.conv1.weight", np.s_[0], 64),
            (f"layer{stage}.{block}.conv1.bias", np.s_[0], 64),
            (f"layer{stage}.{block}.conv2.weight", np.s_[:, 0], 1 / 64),
        ):
            values = onnx.numpy_helper.to_array(weights[name]).copy()
            values[at] *= factor
            weights[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, uneven)
    line = "calibrate {uneven} --data {train} --samples 64 --recover bias -o {table} "
    words = digits.words(line + "--emit-trt-cache {cache}", uneven=uneven, table=table, cache=cache)
    said = run(*words)
    assert said.exit_code == 0, said.stderr
    assert "the recovered weights and biases (--recover bias) stay in the table" in said.stderr
    assert cache.exists()
    recovery = load_table(table).recovery
    assert recovery is not None
    assert recovery.equalization == {}
    # Without the cache they are.
    assert "activations equalized" in run(*digits.words(line, uneven=uneven, table=table)).stderr


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [
        ("--emit-trt-cache {out}/c --trt-version ten", 2, "--trt-version 'ten' is no version;"),
        ("--emit-trt-cache {out}/no/c", 1, "was not written: the folder"),
        ("--emit-trt-cache {model}", 2, "is what is read here, and would be lost."),
    ],
)
def test_a_cache_that_cannot_be_is_refused_before_the_images(
    option: str, code: int, said: str, digits: Digits, tmp_path: Path
) -> None:
    """No table is left either."""
    line = "calibrate {model} --data missing -o {out}/t.json " + option
    assert said in refusal(*digits.words(line, out=tmp_path), code=code)
    assert list(tmp_path.iterdir()) == []


def test_a_table_shows_what_fp16_cannot_hold(digits: Digits, use: Use, tmp_path: Path) -> None:
    """`--calibration` on an FP16 build reads the exact extremes, and no more of it."""
    trt = use("11.4")
    plan = tmp_path / "a.plan"
    line = "build-engine {model} --precision fp16 --target tensorrt --calibration {t} -o {plan}"
    passed(*digits.words(line, t=digits.table, plan=plan))
    manifest = load_engine(plan).manifest
    assert (manifest.table_sha256, manifest.calibration_images) == (None, ())
    raw = json.loads(digits.table.read_text())
    raw["tensors"]["logits"]["amax"] = 7e4
    (tmp_path / "t.json").write_text(json.dumps(raw))
    trt.record.parsed = None
    said = refusal(*digits.words(line, t=tmp_path / "t.json", plan=tmp_path / "b.plan"))
    assert "Gemm: activation 'logits'" in said
    assert "reaches 70000. Build with --precision fp32." in said
    assert trt.record.parsed is None
