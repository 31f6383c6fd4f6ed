"""Options that are fields of a request: their types and defaults are the field's."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgeres.cli import main
from edgeres.cli.options import gathered, request_options, stacked
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.core.contract import Color
from edgeres.core.deployment import DeployInputs, DeployRequest
from edgeres.core.predictions import PredictInputs
from edgeres.core.requests import BuildRequest, CalibrationRequest
from edgeres.networks.export_request import ExportRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One field of each kind."""

    needed: Path
    color: Color = Color.BGR
    count: int = 3
    fraction: float | None = None
    loud: bool = False


option = request_options(Request)


@click.command(context_settings={"show_default": True})
@stacked(*(option(f"--{name}") for name in ("needed", "color", "count", "fraction", "loud")))
@gathered("request", Request)
@gathered("other", BenchRequest)
def command(request: Request, other: BenchRequest) -> None:
    """Shows what it received."""
    assert other == BenchRequest()
    click.echo(repr(request))


def test_a_command_receives_its_request() -> None:
    """With the field's defaults, converted as its annotation says."""
    run = CliRunner().invoke
    assert run(command, ["--needed", "x"]).output == f"{Request(needed=Path('x'))!r}\n"
    words = ["--needed", "x", "--color", "GRAY", "--count", "4", "--fraction", "0.5", "--loud"]
    made = Request(needed=Path("x"), color=Color.GRAY, count=4, fraction=0.5, loud=True)
    assert run(command, words).output == f"{made!r}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "Missing option '--needed'"),
        ("--needed x --count many", "'many' is not a valid integer"),
        ("--needed x --fraction half", "'half' is not a valid float"),
        ("--needed x --color grey", "Did you mean 'gray'?"),
        ("--help", "[default: bgr]"),
    ],
)
def test_words_that_do_not_fit_the_field_are_refused(words: str, said: str) -> None:
    """As click does; the choices of an enumeration are its values."""
    output = CliRunner().invoke(command, words.split()).output
    assert said in " ".join(output.split())


@pytest.mark.parametrize(
    ("line", "requests"),
    [
        ("bench e --reference r --data d", (BenchRequest, BenchInputs)),
        ("calibrate m --data d -o t", (CalibrationRequest,)),
        ("build-engine m -o e", (BuildRequest,)),
        ("deploy e --to triton -o d", (DeployRequest, DeployInputs)),
        ("predict e i", (PredictInputs,)),
        ("export resnet50 -o m", (ExportRequest,)),
    ],
)
def test_what_is_not_typed_is_the_request_s_own_default(
    line: str, requests: tuple[type, ...]
) -> None:
    """No command has a default of its own, which Python would not share."""
    name, *words = line.split()
    root = click.Context(main, **main.context_settings)
    context = main.commands[name].make_context(name, words, parent=root)
    known = {field.name: field.default for each in requests for field in fields(each)}
    own = {key: value for key, value in known.items() if value is not MISSING}
    untyped = {
        key: value
        for key, value in context.params.items()
        if context.get_parameter_source(key) is click.core.ParameterSource.DEFAULT and key in own
    }
    assert len(untyped) > 2
    assert untyped == {key: own[key] for key in untyped}
