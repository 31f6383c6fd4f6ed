"""The stages put together: paths and frozen requests in, values out.

This is the library behind the command line, and the way to use edgeres from Python. `export`
is apart because it alone needs torch.
"""

from edgeres.pipeline.bench import BenchRequest, bench_engine
from edgeres.pipeline.build import Judges, build_from_model, check_build
from edgeres.pipeline.calibrate import calibrate_model, contract_of
from edgeres.pipeline.demo import DemoResult, run_demo
from edgeres.pipeline.extras import export_stage
from edgeres.pipeline.inspect import inspect_artifact
from edgeres.pipeline.track import Track, untracked
from edgeres.pipeline.trt_cache import check_trt_cache, emit_trt_cache

__all__ = [
    "BenchRequest",
    "DemoResult",
    "Judges",
    "Track",
    "bench_engine",
    "build_from_model",
    "calibrate_model",
    "check_build",
    "check_trt_cache",
    "contract_of",
    "emit_trt_cache",
    "export_stage",
    "inspect_artifact",
    "run_demo",
    "untracked",
]
