"""The plugin that Axolotl calls when its trainer exists and no step was made.

Rows of ``input_ids`` and ``labels``, of preference pairs (DPO, IPO, SimPO, ORPO), of labeled
answers (KTO) and evaluation rows are looked at, in every process of a run on several GPUs. With
``sample_packing`` rows are packed later, as batches are made: here each is still its own.

Not looked at: rows that are streamed, rows of reward models, and what a collator cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from axolotl.integrations.base import BasePlugin
from axolotl.utils.distributed import is_main_process
from pydantic import BaseModel

from . import report
from .rows import Example, Ints, Place, Tally
from .setup import Setup
from .show import shown

BATCH = 1_000
"""Rows looked at together."""
SHOWN, LONGEST = 3, 600
"""How many rows are shown in the report, and how many letters of each."""
PAIRS: tuple[tuple[str, str | None], ...] = (
    ("input_ids", "labels"),
    ("chosen_ids", None),
    ("rejected_ids", None),
    ("completion_ids", None),
    ("chosen_input_ids", "chosen_labels"),
    ("rejected_input_ids", "rejected_labels"),
)
"""Columns of tokens and of their labels; None where all of them are trained."""


class UntrainedError(ValueError):
    """The labels would not teach what the rows contain."""


class LabelsArgs(BaseModel):
    """The plugin's key in an Axolotl configuration."""

    allow_untrained: list[Literal["end_of_turn", "rows", "speakers"]] | None = None


class LabelsPlugin(BasePlugin):  # type: ignore[misc]  # Axolotl is not typed
    """Stops a run whose labels leave out the end of answers, or whole rows."""

    def get_input_args(self) -> str:
        """Return the place of the class that adds ``allow_untrained`` to the configuration."""
        return f"{__name__}.{LabelsArgs.__name__}"

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Look at every row and write down what was found.

        Raises:
            UntrainedError: something was found that is not allowed.
        """
        found = examine(cfg, trainer)
        found.shown = _first_rows(trainer)
        if is_main_process():
            found.write(Path(cfg.output_dir))
        if found.error:
            raise UntrainedError(f"{found.error}\n{found.hint}")


def examine(cfg: Any, trainer: Any) -> report.Report:
    """Look at the rows of a trainer and report what was found."""
    found = report.Report()
    for name, _, dataset in _datasets(trainer):
        if hasattr(dataset, "__len__") and not len(dataset):
            found.nothing_left(name, cfg.sequence_len)
            return found
    for name, split, _ in _datasets(trainer):
        found.warnings += [f"{name}: {said}" for said in Setup.of(cfg, trainer, split).left_out()]
    if cfg.reward_model or cfg.process_reward_model:
        found.rows = len(trainer.train_dataset)
        return found
    problems: list[report.Problem] = []
    if cfg.rl == "grpo":  # its answers are generated later; they must be able to end
        found.rows = len(trainer.train_dataset)
        problems += Setup.of(cfg, trainer, "train").unstopped()
        found.settle(problems, cfg.allow_untrained or ())
        return found
    for name, split, dataset in _datasets(trainer):
        setup = Setup.of(cfg, trainer, split)
        if setup.unknown:
            found.warnings.append(f"{name}: the end of answers is not checked: {setup.unknown}")
        tally = _look(dataset, setup)
        if tally is None:
            found.warnings.append(f"{name}: streamed, or without labels: they are not checked")
            continue
        seen = report.Seen(name, tally, _shower(dataset, setup), setup.end)
        problems += report.problems(seen, setup.advice)
        found.warnings += report.warnings(seen)
        if split == "train":
            problems += setup.unstopped()
            found.warnings += [*setup.refused_later(), *setup.unlike_prompt()]
            found.rows, found.tokens = len(dataset), tally.tokens
            found.trained_tokens = tally.trained
    found.settle(problems, cfg.allow_untrained or ())
    return found


def _first_rows(trainer: Any) -> list[str]:
    """Return the first rows as they are trained; none of a data set that is streamed."""
    dataset, tokenizer = trainer.train_dataset, trainer.processing_class
    if not hasattr(dataset, "__len__"):
        return []
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    rows = (dataset[number] for number in range(min(SHOWN, len(dataset))))
    texts = [text for row in rows for text in shown(row, tokenizer)]
    return [text if len(text) <= LONGEST else f"{text[:LONGEST]} …" for text in texts]


def _datasets(trainer: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield what each data set is called, the split it is of, and the data set."""
    yield "training rows", "train", trainer.train_dataset
    evaluated = trainer.eval_dataset
    if isinstance(evaluated, Mapping):
        yield from ((f"evaluation rows {name}", "test", rows) for name, rows in evaluated.items())
    elif evaluated is not None:
        yield "evaluation rows", "test", evaluated


def _look(dataset: Any, setup: Setup) -> Tally | None:
    """Look at every row; None where it has no labels to look at, or is streamed."""
    columns = set(getattr(dataset, "column_names", None) or ())
    pairs = [(ids, labels) for ids, labels in PAIRS if {ids, labels} - {None} <= columns]
    if not pairs or not hasattr(dataset, "__len__"):
        return None
    rules, numbers = setup.rules(), _numbers(dataset, setup)
    numbers = np.arange(len(dataset)) if numbers is None else numbers
    tally, first = Tally(), 0
    for batch in dataset.with_format("arrow").iter(batch_size=BATCH):
        here = numbers[first : first + len(batch)]
        for ids_column, labels_column in pairs:
            ids, lengths = _flat(batch, ids_column)
            labels = _flat(batch, labels_column)[0] if labels_column else ids
            tally.look(ids, labels, lengths, rules, Place(here, first, ids_column))
            if "prompt_ids" in columns:
                tally.tokens += int(_flat(batch, "prompt_ids")[1].sum())
        first += len(batch)
    return tally


def _flat(batch: Any, column: str) -> tuple[Any, Any]:
    """Return the values of a column of lists one after the other, and the lists' lengths."""
    lists = batch.column(column).combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    return values, lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)


def _shower(dataset: Any, setup: Setup) -> Callable[[Example], str]:
    """Return the function that shows an example: which row, and what is trained at its end."""
    prepared = " as prepared" if _numbers(dataset, setup) is None else ""

    def show(example: Example) -> str:
        row = dataset[example.row]
        labels = dict(PAIRS)[example.column]
        text = setup.marked(row[example.column], row[labels] if labels else None, example.end)
        return f"  row {example.number + 1}{prepared}: {text}"

    return show


def _numbers(dataset: Any, setup: Setup) -> Ints | None:
    """Return the number of every row in the data file, from 0, or None where that is unknown.

    Axolotl shuffles what it tokenized. The data set knows the old order as long as no further step
    rewrote it, as truncating and packing do.
    """
    order = getattr(dataset, "_indices", None)
    if setup.rewritten or (order is None and setup.cfg.shuffle_merged_datasets):
        return None
    if order is None:
        return np.arange(len(dataset))
    numbers: Ints = order.column(0).to_numpy().astype(np.int64)
    return numbers
