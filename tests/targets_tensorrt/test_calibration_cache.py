"""TensorRT's text cache: header, names and scales against hand computation."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from networks import FOLDED, images, network
from tables import table_by_every_method, table_from_amax, table_from_images

from edgeres.core.methods import Method, Recover
from edgeres.core.recovery import Corrected, Recovery
from edgeres.core.table import CalibrationTable
from edgeres.errors import ConfigError
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.graph import view
from edgeres.targets.tensorrt.calibration_cache import trt_cache, version_digits
from edgeres.workflows import emit_trt_cache


@pytest.fixture
def identity(tmp_path: Path) -> LoadedModel:
    """One block with an identity shortcut."""
    return saved("identity", tmp_path)


def saved(name: str, folder: Path) -> LoadedModel:
    """Writes a tiny network."""
    onnx.save(network(name), folder / "m.onnx")
    return load_onnx(folder / "m.onnx")


def read(text: str) -> tuple[str, dict[str, float]]:
    """Returns the first line, and every tensor's scale as TensorRT reads it."""
    head, *lines = text.splitlines()
    pairs = (line.rsplit(": ", 1) for line in lines)
    return head, {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in pairs}


def test_the_text_by_hand(identity: LoadedModel) -> None:
    """127 over 127 is 1, 0x3f800000; 254 over 127 is 2; half of 127 is a half."""
    amax = {"image": 127.0, "entry": 254.0, "hidden_relu": 63.5, "main": 127.0, "last": 127.0}
    table = table_from_amax(view(network("identity")), {**amax, "pooled": 127.0})
    assert trt_cache(identity, table, "10.3.0") == (
        "TRT-100300-EntropyCalibration2\n"
        "image: 3f800000\n"
        "stem: 40000000\n"
        "entry: 40000000\n"
        "hidden: 3f000000\n"
        "hidden_relu: 3f000000\n"
        "main: 3f800000\n"
        "sum: 3f800000\n"
        "last: 3f800000\n"
        "pooled: 3f800000\n"
        "flat: 3f800000\n"
    )


def test_what_is_only_bounded_has_no_scale(identity: LoadedModel) -> None:
    """With one, TensorRT would round the logits to INT8."""
    table = table_from_amax(view(network("identity")), {}, bounded={"logits": 5.0})
    assert "logits" not in trt_cache(identity, table, "10.3.0")


@pytest.mark.parametrize("name", FOLDED)
def test_every_tensor_but_the_logits_has_a_scale(name: str, tmp_path: Path) -> None:
    """Under its name in the ONNX file, which is the one that TensorRT's parser gives it."""
    model = saved(name, tmp_path)
    graph = view(network(name))
    table = table_from_images(graph, images(2))
    _, scales = read(trt_cache(model, table, "8.6.2"))
    produced = [out for node in graph.nodes for out in node.output]
    head = {"logits", "scores", "scores_relu"}
    assert set(scales) == {"image", *produced} - head
    assert min(scales.values()) > 0


def test_what_only_moves_values_has_the_scale_of_its_source(tmp_path: Path) -> None:
    """Slice and Pad of an option-A shortcut, and the pool of a stem."""
    for name, moved, source in (
        ("option A", "sliced", "entry"),
        ("option A", "shortcut", "entry"),
        ("max-pooled stem", "entry", "stem_relu"),
    ):
        table = table_from_images(view(network(name)), images(2))
        _, scales = read(trt_cache(saved(name, tmp_path), table, "8.6.2"))
        assert scales[moved] == scales[source]


@pytest.mark.parametrize("method", [None, Method.MAX, Method.MSE, Method.ENTROPY])
def test_the_scales_are_those_of_the_method(method: Method | None, identity: LoadedModel) -> None:
    """The table's own unless another is asked for; float32 of amax / 127."""
    table: CalibrationTable = table_by_every_method(view(network("identity")), images(4))
    _, scales = read(trt_cache(identity, table, "8.6.2", method))
    amax = table.threshold("hidden_relu", method).s8
    assert scales["hidden_relu"] == struct.unpack("f", struct.pack("f", amax / 127))[0]


def test_a_dead_tensor_has_a_positive_scale(identity: LoadedModel) -> None:
    """TensorRT refuses a scale of zero."""
    table = table_from_amax(view(network("identity")), {"hidden_relu": 0.0})
    _, scales = read(trt_cache(identity, table, "8.6.2"))
    assert scales["hidden_relu"] == pytest.approx(1 / 127)


@pytest.mark.parametrize(
    ("version", "digits"),
    [
        ("7.1.3", "7103"),
        ("8.4.1", "8401"),
        ("8.5.2", "8502"),
        ("8.6.2", "8602"),
        ("10.3.0", "100300"),
        ("10.14.1", "101401"),
        ("10.3.0.26", "100300"),
    ],
)
def test_versions_as_tensorrt_numbers_them(version: str, digits: str) -> None:
    """8401 and 101401 stand in caches that those versions wrote."""
    assert version_digits(version) == digits


@pytest.mark.parametrize("version", ["", "10", "10.3", "JetPack 6", "v8.6.2"])
def test_what_is_no_version_is_refused(version: str, identity: LoadedModel) -> None:
    """With what one looks like, and the boards that have it."""
    table = table_from_amax(view(network("identity")), {})
    with pytest.raises(ConfigError, match=r"is no version; expected three numbers such as 8\.6\.2"):
        trt_cache(identity, replace(table), version)


def recovery(**values: object) -> Recovery:
    """Returns a recovery of one convolution's biases, with some values replaced."""
    plain = Recovery(
        kind=Recover.BIAS,
        method=Method.MSE,
        seed=0,
        samples=8,
        held_out=2,
        lowerings={"tensorrt": Corrected(before_db=20.0, after_db=21.0, biases={"main": (0.5,)})},
        equalization={},
        rounding={},
    )
    return replace(plain, **values)  # type: ignore[arg-type]


def test_thresholds_of_an_equalized_model_are_refused(identity: LoadedModel) -> None:
    """The file that TensorRT reads beside the cache has other ranges."""
    table = table_from_amax(view(network("identity")), {})
    equalized = replace(table, recovery=recovery(equalization={"hidden_relu": (0.5, 2.0)}))
    with pytest.raises(ConfigError, match=r"recovery equalized 1 activation.*--emit-trt-cache"):
        trt_cache(identity, equalized, "8.6.2")


def test_what_does_not_travel_is_warned_of(
    identity: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rounding and biases stay in the table; without recovery nothing is said."""
    table = table_from_amax(view(network("identity")), {})
    for recovered, messages in ((None, []), (recovery(), ["the cache holds thresholds only"])):
        caplog.clear()
        kept = replace(table, recovery=recovered)
        emit_trt_cache(identity, kept, "8.6.2", output=tmp_path / "calibration.cache")
        assert [message.split(":")[0] for message in caplog.messages] == messages
