"""edgeres: a trained ResNet to an INT8 or FP16 engine, with a verdict on what it cost and won.

The names in `__all__` are the stable ones. Each is loaded when it is first used, so that
importing the package loads no library; `docs/reference/python.md` describes them.

Example::

    import edgeres

    table = edgeres.calibrate("resnet50.onnx", "train-sample")
    edgeres.build_engine("resnet50.onnx", table=table, output="resnet50.int8.onnx")
    verdict = edgeres.bench(
        "resnet50.int8.onnx", "resnet50.onnx", "val", edgeres.BenchRequest(max_drop_pp=0.5)
    )
    print(verdict.passed, verdict.accuracy.drop_pp)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeres.version import __version__ as __version__

if TYPE_CHECKING:
    from edgeres.api import bench as bench
    from edgeres.api import build_engine as build_engine
    from edgeres.api import calibrate as calibrate
    from edgeres.api import compare as compare
    from edgeres.api import estimate as estimate
    from edgeres.api import export as export
    from edgeres.api import inspect as inspect
    from edgeres.core.bench_requests import BenchRequest as BenchRequest
    from edgeres.core.contract_options import ContractOptions as ContractOptions
    from edgeres.core.predictions import Prediction as Prediction
    from edgeres.core.requests import BuildRequest as BuildRequest
    from edgeres.core.requests import CalibrationRequest as CalibrationRequest
    from edgeres.errors import EdgeresError as EdgeresError
    from edgeres.runtime import Classifier as Classifier
    from edgeres.runtime import load as load

_MODULES = {
    "BenchRequest": "edgeres.core.bench_requests",
    "BuildRequest": "edgeres.core.requests",
    "CalibrationRequest": "edgeres.core.requests",
    "Classifier": "edgeres.runtime",
    "ContractOptions": "edgeres.core.contract_options",
    "EdgeresError": "edgeres.errors",
    "Prediction": "edgeres.core.predictions",
    "bench": "edgeres.api",
    "build_engine": "edgeres.api",
    "calibrate": "edgeres.api",
    "compare": "edgeres.api",
    "estimate": "edgeres.api",
    "export": "edgeres.api",
    "inspect": "edgeres.api",
    "load": "edgeres.runtime",
}

__all__ = [
    "BenchRequest",
    "BuildRequest",
    "CalibrationRequest",
    "Classifier",
    "ContractOptions",
    "EdgeresError",
    "Prediction",
    "bench",
    "build_engine",
    "calibrate",
    "compare",
    "estimate",
    "export",
    "inspect",
    "load",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from its module when it is first used. Source: PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module 'edgeres' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
