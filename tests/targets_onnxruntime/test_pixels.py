"""The CPU's image keeps its pixels: exact levels, exact sums, and rounding where it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from networks import SIZE, images, initializers, network, network_from_body, swapped
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sure_means import sure_means
from tables import EMPTY, table_from_amax, table_from_images

from edgeres.calibration.recovery.cpu import cpu_biases
from edgeres.core.contract import PRESETS, Color, Contract
from edgeres.core.table import CalibrationTable
from edgeres.progress import silent
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.image import image_of
from edgeres.quantization.parameters import parameters_of
from edgeres.quantization.recovered import recovered
from edgeres.quantization.rounding import grid_scales, on_grid, pack
from edgeres.session import open_session, run_session
from edgeres.targets.onnxruntime import pixels as pixels_module
from edgeres.targets.onnxruntime.lowering import lower_for_cpu
from edgeres.targets.onnxruntime.pixels import pixel_grid, with_pixel_grid
from edgeres.targets.onnxruntime.placement import place_for_cpu

torch = pytest.importorskip("torch", reason="torch, the reference here, is not installed")

Array = NDArray[np.float32]

NETWORKS = {
    "plain": network("identity"),
    "folded": network_from_body(
        """
  stem = Conv<pads = [3, 3, 3, 3], strides = [2, 2]>(image, stem7_w, stem7_b)
  last = Relu(stem)
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, fc_w, fc_b)
"""
    ),
}
"""A network whose first convolution is 3x3, and one where it is 7x7 of stride 2."""

GEOMETRY = {"plain": {"stride": 1, "padding": 1}, "folded": {"stride": 2, "padding": 3}}


def pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Returns smooth images, (count, 3, 16, 16), of all levels from 0 to 255."""
    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, SIZE)[:, None], np.linspace(0, 1, SIZE)
    slopes = generator.uniform(-1, 1, (count, 3, 2, 1, 1))
    smooth = slopes[:, :, 0] * rows + slopes[:, :, 1] * columns
    smooth = smooth + 0.1 * generator.standard_normal(smooth.shape)
    low, high = smooth.min(axis=(1, 2, 3)), smooth.max(axis=(1, 2, 3))
    unit = (smooth - low.reshape(-1, 1, 1, 1)) / (high - low).reshape(-1, 1, 1, 1)
    levels: NDArray[np.uint8] = np.rint(255 * unit).astype(np.uint8)
    return levels


def prepared(levels: NDArray[np.uint8], contract: Contract) -> Array:
    """Returns the images as the contract makes them."""
    shape = (1, 3, 1, 1)
    values = levels.astype(np.float32) * np.float32(contract.scale)
    mean, std = (np.array(v, np.float32).reshape(shape) for v in (contract.mean, contract.std))
    image: Array = ((values - mean) / std).astype(np.float32)
    return image


def of_gray(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy that takes one channel, its first weights summed over the three."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    copied.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    stem = next(node for node in copied.graph.node if node.op_type == "Conv")
    tensor = next(t for t in copied.graph.initializer if t.name == stem.input[1])
    weight = numpy_helper.to_array(tensor).sum(axis=1, keepdims=True)
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copied


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), (0.1307, 0.3081), (0.0, 1.0)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_level_of_gray_is_kept(name: str, mean: float, std: float) -> None:
    """One channel has one grid, and the convolution on it is torch's on the image itself."""
    contract = Contract(
        height=SIZE, width=SIZE, channels=1, color=Color.GRAY, mean=(mean,), std=(std,)
    )
    model = of_gray(NETWORKS[name])
    graph, levels = view(model), pixels(8)[:, :1]
    x = ((levels.astype(np.float32) / np.float32(255) - mean) / std).astype(np.float32)
    table = replace(table_from_images(graph, x), contract=contract)
    lowered = lower_for_cpu(graph, table)
    stored = made(lowered, "image/u8", x)
    margin = GEOMETRY[name]["padding"]
    inside = slice(margin, SIZE + margin)
    assert np.array_equal(stored[:, :, inside, inside], levels)
    assert (np.abs(stored[:, 0, 0, 0] - 255 * mean) <= 0.75).all()
    logits, own = (
        run_session(open_session(m.SerializeToString(), integer=True), ["logits"], {"image": x})[0]
        for m in (lowered, model)
    )
    assert np.abs(logits - own).max() < 0.1 * np.abs(own).max()


def setting(name: str, preset: str) -> tuple[Graph, CalibrationTable, NDArray[np.uint8], Array]:
    """Returns a network, its table on images by a preset, and eight of these images."""
    graph, levels = view(NETWORKS[name]), pixels(8)
    x = prepared(levels, PRESETS[preset])
    return graph, replace(table_from_images(graph, x), contract=PRESETS[preset]), levels, x


def made(model: onnx.ModelProto, tensor: str, x: Array) -> NDArray[np.uint8]:
    """Returns a u8 tensor of a lowered network."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    copied.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.UINT8, None))
    session = open_session(copied.SerializeToString(), integer=True)
    return run_session(session, [tensor], {"image": x})[0].astype(np.uint8)


def convolved(name: str, x: Array, weight: Array, bias: Array) -> NDArray[np.float64]:
    """Returns what torch makes of a network's first convolution, in float64."""
    image, w, b = (torch.from_numpy(part.astype(np.float64)) for part in (x, weight, bias))
    found: NDArray[np.float64] = torch.conv2d(image, w, b, **GEOMETRY[name]).numpy()
    return found


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_level_of_every_channel_is_kept(name: str, preset: str) -> None:
    """The stored integers are the pixels, and what the stem pads with is the level next to zero."""
    graph, table, levels, x = setting(name, preset)
    lowered = lower_for_cpu(graph, table)
    stored = made(lowered, "image/u8", x)
    margin = GEOMETRY[name]["padding"]
    inside = slice(margin, SIZE + margin)
    assert np.array_equal(stored[:, :3, inside, inside], levels)
    zeros = np.array(PRESETS[preset].mean) / PRESETS[preset].scale
    assert (np.abs(stored[:, :3, 0, 0] - zeros) <= 0.75).all()
    assert stored.shape[1] == (4 if name == "folded" else 3)
    assert not stored[:, 3:].any()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stem_computes_what_its_weights_say(name: str, preset: str) -> None:
    """Against torch in float64 on the exact image: rounding of the output is all that is left."""
    graph, table, _, x = setting(name, preset)
    lowered = lower_for_cpu(graph, table)
    stem = graph.only_consumer("image")
    grid = pixel_grid(graph, table)
    assert stem is not None
    assert grid is not None
    trained = parameters_of(graph, stem)
    exact = convolved(name, x, grid.rounded(trained.weight), trained.bias)
    result = str(graph.consumers[stem.output[0]][0].output[0])
    scale = float(initializers(lowered)[result + "/scale"])
    expected = np.clip(exact / scale, 0, 255)
    errors = np.abs(made(lowered, result + "/u8", x) - expected)
    assert errors[..., 2:-2, 2:-2].max() < 0.55
    assert errors.max() < 3


def test_half_levels_would_be_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded fault: without the shift, rounding to even takes two levels for one."""
    graph, table, levels, x = setting("plain", "imagenet-inception")
    monkeypatch.setattr(pixels_module, "_NEAR_HALF", 0)
    stored = made(lower_for_cpu(graph, table), "image/u8", x)
    assert not np.array_equal(stored[:, :, 1:-1, 1:-1], levels)


def two_readers(graph: Graph) -> Graph:
    """Returns the network with a second convolution on the image, added to the first."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    stem = next(n for n in model.graph.node if n.output[0] == "stem")
    second = onnx.NodeProto()
    second.CopyFrom(stem)
    second.name, second.output[0] = "second", "second"
    stem.output[0] = "first"
    at = list(model.graph.node).index(stem) + 1
    model.graph.node.insert(at, second)
    model.graph.node.insert(at + 1, helper.make_node("Add", ["first", "second"], ["stem"]))
    return view(model)


def attributed(graph: Graph, **attributes: Any) -> Graph:
    """Returns the network with other attributes on its stem."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    stem = next(n for n in model.graph.node if n.output[0] == "stem")
    kept = [a for a in stem.attribute if a.name not in attributes]
    del stem.attribute[:]
    stem.attribute.extend(kept)
    stem.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items() if v != "")
    return view(model)


def test_what_is_no_image_of_pixels_is_rounded() -> None:
    """By the range that calibration saw: values beyond the contract's, and other first operators."""
    graph, table, _, _ = setting("plain", "cifar")
    stem = graph.only_consumer("image")
    assert stem is not None
    assert pixel_grid(graph, table) is not None
    beyond = table_from_amax(graph, {"image": 2.2})
    assert pixel_grid(graph, replace(beyond, contract=table.contract)) is None
    assert pixel_grid(graph.keeping({stem.name: "for the accuracy"}), table) is None
    assert pixel_grid(two_readers(graph), table) is None
    assert pixel_grid(attributed(graph, pads="", auto_pad="SAME_UPPER"), table) is None
    assert pixel_grid(graph, replace(table, tensors={})) is None
    below = replace(table.contract, mean=(-0.1, 0.0, 0.0))
    assert pixel_grid(graph, replace(table, contract=below)) is None


def test_an_image_that_would_no_longer_fold_is_rounded() -> None:
    """With one row of padding it has an odd number of rows; its squares of pixels save more."""
    graph, table, _, _ = setting("plain", "cifar")
    uneven = attributed(graph, pads=[1, 1, 0, 0], strides=[2, 2])
    assert pixel_grid(uneven, table) is None
    assert pixel_grid(attributed(graph, pads=[1, 1, 1, 1], strides=[2, 2]), table) is not None


def test_normal_images_are_rounded_as_ever() -> None:
    """The lowered network has no trace of pixels, whatever the contract says."""
    graph = view(swapped(network("identity")))
    lowered = lower_for_cpu(graph, table_from_images(graph, images(8)))
    assert initializers(lowered)["image/zero_point"] == 128
    assert not {"Pad", "Sub"} & {node.op_type for node in lowered.graph.node}


@pytest.mark.parametrize("preset", ["imagenet", "imagenet-caffe"])
def test_fitted_rounding_stays_where_the_grid_does(preset: str) -> None:
    """Levels that weigh alike keep the grid that AdaRound worked on; others are rounded anew."""
    graph, table, _, _ = setting("plain", preset)
    stem = graph.only_consumer("image")
    grid = pixel_grid(graph, table)
    assert stem is not None
    assert grid is not None
    weight = parameters_of(graph, stem).weight
    up = np.ones(weight.shape, bool)
    table = replace(table, recovery=replace(EMPTY, rounding={stem.name: pack(up)}))
    placed = with_pixel_grid(place_for_cpu(graph), pixel_grid(graph, table))
    changed = recovered(graph, table, placed, "onnxruntime")
    found = initializers(lower_for_cpu(changed, table))[stem.name + "/weight_s8"]
    fitted = on_grid(weight, grid_scales(weight), up)
    nearest = initializers(lower_for_cpu(graph, replace(table, recovery=None)))
    if grid.uniform:
        expected = np.rint(fitted / grid_scales(weight).reshape(-1, 1, 1, 1))
        assert np.array_equal(found, expected)
    else:
        assert np.array_equal(found, nearest[stem.name + "/weight_s8"])
    assert grid.uniform is (preset == "imagenet-caffe")


@pytest.mark.parametrize("name", NETWORKS)
def test_biases_are_corrected_for_the_exact_image(name: str) -> None:
    """The stem's correction is the mean that its rounded weights alone take away."""
    graph, table, _, x = setting(name, "imagenet")
    stem = graph.only_consumer("image")
    grid = pixel_grid(graph, table)
    assert stem is not None
    assert grid is not None
    shifts = cpu_biases(graph, table, x, fitted=6, recovered={}, progress=silent)
    trained = parameters_of(graph, stem)
    wanted, found = (
        convolved(name, x[:6], weight, trained.bias)
        for weight in (trained.weight, grid.rounded(trained.weight))
    )
    powers = np.square(wanted).mean(axis=(1, 2, 3))
    weights = 1 / np.maximum(powers, np.median(powers))
    expected = sure_means(wanted, found, weights / weights.mean(), relu=True)
    np.testing.assert_allclose(shifts[str(stem.name)], expected, atol=2e-5)


IMAGENET = PRESETS["imagenet"]
MEAN, STD = np.array(IMAGENET.mean), np.array(IMAGENET.std)

FORMS: dict[str, tuple[float, list[tuple[str, NDArray[np.float64], bool]]]] = {
    "Sub, Div": (1 / 255, [("Sub", MEAN, False), ("Div", STD, False)]),
    "Mul, Add": (1 / 255, [("Mul", 1 / STD, True), ("Add", -MEAN / STD, True)]),
    "one number first": (
        1.0,
        [("Div", np.array([255.0]), False), ("Sub", MEAN, False), ("Mul", 1 / STD, False)],
    ),
}
"""What a level of a pixel is fed as, and operators with their constants, which may come first."""


def preparing(
    model: onnx.ModelProto, operators: list[tuple[str, NDArray[np.float64], bool]]
) -> onnx.ModelProto:
    """Returns a network that does so much of its preprocessing itself."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    read, nodes = "image", []
    for index, (kind, values, is_first) in enumerate(operators):
        constant = values.astype(np.float32).reshape(-1, 1, 1)
        changed.graph.initializer.append(numpy_helper.from_array(constant, f"own{index}"))
        names = [f"own{index}", read] if is_first else [read, f"own{index}"]
        read = f"image{index}"
        nodes.append(helper.make_node(kind, names, [read], f"own{index}"))
    for node in changed.graph.node:
        node.input[:] = [read if name == "image" else name for name in node.input]
    body = list(changed.graph.node)
    del changed.graph.node[:]
    changed.graph.node.extend([*nodes, *body])
    return changed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("raw", [False, True], ids=["floats", "bytes"])
def test_preprocessing_inside_keeps_the_pixels_too(name: str, form: str, raw: bool) -> None:
    """The same integers and the same logits as of the network that is fed prepared images."""
    graph, table, levels, x = setting(name, "imagenet")
    expected = lower_for_cpu(graph, table, raw=raw)
    worth, operators = FORMS[form]
    inside = view(preparing(NETWORKS[name], operators))
    own = replace(IMAGENET, scale=worth, mean=(0.0,) * 3, std=(1.0,) * 3)
    fed = (levels * np.float32(worth)).astype(np.float32)
    lowered = lower_for_cpu(inside, replace(table_from_images(inside, fed), contract=own), raw=raw)
    last = f"image{len(operators) - 1}"
    if raw:
        assert not [node for node in lowered.graph.node if node.name.startswith("own")]
        both = [as_bytes(model) for model in (expected, lowered)]
        found = [run_integer(model, levels) for model in both]
    else:
        tensors = [made(expected, "image/u8", x), made(lowered, f"{last}/u8", fed)]
        assert np.array_equal(tensors[0], tensors[1])
        found = [run_integer(expected, x), run_integer(lowered, fed)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4 * float(np.abs(found[0]).max()))


def as_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a network lowered for bytes, with its input declared as such."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    del changed.graph.value_info[:]
    return changed


def run_integer(model: onnx.ModelProto, x: NDArray[Any]) -> Array:
    """Returns the logits of a lowered network."""
    session = open_session(model.SerializeToString(), integer=True)
    return run_session(session, ["logits"], {"image": x})[0]


@pytest.mark.parametrize(
    ("kind", "values", "is_first"),
    [
        ("Sub", MEAN, True),
        ("Div", STD, True),
        ("Mul", -STD, False),
        ("Div", np.zeros(3), False),
        ("Mul", np.full((3, SIZE, SIZE), 2.0), False),
        ("Add", np.full(3, np.nan), False),
        ("Sub", np.full(3, np.inf), False),
        ("Mul", np.full(3, 1e-40), False),
    ],
    ids=[
        *("constant less image", "constant by image", "negative", "by zero", "a value a pixel"),
        *("plus NaN", "less infinity", "below float32's numbers"),
    ],
)
def test_other_arithmetic_is_a_layer_like_any(
    kind: str, values: NDArray[np.float64], is_first: bool
) -> None:
    """Pixels are no levels behind it, or not by channel: the image stays what the network is fed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(NETWORKS["plain"])
    constant = values if values.ndim == 3 else values.reshape(-1, 1, 1)
    changed.graph.initializer.append(numpy_helper.from_array(constant.astype(np.float32), "own"))
    names = ["own", "image"] if is_first else ["image", "own"]
    for node in changed.graph.node:
        node.input[:] = ["changed" if name == "image" else name for name in node.input]
    changed.graph.node.insert(0, helper.make_node(kind, names, ["changed"], "changed"))
    assert image_of(view(changed)).tensor == "image"
    assert image_of(view(preparing(NETWORKS["plain"], FORMS["Sub, Div"][1]))).tensor == "image1"
