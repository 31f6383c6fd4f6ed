"""Sets of weights in one file, and the values that training scripts keep beside them."""

from __future__ import annotations

import argparse
import builtins
import collections
import contextlib
import datetime
import logging
import os
import pathlib
import pickle
import subprocess
import types
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeres.errors import CheckpointError, ConfigError
from edgeres.networks import find_spec, weights_file
from edgeres.networks.checkpoint import load_checkpoint, model_from_checkpoint
from edgeres.networks.load import load_trained
from edgeres.networks.resnet import build_model
from edgeres.networks.safe_values import SAFE_VALUES

SMALL = replace(find_spec("resnet20"), layers=(1, 1, 1), base_width=4, name="small")
"""A CIFAR net of one block a stage."""

Weights = dict[str, Tensor]


def weights(seed: int = 0) -> Weights:
    """Returns the weights of a freshly initialised network, without counters."""
    torch.manual_seed(seed)
    state = build_model(SMALL).state_dict()
    return {key: value for key, value in state.items() if value.is_floating_point()}


RAW, AVERAGED = weights(0), weights(1)


def prefixed(prefix: str, state: Weights) -> Weights:
    """Returns the same weights with something before each name."""
    return {prefix + key: value for key, value in state.items()}


def saved(path: Path, content: Any) -> Path:
    """Writes with torch.save."""
    torch.save(content, path)
    return path


def same(loaded: Any, expected: Weights) -> bool:
    """Whether exactly these weights were taken."""
    return loaded.keys() == expected.keys() and all(
        torch.equal(loaded[key], expected[key]) for key in expected
    )


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": RAW, "state_dict_ema": AVERAGED, "arch": "resnet20"},
        {
            "model": RAW,
            "model_ema": {**prefixed("module.", AVERAGED), "n_averaged": torch.tensor(7)},
        },
        {"ema": AVERAGED, "net": RAW, "epoch": 3},
        {"model_state_dict": RAW, "ema_state_dict": AVERAGED},
        {"model": RAW, "ema": {"decay": 0.999, "state_dict": AVERAGED}},
        {"train": {"state_dict": RAW, "state_dict_ema": AVERAGED}},
        {**RAW, "ema": AVERAGED},
        {"state_dict": {**prefixed("model.", RAW), **prefixed("model_ema.", AVERAGED)}},
        {"model": RAW, "ema": {"module": prefixed("module.", AVERAGED), "updates": 7}},
        {"callbacks": {"EMA": {"ema_state_dict": AVERAGED}}, "state_dict": RAW},
    ],
    ids=[
        "timm",
        "torchvision",
        "ema first",
        "ema_state_dict",
        "nested",
        "inner",
        "bare",
        "flat",
        "YOLOX",
        "callback",
    ],
)
def test_the_averaged_weights_are_taken_with_a_line(
    tmp_path: Path, content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As timm does with use_ema, whatever stands first in the file."""
    loaded = load_checkpoint(saved(tmp_path / "net.pth", content)).tensors
    assert same(loaded, AVERAGED)
    (line,) = caplog.messages
    assert "holds 2 sets of weights (" in line
    assert "is used, averaged over training. --weights-key NAME takes another." in line


@pytest.mark.parametrize(
    ("key", "expected"), [("state_dict", RAW), ("state_dict_ema", AVERAGED), ("teacher.net", RAW)]
)
def test_the_requested_set_is_taken_without_a_line(
    tmp_path: Path, key: str, expected: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was chosen for the user."""
    content = {"state_dict": RAW, "state_dict_ema": AVERAGED, "teacher": {"net": RAW}}
    path = saved(tmp_path / "net.pth", content)
    assert same(load_checkpoint(path, weights_key=key).tensors, expected)
    assert caplog.messages == []


def test_an_unknown_key_is_answered_with_the_sets(tmp_path: Path) -> None:
    """With the nearest first."""
    path = saved(tmp_path / "net.pth", {"state_dict": RAW, "state_dict_ema": AVERAGED, "epoch": 1})
    with pytest.raises(ConfigError) as refused:
        load_checkpoint(path, weights_key="state_dict_em")
    assert str(refused.value) == (
        f"{path} has no set of weights 'state_dict_em'. Did you mean 'state_dict_ema'? "
        "Available: state_dict, state_dict_ema."
    )


def test_a_key_for_bare_weights_is_refused(tmp_path: Path) -> None:
    """There is nothing to choose from."""
    path = saved(tmp_path / "net.pth", {"conv.weight": torch.zeros(2, 2)})
    with pytest.raises(ConfigError, match=r"under no key\. Leave --weights-key out\."):
        load_checkpoint(path, weights_key="state_dict")


def test_a_key_for_published_weights_is_refused() -> None:
    """The library fetches one set."""
    with pytest.raises(ConfigError, match="--weights-key ema chooses among the sets of weights"):
        load_trained("timm:resnet50", None, weights_key="ema")


def test_sets_of_unknown_names_are_not_guessed(tmp_path: Path) -> None:
    """DINO's teacher and student, and either by its key."""
    path = saved(tmp_path / "net.pth", {"student": RAW, "teacher": AVERAGED})
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path)
    assert str(refused.value) == (
        f"{path} holds 2 sets of weights, student, teacher, and their names do not show which "
        "network is meant. Choose one with --weights-key."
    )
    assert same(load_checkpoint(path, weights_key="teacher").tensors, AVERAGED)


def test_a_branch_of_names_can_be_chosen(tmp_path: Path) -> None:
    """MoCo stores both encoders and its queue in one state dict."""
    state = {
        **prefixed("module.encoder_q.", RAW),
        **prefixed("module.encoder_k.", AVERAGED),
        "module.queue": torch.zeros(4, 8),
    }
    path = saved(tmp_path / "net.pth", {"state_dict": state})
    with pytest.raises(CheckpointError, match=r"state_dict.encoder_q, state_dict.encoder_k, and"):
        load_checkpoint(path)
    chosen = load_checkpoint(path, weights_key="state_dict.encoder_q")
    assert same(chosen.tensors, RAW)


def test_equal_branches_of_one_network_stay_together(tmp_path: Path) -> None:
    """Two convolutions of one shape are no copies of a network."""
    state = {"a.weight": torch.ones(2, 2, 1, 1), "b.weight": torch.ones(2, 2, 1, 1)}
    assert same(load_checkpoint(saved(tmp_path / "net.pth", state)).tensors, state)


def test_an_optimizers_moments_are_no_weights(tmp_path: Path) -> None:
    """They have the same shapes and names."""
    content = {"model": RAW, "optimizer": {"exp_avg": AVERAGED}, "ema_optim": {"m": AVERAGED}}
    assert same(load_checkpoint(saved(tmp_path / "net.pth", content)).tensors, RAW)


def test_averages_without_names_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """torch_ema stores a list."""
    content = {"model": RAW, "ema": {"decay": 0.9, "shadow_params": list(AVERAGED.values())}}
    assert same(load_checkpoint(saved(tmp_path / "net.pth", content)).tensors, RAW)
    (line,) = caplog.messages
    assert "holds ema, but no tensors by name in it: model is used, which is not averaged" in line


@pytest.mark.parametrize(
    "value",
    [torch.ones(3), torch.ones(3, 3), np.ones(3), 0.999, True, {}, None],
    ids=["vector", "matrix", "array", "decay", "flag", "empty", "none"],
)
def test_a_value_that_is_no_average_of_weights_is_not_reported(
    tmp_path: Path, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The average of something else, or the settings of one, under the same name."""
    content = {"model": RAW, "ema": value}
    assert same(load_checkpoint(saved(tmp_path / "net.pth", content)).tensors, RAW)
    assert not any("not averaged" in line for line in caplog.messages)


def test_lightnings_averaged_weights_stand_under_the_usual_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its WeightAveraging keeps the last step's beside them, under another one."""
    content = {"state_dict": AVERAGED, "current_model_state": RAW, "averaging_state": {"n": 3}}
    assert same(load_checkpoint(saved(tmp_path / "net.ckpt", content)).tensors, AVERAGED)
    assert "(state_dict, current_model_state); state_dict is used." in caplog.messages[0]


def test_an_incomplete_average_names_the_other_set(tmp_path: Path) -> None:
    """Many scripts average parameters alone, without the statistics of batch normalisation."""
    shadow = {key: value for key, value in AVERAGED.items() if "running" not in key}
    checkpoint = load_checkpoint(saved(tmp_path / "net.pth", {"model": RAW, "ema": shadow}))
    with pytest.raises(CheckpointError, match=r"14 missing \(bn1.running_mean") as refused:
        model_from_checkpoint(SMALL, checkpoint)
    assert str(refused.value).endswith(
        " The file also holds model: --weights-key takes another set."
    )


class AttributeDict(dict[str, Any]):
    """Stands for Lightning's, under whose name it is stored."""


HARMLESS = {
    "Namespace": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("x")),
    "float64": np.float64(91.73),
    "int64 and bool": [np.int64(3), np.bool_(True), np.float32(2), np.str_("a")],
    "dtype": np.dtype("float16"),
    "path": Path("runs/1"),
    "windows path": pathlib.PureWindowsPath("c:/runs"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "nested defaultdict": {"a": collections.defaultdict(float, b=1.5)},
    "datetime": datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
    "timedelta": [datetime.timedelta(3), datetime.date(2024, 5, 1), datetime.time(3)],
    "OrderedDict": collections.OrderedDict(a=1),
    "NumPy's random state": np.random.RandomState(0).get_state(),
    "arrays": [np.eye(3), {"confusion": np.arange(4, dtype=np.int64)}, np.array("a")],
    "deque": collections.deque([0.5, 0.4], maxlen=20),
    "SimpleNamespace": types.SimpleNamespace(lr=0.1, ends=collections.deque()),
    "torch's version": {"torch": torch.__version__},
    "schedule": torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1), 0.1, total_steps=10
    ).state_dict(),
}


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_harmless_values_beside_the_weights_are_read(
    tmp_path: Path, value: Any, legacy: bool
) -> None:
    """What training scripts log with the weights."""
    path, content = tmp_path / "net.pth", {"state_dict": RAW, "args": value}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert same(load_checkpoint(path).tensors, RAW)


@pytest.mark.parametrize(
    ("stored", "other"),
    [
        (b"numpy._core.multiarray\nscalar", b"numpy.core.multiarray\nscalar"),
        (b"pathlib\nPosixPath", b"pathlib._local\nPosixPath"),
        (b"pathlib\nPosixPath", b"pathlib\nWindowsPath"),
    ],
    ids=["NumPy 1", "Python 3.13", "Windows"],
)
def test_values_of_other_versions_and_systems_are_read(
    tmp_path: Path, stored: bytes, other: bytes
) -> None:
    """By the names that they had where the file was written."""
    path = tmp_path / "net.pth"
    content = {"state_dict": RAW, "extra": [np.float64(1), Path("x")]}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    if np.lib.NumpyVersion(np.__version__) < "2.0.0" and b"_core" in stored:
        stored, other = other, stored
    if stored not in written:
        pytest.skip("this Python writes another name")
    path.write_bytes(written.replace(stored, other))
    assert same(load_checkpoint(path).tensors, RAW)


def test_a_dictionary_of_configuration_is_known_by_name(tmp_path: Path) -> None:
    """Lightning's hyper-parameters are read where Lightning is not installed."""
    path = tmp_path / "net.ckpt"
    content = {"state_dict": RAW, "hyper_parameters": AttributeDict(lr=0.1)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    own = f"{AttributeDict.__module__}\nAttributeDict".encode()
    name = b"pytorch_lightning.utilities.parsing\nAttributeDict"
    path.write_bytes(path.read_bytes().replace(own, name))
    assert same(load_checkpoint(path).tensors, RAW)


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


def _attacks(marker: Path) -> dict[str, tuple[Any, str]]:
    """Returns values that would create the marker, and what each is refused with."""
    command, code = f"touch {marker}", f"__import__('pathlib').Path({str(marker)!r}).touch()"
    system = _Call(os.system, command)
    return {
        "os.system": (system, "posix.system"),
        "in a Namespace": (argparse.Namespace(a=system), "posix.system"),
        "in a SimpleNamespace": (types.SimpleNamespace(a=system), "posix.system"),
        "in a deque": (collections.deque([system]), "posix.system"),
        "in an array": (np.array([system], object), "numpy.dtypes.ObjectDType"),
        "in a record": (np.array([(system,)], [("a", object)]), "numpy.dtypes.ObjectDType"),
        "in a defaultdict": (collections.defaultdict(list, a=system), "posix.system"),
        "as a factory": (_Call(collections.defaultdict, os.system), "posix.system"),
        "eval": (_Call(builtins.eval, code), "eval"),
        "exec in a list": ([1, [_Call(builtins.exec, code)]], "exec"),
        "getattr": (_Call(getattr, Path(), "touch"), "getattr"),
        "Popen": (_Call(subprocess.Popen, ["touch", str(marker)]), "Popen"),
        "argparse's other class": (_Call(argparse.FileType("w"), str(marker)), "argparse.FileType"),
        "numpy's other function": (_Call(np.save, str(marker), 1), "numpy.save"),
        "a path's method": (_Call(Path.touch, marker), "getattr"),
        "pickle.loads": (_Call(pickle.loads, pickle.dumps(system)), "pickle.loads"),
    }


@pytest.mark.parametrize("name", _attacks(Path()))
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_nothing_else_is_allowed_and_nothing_runs(tmp_path: Path, name: str, legacy: bool) -> None:
    """Code beside the weights, inside harmless values, and other names of their modules."""
    path, marker = tmp_path / "net.pth", tmp_path / "marker"
    value, refused_name = _attacks(marker)[name]
    content = {"state_dict": RAW, "args": value}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path)
    assert "was refused: reading it would run code (" in str(refused.value)
    assert f"{refused_name})" in str(refused.value)
    assert not marker.exists()


def test_one_name_more_on_the_list_would_run_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is what stops it: with eval on it, the marker appears."""
    path, marker = tmp_path / "net.pth", tmp_path / "marker"
    saved(path, {"state_dict": RAW, "args": _attacks(marker)["eval"][0]})
    longer = (*SAFE_VALUES, (builtins.eval, "builtins.eval"))
    monkeypatch.setattr(weights_file, "SAFE_VALUES", longer)
    load_checkpoint(path)
    assert marker.exists()


def test_the_callers_own_list_stays_as_it_was(tmp_path: Path) -> None:
    """Nothing is left on torch's list, and nothing of the caller's is taken off."""
    own = SAFE_VALUES[0]
    torch.serialization.add_safe_globals([own, nn.Identity])
    before = set(torch.serialization.get_safe_globals())
    try:
        load_checkpoint(saved(tmp_path / "net.pth", {"a": RAW, "args": argparse.Namespace()}))
        assert set(torch.serialization.get_safe_globals()) == before
    finally:
        torch.serialization.clear_safe_globals()


def test_one_set_is_taken_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to choose."""
    caplog.set_level(logging.INFO)
    content = {"model": RAW, "class_weights": torch.ones(10), "best": torch.tensor(3.0)}
    assert same(load_checkpoint(saved(tmp_path / "net.pth", content)).tensors, RAW)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (
            torch.zeros(1).expand(10**6, 10**6),
            "has 4 bytes for stem.conv.weight, which claims 4000000000000 as (1000000, 1000000)",
        ),
        (
            torch.zeros(4)[:2].as_strided((4, 10**12), (1, 0)),
            "has 16 bytes for stem.conv.weight, which ",
        ),
        (
            torch.zeros(3, 3).to_sparse(),
            "stores stem.conv.weight as torch.sparse_coo torch.float32",
        ),
        (
            torch.zeros(3, 3, device="meta"),
            "stores stem.conv.weight as torch.strided torch.float32",
        ),
    ],
    ids=["stride 0", "overlapping", "sparse", "meta"],
)
def test_values_that_are_not_in_the_file_are_refused(
    tmp_path: Path, tensor: Tensor, said: str
) -> None:
    """A few bytes that claim terabytes are refused before they are copied."""
    path = saved(tmp_path / "net.pth", {**RAW, "stem.conv.weight": tensor})
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path)
    assert str(refused.value).startswith(f"{path} {said}")


def test_tied_weights_are_in_the_file(tmp_path: Path) -> None:
    """Two tensors may share one storage, and one may be a part of it."""
    shared = torch.arange(64.0).reshape(8, 8)
    content = {"a.weight": shared, "b.weight": shared, "c.weight": shared[2:4].T}
    assert same(load_checkpoint(saved(tmp_path / "net.pth", content)).tensors, content)


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    """torch.save compresses nothing: 200 kB are no 100 MB."""
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data/0", bytes(200 << 20))
    with pytest.raises(CheckpointError, match=r"\d{6} bytes and claims to unpack to 209715200; to"):
        load_checkpoint(path)


def test_mappings_that_hold_each_other_end(tmp_path: Path) -> None:
    """One under 2,000 keys of another, three deep, would be 8 billion; one in itself has no end."""
    inner: dict[str, Any] = {f"c{number}": number for number in range(2000)}
    middle = {f"b{number}": inner for number in range(2000)}
    path = saved(tmp_path / "net.pth", {f"a{number}": middle for number in range(2000)})
    with pytest.raises(CheckpointError, match="has more than 1000000 entries in its mappings"):
        load_checkpoint(path)
    itself: dict[str, Any] = dict(RAW)
    itself["best"] = itself
    assert same(load_checkpoint(saved(path, itself)).tensors, RAW)


def test_keys_whose_text_has_no_end_are_not_written_out(tmp_path: Path) -> None:
    """A tuple of two tuples of two tuples, 60 deep."""
    key: Any = ()
    for _ in range(60):
        key = (key, key)
    with pytest.raises(CheckpointError, match="holds no weights, only: list"):
        load_checkpoint(saved(tmp_path / "net.pth", [key]))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_a_checkpoint_error(tmp_path: Path, suffix: str, seed: int) -> None:
    """Bytes changed, taken out or doubled anywhere: weights or a sentence, nothing else."""
    path = tmp_path / f"net{suffix}"
    save_file(RAW, path) if suffix == ".safetensors" else saved(path, {"state_dict": RAW})
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    # Most of a file are weights, of which any value will do: the frame is at both ends.
    for _ in range(random.integers(1, 4)):
        at = int(random.choice([random.integers(1200), len(content) - 1 - random.integers(1200)]))
        length = int(random.integers(1, 9))
        content[at : at + length] = random.bytes(int(random.integers(0, 2 * length)))
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        load_checkpoint(path)
