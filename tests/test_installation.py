"""The text that installs an optional module is true of pyproject.toml and of a source folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeres.installation import JETSON_SETUP, OPTIONAL_MODULES, install_hint, is_installed

ROOT = Path(__file__).resolve().parents[1]
FOR_DEVELOPMENT = {"docs", "test"}
"""Extras that no work of edgeres itself needs."""


def test_every_extra_is_one_of_pyproject_and_none_is_left_out() -> None:
    """A command that names an unknown extra would install nothing and only warn."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert {known.extra for known in OPTIONAL_MODULES.values()} == extras - FOR_DEVELOPMENT


@pytest.mark.parametrize("module", OPTIONAL_MODULES)
def test_a_hint_installs_from_the_source_folder(module: str) -> None:
    """Edgeres is on no package index, so its name alone would fetch nothing."""
    hint = install_hint(module)
    assert f"n edgeres' source folder: pip install '.[{OPTIONAL_MODULES[module].extra}]'" in hint
    assert hint.endswith(".")


def test_a_jetson_gets_what_jetpack_brings() -> None:
    """Pip has no TensorRT for a board; the script that is named exists."""
    assert install_hint("tensorrt") == (
        "On a Jetson: scripts/jetson_setup.sh (sudo apt install python3-libnvinfer, and an "
        "environment with --system-site-packages); elsewhere, in edgeres' source folder: "
        "pip install '.[tensorrt]'."
    )
    assert (ROOT / JETSON_SETUP).is_file()


def test_a_condition_follows_its_command() -> None:
    """In parentheses."""
    assert install_hint("tensorrt_rtx") == (
        "In edgeres' source folder: pip install '.[rtx]' (Linux and Windows on x86-64)."
    )
    assert install_hint("pynvml") == "In edgeres' source folder: pip install '.[nvml]'."


def test_what_can_be_imported_is_installed() -> None:
    """A module is looked for and not imported."""
    assert is_installed("json")
    assert not is_installed("no_such_module")
