#!/usr/bin/env python3
"""Quantizes an ONNX model with one tool, and runs what OpenVINO made, in that tool's environment.

`benchmarks.quantization` starts it as a child, so it needs numpy and the tool and nothing else of
this project. Standard output carries replies alone, one JSON value per line: whatever a
tool prints goes to standard error.

Example:
  python benchmarks/peer_quantizers.py quantize nncf default --model m.onnx --images calibration.npy -o q.onnx
  python benchmarks/peer_quantizers.py serve q.xml --images validation.npy --threads 2
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Infer = Callable[[Images], NDArray[np.float32]]


@dataclass(frozen=True)
class Stored:
    """Decoded images in memory, as edgeres' calibration takes them."""

    images: Images
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """One model to quantize."""

    variant: str
    """A key of the tool's `variants`."""
    model: Path
    images: Images
    """(N, 3, H, W), preprocessed as the model expects."""
    output: Path


@dataclass(frozen=True)
class Tool:
    """A quantizer and what it is made of."""

    module: str
    """Imported before the clock starts."""
    quantize: Callable[[Request], None]
    variants: tuple[str, ...]
    packages: tuple[str, ...]
    """Distributions whose versions the figures depend on."""
    suffix: str = ".onnx"
    """Of the file that it writes."""


def with_edgeres(request: Request) -> None:
    """Calibrates by the method that the variant names and writes the CPU's INT8 engine."""
    from edgeres.calibration.calibrate import calibrate
    from edgeres.core.methods import Method
    from edgeres.core.requests import BuildRequest, CalibrationRequest
    from edgeres.onnx_file import load_onnx
    from edgeres.targets.base import build_engine
    from edgeres.targets.onnxruntime.quantize import quantize_for_cpu

    model = load_onnx(request.model)
    contract = model.artifact.contract
    if contract is None:
        raise SystemExit(f"{request.model} carries no contract. Export it with edgeres.")
    config = CalibrationRequest(method=Method(request.variant), samples=len(request.images))
    stored = (Stored(part, ("",) * len(part)) for part in parts(request.images, config.batch_size))
    table = calibrate(model, stored, config, contract=contract, data="memory")
    build_engine(quantize_for_cpu(model, table), BuildRequest(), contract, output=request.output)


def with_onnxruntime(request: Request) -> None:
    """Quantizes statically to Q/DQ with per-channel weights, after the tool's own preparation."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    method, activations = request.variant.split()
    symmetric = activations == "s8"
    prepared = request.output.with_suffix(".prepared.onnx")
    quant_pre_process(str(request.model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(request.output),
        feeds(request),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.from_string("QInt8" if symmetric else "QUInt8"),
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"ActivationSymmetric": symmetric},
    )


def feeds(request: Request) -> Any:
    """Returns the images as an ONNX Runtime `CalibrationDataReader`."""
    from onnxruntime.quantization import CalibrationDataReader

    name = input_name(request.model)
    images = parts(request.images, 1)  # a larger batch takes more memory and is no faster

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Images] | None:
            image = next(images, None)
            return None if image is None else {name: image}

    return Reader()


def with_modelopt(request: Request) -> None:
    """Quantizes with Model Optimizer's calibration method of the variant's name."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(request.model),
        quantize_mode="int8",
        calibration_data={input_name(request.model): request.images},
        calibration_method=request.variant,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(request.output),
    )


def with_nncf(request: Request) -> None:
    """Quantizes the ONNX model with NNCF's default preset."""
    import nncf
    import onnx

    name = input_name(request.model)
    data = nncf.Dataset(list(parts(request.images, 1)), lambda image: {name: image})
    quantized = nncf.quantize(onnx.load(request.model), data, subset_size=len(request.images))
    onnx.save(quantized, request.output)


def with_openvino(request: Request) -> None:
    """Quantizes OpenVINO's form of the model with NNCF's default preset."""
    import nncf
    import openvino

    data = nncf.Dataset(list(parts(request.images, 1)))
    converted = openvino.convert_model(request.model)
    quantized = nncf.quantize(converted, data, subset_size=len(request.images))
    openvino.save_model(quantized, request.output)


TOOLS = {
    "edgeres": Tool(
        module="edgeres.calibration",
        quantize=with_edgeres,
        variants=("max", "auto"),
        packages=("edgeres", "onnx", "onnxruntime", "numpy"),
    ),
    "onnxruntime": Tool(
        module="onnxruntime.quantization",
        quantize=with_onnxruntime,
        variants=tuple(
            f"{method} {activations}"
            for method in ("MinMax", "Entropy", "Percentile")
            for activations in ("s8", "u8")
        ),
        packages=("onnxruntime", "onnx", "numpy"),
    ),
    "modelopt": Tool(
        module="modelopt.onnx.quantization",
        quantize=with_modelopt,
        variants=("max", "entropy"),
        packages=("nvidia-modelopt", "onnxruntime", "onnx", "torch", "numpy"),
    ),
    "nncf": Tool(
        module="nncf",
        quantize=with_nncf,
        variants=("default",),
        packages=("nncf", "onnxruntime", "onnx", "numpy"),
    ),
    "openvino": Tool(
        module="openvino",
        quantize=with_openvino,
        variants=("default",),
        packages=("openvino", "nncf", "numpy"),
        suffix=".xml",
    ),
}


def main() -> int:
    """Runs the command and writes its replies."""
    options = arguments().parse_args()
    with reply_stream() as replies:
        if options.command == "quantize":
            limit_memory(options.memory_gib)
            request = Request(
                options.variant, options.model, np.load(options.images), options.output
            )
            print(json.dumps(measured(TOOLS[options.tool], request)), file=replies, flush=True)
        else:
            first = np.load(options.images, mmap_mode="r")[:1].copy()
            serve(openvino_infer(options.model, options.threads), first, sys.stdin, replies)
    return 0


def arguments() -> argparse.ArgumentParser:
    """Returns the parser of both commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    quantize = commands.add_parser("quantize", help="quantize one model")
    quantize.add_argument("tool", choices=list(TOOLS))
    quantize.add_argument("variant")
    quantize.add_argument("--model", type=Path, required=True)
    quantize.add_argument("--memory-gib", type=float, default=8, help="more is refused")
    quantize.add_argument("-o", "--output", type=Path, required=True)
    served = commands.add_parser(
        "serve", help="run an OpenVINO model on requests from standard input"
    )
    served.add_argument("model", type=Path)
    served.add_argument("--threads", type=int, required=True)
    for command in (quantize, served):
        command.add_argument("--images", type=Path, required=True, help=".npy, (N, 3, H, W)")
    return parser


def reply_stream() -> TextIO:
    """Returns standard output for replies, and sends whatever else is printed to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def limit_memory(gib: float) -> None:
    """Lets allocations beyond the limit fail in this process, before the machine runs out."""
    size = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def measured(tool: Tool, request: Request) -> dict[str, Any]:
    """Quantizes and returns images, seconds, peak memory and versions.

    `beyond_mib` is what came on top of the interpreter, the tool's code and the images.
    """
    importlib.import_module(tool.module)
    before = restarted_peak_mib()
    begin = time.perf_counter()
    tool.quantize(request)
    return {
        "images": len(request.images),
        "seconds": round(time.perf_counter() - begin, 2),
        "peak_mib": peak_mib(),
        "beyond_mib": peak_mib() - before,
        "versions": {name: version(name) for name in tool.packages},
    }


def restarted_peak_mib() -> int:
    """Returns this process' resident size now, from which its peak counts anew.

    Source: proc_pid_clear_refs(5): 5 resets the peak to the current size.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak_mib()


def peak_mib() -> int:
    """Returns this process' largest resident size so far.

    Linux's count for the process alone: getrusage's begins with what the parent held.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if match is None:
        raise SystemExit("/proc/self/status has no VmHWM. Peak memory needs Linux.")
    return int(match[1]) // 1024


def openvino_infer(model: Path, threads: int) -> Infer:
    """Returns OpenVINO's inference of one image, compiled for the lowest latency."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape([1, *network.input().partial_shape[1:]])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(network, "CPU", settings).create_infer_request()

    def infer(image: Images) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = request.infer({0: image}, share_inputs=True)[0]
        return logits

    return infer


def serve(infer: Infer, first: Images, requests: TextIO, replies: TextIO) -> None:
    """Answers requests until they end, each with one line of JSON.

    `go N`: the milliseconds of N inferences of the first image. `classes FILE`: the class of
    every image of an `.npy`. The first line reports that the model is loaded.

    Args:
        infer: one image, (1, 3, H, W), to its logits, (1, classes).
        first: (1, 3, H, W).
        requests: one per line.
        replies: where the replies go.
    """
    print(json.dumps("ready"), file=replies, flush=True)
    for line in requests:
        verb, _, rest = line.strip().partition(" ")
        if verb == "go":
            values: list[Any] = [timed_ms(infer, first) for _ in range(int(rest))]
        elif verb == "classes":
            values = list(classes(infer, np.load(rest, mmap_mode="r")))
        else:
            raise SystemExit(f"{line.strip()!r} is no request; expected go N or classes FILE.")
        print(json.dumps(values), file=replies, flush=True)


def timed_ms(infer: Infer, image: Images) -> float:
    """Returns the milliseconds of one inference."""
    begin = time.perf_counter_ns()
    infer(image)
    return (time.perf_counter_ns() - begin) / 1e6


def classes(infer: Infer, images: Images) -> Iterator[int]:
    """Yields the index of the highest logit of every image."""
    for image in parts(images, 1):
        yield int(infer(np.ascontiguousarray(image)).argmax())


def parts(images: Images, size: int) -> Iterator[Images]:
    """Yields the images in their order, in batches of `size`."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def input_name(model: Path) -> str:
    """Returns the name of an ONNX model's image input."""
    import onnx

    name: str = onnx.load(model, load_external_data=False).graph.input[0].name
    return name


if __name__ == "__main__":
    sys.exit(main())
