"""What a job may name, and which versions work together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeres.errors import ArtifactError, ConfigError, MismatchError
from edgeres.fleet.job import SHARED, Job, JobFile, check_paths, read_job
from edgeres.serialization import json_text

JOB = Job(
    words=("bench", "in/engine/a.onnx", "--reference=in/reference/b.onnx"),
    files=(JobFile(name="in/engine/a.onnx", sha256="0" * 64, size=3),),
    outputs=("out/html/v.html",),
)


def test_a_job_is_what_was_written() -> None:
    """JSON and back."""
    assert read_job(json_text(JOB)) == JOB


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "in/../../x",
        "in/..",
        "../in/x",
        "in//x",
        "in/./x",
        "in",
        "",
        "out/x",
        "in/a\nb",
        "in\\x",
        "elsewhere/x",
    ],
)
def test_a_file_outside_the_folder_is_refused(name: str) -> None:
    """Absolute, by .., of another folder, or spelt so that two names are one."""
    text = json_text(JOB).replace("in/engine/a.onnx", "KEPT").replace('"name": "KEPT"', "NAME")
    raw = text.replace("KEPT", "in/engine/a.onnx").replace("NAME", f'"name": {json_name(name)}')
    with pytest.raises(ArtifactError, match="The job is damaged"):
        read_job(raw)


def json_name(name: str) -> str:
    """Returns a name as JSON."""
    import json

    return json.dumps(name)


@pytest.mark.parametrize("output", ["/tmp/x", "out/../x", "in/engine/a.onnx", "x"])
def test_an_output_outside_the_folder_is_refused(output: str) -> None:
    """An output is no input either."""
    with pytest.raises(ArtifactError, match="The job is damaged"):
        read_job(json_text(JOB).replace("out/html/v.html", output))


@pytest.mark.parametrize("command", ["demo", "boards", "predict", "", "--help"])
def test_other_commands_are_no_jobs(command: str) -> None:
    """A job is of one of a few commands."""
    with pytest.raises(ArtifactError, match="is none of bench, build-engine, calibrate, doctor"):
        read_job(json_text(JOB).replace('"bench"', f'"{command}"'))


@pytest.mark.parametrize(
    ("version", "works"), [("0.1.0", True), ("0.1.9", True), ("0.2.0", False), ("1.1.0", False)]
)
def test_versions_must_agree_but_for_the_last_number(version: str, works: bool) -> None:
    """Both numbers are in the message."""
    text = json_text(JOB).replace('"edgeres": "0.1.0"', f'"edgeres": "{version}"')
    if works:
        assert read_job(text).edgeres == version
    else:
        with pytest.raises(MismatchError, match=rf"edgeres {version} .* edgeres 0\.1\.0"):
            read_job(text)


def test_a_path_through_a_link_is_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As are .. and absolute paths; what lies inside is not, nor what is read of a shared folder."""
    inside, outside, shared = tmp_path / "job", tmp_path / "other", tmp_path / "nas"
    for folder in (inside, outside, shared):
        folder.mkdir()
    (inside / "link").symlink_to(outside)
    (shared / "link").symlink_to(outside)
    monkeypatch.setenv(SHARED, f"{tmp_path}/absent{os.pathsep}{shared}")
    check_paths((Path("in/x"), shared / "val"), (Path("in/../out/x"),), inside)
    for path in ("link/x", "../other/x", str(outside / "x"), str(shared / "link/x")):
        for read, written in (((Path(path),), ()), ((), (Path(path),))):
            with pytest.raises(ConfigError, match="outside its folder"):
                check_paths(read, written, inside)
    with pytest.raises(ConfigError, match="outside its folder"):
        check_paths((), (shared / "val",), inside)
