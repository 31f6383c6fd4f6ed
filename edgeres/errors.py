"""What edgeres refuses, and with which exit code.

The tree::

    EdgeresError               1  every error that edgeres explains
      ConfigError              2  a request that contradicts itself or names what does not exist
      DependencyError          1  an optional package is missing; the message has the pip line
      CheckpointError          1  a checkpoint that cannot be read, trusted or fitted
      ExportError              1  the ONNX file would not compute what the torch model computes
      DataError                1  images or labels that cannot be used
      ArtifactError            1  a model, table or engine file that is not what it should be
      CalibrationError         1  ranges that cannot be observed, or a table of another model
      QuantizationError        1  a graph that cannot be quantized as requested
      BuildError               1  the target's builder refused the network
        CoverageError          5  layers run in another precision than the requested one
      RunnerError              1  inference failed
      MismatchError            6  an engine that does not belong to this machine or these inputs

A message states the fact with its values, then what was expected or is available, then what
to do next. The library raises; only `edgeres.cli` turns an error into an exit code.
"""


class EdgeresError(Exception):
    """Base of every error that edgeres raises on purpose."""

    exit_code = 1
    """Exit status of the command that ends with this error."""


class ConfigError(EdgeresError, ValueError):
    """The request contradicts itself or names something that does not exist."""

    exit_code = 2


class DependencyError(EdgeresError):
    """An optional package is missing; the message carries the exact pip line."""


class CheckpointError(EdgeresError):
    """The checkpoint cannot be read, cannot be trusted or does not fit the architecture."""


class ExportError(EdgeresError):
    """The exported ONNX file is invalid or does not compute what the torch model computes."""


class DataError(EdgeresError):
    """The images or labels cannot be used as they are."""


class ArtifactError(EdgeresError):
    """A model, table, engine or manifest file is not what it should be."""


class CalibrationError(EdgeresError):
    """Ranges could not be observed, or the table belongs to another model."""


class QuantizationError(EdgeresError):
    """The graph cannot be quantized as requested."""


class BuildError(EdgeresError):
    """The target's builder or parser refused the network."""


class CoverageError(BuildError):
    """Layers of the engine run in another precision than the requested one."""

    exit_code = 5


class RunnerError(EdgeresError):
    """An engine failed to run, or returned what no verdict can rest on."""


class MismatchError(EdgeresError):
    """The engine does not belong to this machine, this model or these inputs."""

    exit_code = 6
