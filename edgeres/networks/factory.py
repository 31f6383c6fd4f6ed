"""A user's own network, named `package.module:factory`."""

from __future__ import annotations

import importlib

from torch import nn

from edgeres.errors import ConfigError
from edgeres.names import nearest


def load_factory(name: str) -> nn.Module:
    """Imports `package.module:factory`, calls it without arguments and returns its network.

    Whatever the user's code raises keeps its own traceback.

    Raises:
        ConfigError: the name has another form, the module or the attribute does not exist,
            or what comes back is no `torch.nn.Module`.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(
            f"'{name}' names no factory; expected package.module:factory, such as my.nets:resnet."
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that the user's module lacks is the user's bug, not a wrong name.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"No module '{error.name}' for the architecture '{module_name}'. "
            "Put the folder that holds it on PYTHONPATH, or check the spelling."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [known for known in vars(module) if callable(getattr(module, known))]
        raise ConfigError(
            f"{module_name} has no function or class '{attribute}'.{nearest(attribute, public)} "
            "Name one that returns the network and needs no arguments."
        )
    network = factory()
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{name}() returned a {type(network).__name__}; expected a torch.nn.Module. "
            "Name a function or class that returns the network and needs no arguments."
        )
    return network
