"""The parts that every verdict has, made by hand: a machine, an environment and a provenance."""

from __future__ import annotations

from edgeres.core.verdict import DataRecord, Environment, FileRecord, Provenance
from edgeres.machine import Machine

MACHINE = Machine(
    cpu="A processor",
    cores=2,
    architecture="x86_64",
    simd=("avx2",),
    governor=None,
    load_average=(),
    memory_mib=8192,
    memory_available_mib=None,
    os=None,
    kernel=None,
    python="3.11.0",
    versions={},
    board=None,
    has_nvidia_gpu=False,
    gpus=(),
)

ENVIRONMENT = Environment(
    machine=MACHINE,
    engine_name="resnet20.int8.onnx on onnxruntime-cpu",
    reference_name="resnet20.onnx on onnxruntime-cpu",
)

PROVENANCE = Provenance(
    command=("edgeres", "bench", "a b.onnx", "--reference", "resnet20.onnx", "--data", "val"),
    started="2026-01-31T12:00:00+00:00",
    engine=FileRecord(path="resnet20.int8.onnx", sha256="1a" * 32),
    reference=FileRecord(path="resnet20.onnx", sha256="2b" * 32),
    model_sha256="2b" * 32,
    table_sha256="3c" * 32,
    data=DataRecord(path="val", fingerprint="4d" * 32, samples=1300, seed=0),
    target="onnxruntime",
    precision="int8",
    versions={"onnx": "1.20.0", "onnxruntime": "1.23.0"},
)
