"""edgeres: a trained ResNet to an INT8 or FP16 engine, with a verdict on what it cost and won."""

__version__ = "0.1.0"
