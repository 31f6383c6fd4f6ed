"""A program of one file that classifies images with an engine: the contract written out.

It needs NumPy, an image library and the runtime alone, and no edgeres. What it computes is what
`edgeres.images` computes, in the few lines that this one contract takes.
"""

from __future__ import annotations

import textwrap

from edgeres.core.artifacts import EngineArtifact
from edgeres.core.contract import Color, Contract, InputType
from edgeres.core.resize import Resize, ResizeLibrary, ResizeMode
from edgeres.deploy.folder import Files, template
from edgeres.deploy.golden import GoldenPair
from edgeres.deploy.triton import LABELS, label_file
from edgeres.errors import ConfigError
from edgeres.targets.base import target_of
from edgeres.version import __version__

_OPENCV_FLAGS = {
    "nearest": "INTER_NEAREST",
    "bilinear": "INTER_LINEAR",
    "bicubic": "INTER_CUBIC",
    "lanczos": "INTER_LANCZOS4",
    "area": "INTER_AREA",
}

_LOAD_PILLOW = '''
"""Returns a file's pixels, (H, W, 3) uint8 RGB, as stored: EXIF's orientation is not applied."""
with Image.open(path) as image:
    if image.mode.startswith("I") or image.mode == "F":
        sys.exit(f"{path} has more than 8 bits a channel. Convert it to 8-bit RGB.")
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        sys.exit(f"{path} has transparent pixels. Lay it on a background first.")
    return np.asarray(image.convert("RGB"))
'''

_LOAD_OPENCV = '''
"""Returns a file's pixels, (H, W, 3) uint8 RGB, turned upright by EXIF."""
image = cv2.imread(str(path), cv2.IMREAD_COLOR)
if image is None:
    sys.exit(f"{path} cannot be read as an image.")
return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
'''

_SHORTEST = """
# The short side gets {short} pixels; the long one is truncated, as torchvision has it.
height, width = pixels.shape[:2]
longer = int({short} * max(height, width) / min(height, width))
size = ({short}, longer) if width < height else (longer, {short})
if min(height, width) != {short}:
    pixels = {resized}
"""

_OPENCV_LETTERBOX = """
# The whole image in the middle of a frame; of an odd margin the smaller half comes first.
height, width = pixels.shape[:2]
ratio = min({height} / height, {width} / width)
size = round(width * ratio), round(height * ratio)
frame = np.full(({height}, {width}, *pixels.shape[2:]), {pad}, np.uint8)
top, left = ({height} - size[1]) // 2, ({width} - size[0]) // 2
resized = {resized}
frame[top : top + size[1], left : left + size[0]] = resized
pixels = frame
"""

_CROP = """
# The centre; of an odd margin the larger half is below and on the right-hand side.
height, width = pixels.shape[:2]
if height < HEIGHT or width < WIDTH:
    sys.exit(f"{width} x {height} pixels are fewer than the {WIDTH} x {HEIGHT} of the network.")
top, left = (height - HEIGHT) // 2, (width - WIDTH) // 2
pixels = pixels[top : top + HEIGHT, left : left + WIDTH]
"""


def python_files(
    engine: EngineArtifact, golden: GoldenPair | None, *, gives_probabilities: bool
) -> Files:
    """Returns the files of a folder with the program.

    Args:
        engine: what it runs.
        golden: its golden pair; None where this machine cannot run it.
        gives_probabilities: whether the network ends in probabilities.

    Raises:
        ConfigError: the program cannot express the contract.
    """
    manifest = engine.manifest
    contract, target = manifest.contract, target_of(manifest)
    on_bytes = contract.input is InputType.UINT8
    if on_bytes and target.uses_gpu:
        raise ConfigError(
            f"{engine.path} is a plan that takes {contract.input}, and the program feeds plans float32. "
            "Feed it with edgeres.load, or export the model with --input float."
        )
    planar = manifest.input.shape[1:] == contract.shape
    library = contract.resize.library
    program = template(
        "classify.py.txt",
        ENGINE_NAME=engine.path.name,
        VERSION=__version__,
        CONTRACT=contract,
        IMPORTS=_imports(contract.resize, target.program_imports),
        RUN=template("run_plan.py.txt" if target.uses_gpu else "run_onnx.py.txt"),
        FILE=f"engine{engine.path.suffix}",
        INPUT=manifest.input.name,
        OUTPUT=manifest.output.name,
        HEIGHT=contract.height,
        WIDTH=contract.width,
        SCALE=repr(contract.scale),
        MEAN=repr(contract.mean),
        STD=repr(contract.std),
        ORDER=contract.color,
        LOAD=_indented(_LOAD_PILLOW if library is ResizeLibrary.PILLOW else _LOAD_OPENCV),
        PREPARE=_indented(prepare_code(contract, planar=planar)),
        FED=("planes" if planar else "rows of pixels") + f", {contract.input}",
        PROBABILITIES="outputs" if gives_probabilities else "softmax(outputs)",
        IMAGE="golden.png" if golden is None else golden.name,
    )
    image_library = "Pillow" if library is ResizeLibrary.PILLOW else "opencv-python-headless"
    # A plan belongs to the version that built it; an ONNX file runs on later ones too.
    runtimes = [
        f"{package}=={manifest.versions[package]}"
        if target.uses_gpu and package in manifest.versions
        else package
        for package in target.program_requirements
    ]
    files = {
        "classify.py": program.encode(),
        f"engine{engine.path.suffix}": engine.content,
        "requirements.txt": "\n".join(["numpy", image_library, *runtimes, ""]).encode(),
        "README.md": template(
            "python.md", ENGINE=engine.path.name, VERSION=__version__, CONTRACT=contract
        ).encode(),
    }
    if labels := label_file(manifest.classes):
        files[LABELS] = labels
    if golden is not None:
        files |= {golden.name: golden.content, "golden.json": golden.expected.encode()}
    return files


def prepare_code(contract: Contract, *, planar: bool = True) -> str:
    """Returns the lines that turn `pixels`, (H, W, 3) uint8 RGB, into what the network takes.

    Args:
        contract: the preprocessing.
        planar: whether the network takes (C, H, W); of bytes it may be (H, W, C).
    """
    resize = contract.resize
    opencv = resize.library is ResizeLibrary.OPENCV
    steps = []
    if contract.color is Color.GRAY:
        steps.append(
            "pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)"
            if opencv
            else 'pixels = np.asarray(Image.fromarray(pixels).convert("L"))'
        )
    steps += [_resize_code(resize, gray=contract.color is Color.GRAY), _CROP]
    order = {
        Color.BGR: "pixels = pixels[..., ::-1]",
        Color.GRAY: f"pixels = np.repeat(pixels[..., None], {contract.channels}, axis=-1)",
    }
    steps.append(order.get(contract.color, ""))
    if contract.input is InputType.UINT8:
        turned = ".transpose(2, 0, 1)" if planar else ""
        rows = f"pixels.reshape({contract.height}, {contract.width}, {contract.channels})"
        steps.append("# The network normalizes them itself.")
        steps.append(f"return np.ascontiguousarray({rows}{turned}[None])")
        return "\n".join(step.strip("\n") for step in steps if step)
    steps.append("values = (pixels.astype(np.float64) * SCALE - MEAN) / STD")
    steps.append("return np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)")
    return "\n".join(step.strip("\n") for step in steps if step)


def _resize_code(resize: Resize, *, gray: bool) -> str:
    if resize.mode is ResizeMode.NONE:
        return ""
    flag = f"cv2.{_OPENCV_FLAGS[resize.interpolation.value]}"
    pillow = f"Image.Resampling.{resize.interpolation.name}"
    by_opencv = resize.library is ResizeLibrary.OPENCV
    resized = (
        f"cv2.resize(np.ascontiguousarray(pixels), size, interpolation={flag})"
        if by_opencv
        else f"np.asarray(Image.fromarray(pixels).resize(size, {pillow}))"
    )
    if resize.mode is ResizeMode.SHORTEST:
        return _SHORTEST.format(short=resize.short, resized=resized)
    if resize.mode is ResizeMode.SQUASH:
        return f"# Both sides, whatever the shape.\nsize = {resize.width}, {resize.height}\npixels = {resized}"
    if by_opencv:
        return _OPENCV_LETTERBOX.format(
            height=resize.height, width=resize.width, pad=resize.pad, resized=resized
        )
    color = resize.pad if gray else (resize.pad,) * 3
    return (
        "# The whole image in the middle of a frame.\n"
        f"framed = ImageOps.pad(Image.fromarray(pixels), ({resize.width}, {resize.height}), "
        f"{pillow}, {color})\npixels = np.asarray(framed)"
    )


def _imports(resize: Resize, runtime: tuple[str, ...]) -> str:
    """Returns the imports of packages, in sorted order."""
    opencv = ["import cv2"] if resize.library is ResizeLibrary.OPENCV else []
    framed = ", ImageOps" if resize.mode is ResizeMode.LETTERBOX else ""
    pillow = [] if opencv else [f"from PIL import Image{framed}"]
    return "\n".join([*opencv, "import numpy as np", *runtime, *pillow])


def _indented(code: str) -> str:
    return textwrap.indent(code.strip("\n"), "    ").removeprefix("    ")
