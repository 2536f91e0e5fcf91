"""Speakers that Axolotl does not know are found when rows are read, not when training is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from llmpipe.errors import StageError
from llmpipe.formats import Conversation, read_example
from llmpipe.formats.turn import NAMES, TurnRules
from llmpipe.stages.train_speakers import Speakers


def seen(*rows: dict[str, Any], dataset: Mapping[str, Any] | None = None) -> Speakers:
    """Look at rows as training reads them."""
    own = dataset or {}
    speakers = Speakers(own)
    for line, row in enumerate(rows, 1):
        rules = TurnRules({} if own.get("roles") else NAMES, strict=False)
        example = read_example(row, None, rules).example
        assert isinstance(example, Conversation)
        speakers.look(example.turns, f"./rows.jsonl:{line}")
    return speakers


def messages(*speakers: str) -> dict[str, Any]:
    """Return a row of the messages format."""
    return {"messages": [{"role": speaker, "content": "x"} for speaker in speakers]}


def conversations(*speakers: str) -> dict[str, Any]:
    """Return a ShareGPT row."""
    return {"conversations": [{"from": speaker, "value": "x"} for speaker in speakers]}


def test_every_name_of_a_format_is_known() -> None:
    """The names that llmpipe's own formats read, and the roles of the user's own mapping."""
    known = seen(
        messages("developer", "user", "assistant", "tool", "assistant"),
        messages("human", "gpt"),
        conversations("system", "human", "gpt", "chatgpt", "model", "observation"),
    )
    assert known.notes(()) == []
    own = {"roles": {"assistant": ["critic"], "judge": ["judge"]}}
    assert seen(messages("critic", "judge"), dataset=own).notes(()) == []
    assert seen(messages("user", "critic"), dataset={"roles_to_train": ["critic"]}).notes(()) == []


def test_unknown_speakers_are_named_with_place_and_number() -> None:
    """The first place of each and how often it speaks; a slip of the pen gets a suggestion."""
    speakers = seen(messages("user", "asistant"), conversations("human", "bot", "human", "bot"))
    with pytest.raises(StageError) as caught:
        speakers.notes(())
    assert "./rows.jsonl:1: turn 2 is said by 'asistant' (1 turns" in caught.value.message
    assert "./rows.jsonl:2: turn 2 is said by 'bot' (2 turns" in caught.value.message
    assert "did you mean 'assistant'?" in (caught.value.hint or "")
    assert "allow_untrained: [speakers]" in (caught.value.hint or "")


def test_a_mapping_of_the_users_own_takes_the_place_of_the_known_names() -> None:
    """Axolotl's ``roles`` replaces its default names; rows are then handed over as written."""
    own = {"roles": {"assistant": ["critic"]}}
    with pytest.raises(StageError) as caught:
        seen(conversations("human", "critic"), dataset=own).notes(())
    assert "said by 'human'" in caught.value.message


def test_allowed_speakers_are_told() -> None:
    """Never silent: the note has the same counts."""
    speakers = seen(messages("user", "bot"))
    notes = speakers.notes(["speakers"])
    assert len(notes) == 1
    assert "'bot' (1 turns in all)" in notes[0]
    with pytest.raises(StageError):
        speakers.notes(["rows"])
