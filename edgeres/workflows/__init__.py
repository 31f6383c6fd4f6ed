"""The stages put together: paths and frozen requests in, values out.

This is the library behind the command line, and the way to use edgeres from Python. `export`
and `gradients` are apart because they alone need torch.
"""

from edgeres.core.predictions import PredictInputs
from edgeres.workflows.bench import bench_engine
from edgeres.workflows.build import BuildInputs, SelectionData, build_from_model
from edgeres.workflows.calibrate import calibrate_model, load_normalized
from edgeres.workflows.compare import follow_runs, rank_runs
from edgeres.workflows.demo import DemoResult, run_demo
from edgeres.workflows.deploy import deploy_engine
from edgeres.workflows.inspect import inspect_artifact
from edgeres.workflows.predict import predict_images
from edgeres.workflows.sweep import run_sweep
from edgeres.workflows.torch_modules import export_stage, gradient_stage
from edgeres.workflows.trt_cache import check_trt_cache, emit_trt_cache, import_trt_cache

__all__ = [
    "BuildInputs",
    "DemoResult",
    "PredictInputs",
    "SelectionData",
    "bench_engine",
    "build_from_model",
    "calibrate_model",
    "check_trt_cache",
    "deploy_engine",
    "emit_trt_cache",
    "export_stage",
    "follow_runs",
    "gradient_stage",
    "import_trt_cache",
    "inspect_artifact",
    "load_normalized",
    "predict_images",
    "rank_runs",
    "run_demo",
    "run_sweep",
]
