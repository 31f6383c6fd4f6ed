"""Options that contradict each other are refused; none is dropped or altered in silence."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from commands import passed, refusal
from digits import QUICK, Digits

from edgeres.core.artifacts import load_engine

EXPORT = "export resnet20 --weights {weights} --preset digits -o never "
CALIBRATE = "calibrate {model} --data {train} -o never "
BUILD = "build-engine {model} -o never "
BENCH = "bench {engine} --reference {model} --data {test} "
INT8 = BUILD + "--calibration {table} "

REFUSED = {
    CALIBRATE + "--preset cifar": "Leave the preprocessing options out",
    BUILD + "--precision fp32 --mean 0,0,0": "Leave the preprocessing options out",
    BENCH + "--resize none": "Leave the preprocessing options out",
    "bench {engine} --reference {engine} --data {test} --color bgr": (
        "is an engine and carries its own preprocessing contract"
    ),
    INT8 + "--precision fp32": "--precision fp32 has no use for calibration.",
    BUILD + "--precision fp32 --calib-data {train}": "fp32 has no use for calibration.",
    BUILD + "--precision fp32 --method max": (
        "Leave --calibration, --calib-data and --method out, or pass --precision int8."
    ),
    INT8 + "--calib-data {train}": "Pass --calibration or --calib-data, not both.",
    INT8
    + "--precision mixed --max-drop 1": "--precision mixed needs --judge-data, labelled images",
    INT8 + "--judge-data {train}": "--judge-data is for --precision mixed. Leave it out.",
    BUILD: "--precision int8 needs ranges. Pass --calibration TABLE.json",
    BUILD + "--precision fp16": "ONNX Runtime's CPU has no FP16 convolutions",
    INT8 + "--compute-capability 8.6": "8.6 needs --target tensorrt-rtx; onnxruntime builds for",
    INT8 + "--compute-capability 8.6 --target tensorrt": (
        "8.6 needs --target tensorrt-rtx; tensorrt builds for the machine that it runs on."
    ),
    INT8 + "--batch 1:8:16": "--batch is for TensorRT plans",
    BUILD + "--precision fp16 --target tensorrt --method max": (
        "--precision fp16 has no use for --method: its ranges only show what would overflow."
    ),
    INT8 + "--workspace 64 --refit": "--workspace, --refit: for TensorRT plans alone",
    INT8 + "--dla 0": "--dla: for TensorRT plans alone, and the target is onnxruntime.",
    INT8 + "--target tensorrt --gpu-fallback": "--gpu-fallback is for an engine on the DLA.",
    INT8 + "--target tensorrt --optimization-level 6": (
        "--optimization-level is 6; expected 0 to 5, where higher builds longer"
    ),
    INT8 + "--target tensorrt --workspace 0": "--workspace is 0 MiB; expected at least 1.",
    INT8 + "--target tensorrt --dla -1": "--dla is -1; expected a core's number, from 0 on.",
    INT8 + "--require-coverage 101": "--require-coverage is 101.0; expected 0 to 100 percent.",
    INT8 + "--input-size 16:32:64": "--input-size 16:32:64 is a profile of a TensorRT plan",
    INT8 + "--target tensorrt --input-size 64:32:16": "Input size 64:32:16 is no profile",
    INT8 + "--input-size 32": "Leave the preprocessing options out",
    INT8 + "--target tensorrt --timing-cache {table}": "is what is read here, and would be lost",
    INT8 + "--float-layers fp16": "--float-layers is for int8 and mixed plans of TensorRT.",
    BUILD + "--precision fp16 --target tensorrt --float-layers fp32": (
        "--float-layers is for int8 and mixed plans of TensorRT."
    ),
    INT8 + "--target tensorrt --batch 8:4:2": "Batch 8:4:2 is no profile; expected 1 <= min <=",
    "bench {table} --simulate --reference {model} --data {test} --min-speedup 2": (
        "--min-speedup needs a latency, and --simulate measures none."
    ),
    "bench {table} --simulate --reference {model} --data {test} --strict": (
        "--strict is about a measurement, and --simulate makes none."
    ),
    "bench {table} --simulate --reference {model} --data {test} --scenario offline": (
        "--scenario times an engine, and --simulate has none."
    ),
    BENCH + "--loadgen-logs logs": "none is requested. Pass --scenario.",
    BENCH + "--max-slowdown inf": "--max-slowdown inf is no limit; expected a finite number.",
    BENCH + "--max-drop nan": "--max-drop nan is no limit; expected a finite number.",
    BENCH + "--samples 0": "--samples is 0; at least 1 image is needed.",
    BENCH + "--iterations 0": "must be at least 1",
    EXPORT + "--input-size 0": "Input size is 0x0; expected 1 to 8192 pixels.",
    "export resnet20 --weights {weights} -o never --preset imagenet --resize 200": "--resize 200 is smaller than the 224-pixel crop.",
    EXPORT + "--mean nan,0,0": "must be finite numbers",
    EXPORT + "--std 1,0,1": "must be positive",
    "export resnet20 --weights {weights} -o never": (
        "resnet20 is exported with the preprocessing that it was trained with, which a checkpoint "
        "does not hold. Describe how its images were prepared: --preset imagenet|"
    ),
    "export resnet20 --weights {weights} -o never --mean 0.5,0.5,0.5 --input-size 32": (
        "all of --mean, --std, --input-size and --resize are needed (--std, --resize missing here)"
    ),
    "export torch.nn:Identity --weights {weights} -o never": "is exported with the preprocessing",
    EXPORT + "--channels 1": "The weights of",
    EXPORT + "--opset 12": "Opset 12 is not supported; expected 13 to 20.",
    "export resnet50 --weights {weights} --preset imagenet -o never --shortcut A": (
        "--shortcut A does not go with resnet50"
    ),
    "export torch.nn:Identity --weights {weights} --preset digits -o never --bn-eps 1e-3": (
        "its factory decides them"
    ),
    CALIBRATE + "--method percentile --percentile 101": "Percentile is 101.0; expected 50 to 100",
}
"""Command lines and a part of the sentence that they are refused with."""


@pytest.mark.parametrize("line", REFUSED)
def test_a_contradiction_is_refused(
    line: str, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, a sentence that names the options, and no file."""
    monkeypatch.chdir(tmp_path)
    assert REFUSED[line] in refusal(*digits.words(line), code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--precision fp32", "--calibration {table}"])
def test_no_image_is_read_for_a_build_that_is_refused(option: str, digits: Digits) -> None:
    """Calibration takes minutes; what is wrong without it is said before."""
    said = refusal(*digits.words(BUILD + "--calib-data missing " + option), code=2)
    assert "missing" not in said


@pytest.mark.parametrize(
    "line",
    [
        "calibrate {model} --data {train} -o {model}",
        "calibrate {model} --data {train} -o {train}",
        "export resnet20 --weights {weights} -o {weights}",
        "build-engine {model} --precision fp32 -o {model}",
        "build-engine {model} --calibration {table} -o {table}",
    ],
)
def test_an_output_in_the_place_of_an_input_is_refused(line: str, digits: Digits) -> None:
    """Nothing that is read gets lost by a slip of the keyboard."""
    before = {path: path.read_bytes() for path in vars(digits).values()}
    assert refusal(*digits.words(line), code=2).endswith("would be lost. Pass another path.")
    assert before == {path: path.read_bytes() for path in vars(digits).values()}


def test_a_manifest_in_the_place_of_the_table_is_refused(digits: Digits) -> None:
    """`-o a` writes `a.json` too."""
    output = digits.table.with_suffix("")
    line = digits.words("build-engine {model} --calibration {table} -o {output}", output=output)
    assert refusal(*line, code=2).startswith(f"{digits.table} is what is read here")


def test_the_same_options_in_accord_are_taken(digits: Digits, tmp_path: Path) -> None:
    """What is refused above is refused for the contradiction alone."""
    engine = tmp_path / "a.onnx"
    passed("build-engine", digits.model, "--precision", "fp32", "-o", engine)
    assert load_engine(engine).manifest.table_sha256 is None
    line = "build-engine {model} --calibration {table} --method max -o {output}"
    passed(*digits.words(line, output=engine))
    assert load_engine(engine).manifest.method == "max"


def test_an_engine_may_be_the_reference(digits: Digits) -> None:
    """INT8 against INT8: nothing is gained or lost, and that has to be requested."""
    line = "bench {engine} --reference {engine} --data {test} --max-drop 0 --decide point " + QUICK
    assert "is an engine in int8, and no FP32 reference" in refusal(*digits.words(line))
    shown = passed(*digits.words(f"{line} --quantized-reference"))
    assert "0 newly wrong, 0 newly correct" in shown
    assert "The reference is an engine in int8: the drop is against it" in " ".join(shown.split())


def test_a_foreign_model_is_told_its_preprocessing_once(digits: Digits, tmp_path: Path) -> None:
    """What calibrate is told goes with table and engine, to the verdict that it leads to."""
    model = onnx.load(digits.model)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")

    def on_foreign(line: str) -> str:
        return passed(*digits.words(line, at=tmp_path))

    on_foreign("calibrate {at}/m.onnx --data {train} --preset digits -o {at}/t.json")
    on_foreign("build-engine {at}/m.onnx --calibration {at}/t.json -o {at}/e.onnx")
    judge = " --data {test} --max-drop 5 " + QUICK
    given = on_foreign("bench {at}/e.onnx --reference {at}/m.onnx" + judge)
    own = passed(*digits.words("bench {engine} --reference {model}" + judge))
    assert given.splitlines()[0] == own.splitlines()[0]
