"""``llmpipe init``: write a spec for the user's data and goal, and explain the choice.

The data is inspected: whether it is documents or examples, and how many. At a terminal, the rest is
asked. Otherwise, missing options are an error, and the command never waits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.cli.options import parser
from llmpipe.errors import SpecError, UsageError

if TYPE_CHECKING:
    from llmpipe.cli.init.data import Data
    from llmpipe.cli.init.recipe import Goal, Recipe
    from llmpipe.cli.init.rows import Rows
    from llmpipe.cli.init.trial import Trial
    from llmpipe.graph.model import Graph


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    spec = options.folder / options.file
    if spec.name != options.file or spec.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--file: {options.file} is not a name that ends in .yaml or .yml")
    _require_free(spec, force=options.force)
    if options.from_axolotl:
        return _from_axolotl(spec, options)

    from llmpipe.cli.init.recipe import (
        SMOLLM2,
        choose_recipe,
        command_table,
        default_name,
        unused,
    )
    from llmpipe.cli.prompts import at_terminal

    asks = not options.yes and at_terminal()
    if not asks and not options.yes:
        _require_answers(options)
    data = _look(options.data, options) if options.data else _ask_for_data(options, asks)
    print("\n".join(f"  {line}" for line in data.described()))
    goal = options.goal or _goal(data, asks)
    _name_columns(data, goal, options, asks)
    recipe = choose_recipe(goal, data)
    model = _model(options.model, recipe, options.folder) if options.model else SMOLLM2
    name = options.name or default_name(spec)
    with _folder(spec.parent):
        text, trial = _tried(spec, recipe, data, name=name, model=model)
        _write(spec, text, force=options.force)
    left = ", ".join(unused(recipe, data))
    told = [f"not used, because training takes examples: {left}"] if left else []
    _tell(
        recipe, spec, [*told, *trial.remarks], [*trial.missing, *command_table(recipe, str(spec))]
    )
    return 0


def _from_axolotl(spec: Path, options: argparse.Namespace) -> int:
    """Write the spec that trains as an Axolotl file does."""
    from llmpipe.cli.init.axolotl import convert
    from llmpipe.cli.init.recipe import default_name

    others = ("data", "goal", "question", "answer", "model")
    if given := next((name for name in others if getattr(options, name)), None):
        raise UsageError(f"--{given} has no effect with --from-axolotl", hint="the file says it")
    with _folder(spec.parent):
        made = convert(options.from_axolotl, spec, options.name or default_name(spec))
        _write(spec, made.text, force=options.force)
    print("".join(f"note: {note}\n" for note in made.notes), end="")
    shown = shlex.quote(str(spec))
    print(f"written: {shown}; its comments repeat the notes. Next:")
    print(f"  llmpipe validate {shown}")
    print(f"  llmpipe run {shown}")
    print(
        f"  llmpipe compile {shown} {made.trained} --device cuda --out DIR    # for a GPU elsewhere"
    )
    return 0


def _tried(spec: Path, recipe: Recipe, data: Data, *, name: str, model: str) -> tuple[str, Trial]:
    """Return the text of a valid spec, and its stages' findings, which are also in the text."""
    from llmpipe.cli.init.recipe import render
    from llmpipe.cli.init.trial import MOST_ROWS, try_out

    draft = render(recipe, data, file=spec.name, name=name, model=model)
    trial = try_out(_sound(spec, draft), parts=data.examples <= MOST_ROWS)
    return render(recipe, data, file=spec.name, name=name, model=model, trial=trial), trial


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "init",
        "Write a spec for your data and goal: answers from documents by retrieval, or\n"
        "fine-tuning. At a terminal, it asks for what these options leave open.",
    )
    arguments.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        default=Path(),
        help="where to write the spec; this folder by default",
    )
    arguments.add_argument(
        "--from-axolotl",
        action=_Once,
        metavar="FILE",
        type=Path,
        help="an Axolotl YAML: write a spec that trains the same, and name what cannot be kept",
    )
    arguments.add_argument(
        "--data",
        metavar="PATH",
        action="append",
        default=[],
        help="a file, folder, pattern such as './docs/**/*.md' or pkg:// address (repeatable)",
    )
    arguments.add_argument(
        "--goal",
        action=_Once,
        choices=["answer", "teach"],
        help="answer questions from the data, or teach a model by examples",
    )
    arguments.add_argument(
        "--question",
        action=_Once,
        metavar="COLUMN",
        help="the column of rows with the question, or the title",
    )
    arguments.add_argument(
        "--answer",
        action=_Once,
        metavar="COLUMN",
        help="the column of rows with the answer, or the text",
    )
    arguments.add_argument(
        "--name", action=_Once, help="the pipeline's name; the folder's by default"
    )
    arguments.add_argument(
        "--model",
        action=_Once,
        help="the GGUF that answers, or the model to train; a packaged one by default",
    )
    arguments.add_argument(
        "--file",
        action=_Once,
        metavar="NAME",
        default="spec.yaml",
        help="the name of the spec file (spec.yaml)",
    )
    arguments.add_argument("--force", action="store_true", help="replace an existing spec")
    arguments.add_argument(
        "-y", "--yes", action="store_true", help="do not ask: use the suggestions"
    )
    options = arguments.parse_args(argv)
    for name in ("question", "answer", "name", "model", "file"):
        _require_text(name, getattr(options, name))
    for path in options.data:
        _require_text("data", path)
    if options.question and not options.answer:
        raise UsageError("--question has no effect without --answer", hint="name both columns")
    return options


class _Once(argparse.Action):
    """Keeps the value of an option, and refuses a second one."""

    given = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.given:
            before = getattr(namespace, self.dest)
            raise UsageError(
                f"{option_string} is given twice: {before!r} and {values!r}", hint="it takes one"
            )
        self.given = True
        setattr(namespace, self.dest, values)


def _require_text(name: str, value: str | None) -> None:
    if value == "":
        raise UsageError(f"--{name} is empty")
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise UsageError(f"--{name} {value!r}: that is not UTF-8") from None


def _require_free(spec: Path, *, force: bool) -> None:
    if spec.is_dir() and not spec.is_symlink():
        raise UsageError(f"{spec} is a folder", hint="write another file: --file NAME")
    if os.path.lexists(spec) and not force:
        hint = "replace it with --force, or write another file: --file NAME"
        raise UsageError(f"{spec} already exists", hint=hint)
    if spec.parent.exists() and not spec.parent.is_dir():
        raise UsageError(
            f"{spec.parent} is a file", hint="name a folder; --data names what to read"
        )


def _require_answers(options: argparse.Namespace) -> None:
    """Check that no question is open when there is no terminal."""
    missing = [f"--{name}" for name in ("data", "goal") if not getattr(options, name)]
    if missing:
        raise UsageError(
            f"there is no terminal to ask at; missing: {', '.join(missing)}",
            hint="llmpipe init --data ./docs --goal answer\nor use the suggestions: --yes",
        )


def _look(texts: Sequence[str], options: argparse.Namespace) -> Data:
    from llmpipe.cli.init.data import look

    return look(texts, options.folder, options.question, options.answer)


def _ask_for_data(options: argparse.Namespace, asks: bool) -> Data:
    from llmpipe.cli.prompts import ask

    if not asks:
        return _look(["."], options)
    print(
        "Documents (Markdown, HTML, PDF, Word, text …) or examples (JSONL, CSV with questions and\n"
        "answers)? Name a file, a folder or a pattern; it is read in place."
    )
    return ask("Your data", ".", lambda text: _look([text], options))


def _goal(data: Data, asks: bool) -> Goal:
    from llmpipe.cli.init.recipe import GOALS, require_examples
    from llmpipe.cli.prompts import choose

    suggested: Goal = "teach" if data.examples and not data.documents else "answer"
    if not asks:
        return suggested
    unknown = any(not rows.are_told for rows in data.rows)

    def check(word: str) -> None:
        if word == "teach" and not unknown:
            require_examples(data)

    word = choose("What should it do?", GOALS, suggested, check)
    return "teach" if word == "teach" else "answer"


def _name_columns(data: Data, goal: Goal, options: argparse.Namespace, asks: bool) -> None:
    """Determine the meaning of the columns, as far as the goal needs it.

    Raises:
        UsageError: There is no terminal to ask at, or no such column.
    """
    for i, rows in enumerate(data.rows):
        if rows.are_told or (goal == "teach" and data.examples):
            continue
        has = ", ".join(rows.first)
        if not asks:
            hint = "name the columns: --question COLUMN --answer COLUMN"
            if options.answer:
                hint = "name columns that it has, or leave it out"
            raise UsageError(f"{rows.written}: which column holds what? It has {has}", hint=hint)
        print(f"{rows.written} has the columns {has}.")
        data.rows[i] = _ask_for_columns(rows, goal)


def _ask_for_columns(rows: Rows, goal: Goal) -> Rows:
    from llmpipe.cli.prompts import ask

    first, second = ("title", "text") if goal == "answer" else ("question", "answer")
    rows = ask(f"Column with the {second}", None, lambda name: rows.named(None, name))
    others = [column for column in rows.first if column != rows.answer]
    if not others:
        return rows
    return ask(f"Column with the {first}", others[0], lambda name: rows.named(name, rows.answer))


def _model(text: str, recipe: Recipe, folder: Path) -> str:
    """Return a model as a spec in the folder names it.

    Raises:
        UsageError: It does not exist and is not a hub id, or it cannot answer.
    """
    from llmpipe.cli.init.data import written_path
    from llmpipe.graph.sources import HUB_ID, absent_data
    from llmpipe.needs import DATA_PACKAGES
    from llmpipe.paths import expanded

    if recipe.takes_gguf and not text.endswith(".gguf"):
        hint = "give a path or a pkg:// address that ends in .gguf"
        raise UsageError(f"--model: {text} is not a GGUF, which is needed for answers", hint=hint)
    if text.startswith("pkg://"):
        lacking = absent_data(text)
        if lacking and lacking.package not in DATA_PACKAGES:
            message = f"--model: {text}: the package {lacking.package!r} is not installed"
            raise UsageError(message, hint="install the package first, with pip")
        return text
    if expanded(text).exists():
        return written_path(text, folder)
    if HUB_ID.fullmatch(text) and not recipe.takes_gguf:
        return text
    raise UsageError(f"--model: there is no file or folder {text}")


def _write(spec: Path, text: str, *, force: bool) -> None:
    """Write a valid spec as a whole, and the schema that editors check it by."""
    from llmpipe.cli.init.data import SCHEMA
    from llmpipe.runner.disk import atomic_write
    from llmpipe.spec.schema import editor_schema

    _sound(spec, text)
    _require_free(spec, force=force)
    atomic_write(spec, text)
    schema = spec.with_name(SCHEMA)
    if not schema.exists():
        atomic_write(schema, json.dumps(editor_schema(installed=True), indent=2) + "\n")


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Create a folder; remove what was created of it if the command fails."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


def _sound(spec: Path, text: str) -> Graph:
    """Return the graph of a spec's text, checked in its place.

    Packages with models may still have to be installed.

    Raises:
        UsageError: The options do not give a spec that can run.
    """
    from llmpipe.graph.compile import compile_spec
    from llmpipe.spec.read import read_spec

    try:
        return compile_spec(read_spec(spec, text=text), absent=True)
    except SpecError as error:
        first, *others = error.problems
        hint = "\n".join(filter(None, [first.hint, *(p.message for p in others)]))
        message = f"no spec can be made from that: {first.message}"
        raise UsageError(message, hint=hint) from None


def _tell(recipe: Recipe, spec: Path, told: Sequence[str], commands: Sequence[str]) -> None:
    print(f"\n{recipe.title}")
    print(textwrap.fill(recipe.why, 96, initial_indent="  ", subsequent_indent="  "))
    print("".join(f"  {line}\n" for line in told), end="")
    print(f"\nwritten: {shlex.quote(str(spec))}; its comments say what to change. Next:")
    print("\n".join(f"  {command.strip()}" for command in commands))
