"""The stages put together: paths and frozen requests in, values out.

This is the library behind the command line, and the way to use edgeres from Python. `export`
is apart because it alone needs torch.
"""

from edgeres.pipeline.bench import BenchRequest, bench
from edgeres.pipeline.build import build
from edgeres.pipeline.calibrate import calibrate_model, contract_of
from edgeres.pipeline.demo import DemoResult, demo
from edgeres.pipeline.track import Track, untracked

__all__ = [
    "BenchRequest",
    "DemoResult",
    "Track",
    "bench",
    "build",
    "calibrate_model",
    "contract_of",
    "demo",
    "untracked",
]
