"""``llmpipe completion``: print a script by which a shell completes llmpipe's command line.

At each Tab, the script passes the line typed so far to the option ``--line``, which prints what
fits. Options come from the parser of the command; names of stages, profiles and runs come from the
spec and its store. So there is no list to maintain.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from llmpipe.cli.main import COMMANDS
from llmpipe.cli.options import parser
from llmpipe.errors import LlmpipeError
from llmpipe.paths import expanded

FILES, YAML_FILES = ":files", ":yaml"
"""Answers that ask the shell to complete names of files itself."""

BASH = r"""
_llmpipe() {
    local line=${COMP_LINE:0:COMP_POINT} word about
    local typed=${line##*[[:space:]]}
    local part=${typed##*[=:]}  # what stands behind = or : is a word of its own to bash
    COMPREPLY=()
    while IFS=$'\t' read -r word about; do
        case $word in
            :files) mapfile -t COMPREPLY < <(compgen -f -- "$part") ;;
            :yaml) mapfile -t COMPREPLY < <(
                compgen -d -- "$part"
                compgen -f -X '!*.yaml' -- "$part"
                compgen -f -X '!*.yml' -- "$part"
            ) ;;
            *) COMPREPLY+=("${word#"${typed%"$part"}"}") ;;
        esac
        case $word in
            :*) compopt -o filenames 2>/dev/null ;;
            *=) compopt -o nospace 2>/dev/null ;;
        esac
    done < <("$1" completion bash --line "$line" 2>/dev/null)
}
complete -F _llmpipe llmpipe
"""

ZSH = r"""
#compdef llmpipe
_llmpipe() {
    local word about
    local -a found ends
    while IFS=$'\t' read -r word about; do
        case $word in
            :files) _files ;;
            :yaml) _files -g '*.(yaml|yml)' ;;
            *=) ends+=("${word//:/\\:}:$about") ;;
            *) found+=("${word//:/\\:}:$about") ;;
        esac
    done < <("$words[1]" completion zsh --line "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
    (( $#found )) && _describe llmpipe found
    (( $#ends )) && _describe llmpipe ends -S ''
}
compdef _llmpipe llmpipe
"""

FISH = r"""
function __llmpipe
    set --local line (commandline --current-process --cut-at-cursor | string collect)
    set --local program (commandline --current-process --tokenize --cut-at-cursor)[1]
    for answer in ($program completion fish --line "$line" 2>/dev/null)
        switch $answer
            case ':files*'
                __fish_complete_path (commandline --current-token)
            case ':yaml*'
                __fish_complete_suffix .yaml
            case '*'
                echo $answer
        end
    end
end
complete --command llmpipe --no-files --arguments '(__llmpipe)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

Offer = tuple[str, str]
"""A word that fits, and its description."""
Values = Mapping[str, str]
"""The arguments that the line holds already, by name."""


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "completion",
        "Print a script that completes commands, options, specs, stages and runs. To use it:\n\n"
        "  bash:  echo 'source <(llmpipe completion bash)' >> ~/.bashrc\n"
        "  zsh:   echo 'source <(llmpipe completion zsh)' >> ~/.zshrc   (below compinit)\n"
        "  fish:  llmpipe completion fish > ~/.config/fish/completions/llmpipe.fish",
    )
    arguments.add_argument("shell", choices=[*SCRIPTS])
    arguments.add_argument("--line", help=argparse.SUPPRESS)
    options = arguments.parse_args(argv)
    if options.line is None:
        print(SCRIPTS[options.shell].strip())
    else:
        for word, about in offers(options.line):
            if word.split() == [word]:  # in a broken spec, a name may be anything
                print(f"{word}\t{' '.join(about.split())}")
    return 0


def offers(line: str) -> list[Offer]:
    """Return what fits at the end of a command line, such as ``llmpipe run spec.yaml --on``."""
    *before, current = _words(line)
    if len(before) < 2:
        found: Iterable[Offer] = COMMANDS.items() if before else ()
    elif before[1] not in COMMANDS:
        found = ()
    else:
        found = _arguments(command_parser(before[1]), before[2:], current)
    return [(word, about) for word, about in found if word.startswith((current, ":"))]


def command_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command: the command is stopped where it begins to parse."""

    class Built(BaseException):
        pass

    def stop(self: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise Built(self)

    module = importlib.import_module(f"llmpipe.cli.{command}")
    cls = argparse.ArgumentParser
    begun_by = {name: getattr(cls, name) for name in ("parse_args", "parse_intermixed_args")}
    for name in begun_by:
        setattr(cls, name, stop)
    try:
        module.main([])
    except Built as built:
        found: argparse.ArgumentParser = built.args[0]
        return found
    finally:
        for name, method in begun_by.items():
            setattr(cls, name, method)
    raise AssertionError(f"{command} builds no parser")


def _words(line: str) -> list[str]:
    """Split a line as a shell does; the last word is being typed and may be empty."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is open
        words = line.split()
    return words if words and not line[-1:].isspace() else [*words, ""]


def _arguments(takes: argparse.ArgumentParser, words: list[str], current: str) -> Iterator[Offer]:
    """Return what may follow a command and the words after it."""
    left = [action for action in takes._actions if not action.option_strings]
    values: dict[str, str] = {}
    open_option: argparse.Action | None = None
    for word in words:
        if open_option:
            values[open_option.dest], open_option = word, None
        elif word.startswith("-"):
            name, _, value = word.partition("=")
            option = takes._option_string_actions.get(name)
            if option and option.nargs != 0:
                open_option = None if value else option
                values[option.dest] = value
        elif left:
            values[left[0].dest] = word
            if left[0].nargs not in ("*", "+"):
                del left[0]
    option_name, equals, _ = current.partition("=")
    option = takes._option_string_actions.get(option_name)
    if open_option:
        yield from _values(open_option, values)
    elif equals and option:
        for word, about in _values(option, values):
            yield (word if word.startswith(":") else f"{option_name}={word}"), about
    elif left and not current.startswith("-"):
        yield from _values(left[0], values)
    else:
        yield from _options(takes)


def _options(takes: argparse.ArgumentParser) -> Iterator[Offer]:
    for action in takes._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield action.option_strings[-1], action.help or ""


def _values(action: argparse.Action, values: Values) -> Iterable[Offer]:
    """Return the possible values of an argument."""
    if action.choices is not None:
        return [(str(choice), "") for choice in action.choices]
    for name in (action.dest, action.metavar):
        if isinstance(name, str) and name in OFFERS:
            return OFFERS[name](values)
    return [(FILES, "")] if action.type is Path else []


def _spec(values: Values) -> Path:
    return expanded(values.get("spec") or "spec.yaml")


def _section(values: Values, name: str) -> dict[str, Any]:
    """Return the entries of a section of the spec; none if it cannot be read."""
    from llmpipe.spec.extends import load_extended

    with contextlib.suppress(LlmpipeError, OSError):
        section = load_extended(_spec(values))[0].find((name,))
        return section.children() if section else {}
    return {}


def _stages(values: Values) -> Iterator[Offer]:
    for name, stage in _section(values, "stages").items():
        kind = stage.find(("kind",))
        yield name, str(kind.value) if kind else ""


def _profiles(values: Values) -> Iterator[Offer]:
    return ((name, "") for name in _section(values, "profiles"))


def _settings(values: Values) -> Iterator[Offer]:
    for name, value in _section(values, "params").items():
        yield f"params.{name}=", str(value.plain())


def _runs(values: Values) -> Iterator[Offer]:
    from llmpipe.runner.store import Store, home_for

    with contextlib.suppress(LlmpipeError, OSError):
        runs = Store(home_for(_spec(values))).runs.glob("*/run.json")
        yield from ((path.parent.name, "") for path in sorted(runs))


def _kinds(values: Values) -> Iterator[Offer]:
    from llmpipe.registry import all_kinds

    return ((kind, "") for kind in all_kinds())


OFFERS: dict[str, Callable[[Values], Iterable[Offer]]] = {
    "SPEC": lambda values: [(YAML_FILES, "")],
    "AXOLOTL_YAML": lambda values: [(YAML_FILES, "")],
    "PATH": lambda values: [(FILES, "")],
    "STAGE": _stages,
    "STAGE[.OUTPUT]": _stages,
    "RUN": _runs,
    "KIND": _kinds,
    "profiles": _profiles,
    "settings": _settings,
}
"""Completions of an argument, by its name or else by its metavar."""
