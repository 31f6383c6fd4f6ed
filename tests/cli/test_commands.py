"""Every command: its help, its example, its completion, and the names it does not know."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys

import click
import pytest
from commands import refusal, run

from edgeres import __version__
from edgeres.cli import main
from edgeres.core.contract import PRESETS

GROUPS = tuple(name for name, each in main.commands.items() if isinstance(each, click.Group))
COMMANDS = tuple(name for name in main.commands if name not in GROUPS)

_EXAMPLE = re.compile(r"^ *(edgeres(?:.*\\\n)*.*)$", re.MULTILINE)


def examples(command: click.Command) -> list[str]:
    """Returns the command lines below `Example:` in a help text."""
    text = command.help or ""
    return [line.replace("\\\n", " ") for line in _EXAMPLE.findall(text.partition("Example:")[2])]


def parse(line: str) -> click.Context:
    """Parses a command line as click does before it runs anything."""
    program, *words = shlex.split(line)
    assert program == "edgeres"
    command: click.Command = main
    # A command keeps the help option of the first context that it sees: main's, as in a shell.
    context = click.Context(main, info_name=program, **main.context_settings)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
        if isinstance(command, click.Group):
            context = click.Context(command, context, name)
    return command.make_context(command.name, words, parent=context)


def test_the_commands_stand_in_the_order_of_the_path() -> None:
    """Help lists them as they are used."""
    assert COMMANDS[:4] == ("export", "calibrate", "build-engine", "bench")
    listed = run("--help").stdout.partition("Commands:\n")[2].split("\n")
    assert [line.split()[0] for line in listed if line.strip()] == list(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_the_purpose_in_one_line(name: str) -> None:
    """The first paragraph is one sentence on one line, and it is in the help text."""
    purpose, blank, *_ = inspect.cleandoc(main.commands[name].help or "").split("\n")
    assert purpose.endswith(".")
    assert blank == ""
    shown = run(name, "--help")
    assert shown.exit_code == 0
    assert purpose in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_with_a_text_or_a_default(name: str) -> None:
    """No option is left to guessing."""
    options = (p for p in main.commands[name].params if isinstance(p, click.Option))
    assert [o.name for o in options if not o.help and not o.show_default] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_parses(name: str) -> None:
    """Each example of a command is one of that command, with options that exist."""
    lines = examples(main.commands[name])
    assert lines
    for line in lines:
        assert shlex.split(line)[1] == name
        parse(line)


def test_the_example_of_the_group_parses() -> None:
    """The first help text that anyone sees shows a command that exists."""
    assert [parse(line).command.name for line in examples(main)] == ["demo"]


def test_an_example_with_a_wrong_option_is_found() -> None:
    """The check above would not pass over an option that was renamed."""
    command = click.Command("demo", help="Run.\n\nExample:\n  edgeres demo --kept \\\n    demo/")
    (line,) = examples(command)
    with pytest.raises(click.NoSuchOption, match=r"No such option:? '?--kept'?"):
        parse(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name: str) -> None:
    """`--json`, `-v` and `-q` mean the same everywhere."""
    spelled = {word for p in main.commands[name].params for word in p.opts}
    assert {"--json", "-v", "--verbose", "-q", "--quiet"} <= spelled


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["exprot"], "Did you mean 'export'?"),
        (["bench", "--simulat", "a"], "'--simulate'?"),
        (["export", "reznet50", "--weights", "a", "-o", "b"], "Did you mean 'resnet50'?"),
        (["export", "a", "--preset", "imagnet"], "Did you mean 'imagenet'?"),
        (["calibrate", "a", "--method", "entropie"], "Did you mean 'entropy'?"),
        (["build-engine", "a", "--precision", "int"], "Did you mean 'int8'?"),
        (["build-engine", "a", "--target", "tensorrt_rtx"], "Did you mean 'tensorrt-rtx'?"),
        (["calibrate", "a", "--color", "grb"], "Did you mean 'rgb'?"),
    ],
)
def test_an_unknown_name_gets_the_nearest(words: list[str], hint: str) -> None:
    """Commands, options, architectures, presets and every choice; exit code 2."""
    assert hint in refusal(*words, code=2)


def test_a_name_far_from_all_gets_the_list() -> None:
    """What is available is said, and nothing is guessed."""
    said = refusal("export", "a", "--preset", "xyz", code=2)
    assert "Did you mean" not in said
    assert all(f"'{name}'" in said for name in PRESETS)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--mean", "1,2", "'1,2' is not three numbers such as 0.485,0.456,0.406"),
        ("--std", "a,b,c", "'a,b,c' is not three numbers"),
        (
            "--resize",
            "2²",
            "'2²' is not a number of pixels such as 224, or height and width such as 64x96",
        ),
    ],
)
def test_a_malformed_value_is_refused(option: str, value: str, said: str) -> None:
    """With what it should look like."""
    assert said in refusal("calibrate", "a", "--data", "b", "-o", "c", option, value, code=2)


@pytest.mark.parametrize("name", GROUPS)
def test_a_command_of_a_group_has_what_the_others_have(name: str) -> None:
    """An example that parses, and the common options; those that programs call are hidden."""
    group = main.commands[name]
    assert isinstance(group, click.Group)
    shown = [each for each in group.commands.values() if not each.hidden]
    assert shown
    for command in shown:
        spelled = {word for p in command.params for word in p.opts}
        assert {"--json", "-v", "--verbose", "-q", "--quiet"} <= spelled
        for line in examples(command):
            assert parse(line).command is command


@pytest.mark.parametrize("batch", ["", "1:2", "a", "1:2:3:4", "-1", "²"])
def test_a_malformed_batch_is_refused(batch: str) -> None:
    """A profile is one number or three."""
    said = refusal("build-engine", "a", "-o", "b", f"--batch={batch}", code=2)
    assert "is not a batch such as 8 or 1:8:32" in said


@pytest.mark.parametrize("words", [["-V"], ["--version"]])
def test_the_version(words: list[str]) -> None:
    """By its short and its long option."""
    assert run(*words).stdout == f"edgeres, version {__version__}\n"


def test_it_runs_as_a_module() -> None:
    """`python -m edgeres` is `edgeres`."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeres", "bench", "--refrence", "a"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: edgeres bench ")


def completed(*words: str) -> list[str]:
    """Returns what bash is offered for the last of these words."""
    env = {
        "_EDGERES_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    return [line.partition(",")[2] for line in run(env=env).stdout.splitlines() if line]


def test_architectures_complete() -> None:
    """By the beginning of their name; no other word does."""
    assert completed("edgeres", "export", "resnext") == ["resnext50_32x4d", "resnext101_32x8d"]
    assert completed("edgeres", "export", "vgg") == []


def test_commands_and_choices_complete() -> None:
    """Names of commands, options and the values of a choice."""
    assert completed("edgeres", "bui") == ["build-engine"]
    assert completed("edgeres", "bench", "--max") == ["--max-drop", "--max-slowdown"]
    assert completed("edgeres", "build-engine", "a", "--precision", "f") == ["fp32", "fp16", "fp8"]


def test_the_completion_script_of_bash() -> None:
    """`_EDGERES_COMPLETE=bash_source edgeres` prints one for the command of that name."""
    script = run(env={"_EDGERES_COMPLETE": "bash_source"}).stdout
    assert script.rstrip().endswith("_edgeres_completion_setup;")
    assert "complete -o nosort -F _edgeres_completion edgeres" in script


@pytest.mark.parametrize(
    "words",
    [
        ("{}",),
        ("--{}",),
        ("inspect", "x", "{}"),
        ("inspect", "x", "--{}"),
        ("build-engine", "x", "-o", "y", "--precision", "{}"),
        ("bench", "x", "--reference", "y", "--data", "z", "--iterations", "{}"),
        ("bench", "x", "--reference", "y", "--data", "z", "--timing", "{}"),
        ("boards", "{}"),
        ("export", "resnet18", "-o", "x", "--color", "{}"),
    ],
    ids=" ".join,
)
def test_what_was_typed_is_shown_and_not_obeyed(words: tuple[str, ...]) -> None:
    """Of a command, an option, a value or a word too many; a script may have read it from a file."""
    for text in ("\x1b]0;title\x07", "\x1b[31mred", "a\u202eb", "\udcff"):
        result = run(*(word.format(text) for word in words))
        assert result.exit_code in (1, 2)
        assert not set("\x1b\x07\u202e\udcff") & set(result.stderr), words
    result = run(*(word.format("9" * 100_000) for word in words))
    assert result.exit_code in (1, 2)
    assert len(result.stderr) < 20_000
