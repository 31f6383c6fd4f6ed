"""One form for every model that enters, whatever exporter wrote it.

Quantization looks for convolutions with stored weights, batch normalisation folded into them, one
global pool and a known image size. Other exporters write the same network with weights behind
Transpose, normalisation beside the convolution, a mean over height and width, a fixed batch or
pixels last. Here such a model gets the form that `export` writes, and ONNX Runtime must show that
it computes what the file computes before any stage sees it.

Knows the ONNX format and ONNX Runtime; nothing of quantization, targets or images.
"""

from edgeres.normalization.constants import (
    Weights,
    evaluate_constants,
    put_weights,
    take_weights,
)
from edgeres.normalization.folding import fold_batch_norms
from edgeres.normalization.pools import unify_global_means
from edgeres.normalization.steps import MIN_OPSET, normalize, relative_difference

__all__ = [
    "MIN_OPSET",
    "Weights",
    "evaluate_constants",
    "fold_batch_norms",
    "normalize",
    "put_weights",
    "relative_difference",
    "take_weights",
    "unify_global_means",
]
