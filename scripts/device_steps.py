"""The steps of verify_on_device.py: what each makes, measures and expects."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from device_bench import Bench, FailureError, Figures, LackError, Options, PreparedNetwork, trtexec
from numpy.typing import NDArray

from edgeres.core.bench_requests import Timing
from edgeres.core.contract import preset
from edgeres.core.contract_options import ContractOptions
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest, OnnxExportRequest
from edgeres.images import (
    Dataset,
    batches,
    embedded_digits,
    embedded_path,
    load_dataset,
    select,
)
from edgeres.onnx_file import load_onnx
from edgeres.plurals import percent
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.serialization import to_json
from edgeres.targets.runner import HostMemory, Runner
from edgeres.targets.session_runner import model_runner, network_runner
from edgeres.targets.tensorrt.runner import TensorRTRunner
from edgeres.workflows import (
    BuildInputs,
    SelectionData,
    build_from_model,
    calibrate_model,
    export_stage,
)

BATCH = 16
SAMPLES = 400

NOISE = {Precision.FP32: 0.01, Precision.FP16: 0.03}
"""Largest relative L2 distance of an engine's logits from the simulation's; FP32 engines compute
with TF32 on Ampere and later."""
INT8_NOISE = 0.2
MAX_DROP_PP = 1.0
MIXED_DROP_PP = 0.2
MAX_GROWTH_MIB = 8.0
"""What the process may grow over the inferences of the leak test: allocators keep some."""
TRTEXEC_TOLERANCE = 0.1

Step = tuple[str, Callable[[Bench], Figures]]
EngineStep = Callable[..., Figures]


def steps(options: Options) -> Iterator[Step]:
    """Yields the steps in the order in which they build on each other."""
    for network in options.networks:
        yield f"{network}: model and ranges", MODELS[network]
        for precision in Precision:
            for title, step in STEPS.items():
                yield f"{network} {precision}: {title}", _bound(step, network, precision)
    first = options.networks[0]
    yield f"{first}: memory over many inferences", _bound(leaks, first)
    yield f"{first}: four streams, and graphs", _bound(streams_and_graphs, first)
    yield f"{first}: context shared with torch", _bound(shared_context, first)


def _bound(step: EngineStep, *about: Any) -> Callable[[Bench], Figures]:
    return lambda bench: step(bench, *about)


def digits(bench: Bench) -> Figures:
    """Exports and calibrates the embedded digits' resnet20."""
    bench.need("torch")
    train, test = embedded_digits()
    stage, folder = export_stage(), bench.options.folder
    request = stage.ExportRequest(
        architecture="resnet20",
        weights=embedded_path("digits_resnet20.safetensors"),
        contract=ContractOptions(preset="digits"),
    )
    model = stage.export_model(request, output=folder / "digits.onnx").path
    images = np.stack([train.image(index) for index in range(len(train))])
    np.savez(folder / "train.npz", images=images, labels=np.asarray(train.labels))
    return prepare(bench, "digits", model, folder / "train.npz", test)


def resnet50(bench: Bench) -> Figures:
    """Calibrates the given ResNet-50 on the given images, or random ones."""
    options = bench.options
    model = options.onnx or random_resnet50(bench)
    data = options.data or random_images(options.folder / "images.npz", options.images)
    return prepare(bench, "resnet50", model, data, select(load_dataset(data), options.images, 1))


MODELS: Mapping[str, Callable[[Bench], Figures]] = {"digits": digits, "resnet50": resnet50}


def random_resnet50(bench: Bench) -> Path:
    """Writes a ResNet-50 with random weights."""
    bench.need("torch")
    import torch

    from edgeres.networks import find_spec
    from edgeres.networks.onnx_export import export_onnx
    from edgeres.networks.resnet import build_model

    torch.manual_seed(0)
    config = OnnxExportRequest(contract=preset("imagenet"), architecture="resnet50")
    output = bench.options.folder / "resnet50.onnx"
    return export_onnx(build_model(find_spec("resnet50")), config, output=output).path


def random_images(path: Path, count: int) -> Path:
    """Writes coarse coloured noise: white noise would leave most channels near zero."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    images = coarse.repeat(16, axis=1).repeat(16, axis=2)
    np.savez(path, images=images, labels=np.zeros(count, np.int64))
    return path


def prepare(bench: Bench, name: str, model: Path, data: Path, test: Dataset) -> Figures:
    """Calibrates on the data and keeps the test images as the network takes them."""
    described = load_onnx(model).artifact
    samples = CalibrationRequest(samples=min(bench.options.images, 512))
    table = calibrate_model(model, data, samples)
    with closing(batches(test, described.contract or table.contract, batch_size=BATCH)) as stream:
        parts = [(batch.images, batch.labels) for batch in stream]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    bench.networks[name] = PreparedNetwork(
        model=model, images=images, labels=labels, table=table, data=data
    )
    return {"model_sha256": described.sha256, "images": len(images), "calibrated_on": table.samples}


def simulate(bench: Bench, name: str, precision: Precision) -> Figures:
    """Computes on the CPU what the engine should: INT8 in TensorRT's placement, FP32 otherwise."""
    network = bench.network(name)
    model = load_onnx(network.model)
    runner: Runner = model_runner(model)
    if precision is Precision.INT8:
        runner = network_runner(quantize_for_tensorrt(model, network.table), "simulated")
    with runner:
        bench.simulated[name, precision] = logits_of(runner, network.images)
    return {"right": count_correct(bench.simulated[name, precision], network.labels)}


def build(bench: Bench, name: str, precision: Precision) -> Figures:
    """Builds the engine on this machine."""
    bench.need("GPU", "TensorRT")
    network = bench.network(name)
    mixed = precision is Precision.MIXED
    config = BuildRequest(
        target=bench.options.target,
        precision=precision,
        batch=(1, 1, BATCH),
        max_drop_pp=MIXED_DROP_PP if mixed else None,
    )
    selection = SelectionData(data=network.data, labelled=False, samples=bench.options.images)
    engine = build_from_model(
        BuildInputs(
            model=network.model,
            table=network.table if precision.quantizes else None,
            selection=selection if mixed else None,
            output=bench.options.folder / f"{name}.{precision}.plan",
        ),
        config,
    )
    bench.engines[name, precision] = engine
    manifest = engine.manifest
    about = {"gpu": manifest.gpu, "versions": dict(manifest.versions), "flags": manifest.flags}
    return {"bytes": engine.path.stat().st_size, **about}


def accuracy(bench: Bench, name: str, precision: Precision) -> Figures:
    """Compares the engine's logits and accuracy with the simulation's."""
    engine, network = bench.engine(name, precision), bench.network(name)
    expected = bench.simulated[name, precision]
    with TensorRTRunner(engine) as runner:
        logits = logits_of(runner, network.images)
    distance = float(np.linalg.norm(logits - expected) / np.linalg.norm(expected))
    correct = count_correct(logits, network.labels)
    drop = 100 * (count_correct(expected, network.labels) - correct) / len(logits)
    limit = NOISE.get(precision, INT8_NOISE)
    figures: Figures = {
        "right": correct,
        "drop_pp": drop,
        "same_answer": float((logits.argmax(1) == expected.argmax(1)).mean()),
        "relative_l2": distance,
        "limits": {"relative_l2": limit, "drop_pp": MAX_DROP_PP},
    }
    if not (distance <= limit and drop <= MAX_DROP_PP):
        raise FailureError("the engine is not what was simulated", figures)
    return figures


def coverage(bench: Bench, name: str, precision: Precision) -> Figures:
    """Returns the layers and precisions that the builder's inspector lists."""
    manifest = to_json(bench.engine(name, precision).manifest)
    if manifest.get("audit") is None:
        raise LackError("the builder gave no layer list")
    return {"audit": manifest["audit"]}


def latency(bench: Bench, name: str, precision: Precision) -> Figures:
    """Times one image in every mode, with copies and in mapped memory."""
    engine, images = bench.engine(name, precision), bench.network(name).images[:1]
    figures: Figures = {}
    for memory in HostMemory:
        with TensorRTRunner(engine, memory=memory) as runner:
            for timing in Timing:
                measure = runner.stopwatch(images, timing, time.perf_counter_ns)
                samples = [measure() / 1e6 for _ in range(SAMPLES)][SAMPLES // 4 :]
                p50, p99 = np.percentile(samples, (50, 99))
                figures[f"{timing}, {memory}"] = {"p50_ms": float(p50), "p99_ms": float(p99)}
    return figures


def against_trtexec(bench: Bench, name: str, precision: Precision) -> Figures:
    """Compares the network's time with trtexec's on the same plan."""
    engine = bench.engine(name, precision)
    bench.need("trtexec")
    images = bench.network(name).images[:1]
    shape = "x".join(map(str, images.shape))
    command = [trtexec() or "", f"--loadEngine={engine.path}"]
    command.append(f"--shapes={engine.manifest.input.name}:{shape}")
    output = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False
    ).stdout
    theirs = gpu_compute_ms(output)
    with TensorRTRunner(engine, memory=HostMemory.COPIED) as runner:
        measure = runner.stopwatch(images, Timing.COMPUTE, time.perf_counter_ns)
        ours = float(np.median([measure() / 1e6 for _ in range(SAMPLES)]))
    figures = {"trtexec_ms": theirs, "edgeres_ms": ours, "ratio": ours / theirs}
    if abs(ours / theirs - 1) > TRTEXEC_TOLERANCE:
        raise FailureError(f"the two differ by more than {percent(TRTEXEC_TOLERANCE, 0)}", figures)
    return figures


def gpu_compute_ms(output: str) -> float:
    """Returns the median of `GPU Compute Time` in trtexec's output."""
    match = re.search(r"GPU Compute Time:.*?median = ([\d.]+) ms", output)
    if match is None:
        raise FailureError("trtexec printed no GPU compute time", {"output": output[-2000:]})
    return float(match[1])


STEPS: Mapping[str, EngineStep] = {
    "simulation on the CPU": simulate,
    "build": build,
    "accuracy": accuracy,
    "coverage": coverage,
    "latency": latency,
    "trtexec": against_trtexec,
}
"""Steps of every engine."""


def leaks(bench: Bench, name: str) -> Figures:
    """Compares the memory of process and device before and after many inferences of all batch sizes."""
    engine, images = bench.engine(name, Precision.INT8), bench.network(name).images
    import pycuda.driver as cuda

    with TensorRTRunner(engine, graph=True) as runner:
        for size in range(1, BATCH + 1):
            runner.infer(images[:size])
        with runner.current():
            device_before, host_before = cuda.mem_get_info()[0], resident_mib()
        for turn in range(bench.options.inferences):
            runner.infer(images[: turn % BATCH + 1])
        with runner.current():
            device_mib = (device_before - cuda.mem_get_info()[0]) / 2**20
    host_mib = resident_mib() - host_before
    figures = {"inferences": bench.options.inferences, "device": device_mib, "host": host_mib}
    if max(device_mib, host_mib) > MAX_GROWTH_MIB:
        raise FailureError(f"memory grew by more than {MAX_GROWTH_MIB} MiB", figures)
    return figures


def streams_and_graphs(bench: Bench, name: str) -> Figures:
    """Compares four streams in four threads, and graphs, with one stream without."""
    engine, images = bench.engine(name, Precision.INT8), bench.network(name).images[:BATCH]
    with TensorRTRunner(engine) as runner:
        expected = runner.infer(images)
    worst = {}
    for title, graph in (("four streams", False), ("four streams, graphs", True)):
        with (
            TensorRTRunner(engine, streams=4, graph=graph) as runner,
            ThreadPoolExecutor(4) as pool,
        ):
            answers = list(pool.map(lambda _, r=runner: r.infer(images), range(100)))
        worst[title] = max(float(np.abs(answer - expected).max()) for answer in answers)
    if max(worst.values()) > 1e-3 * float(np.abs(expected).max()):
        raise FailureError("the answers differ", worst)
    return worst


def shared_context(bench: Bench, name: str) -> Figures:
    """Runs the engine between two uses of torch's own memory on the GPU."""
    engine, images = bench.engine(name, Precision.INT8), bench.network(name).images[:1]
    bench.need("torch")
    import torch

    if not torch.cuda.is_available():
        raise LackError("torch was built without CUDA")
    tensor = torch.arange(1000.0, device="cuda")
    with TensorRTRunner(engine) as runner:
        runner.infer(images)
        inside = float((tensor + 1).sum().item())
    after = float((tensor + 1).sum().item())
    if not inside == after == 500500.0:
        raise FailureError("torch computed something else", {"inside": inside, "after": after})
    return {"torch": torch.__version__}


def logits_of(runner: Runner, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the logits of all images, batch by batch."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([runner.infer(images[start : start + BATCH]) for start in starts])


def count_correct(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """Returns how many of the images have the highest logit at their label."""
    return int((logits.argmax(axis=1) == labels).sum())


def resident_mib() -> float:
    """Returns the memory of this process. Source: proc(5), statm, in pages."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
