"""What is trained and what is not: labels of made-up rows, and the end that templates write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.axolotl.plugins.axolotl_labels.endings import (
    Ending,
    of_eos,
    of_template,
    unlike_prompt,
)
from llmpipe.backends.axolotl.plugins.axolotl_labels.report import (
    Problem,
    Report,
    Seen,
    problems,
    warnings,
)
from llmpipe.backends.axolotl.plugins.axolotl_labels.rows import (
    UNTRAINED,
    Finding,
    Place,
    Rules,
    Tally,
)

END, TURN, USER, BOT, BREAK, EOS = 2, 1, 11, 12, 13, 0
"""A ChatML of made-up tokens; whatever is said has numbers from 20 on."""
CHATML = Rules((END,), (BREAK,), opening=(TURN, BOT, BREAK), special=frozenset({END, TURN, EOS}))

Marked = Sequence[int | tuple[int, ...]]
"""A row; what stands in a tuple is trained."""

QUESTION = (TURN, USER, BREAK, 20, END, BREAK, TURN, BOT, BREAK)


def look(rules: Rules, *rows: Marked, at_once: int = 1_000) -> Tally:
    """Look at rows, so many at once."""
    tally = Tally()
    for first in range(0, len(rows), at_once):
        some = [list(_tokens(row)) for row in rows[first : first + at_once]]
        ids = np.array([token for row in some for token, _ in row], np.int64)
        trained = np.array([trained for row in some for _, trained in row], np.bool_)
        numbers = np.arange(first, first + len(some))
        lengths = np.array([len(row) for row in some], np.int64)
        tally.look(ids, np.where(trained, ids, UNTRAINED), lengths, rules, Place(numbers, first))
    return tally


def _tokens(row: Marked) -> list[tuple[int, bool]]:
    tokens: list[tuple[int, bool]] = []
    for part in row:
        tokens += [(token, True) for token in part] if isinstance(part, tuple) else [(part, False)]
    return tokens


ROWS: dict[str, tuple[Marked, dict[Finding, int]]] = {
    "an answer with its end": ([*QUESTION, (30, 31, END), BREAK], {}),
    "its end is masked": ([*QUESTION, (30, 31), END, BREAK], {Finding.MASKED: 1}),
    "its end is not there": ([*QUESTION, (30, 31)], {Finding.MISSING: 1}),
    "only the last of two ends is trained": (
        [*QUESTION, (30,), END, BREAK, *QUESTION, (31, END), BREAK],
        {Finding.MASKED: 1},
    ),
    "ends are trained everywhere": (
        [TURN, USER, BREAK, 20, (END,), BREAK, TURN, BOT, BREAK, (30, END), BREAK],
        {},
    ),
    "questions are trained, too": (
        [TURN, USER, BREAK, (20, END), BREAK, TURN, BOT, BREAK, (30, END), BREAK],
        {},
    ),
    "the break after the end is trained as well": ([*QUESTION, (30, END, BREAK)], {}),
    "the answer says the end itself": ([*QUESTION, (30, END, 31, END), BREAK], {}),
    "it says the end, and its own is masked": (
        [*QUESTION, (30, END, 31), END, BREAK],
        {Finding.MASKED: 1},
    ),
    "the beginning is not trained": ([*QUESTION, 30, (31, END), BREAK], {}),
    "what is before the end is not trained": (
        [*QUESTION, (30,), BREAK, (END,), BREAK],
        {Finding.GAP: 1},
    ),
    "of two special tokens one is masked": (
        [*QUESTION, (30,), EOS, (END,), BREAK],
        {Finding.MASKED: 1},
    ),
    "nothing is trained": (
        [*QUESTION, 30, END, BREAK],
        {Finding.ROW: 1, Finding.SKIPPED: 1},
    ),
    "one answer is not trained": (
        [*QUESTION, 30, END, BREAK, *QUESTION, (31, END), BREAK],
        {Finding.SKIPPED: 1},
    ),
    "an empty answer": (
        [*QUESTION, (30, END), BREAK, *QUESTION, END, BREAK],
        {Finding.EMPTY: 1},
    ),
    "an empty answer with its end": ([*QUESTION, (END,), BREAK], {}),
    "no token at all": ([], {Finding.ROW: 1}),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_seen_as_what_it_is(name: str) -> None:
    """Each way in which Axolotl masks a row, as it was seen to do; and those that are right."""
    row, expected = ROWS[name]
    assert look(CHATML, row).counts == expected


@given(st.lists(st.sampled_from(list(ROWS)), max_size=12), st.integers(1, 5))
def test_rows_are_judged_one_by_one(names: list[str], at_once: int) -> None:
    """A row is seen the same among others as alone, in batches of any size; the first are kept."""
    rows = [ROWS[name][0] for name in names]
    tally = look(CHATML, *rows, at_once=at_once)
    alone = [look(CHATML, row) for row in rows]
    for finding in Finding:
        assert tally.of(finding) == sum(one.of(finding) for one in alone)
        found = [number for number, one in enumerate(alone) if one.of(finding)]
        assert [example.row for example in tally.examples.get(finding, [])] == found[:3]
    assert tally.trained == sum(one.trained for one in alone)
    assert (tally.rows, tally.answers) == (len(rows), sum(one.answers for one in alone))


def test_examples_are_the_first_rows_of_the_file() -> None:
    """Axolotl shuffles: numbers in the file choose what is shown, places find the rows."""
    tally = Tally()
    numbers = np.array([7, 3, 5, 1])
    for first in (0, 2):
        ids = np.array([30, 31])
        place = Place(numbers[first : first + 2], first)
        tally.look(ids, np.full(2, UNTRAINED), np.ones(2, np.int64), CHATML, place)
    examples = tally.examples[Finding.ROW]
    assert [(seen.number, seen.row) for seen in examples] == [(1, 3), (3, 1), (5, 2)]


def test_a_row_that_was_cut_is_told_from_one_without_an_end() -> None:
    """By its length, where the configuration asks for cutting; the parts of a text need no end."""
    full, short = [20, (30, 31)], [(30,)]
    assert look(Rules((END,), limit=3), full, short).counts == {
        Finding.CUT: 1,
        Finding.MISSING: 1,
    }
    parts = Rules((EOS,), limit=3, chunks=True)
    assert look(parts, [(30, 31, 32)], [(33, EOS)], [(34, EOS)]).counts == {}
    assert look(parts, [(30, 31, 32)], [(33,)]).counts == {Finding.MISSING: 1}


def test_a_template_without_an_end_between_turns() -> None:
    """Only the last of two answers has an end: the first runs into the next question."""
    rules = Rules((EOS,), inner=False)
    two, one = [USER, 20, BOT, (30,), USER, 21, BOT, (31, EOS)], [USER, 20, BOT, (30, EOS)]
    assert look(rules, two, one).counts == {Finding.INNER: 1}


def test_without_a_known_end_rows_are_looked_at_all_the_same() -> None:
    """A template that cannot be rendered says nothing of ends; a bare row is still one."""
    assert look(Rules(), [20, 30], [(30,)]).counts == {Finding.ROW: 1}


@pytest.mark.parametrize(
    ("row", "untrained"),
    [
        ([*QUESTION, (30, END), BREAK], 0),
        ([*QUESTION, 40, 41, (30, END), BREAK], 1),
        ([*QUESTION, 40, (30, END), BREAK, *QUESTION, 40, (31, END)], 2),
        ([*QUESTION, 40, END, BREAK, *QUESTION, (31, END)], 0),  # the first answer is not trained
        ([*QUESTION, (30, TURN, BOT, BREAK, 31, END)], 0),  # the answer says the opening itself
        ([TURN, USER, BREAK, (20, END), BREAK, TURN, BOT, BREAK, (30, END)], 0),
        ([TURN, BOT, 40, (30, END)], 0),  # generation would open it in another way
    ],
)
def test_what_the_prompt_for_generation_lacks_and_is_not_trained(
    row: Marked, untrained: int
) -> None:
    """As an empty <think></think> before every answer; the example is where the answer begins."""
    rules = Rules((END,), (BREAK,), asked=(TURN, BOT, BREAK), special=CHATML.special)
    tally = look(rules, row)
    assert tally.of(Finding.LEAD) == untrained
    for example in tally.examples.get(Finding.LEAD, []):
        assert list(_tokens(row))[example.end] == (30, True)


def seen(tally: Tally) -> Seen:
    """Put a tally beside a way to show its rows."""
    return Seen("training rows", tally, lambda example: f"  row {example.number + 1}", "'<end>'")


def test_what_is_not_allowed_stops_and_what_is_allowed_is_told() -> None:
    """Each finding has a word; the words that are missing are named."""
    tally = look(CHATML, ROWS["its end is masked"][0], ROWS["nothing is trained"][0])
    found = list(problems(seen(tally), lambda finding: "do this"))
    assert [problem.word for problem in found] == ["end_of_turn", "rows"]
    assert "the end of 1 of 1 answers, '<end>', is not trained" in found[0].message
    assert "nothing is trained in 1 of 2 rows" in found[1].message
    assert "row 2" in found[1].message
    report = Report()
    report.settle(found, ["rows"])
    assert report.error == found[0].message
    assert report.hint == "do this\nor train anyway: allow_untrained: [end_of_turn]"
    assert "allowed by allow_untrained: [rows]" in report.warnings[0]
    allowed = Report()
    allowed.settle(found, ["rows", "end_of_turn"])
    assert (allowed.error, len(allowed.warnings)) == (None, 2)


def test_cut_answers_are_told_and_stop_only_if_none_is_whole() -> None:
    """Cutting was asked for; but a model that never sees an end cannot learn it."""
    rules = Rules((END,), limit=2)
    some = seen(look(rules, [20, (30,)], [(30, END)]))
    assert list(problems(some, lambda finding: "")) == []
    assert "1 of 2 answers are cut at sequence_len" in next(warnings(some))
    none = list(problems(seen(look(rules, [20, (30,)], [20, (31,)])), lambda finding: "raise it"))
    assert [(problem.word, problem.hint) for problem in none] == [("end_of_turn", "raise it")]
    assert isinstance(none[0], Problem)


LOOP = "{% for m in messages %}"
TEMPLATES: dict[str, tuple[str, list[str], str, bool]] = {
    "chatml": (
        LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
        ["<|im_end|>"],
        "\n",
        True,
    ),
    "special tokens of its own": (
        LOOP + "<|im_start|>{{ m.role }}<|im_end|>\n\n{{ m.content }}<file_sep>{% endfor %}",
        ["<file_sep>"],
        "",
        True,
    ),
    "an end of its own for the last": (
        LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{{ '<|im_end|>' if loop.last else '<file_sep>' }}{% endfor %}",
        ["<|im_end|>", "<file_sep>"],
        "",
        True,
    ),
    "closing with another token": (
        LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<file_sep>\n{% endfor %}<|im_end|>",
        ["<file_sep>", "<|im_end|>"],
        "\n",
        True,
    ),
    "no end between turns": (
        LOOP + "{{ '<repo_name>' if m.role == 'user' else '<jupyter_text>' }}{{ m.content }}"
        "{% endfor %}<|im_end|>",
        ["<|im_end|>"],
        "",
        False,
    ),
    "an end between turns only": (
        LOOP + "{{ m.role }}: {{ m.content }}{% if not loop.last %}<|im_end|>{% endif %}"
        "{% endfor %}",
        ["<|im_end|>"],
        "",
        True,
    ),
    "plain text": (LOOP + "{{ m.role }}: {{ m.content }}\n{% endfor %}", [], "", True),
    "tokens that the vocabulary lacks": (
        LOOP + "{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor %}",
        [],
        "",
        True,
    ),
    "single questions": (
        "{% if messages | length > 2 %}{{ raise_exception('one at a time') }}{% endif %}"
        + LOOP
        + "{{ m.content }}<|im_end|>{% endfor %}",
        ["<|im_end|>"],
        "",
        True,
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    """SmolLM2's tokenizer: ends generation with <|im_end|>, has more special tokens than that."""
    from llmpipe.backends.huggingface.inference import load_tokenizer

    return load_tokenizer(tiny_llama)


@pytest.mark.heavy
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_is_what_the_template_writes(tokenizer: Any, name: str) -> None:
    """The last special token before the next turn, whatever stands around it."""
    template, ends, tail, inner = TEMPLATES[name]
    ending = of_template(tokenizer, template, {}, {tokenizer.eos_token_id})
    assert tokenizer.convert_ids_to_tokens(list(ending.tokens)) == ends
    assert (tokenizer.decode(ending.tail), ending.inner) == (tail, inner)


@pytest.mark.heavy
def test_the_opening_of_an_answer_is_known(tokenizer: Any) -> None:
    """An empty answer is one whose end follows the opening at once."""
    own = of_template(tokenizer, tokenizer.chat_template, {}, {tokenizer.eos_token_id})
    assert tokenizer.decode(own.opening) == "<|im_start|>assistant\n"
    assert of_eos(tokenizer) == Ending((tokenizer.eos_token_id,), "<|im_end|>")


TURNS = LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKS = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINKS = ASKS.replace("assistant\n{%", "assistant\n<think>\n{%")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("template", "told"),
    [
        (ASKS, None),
        (LOOP + "{{ '[I] ' if m.role == 'user' }}{{ m.content }}{{ ' [/I] ' if m.role == 'user' "
         "else eos_token }}{% endfor %}", None),
        (THINKS.replace("{{ m.content }}", "{{ '<think>\n' if m.role == 'assistant' }}"
         "{{ m.content }}"), None),
        (THINKS, r"writes '.*assistant\\n' between .* and '.*<think>\\n' at generation"),
        (TURNS, r"no prompt for generation: .* write '<.im_start.>assistant\\n' before"),
    ],
    ids=["chatml", "mistral", "thinks alike", "thinks at generation", "asks nothing"],
)  # fmt: skip
def test_a_prompt_for_generation_that_no_chat_has_is_told(
    tokenizer: Any, template: str, told: str | None
) -> None:
    """The model would be served with another prompt than it was trained with."""
    sentence = unlike_prompt(tokenizer, template, {})
    assert (sentence is None) == (told is None)
    assert told is None or re.search(told, sentence or "")


@pytest.mark.heavy
def test_what_opens_an_answer_at_generation_is_known(tokenizer: Any) -> None:
    """A template may write more than that before an answer in a chat."""
    own = of_template(tokenizer, THINKS, {}, {tokenizer.eos_token_id})
    assert tokenizer.decode(own.asked) == "<|im_start|>assistant\n<think>\n"
    assert of_template(tokenizer, TURNS, {}, {tokenizer.eos_token_id}).asked == ()


@pytest.mark.heavy
@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ bos_token }}"])
def test_a_template_that_does_not_write_a_chat_is_said(tokenizer: Any, template: str) -> None:
    """What it raises is passed on: the labels are then looked at without knowing an end."""
    with pytest.raises(ValueError, match="the chat template"):
        of_template(tokenizer, template, {}, set())
