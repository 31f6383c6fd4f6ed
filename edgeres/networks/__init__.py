"""The ResNet family: registry, networks and checkpoint formats.

The registry loads without torch; `resnet`, `factory`, `checkpoint` and `published` need it.
"""

from edgeres.networks.registry import (
    ARCHITECTURES,
    PUBLISHED,
    equal_shapes,
    find_spec,
    is_factory,
    is_published,
)

__all__ = ["ARCHITECTURES", "PUBLISHED", "equal_shapes", "find_spec", "is_factory", "is_published"]
