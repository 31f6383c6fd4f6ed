"""The ResNet family: registry, networks and checkpoint formats.

The registry loads without torch; `resnet`, `factory` and `checkpoint` need it.
"""

from edgeres.models.registry import ARCHITECTURES, find_spec, is_factory

__all__ = ["ARCHITECTURES", "find_spec", "is_factory"]
