"""A user's own network is found by name, or the message says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from edgeres.errors import ConfigError
from edgeres.networks.load import load_factory

SOURCE = """
from torch import nn

size = 3

def network():
    return nn.Linear(2, 3)

def number():
    return 7
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_factory_is_imported_and_called() -> None:
    """What comes back is the network that the function made."""
    assert isinstance(load_factory("own_nets:network"), nn.Linear)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_nets", "'own_nets' names no factory; expected package.module:factory"),
        ("own_nets:", "'own_nets:' names no factory"),
        ("no_such:network", "No module 'no_such' for the architecture 'no_such'. Put the folder"),
        ("own_nets.deeper:network", "No module 'own_nets.deeper' for the architecture"),
        (
            "own_nets:netwrok",
            "own_nets has no function or class 'netwrok'. Did you mean 'network'?",
        ),
        ("own_nets:size", "own_nets has no function or class 'size'."),
        ("own_nets:number", "own_nets:number() returned a int; expected a torch.nn.Module."),
    ],
)
def test_a_wrong_factory_is_refused(name: str, message: str) -> None:
    """The message names the part of the name that is wrong."""
    with pytest.raises(ConfigError) as refused:
        load_factory(name)
    assert message in str(refused.value)


def test_a_bug_in_the_users_module_keeps_its_traceback() -> None:
    """A module that the user's own code lacks is not taken for a misspelt factory."""
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        load_factory("own_broken:network")
