"""Read the prompts that generation starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """Which columns of a seed row to use. Answers that the rows may hold are not used."""

    user: str
    """Column with the prompt to evolve."""
    system: str | None = None
    """Column with the system message that goes with it; rows where it is empty get none."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One prompt, with the SHA-256 of its row and where it stands (``seeds.jsonl:3``)."""

    digest: str
    place: str
    instruction: str
    system: str
    provenance: Provenance


def read_seeds(source: Artifact, columns: SeedMap | None) -> list[Seed]:
    """Give the seeds of a file, each row once; rows whose prompt is blank are passed over.

    Without ``columns`` a row is in a known format, whose first user turn is the prompt, or has a
    column ``instruction``.

    Raises:
        StageError: a row cannot be read as such (it is named), or the file has no usable row.
    """
    seeds = {seed.digest: seed for seed in _read(source, columns)}
    if not seeds:
        raise StageError(f"{source.label} holds no prompt to start from")
    return list(seeds.values())


def _read(source: Artifact, columns: SeedMap | None) -> Iterator[Seed]:
    expected = columns.system if columns else None
    for line, row in expecting(read_rows(source.path, source.label), expected, source.label):
        place = f"{source.label}:{line}"
        try:
            system, instruction = _mapped(row, columns) if columns else _known(row)
            provenance = read_provenance(row)
        except UnusableRowError:
            continue
        except RowError as error:
            raise StageError(
                f"{place}: {error.message}",
                hint=error.hint or "name the column of the prompt: map: {user: COLUMN}",
            ) from None
        if instruction.strip():
            bare = {name: value for name, value in row.items() if name != PROVENANCE}
            digest = row_digest(bare)
            yield Seed(digest, place, instruction.strip(), system.strip(), provenance)


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
