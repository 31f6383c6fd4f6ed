"""What scripts/fuzz.py reads: valid small files, made by edgeres, and the readers of each."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from mutations import (
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_onnx,
    mutate_safetensors,
    mutate_zip,
)
from rich.console import Console

from edgeres.core.artifacts import manifest_path
from edgeres.core.contract_options import ContractOptions
from edgeres.core.described import load_described
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.core.table import load_table
from edgeres.core.verdict import load_run
from edgeres.deploy.pbtxt import parse
from edgeres.errors import EdgeresError
from edgeres.evaluation.regression import rank
from edgeres.fleet.inventory import load_inventory
from edgeres.fleet.job import Job, JobFile, read_job
from edgeres.images import batches, embedded_digits, embedded_path, load_dataset
from edgeres.images.decode import decode
from edgeres.images.load import read_labels
from edgeres.images.npz import load_tensor
from edgeres.input_files import CLASS_NAMES, JSON, read_bytes, read_text
from edgeres.onnx_file import load_onnx
from edgeres.quantization.lowering import ALL_INTEGER
from edgeres.report import render_ranking
from edgeres.runtime import load
from edgeres.serialization import json_text
from edgeres.targets.base import find_target
from edgeres.targets.session_runner import model_runner
from edgeres.targets.tensorrt.calibration_cache import read_cache, trt_cache
from edgeres.targets.tensorrt.timing_cache import Origin, TimingCacheDescription
from edgeres.workflows import BuildInputs, build_from_model, calibrate_model, export_stage
from edgeres.workflows.calibrate import load_normalized

HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None

Mutation = Callable[[Random, bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A function that reads a kind of file, and how such files are changed."""

    name: str
    seed: str
    """Name of a valid file below the folder of seeds."""
    mutate: Mutation
    read: Callable[[Path], object]
    """Takes the changed file, which stands among copies of the small seeds."""


def make_seeds(folder: Path) -> None:
    """Writes a valid file for each reader, from the digits."""
    from PIL import Image

    train, _ = embedded_digits()
    images = np.stack([train.image(index) for index in range(64)])
    np.savez(folder / "data.npz", images=images, labels=np.asarray(train.labels)[:64])
    np.save(folder / "tensor.npy", images[:2])
    Image.fromarray(images[0]).save(folder / "image.png")
    Image.fromarray(images[0]).save(folder / "image.jpg")
    (folder / "labels.csv").write_text("file,class_index\na.png,0\nb.png,9\n")
    (folder / "names.txt").write_text("\n".join("abcdefghij"))
    (folder / "boards.toml").write_text(
        '[nano]\nhost = "me@nano"\ntags = ["orin", "desk"]\npower_mode = "15W"\n\n'
        '[agx]\nhost = "agx"\nedgeres = "/opt/edgeres"\n'
    )
    (folder / "config.pbtxt").write_text(
        'name: "digits"\nplatform: "tensorrt_plan"  # a comment\nmax_batch_size: 8\n'
        'input [ { name: "input" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] } ]\n'
        "dynamic_batching { max_queue_delay_microseconds: 100 }\n"
    )
    sha256 = hashlib.sha256(b"timings").hexdigest()
    origin = Origin(module="tensorrt", version="10.3.0", gpu="Orin", compute_capability="8.7")
    timings = TimingCacheDescription(sha256=sha256, origin=origin)
    (folder / "timings.json").write_text(json_text(timings))
    job = Job(
        words=("bench", "in/e/m.onnx"),
        files=(JobFile(name="in/e/m.onnx", sha256=sha256, size=7),),
        outputs=("out/report.html",),
    )
    (folder / "job.json").write_text(json_text(job))
    _make_networks(folder)


def _make_networks(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    import edgeres
    from edgeres.core.bench_requests import BenchRequest

    weights = embedded_path("digits_resnet20.safetensors")
    shutil.copy(weights, folder / "weights.safetensors")
    torch.save({"state_dict": load_file(weights), "epoch": 3}, folder / "weights.pth")
    model, data, engine = (folder / name for name in ("model.onnx", "data.npz", "engine.onnx"))
    stage = export_stage()
    digits = ContractOptions(preset="digits")
    request = stage.ExportRequest(architecture="resnet20", weights=weights, contract=digits)
    stage.export_model(request, output=model)
    table = calibrate_model(model, data, CalibrationRequest(), output=folder / "table.json")
    (folder / "calib.cache").write_text(trt_cache(load_onnx(model), table, "8.6.2"))
    build_from_model(BuildInputs(model=model, table=table, output=engine), BuildRequest())
    shutil.copy(manifest_path(engine), folder / "manifest.json")
    verdict = json_text(edgeres.bench(engine, model, data, BenchRequest()))
    (folder / "verdict.json").write_text(verdict)
    (folder / "baseline.json").write_text(verdict)


def read_model(path: Path) -> None:
    """Brings a model to the form that is quantized, and runs it."""
    model = load_normalized(path)
    with model_runner(model) as runner:
        runner.infer(np.zeros((1, *(size or 8 for size in runner.input.shape[1:])), np.float32))


def read_lowered(path: Path) -> None:
    """Lowers a model to FP16."""
    request = BuildRequest(precision=Precision.FP16, target="onnx")
    find_target("onnx").lower(load_normalized(path), request, None, None, ALL_INTEGER)


def read_parsed(path: Path) -> None:
    """Lowers a model to FP16, and lets NVIDIA's parser read what comes of it."""
    import tensorrt_rtx as trt

    request = BuildRequest(precision=Precision.FP16, target="tensorrt-rtx")
    target = find_target(request.target)
    lowered = target.lower(load_normalized(path), request, None, None, ALL_INTEGER)
    log = trt.Logger(trt.Logger.ERROR)
    parser = trt.OnnxParser(definition := trt.Builder(log).create_network(), log)
    if not parser.parse(lowered.model.SerializeToString()):
        raise EdgeresError(f"{definition.num_layers} layers were understood.")


def read_engine(path: Path) -> None:
    """Classifies with an engine whose manifest has its hash, as one that somebody made has."""
    manifest = json.loads((path.parent / "manifest.json").read_bytes())
    manifest["engine_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest_path(path).write_text(json.dumps(manifest))
    with load(path) as classifier:
        classifier.predict(path.parent / "image.png")


def read_manifest(path: Path) -> None:
    """Classifies with the engine that the manifest stands beside."""
    engine = path.parent / "engine.onnx"
    shutil.copy(path, manifest_path(engine))
    with load(engine) as classifier:
        classifier.predict(path.parent / "image.png")


def read_table(path: Path) -> None:
    """Builds the INT8 engine of a table."""
    table = load_table(path)
    inputs = BuildInputs(
        model=path.parent / "model.onnx", table=table, output=path.parent / "built.onnx"
    )
    build_from_model(inputs, BuildRequest())


def read_verdict(path: Path) -> None:
    """Ranks a verdict beside the valid one, and shows both."""
    runs = (load_run(path.parent / "baseline.json"), load_run(path))
    Console(file=io.StringIO()).print(render_ranking(rank(runs)))


def read_data(path: Path) -> None:
    """Prepares the images of a data set."""
    dataset = load_dataset(path)
    with closing(batches(dataset, ContractOptions().resolve("digits"), batch_size=8)) as stream:
        next(iter(stream))


def read_checkpoint(path: Path) -> None:
    """Reads a checkpoint's weights."""
    from edgeres.networks.checkpoint import load_checkpoint

    load_checkpoint(path)


def read_names(path: Path) -> None:
    """Reads class names."""
    read_text(path, CLASS_NAMES).splitlines()


def read_sent_job(path: Path) -> None:
    """Reads the JSON of a job."""
    read_job(read_bytes(path, JSON))


def read_timings(path: Path) -> None:
    """Reads the description of a timing cache."""
    load_described(path, TimingCacheDescription, hash_key="sha256", sha256="0", remedy="Delete it.")


def read_config(path: Path) -> None:
    """Reads a model's configuration for Triton."""
    parse(read_text(path, JSON), str(path))


def _reader(seed: str, mutate: Mutation, read: Callable[[Path], object], name: str = "") -> Reader:
    return Reader(name=name or seed, seed=seed, mutate=mutate, read=read)


READERS = (
    _reader("model.onnx", mutate_onnx, load_onnx),
    _reader("model.onnx", mutate_onnx, read_model, "model run"),
    _reader("model.onnx", mutate_onnx, read_lowered, "model lowered"),
    *([_reader("model.onnx", mutate_onnx, read_parsed, "model parsed")] if HAS_RTX else []),
    _reader("engine.onnx", mutate_onnx, read_engine),
    _reader("manifest.json", mutate_json, read_manifest),
    _reader("table.json", mutate_json, read_table),
    _reader("verdict.json", mutate_json, read_verdict),
    _reader("calib.cache", mutate_lines, read_cache),
    _reader("data.npz", mutate_zip, read_data),
    _reader("tensor.npy", mutate_bytes, load_tensor),
    _reader("image.png", mutate_bytes, decode),
    _reader("image.jpg", mutate_bytes, decode),
    _reader("weights.pth", mutate_zip, read_checkpoint),
    _reader("weights.safetensors", mutate_safetensors, read_checkpoint),
    _reader("labels.csv", mutate_lines, read_labels),
    _reader("names.txt", mutate_lines, read_names),
    _reader("boards.toml", mutate_lines, load_inventory),
    _reader("job.json", mutate_json, read_sent_job),
    _reader("timings.json", mutate_json, read_timings),
    _reader("config.pbtxt", mutate_lines, read_config),
)
