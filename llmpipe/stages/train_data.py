"""Write a stage's rows to the one file that Axolotl reads, and describe how to read them.

llmpipe's own readers read every row first, so that an error names the file and line before anything
heavy starts. Axolotl gets Parquet whose columns hold only text, with chats as JSON text: no library
has to guess types, and a turn's keys, numbers and nulls arrive as written. A folder of ``llmpipe
compile`` has the same file.

Covers conversations (``messages``, ShareGPT, Alpaca), raw text, pairs of answers (``rl: dpo``,
``ipo``, ``simpo``, ``orpo`` and reward models), labeled answers (``rl: kto``) and prompts
(``rl: grpo``). Rows for a ``type`` of the user's own keep their columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmpipe.backends.axolotl.config import DataFile
from llmpipe.backends.parquet import Shape, joined, lacks_key, write_shaped, write_texts
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import (
    Conversation,
    Example,
    Labeled,
    Preference,
    Prompt,
    RowError,
    Text,
    read_example,
)
from llmpipe.formats.labeled import read_labeled
from llmpipe.formats.preference import read_preference
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.records import WrittenFloat, read_rows
from llmpipe.formats.row import left_behind, text_column
from llmpipe.formats.text import read_text
from llmpipe.formats.turn import NAMES, RULES, Turn, TurnRules
from llmpipe.stages.train_entry import CHAT_KEYS, SYSTEM_TYPES, Kind, given, idle, kind_of_rows
from llmpipe.stages.train_methods import unbalanced
from llmpipe.stages.train_prompts import read_rewarded
from llmpipe.stages.train_speakers import Speakers
from llmpipe.stages.train_tally import Tally

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Alpaca:
    """A row for Axolotl's own Alpaca prompts, if the stage's ``type`` asks for them."""

    kind: ClassVar[str] = "an Alpaca row"
    columns: ClassVar[tuple[str, ...]] = ("system", "instruction", "input", "output")
    entry: ClassVar[Mapping[str, Any]] = {"type": "alpaca"}

    instruction: str
    input: str
    output: str
    system: str

    def layout(self, place: str) -> dict[str, str | None]:
        """Return the columns that Axolotl gets."""
        return {name: getattr(self, name) for name in self.columns}


Trained = Example | Alpaca
Reader = Callable[[Row], tuple[Trained, Sequence[str]]]

REWARD_TYPE = "axolotl_pairs.reward"
"""The ``type`` of pairs that a reward model is trained on."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file of rows, whether a chat template writes them, and what the user should know."""

    file: DataFile
    chat: bool
    notes: list[str]
    speakers: Speakers
    """Who speaks in its conversations; unknown ones are the caller's to allow."""


def prepare(
    artifact: Artifact,
    target: Path,
    block: Mapping[str, Any],
    path: str,
    dataset: Mapping[str, Any] | None = None,
) -> Prepared:
    """Write the rows of ``artifact`` to ``target`` and describe them under the name ``path``.

    Args:
        artifact: The rows.
        target: The Parquet file to write.
        block: The stage's Axolotl block, whose ``rl`` and ``reward_model`` determine the
            meaning of rows.
        path: The name of ``target`` in the configuration.
        dataset: The stage's own keys for Axolotl's ``datasets`` entry.

    Raises:
        StageError: There are no rows, or one cannot be read or differs in kind from the first.
    """
    dataset = given(dataset or {})
    reader = _reader(block, dataset)
    if reader is None:
        return _passed_on(artifact, target, path, dataset)
    read_by_templates = (
        dataset.get("message_field_training_detail"),
        dataset.get("field_thinking"),
    )
    tally = Tally(artifact.label, {str(key) for key in read_by_templates if key})
    speakers = Speakers(dataset)
    examples = _examples(artifact, reader, tally, speakers)
    first = next(examples, None)
    if first is None:
        raise StageError(f"{artifact.label} has no rows to train on")
    kind = type(first[1])
    _refuse_idle_keys(dataset, kind, artifact.label)
    rows = (example.layout(place) for place, example in itertools.chain([first], examples))
    count = write_texts(target, kind.columns, rows)
    chat = kind in (Conversation, Preference, Labeled, Prompt)
    entry = entry_of(kind, block, dataset, marked=tally.marked)
    notes = tally.notes()
    if told := unbalanced(tally.labels, block):
        notes.append(f"{artifact.label}: {told}")
    if kind is Alpaca:
        notes.append(
            f"{artifact.label}: type: {entry['type']} trains on Alpaca's own prompt, but "
            "evaluate and serve use the chat template"
        )
    return Prepared(DataFile(path, entry, count), chat, notes, speakers)


def entry_of(
    kind: type[Trained],
    block: Mapping[str, Any],
    dataset: Mapping[str, Any],
    *,
    marked: bool = False,
) -> dict[str, Any]:
    """Return the keys of Axolotl's ``datasets`` entry for one kind of example.

    ``marked`` means that turns say whether they are trained on; their key is then ``weight``,
    whatever its name in the rows.
    """
    entry = {**kind.entry, **dataset}
    if marked:
        entry["message_field_training"] = "weight"
    if kind is Conversation:
        entry["message_property_mappings"] = _turn_keys(dataset)
        if trained := dataset.get("roles_to_train"):
            names = {} if dataset.get("roles") else NAMES  # these names are the roles in the rows
            entry["roles_to_train"] = [names.get(name, name) for name in trained]
    if block.get("reward_model"):
        entry["type"] = REWARD_TYPE
    return entry


def expected_entry(block: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description that `prepare` will give of rows that do not exist yet.

    Rows that only their columns distinguish are assumed to be conversations.
    """
    dataset = given(dataset)
    kind = kind_of_rows(block, dataset)
    if kind == "as they are":
        return dataset
    kinds: Mapping[Kind, type[Trained]] = {
        "pair": Preference,
        "labeled": Labeled,
        "prompt": Prompt,
        "text": Text,
        "alpaca": Alpaca,
    }
    return entry_of(kinds.get(kind or "conversation", Conversation), block, dataset)


def _reader(block: Mapping[str, Any], dataset: Mapping[str, Any]) -> Reader | None:
    """Return the reader of the stage's rows; None if they are passed on unchanged."""
    kind = kind_of_rows(block, dataset)
    if kind == "as they are":
        return None
    if kind == "alpaca":
        named = str(dataset["type"])
        return lambda row: _read_alpaca(row, named)
    if kind == "text":
        return read_text
    expected: Mapping[Kind | None, tuple[type[Example], ...]] = {
        "pair": (Preference,),
        "labeled": (Labeled,),
        "prompt": (Prompt,),
        "conversation": (Conversation,),
    }
    rules = _rules(dataset)
    wanted = expected.get(kind, (Conversation, Text))
    return lambda row: _read_wanted(row, rules, wanted)


_READERS: Mapping[tuple[type[Example], ...], Callable[[Row, TurnRules], Any]] = {
    (Preference,): read_preference,
    (Labeled,): read_labeled,
    (Prompt,): read_rewarded,
}
"""The readers of rows that may be of one kind only; they name a column that is missing."""


def _rules(dataset: Mapping[str, Any]) -> TurnRules:
    """Return how turns are read: unchanged for a stage that maps speakers to roles."""
    named = dataset.get("message_field_training")
    return TurnRules(
        names={} if dataset.get("roles") else NAMES,
        strict=False,
        trained=(str(named),) if named else RULES.trained,
    )


def _read_wanted(
    row: Row, rules: TurnRules, wanted: tuple[type[Example], ...]
) -> tuple[Example, Sequence[str]]:
    """Read a row by its columns; its kind must be one that this training accepts."""
    read = _READERS.get(wanted)
    example, left = read(row, rules) if read else read_example(row, None, rules)
    if not isinstance(example, wanted):
        kinds = " or ".join(kind.kind for kind in wanted)
        raise RowError(
            f"the row is {example.kind}; this training takes {kinds}",
            hint="a stage of kind format writes rows of another format; `rl` in the axolotl block "
            "says how to train",
        )
    return example, left


def _read_alpaca(row: Row, named: str) -> tuple[Alpaca, Sequence[str]]:
    system = text_column(row, "system", required=False)
    if system.strip() and named not in SYSTEM_TYPES:
        raise RowError(
            f"the row has a system text, for which type: {named} has no place",
            hint="remove type: the chat template has a place for it; or write type: "
            "alpaca_w_system.load_instruct, which writes another prompt for all rows",
        )
    alpaca = Alpaca(
        text_column(row, "instruction", blank=True),
        text_column(row, "input", required=False),
        text_column(row, "output", blank=True),
        system,
    )
    return alpaca, left_behind(row, frozenset(Alpaca.columns))


def _examples(
    artifact: Artifact, reader: Reader, tally: Tally, speakers: Speakers
) -> Iterator[tuple[str, Trained]]:
    """Yield every row as an example, with its place as ``FILE:LINE``; count what is not trained.

    Raises:
        StageError: a row cannot be read, or is of another kind than the first one.
    """
    first: tuple[type[Trained], int] | None = None
    for line, row in read_rows(artifact.path, artifact.label, floats=WrittenFloat):
        place = f"{artifact.label}:{line}"
        try:
            example, left = reader(row)
        except RowError as error:
            raise StageError(f"{place}: {error.message}", hint=error.hint) from None
        first = first or (type(example), line)
        if type(example) is not first[0]:
            raise StageError(
                f"{place}: {example.kind}, but the row of line {first[1]} is {first[0].kind}",
                hint="convert all rows to one format with a format stage",
            )
        tally.columns(left)
        if isinstance(example, Conversation):
            speakers.look(example.turns, place)
        if _counted(example, line, tally):
            yield place, example


def _counted(example: Trained, line: int, tally: Tally) -> bool:
    """Count the parts of an example that teach nothing; return whether to train on it."""
    match example:
        case Conversation(turns=turns):
            tally.turns(turns)
            tally.answers(turns, line)
        case Preference(turns=turns, chosen=chosen, rejected=rejected):
            tally.turns([*turns, chosen, rejected])
            if chosen == rejected:
                tally.rows("whose two answers are the same, which teaches nothing", line)
        case Labeled(turns=turns, completion=completion, label=label):
            tally.turns([*turns, completion])
            tally.label(label)
        case Prompt(turns=turns):
            tally.turns(turns)
        case Alpaca(output=answer):
            tally.answers([Turn("assistant", answer)], line)
        case Text(text=text) if not text.strip():
            tally.rows("of empty text, left out", line)
            return False
    return True


def _turn_keys(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of turns that a chat template gets, each with the key in the rows.

    Axolotl passes the keys that it finds in the template's code, but misses some: exaone4's
    ``tool_calls`` would be lost. It always passes the keys that are named here.
    """
    thinking = dataset.get("template_thinking_key") or "reasoning_content"
    return {
        **{key: key for key in ("role", "content", "name", "tool_calls", "tool_call_id")},
        thinking: dataset.get("field_thinking") or "reasoning_content",
    }


def _refuse_idle_keys(dataset: Mapping[str, Any], kind: type[Trained], label: str) -> None:
    """Refuse keys that apply only to conversations, if the rows are raw text.

    `train_entry.entry_problems` finds what the configuration alone shows.
    """
    for key in dataset:
        if kind is Text and key in CHAT_KEYS:
            raise StageError(f"{label}: {idle(key, 'text')}", hint=f"remove {key} from dataset")


def _passed_on(artifact: Artifact, target: Path, path: str, dataset: Mapping[str, Any]) -> Prepared:
    """Pass rows on unchanged for a type that llmpipe does not know."""
    shape: dict[str, Shape] = {}
    for line, row in read_rows(artifact.path, artifact.label):
        for name, value in row.items():
            if name == PROVENANCE:
                continue
            place = f"{artifact.label}:{line}: column {name!r}"
            shape[name] = joined(shape.get(name), value, place)
    if not shape:
        raise StageError(f"{artifact.label} has no rows to train on")
    tally = Tally(artifact.label)
    count = write_shaped(target, shape, _counting_nulls(artifact, shape, tally), artifact.label)
    file = DataFile(path, dict(dataset), count)
    return Prepared(file, chat=False, notes=tally.notes(), speakers=Speakers(dataset))


def _counting_nulls(artifact: Artifact, shape: Mapping[str, Shape], tally: Tally) -> Iterator[Row]:
    """Yield the rows; count those in which an object lacks a key that others have."""
    for line, row in read_rows(artifact.path, artifact.label):
        row = {name: value for name, value in row.items() if name != PROVENANCE}
        for name, value in row.items():
            if lacks_key(shape[name], value):
                tally.rows(
                    f"with an object in column {name!r} that lacks a key of other rows, which "
                    "reads null there",
                    line,
                )
        yield row
