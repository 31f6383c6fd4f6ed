"""Plans through `edgeres.load` and `predict`, on the pretend driver: labels, batches, trust, threads."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import passed, refusal, run
from digits import Digits, save_manifest, sha256_of
from fake_runtime import LARGEST, FakeRuntimeModule, put_in_place
from PIL import Image
from pretend_cuda import PretendCuda

import edgeres
from edgeres.core.artifacts import load_engine
from edgeres.errors import RunnerError
from edgeres.targets.loading import load_any_engine

pytestmark = pytest.mark.cuda


@pytest.fixture
def trt(cuda: PretendCuda, monkeypatch: pytest.MonkeyPatch) -> FakeRuntimeModule:
    """The double of TensorRT, whose plans are ONNX files."""
    return put_in_place(monkeypatch)


@pytest.fixture
def plan(digits: Digits, tmp_path: Path, trt: FakeRuntimeModule) -> Path:
    """The digits' CPU engine as a plan of the pretend GPU, with its manifest."""
    path = tmp_path / "digits.plan"
    shutil.copy(digits.engine, path)
    manifest = replace(
        load_engine(digits.engine).manifest,
        target="tensorrt",
        engine_sha256=sha256_of(path),
        versions={"tensorrt": "10.3.0"},
        gpu="Pretend GPU",
        compute_capability="8.7",
    )
    save_manifest(path, manifest)
    return path


def labels(digits: Digits) -> tuple[list[np.ndarray], list[int]]:
    """Returns all test images, and what the CPU's engine calls them."""
    images = list(np.load(digits.test)["images"])
    with edgeres.load(digits.engine) as model:
        return images, [one[0].index for one in model.predict(images, color="rgb", top=1)]


def test_a_plan_gives_its_labels_from_every_form_of_frame(digits: Digits, plan: Path) -> None:
    """What was judged is what runs: the classes of the same network on the CPU."""
    images, expected = labels(digits)
    with edgeres.load(plan) as model:
        for frames, color in (
            (images, "rgb"),
            ([image[..., ::-1] for image in images], "bgr"),
            ([Image.fromarray(image) for image in images], None),
        ):
            found = [one[0].index for one in model.predict(frames, color=color, top=1)]
            assert found == expected


def test_a_plan_without_a_manifest_is_vouched_for(
    digits: Digits, plan: Path, tmp_path: Path
) -> None:
    """As trtexec builds them: contract from the model or from options, batches from the plan."""
    images, expected = labels(digits)
    for index, image in enumerate(images[: LARGEST + 4]):
        Image.fromarray(image).save(tmp_path / f"{index:03}.png")
    plan.with_name("digits.plan.json").unlink()
    line = ("predict", plan, tmp_path, "--top", 1, "--json")
    assert "An engine is code" in refusal(*line)
    for described in (("--reference", digits.model), ("--preset", "digits")):
        raw = json.loads(passed(*line, "--trust", *described))
        assert [one["top"][0]["index"] for one in raw["predictions"]] == expected[: LARGEST + 4]
    assert "its preprocessing is not known" in refusal(*line, "--trust", code=2)


def test_threads_share_a_plan_and_close_waits_for_them(digits: Digits, plan: Path) -> None:
    """Inferences of several threads wait for one another; afterwards nothing is left."""
    images, expected = labels(digits)
    with edgeres.load(plan) as model, ThreadPoolExecutor(4) as pool:
        parts = [images[start : start + 5] for start in range(0, 60, 5)]
        pending = [pool.submit(model.predict, part, color="rgb", top=1) for part in parts]
        results: list[Any] = [each.result() for each in pending]
    assert [one[0].index for part in results for one in part] == expected[:60]
    with pytest.raises(RunnerError, match="was closed"):
        model.predict(images[0], color="rgb")


def test_what_fails_at_the_warm_up_gives_everything_back(
    plan: Path, trt: FakeRuntimeModule, cuda: PretendCuda
) -> None:
    """The engine is closed before the error is raised."""
    trt.refuse_at = 0
    with pytest.raises(RunnerError):
        edgeres.load(plan)
    assert cuda.living == {}


def test_a_plan_s_layers_are_timed_by_tensorrt_s_profiler(
    plan: Path, trt: FakeRuntimeModule
) -> None:
    """With the operators that its audit has for them; nothing of it is left in the runner."""
    from edgeres.core.audit import Audit, EngineLayer, Source
    from edgeres.core.precision import Precision
    from edgeres.targets.base import engine_runner
    from edgeres.targets.runner import Profiled

    engine = load_engine(plan)
    names = [layer.name for layer in engine.manifest.layers if layer.op_type == "Conv"][:2]
    audit = Audit(
        source=Source.INSPECTOR,
        layers=(
            EngineLayer(
                name="fused", kind="CaskConvolution", precision=Precision.INT8, nodes=tuple(names)
            ),
        ),
        nodes=(),
    )
    engine = replace(engine, manifest=replace(engine.manifest, audit=audit))
    trt.layers = ["Reformatting CopyNode for Input Tensor 0", "fused", "unknown"]
    images = np.zeros((2, 3, 32, 32), np.float32)
    with engine_runner(engine) as runner:
        assert isinstance(runner, Profiled)
        kernels = runner.kernel_times(images, iterations=4)
        before = trt.enqueued
        runner.infer(images)
        assert trt.enqueued == before + 1
    assert [(k.name, k.operator, k.kind, k.ms, k.is_reformat) for k in kernels] == [
        (trt.layers[0], "layer", "layer", 0.5, True),
        (names[0], "Conv", "CaskConvolution", 1.5, False),
        ("unknown", "layer", "layer", 2.5, False),
    ]
    assert kernels[1].precision is Precision.INT8


@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_a_plan_takes_a_camera_s_bytes(
    layout: str, digits: Digits, tmp_path: Path, trt: FakeRuntimeModule
) -> None:
    """What predict calls the images is what bench counts of the network on the CPU, one by one.

    A plan takes HWC as a format in memory; its network has the channels first.
    """
    model, first, path = (tmp_path / name for name in ("bytes.onnx", "chw.onnx", "bytes.plan"))
    line = "export resnet20 --weights {weights} --preset digits --input uint8 --layout {layout} -o"
    passed(*digits.words(line, layout=layout), model)
    passed(*digits.words(line, layout="chw"), first)
    path.write_bytes(first.read_bytes())
    trt.format = trt.TensorFormat.HWC if layout == "hwc" else trt.TensorFormat.LINEAR
    manifest = replace(
        load_any_engine(model).manifest,
        target="tensorrt",
        engine_sha256=sha256_of(path),
        model_sha256=sha256_of(model),
        versions={"tensorrt": "10.3.0"},
        gpu="Pretend GPU",
        compute_capability="8.7",
        flags=(),
    )
    save_manifest(path, manifest)
    stored = np.load(digits.test)
    with edgeres.load(model) as reference:
        expected = reference.predict(list(stored["images"]), color="rgb", top=1)
    with edgeres.load(path) as plan:
        found = plan.predict(list(stored["images"]), color="rgb", top=1)
    labels = [one[0].index for one in found]
    assert labels == [one[0].index for one in expected]
    # A plan's own reference would have to be built: bench runs the network on the CPU.
    bench = f"bench {model} --reference {model} --data {{test}} --json --iterations 2 --warmup 0"
    verdict = json.loads(run(*digits.words(bench)).stdout)
    correct = "".join(str(int(a == b)) for a, b in zip(labels, stored["labels"], strict=True))
    assert verdict["accuracy"]["images"]["engine"] == correct
