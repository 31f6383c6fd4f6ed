"""A cache of TensorRT's calibrator as a table: scales by hand, round trips, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from commands import passed, refusal, run
from digits import QUICK, Digits

from edgeres.core.artifacts import load_engine
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable, load_table
from edgeres.errors import ArtifactError
from edgeres.onnx_file import load_onnx
from edgeres.targets.tensorrt.calibration_cache import read_cache, trt_cache

IMPORT = "calibrate {model} --import-trt-cache {cache} -o {table}"


def text_of(digits: Digits, version: str = "8.6.2") -> str:
    """Returns the cache of the digits' own table."""
    return trt_cache(load_onnx(digits.model), load_table(digits.table), version)


def imported(digits: Digits, text: str, folder: Path) -> CalibrationTable:
    """Returns the table of a cache, by the command."""
    (folder / "calib.cache").write_text(text)
    cache, table = folder / "calib.cache", folder / "t.json"
    passed(*digits.words(IMPORT, cache=cache, table=table))
    return load_table(table)


@pytest.mark.parametrize(
    ("header", "method"),
    [
        ("TRT-8503-EntropyCalibration2", Method.ENTROPY),
        ("TRT-8602-MinMaxCalibration", Method.MAX),
        ("TRT-100300-EntropyCalibration2", Method.ENTROPY),
        ("TRT-101401-MinMaxCalibration", Method.MAX),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_cache_is_read_by_hand(header: str, method: Method, end: str, tmp_path: Path) -> None:
    """0x3f800000 is 1, so its amax is 127; 0x3c010a14 is 0x1.021428p-7. Names keep their colons."""
    path = tmp_path / "calib.cache"
    lines = [header, "image: 3f800000", "a: b(c): 3C010A14", ""]
    path.write_bytes(end.join(lines).encode())
    cache = read_cache(path)
    assert (cache.header, cache.method) == (header, method)
    assert cache.amax == {"image": 127.0, "a: b(c)": 127 * float.fromhex("0x1.021428p-7")}


@pytest.mark.parametrize("version", ["7.1.3", "8.5.2", "8.6.2", "10.3.0", "10.14.1"])
def test_emitted_imported_and_emitted_again_is_the_same(
    version: str, digits: Digits, tmp_path: Path
) -> None:
    """Byte for byte, by one command."""
    text = text_of(digits, version)
    cache, back = tmp_path / "a.cache", tmp_path / "b.cache"
    cache.write_text(text)
    line = IMPORT + " --emit-trt-cache {back} --trt-version " + version
    passed(*digits.words(line, cache=cache, table=tmp_path / "t.json", back=back))
    assert back.read_bytes() == cache.read_bytes() == text.encode()


def test_an_imported_table_builds_and_evaluates_as_its_source(
    digits: Digits, tmp_path: Path
) -> None:
    """The typed file has the weights and scales of the one built from the table of images."""
    cache = tmp_path / "calib.cache"
    cache.write_text(text_of(digits))
    table, files = tmp_path / "t.json", (tmp_path / "a.onnx", tmp_path / "b.onnx")
    said = run(*digits.words(IMPORT, cache=cache, table=table))
    assert "for --precision int8 of --target tensorrt, tensorrt-rtx and onnx alone" in said.stderr
    build = "build-engine {model} --target onnx --float-layers fp32 --calibration {table} -o {out}"
    for source, out in zip((digits.table, table), files, strict=True):
        passed(*digits.words(build, table=source, out=out))
    ours, theirs = (load_onnx(path).proto.graph for path in files)
    assert ours == theirs
    line = "bench {table} --simulate --reference {model} --data {test} " + QUICK
    passed(*digits.words(line, table=table))
    assert "none: imported from" in passed("inspect", table)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--target onnxruntime", "requested is int8 by the lowering for onnxruntime"),
        ("--target onnx --precision fp8", "requested is fp8 by the lowering for tensorrt"),
        ("--target onnx --precision fp16", "the thresholds of signed INT8 alone"),
        ("--target onnx --method mse", "no mse threshold of 'input'; it has entropy"),
    ],
)
def test_what_a_cache_cannot_give_is_refused(
    line: str, said: str, digits: Digits, tmp_path: Path
) -> None:
    """The CPU's unsigned levels, FP8's, the largest values, other methods."""
    imported(digits, text_of(digits), tmp_path)
    build = "build-engine {model} --calibration {table} -o {out} " + line
    asked = digits.words(build, table=tmp_path / "t.json", out=tmp_path / "x.onnx")
    assert said in refusal(*asked)
    assert not (tmp_path / "x.onnx").exists()


def test_what_a_cache_lacks_stays_float_and_what_it_has_beyond_is_listed(
    digits: Digits, tmp_path: Path
) -> None:
    """As TensorRT does with a tensor without a scale; its parser's own names are no surprise."""
    lost = "/layer2/layer2.1/relu/Relu_output_0"
    lines = [line for line in text_of(digits).splitlines() if not line.startswith(lost)]
    cache, table = tmp_path / "calib.cache", tmp_path / "t.json"
    more = ["other: 3f800000", "(Unnamed Layer* 7) [Constant]_output: 3f800000"]
    cache.write_text("\n".join([*lines, *more]))
    said = run(*digits.words(IMPORT, cache=cache, table=table)).stderr
    assert (
        f"no scale of 1 of the 19 activations that INT8 rounds, and what reads them stays float: {lost}"
        in said
    )
    assert "names 1 tensor that" in said
    assert "left out: other\n" in said
    engine = tmp_path / "x.onnx"
    build = "build-engine {model} --target onnx --calibration {table} -o {out}"
    passed(*digits.words(build, table=table, out=engine))
    layers = load_engine(engine).manifest.layers
    floats = {layer.name for layer in layers if "the imported calibration cache" in layer.reason}
    assert floats == {"/layer2/layer2.1/conv2/Conv"}
    assert sum(layer.precision is Precision.INT8 for layer in layers) > 20


def test_a_scale_under_the_name_of_a_copy_serves(digits: Digits, tmp_path: Path) -> None:
    """Slice and Pad of an option-A shortcut hold values of what they read."""
    full = imported(digits, text_of(digits), tmp_path)
    root = "/layer1/layer1.2/relu_1/Relu_output_0"
    lines = [line for line in text_of(digits).splitlines() if not line.startswith(root)]
    assert len(lines) < len(text_of(digits).splitlines())
    again = imported(digits, "\n".join(lines), tmp_path)
    assert again.tensors[root] == full.tensors[root]


@pytest.mark.parametrize("renamed", ["all", "half"])
def test_a_cache_of_another_network_is_refused(
    renamed: str, digits: Digits, tmp_path: Path
) -> None:
    """With what each of the two lacks."""
    head, *lines = text_of(digits).splitlines()
    step = 1 if renamed == "all" else 2
    lines = [f"their{line}" if index % step == 0 else line for index, line in enumerate(lines)]
    cache, table = tmp_path / "calib.cache", tmp_path / "t.json"
    cache.write_text("\n".join([head, *lines]))
    said = refusal(*digits.words(IMPORT, cache=cache, table=table))
    assert "is the cache of another network than" in said
    assert "the model does not have" in said
    assert not table.exists()


def test_the_cache_of_a_deeper_network_is_refused(digits: Digits, tmp_path: Path) -> None:
    """It has every tensor of the shallow one, and as many more."""
    text = text_of(digits)
    deeper = [
        line.replace("layer1.", "layer1.9") for line in text.splitlines() if "layer1." in line
    ]
    deeper += [
        line.replace("layer2.", "layer2.9") for line in text.splitlines() if "layer2." in line
    ]
    cache = tmp_path / "calib.cache"
    cache.write_text(text + "\n".join(deeper))
    asked = digits.words(IMPORT, cache=cache, table=tmp_path / "t.json")
    assert "it lacks 0 of the 19 activations that INT8 rounds (none)" in refusal(*asked)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its first line is ''"),
        (b"TRT-8602-LegacyCalibration\n", "with EntropyCalibration2 or MinMaxCalibration"),
        (b"TRT-110000-EntropyCalibration2\n", "of TensorRT 7 to 10"),
        (b"TRT-8602-EntropyCalibration2 \n", "its first line is"),
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        (b"x" * 100_000, "its first line is 'xxxx"),
        (b"TRT-8602-EntropyCalibration2\ninput 3f800000\n", "line 2 is 'input 3f800000'"),
        (b"TRT-8602-EntropyCalibration2\n: 3f800000\n", "line 2 is"),
        (b"TRT-8602-EntropyCalibration2\na: 3f8\n", "8 hexadecimal digits"),
        (b"TRT-8602-EntropyCalibration2\na: 3f800000\na: 3f800000\n", "second scale of 'a'"),
        (b"TRT-8602-EntropyCalibration2\na: \x00\x1b[31m\n", "line 2 is"),
    ],
    ids=range(11),
)
def test_what_is_no_cache_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    """With the line, what was expected, and never more than a line of it."""
    path = tmp_path / "calib.cache"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_cache(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "scale",
    [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -1.0, 1e-45, 1e-40, 3e38],
)
def test_a_scale_that_is_none_is_refused(scale: float, tmp_path: Path) -> None:
    """NaN, infinite, negative, zero, what a grid takes for dead, and what overflows."""
    path = tmp_path / "calib.cache"
    digits = struct.pack(">f", scale).hex()
    path.write_text(f"TRT-8602-EntropyCalibration2\na: 3f800000\nb: {digits}\n")
    with pytest.raises(ArtifactError, match=r"line 3, tensor 'b', has the scale .*calibrate with"):
        read_cache(path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """By its size, before a byte is read."""
    path = tmp_path / "calib.cache"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(ArtifactError, match="a calibration cache has at most"):
        read_cache(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "Pass --data, images to calibrate on, or --import-trt-cache"),
        ("--import-trt-cache {cache} --data {test}", "one of the two."),
        (
            "--import-trt-cache {cache} --method mse --samples 3",
            "takes the thresholds of the cache",
        ),
        ("--import-trt-cache {cache} --sensitivity", "are for images"),
        ("--import-trt-cache {cache} --emit-trt-cache {cache}", "would be lost"),
    ],
)
def test_options_that_contradict_are_refused(
    options: str, said: str, digits: Digits, tmp_path: Path
) -> None:
    """Nothing that was requested is dropped in silence; how weights are scaled may be chosen."""
    cache, table = tmp_path / "calib.cache", tmp_path / "t.json"
    cache.write_text(text_of(digits))
    line = "calibrate {model} -o {table} " + options
    assert said in refusal(*digits.words(line, cache=cache, table=table), code=2)
    assert not table.exists()
