"""translate: code and placeholders survive byte for byte; other languages and lengths do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats.records import write_rows
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.loop import GenerationState, collect
from llmpipe.stages.generate.methods.translate import Translate, TranslateConfig
from llmpipe.stages.generate.methods.translate.language import wrong_language
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import MethodContext
from llmpipe.stages.generate.verbatim import kept_parts, masked

pytest.importorskip("lingua", reason="the extra `curate`")

CONFIG = {
    "kind": "generate",
    "method": "translate",
    "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1", "concurrency": 2},
    "seeds": "./rows.jsonl",
    "language": "de",
}
CODE = "```python\nprint('hello {name}')  # a comment\n```"
SYSTEM = "You are a helpful assistant who knows a lot about programming."
ASKED = f"Please explain to me what this short program prints:\n{CODE}\nHow do I set {{name}}?"
SAID = "It prints a greeting with the name; see https://example.org/doc?x=1 for `print`."
GERMAN = {
    SYSTEM: "Du bist ein hilfreicher Assistent, der viel über das Programmieren weiß.",
    "Please explain to me what this short program prints:\n[[0]]\nHow do I set [[1]]?":
        "Bitte erkläre mir, was dieses kurze Programm ausgibt:\n[[0]]\nWie setze ich [[1]]?",
    "It prints a greeting with the name; see [[0]] for [[1]].":
        "Es gibt einen Gruß mit dem Namen aus; zu [[1]] siehe [[0]], wo mehr dazu steht.",
}  # fmt: skip
ROW = {
    "topic": "print",
    "messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": SAID},
    ],
}


class Client:
    """Plays a teacher that knows German for the row, or replies as a test says."""

    def __init__(self, reply: Callable[[str], Any] | None = None) -> None:
        self.reply = reply or (lambda text: None)
        self.asked: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        text = request.messages[-1]["content"].partition("\n")[2]
        reply = self.reply(text)
        if isinstance(reply, ChatReply):
            return reply
        return ChatReply(json.dumps({"translation": reply or GERMAN[text]}))


class Run:
    """A row in a file, and the method over it, run by calling it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "rows.jsonl"
        write_rows(self.file, [ROW])
        self.told: list[str] = []

    def __call__(self, client: Any, rows: int = 1, **fields: Any) -> GenerationState:
        """Return what the loop collects."""
        config = msgspec.convert({**CONFIG, "count": rows, **fields}, TranslateConfig)
        inputs = {"seeds": Artifact(self.file, "records", "", "rows.jsonl")}
        state = GenerationState(rows)
        self.method = Translate(MethodContext(config, inputs, state.missing, self.told.append))
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=256)
        collect(self.method, teacher, state, self.told.append)
        return state


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The row, nothing asked yet."""
    return Run(tmp_path)


@pytest.mark.slow
def test_every_turn_is_translated_and_code_stays(run: Run) -> None:
    """The teacher sees markers instead of code; they may change places."""
    client = Client()
    (row,) = run(client, keep=["topic"]).rows
    system, user, assistant = row.fields["messages"]
    assert system["content"] == GERMAN[SYSTEM]
    assert CODE in user["content"]
    assert user["content"].endswith("Wie setze ich {name}?")
    assert assistant["content"].startswith("Es gibt einen Gruß")
    assert "zu `print` siehe https://example.org/doc?x=1, wo" in assistant["content"]
    assert row.fields["topic"] == "print"
    assert row.operators == ("German",)
    assert not any("print(" in request.messages[-1]["content"] for request in client.asked)
    assert run.method.metrics()["left_untranslated"] == {"reasoning": 0, "tool calls": 0}


def test_other_roles_stay_and_are_counted(run: Run) -> None:
    """Only the turns of the roles that the spec names are sent."""
    client = Client()
    (row,) = run(client, roles=["assistant"]).rows
    assert len(client.asked) == 1
    assert row.fields["messages"][0]["content"] == SYSTEM
    left = run.method.metrics()["left_untranslated"]
    assert (left["system turns"], left["user turns"]) == (1, 1)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Il imprime un message de bienvenue avec le nom; voir [[0]] pour [[1]].",
         "wrong language"),
        ("It shows a greeting to everybody with the name, see [[0]] about [[1]].",
         "wrong language"),
        ("It prints a greeting with the name; see [[0]] for [[1]].", "not translated"),
        ("Es gibt einen Gruß mit dem Namen aus; siehe [[0]].", "loses code or a placeholder"),
        ("Es gibt einen Gruß mit dem Namen aus; siehe [[0]], [[1]] und [[1]].",
         "loses code or a placeholder"),
        ("Es gibt einen Gruß mit dem Namen aus; siehe [[0]], [[1]] und [[2]].",
         "loses code or a placeholder"),
        ("Gruß [[0]] [[1]]", "length"),
        ("Es gibt einen Gruß mit dem Namen aus. " * 9 + "[[0]] [[1]]", "length"),
        ("[[0]] [[1]]", "empty"),
        (ChatReply('{"translation": "Es gibt', truncated=True), "truncated"),
        (ChatReply("Es gibt einen Gruß mit dem Namen aus."), "malformed"),
        (ChatReply("Error: model overloaded"), "error text"),
        (ChatReply("wort " * 100_000), "over max_tokens"),
    ],
)  # fmt: skip
def test_what_is_no_translation_is_rejected(run: Run, reply: Any, reason: str) -> None:
    """With its reason; a row with one turn that fails is rejected."""
    client = Client(lambda text: reply if text.startswith("It prints") else None)
    with pytest.raises(StageError, match=rf"from 1 row \(rejected: {reason} 1\)"):
        run(client)


def test_the_prompt_itself_is_no_translation(run: Run) -> None:
    """A teacher that repeats what it was asked, instruction and all."""
    client = Client(lambda text: f"Text in need of translation:\n{text}")
    with pytest.raises(StageError, match="repeats the prompt 1"):
        run(client)


def test_a_failed_row_is_tried_again_in_the_next_pass(run: Run) -> None:
    """As long as a pass gives rows; a translated row is not translated twice."""
    write_rows(run.file, [ROW, {"instruction": "Say good morning to all.", "output": "Hello!"}])
    german = {"Say good morning to all.": "Sage allen einen guten Morgen.", "Hello!": "Hallo!"}
    tries: list[str] = []

    def reply(text: str) -> str | None:
        tries.append(text)
        if text == SYSTEM and tries.count(text) == 1:
            return "Vous êtes un assistant utile qui connaît bien la programmation."
        return german.get(text)

    state = run(Client(reply), 2)
    assert len(state.rows) == 2
    assert tries.count("Hello!") == 1
    assert [reject.reason for reject in state.rejects] == ["wrong language"]


@pytest.mark.parametrize("language", ["Germn", "xx", "  "])
def test_an_unknown_language_is_refused(run: Run, language: str) -> None:
    """By its name, with a suggestion where there is one."""
    with pytest.raises(StageError) as caught:
        run(Client(), language=language)
    assert language in caught.value.message
    assert "German" in str(caught.value.hint)


def test_neighboring_languages_and_short_texts() -> None:
    """A few words have no language; Norwegian may pass for Danish, French not for German."""
    assert wrong_language("Hallo!", "German") is None
    assert wrong_language("12 345 67 89 10", "German") is None
    assert wrong_language("Det er en god dag i dag.", "Danish") is None
    assert wrong_language("Je voudrais une copie de ma licence.", "de") is not None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a `b` c ``d`e`` f", ["`b`", "``d`e``"]),
        ("x\n```py\na = {b}\n```\ny", ["```py\na = {b}\n```"]),
        ("x\n```\nnever closed", ["```\nnever closed"]),
        ("Dear {name}, {{ title }} ${id} %s %(n)d {% if a %}",
         ["{name}", "{{ title }}", "${id}", "%s", "%(n)d", "{% if a %}"]),
        ("<b>bold</b> and 3 < 4 > 2", ["<b>", "</b>"]),
        ("see https://a.b/c?d=e.", ["https://a.b/c?d=e"]),
        ("50 % of it, plain.", []),
        ("I don`t know it. You shouldn`t either.", []),
        ("für`s erste, und dann geht`s weiter", []),
        ("a ` here.\n\nAnother ` there.", []),
        ("使用`code`函数, (`x\ny`)", ["`code`", "`x\ny`"]),
    ],
)  # fmt: skip
def test_the_parts_that_stay(text: str, kept: list[str]) -> None:
    """Code, placeholders, tags and addresses."""
    assert kept_parts(text) == kept


@given(st.text(alphabet="ab `{}<>/\n~$%s[]0.:h", max_size=60))
def test_masking_is_undone_byte_for_byte(text: str) -> None:
    """Whatever the text; one with markers of its own is not masked."""
    found = masked(text)
    if found is None:
        assert re.search(r"\[\[\d+\]\]", text)
    else:
        assert found.restored(found.text) == text
