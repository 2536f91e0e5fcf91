"""Read the prompts that generation starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats import Conversation, Prompt, read_example
from llmpipe.formats.provenance import PROVENANCE, Provenance, read_provenance
from llmpipe.formats.records import read_rows, row_digest
from llmpipe.formats.row import RowError, UnusableRowError, expecting, text_column


class SeedMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The columns of a seed row to use. Its answers, if it has any, are not used."""

    user: str
    """Column with the prompt to evolve."""
    system: str | None = None
    """Column with the system message of the prompt; rows where it is empty have none."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One prompt and its row."""

    digest: str
    """The SHA-256 of the row, which determines every random draw for the seed."""
    provenance: Provenance
    place: str
    """Where the row is: ``seeds.jsonl:3``."""
    instruction: str
    system: str
    label: str = ""
    """The text of the column that `read_seeds` was asked for besides the prompt."""


def read_seeds(
    source: Artifact,
    columns: SeedMap | None,
    warn: Callable[[str], None],
    *,
    instruction_only: bool = False,
    label: str | None = None,
) -> list[Seed]:
    """Return the seeds of a file, each row once.

    Args:
        source: The file.
        columns: The columns of the prompt. Without them, a row must be in a known format, whose
            first user turn is the prompt, or have a column ``instruction``.
        warn: Called with how many rows are not used, and why.
        instruction_only: Whether a column ``instruction`` is the whole prompt, without the
            ``input`` next to it.
        label: A further column, which some rows may lack or leave empty.

    Raises:
        StageError: A row cannot be read (its line is named), or the file has no usable row.
    """
    seeds: dict[str, Seed] = {}
    blank: list[str] = []
    repeated: list[str] = []
    for seed in _read(source, columns, instruction_only, label):
        if not seed.instruction:
            blank.append(seed.place)
            continue
        if seed.digest in seeds:
            repeated.append(seed.place)
        seeds[seed.digest] = seed
    for places, what in ((blank, "without a prompt"), (repeated, "that repeat another")):
        if places:
            warn(f"{source.label}: rows {what}, not used: {len(places)} (first: {places[0]})")
    if not seeds:
        raise StageError(
            f"{source.label} has no prompt to start from",
            hint="a seed row needs a prompt: a known format, a column 'instruction', or map:",
        )
    return list(seeds.values())


def _read(
    source: Artifact, columns: SeedMap | None, instruction_only: bool, label: str | None
) -> Iterator[Seed]:
    """Yield each row as a seed; the instruction of a row without a prompt is empty."""
    rows = read_rows(source.path, source.label)
    for expected in (columns.system if columns else None, label):
        rows = expecting(rows, expected, source.label)
    for line, row in rows:
        place = f"{source.label}:{line}"
        try:
            system, instruction = _prompt(row, columns, instruction_only)
            provenance = read_provenance(row)
            told = text_column(row, label, required=False) if label else ""
        except RowError as error:
            raise StageError(
                f"{place}: {error.message}",
                hint=error.hint or "name the column of the prompt under map",
            ) from None
        bare = {name: value for name, value in row.items() if name != PROVENANCE}
        digest = row_digest(bare)
        yield Seed(digest, provenance, place, instruction.strip(), system.strip(), told.strip())


def _prompt(
    row: Mapping[str, Any], columns: SeedMap | None, instruction_only: bool
) -> tuple[str, str]:
    """Return a row's system message and prompt, both empty where it has none."""
    try:
        if columns:
            return _mapped(row, columns)
        if instruction_only and isinstance(row.get("instruction"), str):
            return "", row["instruction"]
        return _known(row)
    except UnusableRowError:
        return "", ""


def _mapped(row: Mapping[str, Any], columns: SeedMap) -> tuple[str, str]:
    system = text_column(row, columns.system, required=False) if columns.system else ""
    return system, text_column(row, columns.user)


def _known(row: Mapping[str, Any]) -> tuple[str, str]:
    if "instruction" in row and "output" not in row:
        return "", text_column(row, "instruction")
    example = read_example(row).example
    if not isinstance(example, Conversation | Prompt):
        raise RowError(f"the row is {example.kind}, which has no prompt to evolve")
    said = {turn.role: turn.text for turn in reversed(example.turns)}
    return said.get("system", ""), said.get("user", "")
