"""Go templates for Ollama: run by Go's own text/template, they render what the model's own does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.huggingface.chat_tokens import render_chat
from llmpipe.backends.huggingface.inference import load_tokenizer
from llmpipe.backends.ollama import Chat, ChatFormat, modelfile
from llmpipe.errors import StageError
from llmpipe.parity.golden import golden_chats
from llmpipe.parity.ollama import Render, prove_format

pytestmark = pytest.mark.heavy

GO_PROGRAM = Path(__file__).parents[1] / "go" / "render.go"
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe brief."
    "<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}</s>"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
LLAMA2 = (
    "{% set system = '' %}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}<<SYS>>{{ messages[0]['content'] }}"
    "<</SYS>>{% endif %}{{ m['content'] }} [/INST]{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] }}</s>{% endif %}{% endfor %}"
)
THINKING = CHATML.replace(
    "{{ m['content'] }}",
    "{% if m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1].lstrip('\\n') }}"
    "{% else %}{{ m['content'] }}{% endif %}",
)
NUMBERED = CHATML.replace("{{ m['role'] }}", "{{ m['role'] }} {{ loop.index }}")
BRACES = CHATML.replace("Be brief.", "{{ '{{' }}x")
LONELY = "{{ messages[-1]['content'] }}"


@pytest.fixture(scope="session")
def go_program(build_once: Callable[..., Path]) -> Path:
    """The program that renders by Go's text/template."""
    assert shutil.which("go"), "Go is missing: `make programs` installs it"

    def build(folder: Path) -> None:
        command = ["go", "build", "-o", str(folder / "render"), str(GO_PROGRAM)]
        subprocess.run(command, check=True)

    return build_once("go_program", build) / "render"


def rendered(program: Path, chat_format: ChatFormat, chats: Sequence[Chat]) -> list[dict[str, str]]:
    """The chats by Go's own text/template: ``text``, or ``error``."""
    asked = {"template": chat_format.go_template(), "chats": [list(chat) for chat in chats]}
    done = subprocess.run(
        [str(program)], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def renderer(tokenizer: Any) -> Render:
    """Render with transformers, as in training."""

    def render(chat: Chat, answer_next: bool) -> str | None:
        try:
            return render_chat(tokenizer, chat, answer_next=answer_next)
        except StageError:
            return None

    return render


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    """SmolLM2's, whose template each test replaces."""
    return load_tokenizer(tiny_llama)


@pytest.mark.parametrize(
    ("template", "trimmed", "system"),
    [(None, 0, True), (CHATML, 0, True), (LLAMA3, 8, True), (MISTRAL, 0, False)],
)
def test_go_renders_what_the_template_does(
    tokenizer: Any, go_program: Path, template: str | None, trimmed: int, system: bool
) -> None:
    """Every golden chat, by Go itself; what the template refuses, Go refuses with an error."""
    own = tokenizer.chat_template
    tokenizer.chat_template = template or own
    try:
        render = renderer(tokenizer)
        proven = prove_format(render, "m", ["<|im_end|>", "</s>"])
        chats = {chat.name: chat.messages for chat in golden_chats(["<|im_end|>", "</s>"])}
        expected = {name: render(chat, True) for name, chat in chats.items()}
    finally:
        tokenizer.chat_template = own
    assert ("system" in proven.format.turns) == system
    assert len(proven.trimmed) == trimmed
    by_go = dict(zip(chats, rendered(go_program, proven.format, list(chats.values())), strict=True))
    for name, text in expected.items():
        if text is None:
            assert name in proven.refused
            assert "index out of range" in by_go[name]["error"]
        elif name not in proven.trimmed:
            assert by_go[name]["text"] == text
        else:
            assert by_go[name]["text"] != text
    alike = [name for name in chats if name not in (*proven.refused, *proven.trimmed)]
    assert proven.chats == len(alike) + 1  # and one with reasoning


def test_our_rendering_is_go_s(go_program: Path) -> None:
    """Also of what no golden chat has: several messages of a role, and roles that are unknown."""
    chat_format = ChatFormat(
        "BEGIN\n",
        {"system": ("S:", "\n"), "user": (" U: ", "|\n\n"), "assistant": ("A ", "\t")},
        "A ",
    )
    roles = ("user", "user", "assistant", "system", "system", "assistant", "user")
    chat = [{"role": role, "content": f" {n} {{{{ x }}}} "} for n, role in enumerate(roles)]
    for start in range(len(chat)):
        (found,) = rendered(go_program, chat_format, [chat[start:]])
        assert found == {"text": chat_format.render(chat[start:]), "error": ""}
    (found,) = rendered(go_program, chat_format, [[{"role": "tool", "content": "1"}]])
    assert "index out of range" in found["error"]
    with pytest.raises(KeyError):
        chat_format.render([{"role": "tool", "content": "1"}])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LLAMA2, "a system message does not stand by itself"),
        (THINKING, "'reasoning in an earlier answer' differs from character"),
        (NUMBERED, "unlike the second|depends on the next message|differs from character"),
        (BRACES, "braces or quotes"),
        (LONELY, "a message is changed or repeated"),
        ("{{ raise_exception('no') }}", "it refuses a plain chat"),
    ],
)
def test_other_templates_are_refused(tokenizer: Any, template: str, message: str) -> None:
    """With the first difference, and what to do; nothing is guessed."""
    own = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        with pytest.raises(StageError, match=f"(?s)no Ollama template is proven .*{message}") as e:
            prove_format(renderer(tokenizer), "m")
    finally:
        tokenizer.chat_template = own
    assert "TEMPLATE by hand" in (e.value.hint or "")


def test_a_modelfile_names_what_lies_beside_it() -> None:
    """In Ollama's own words."""
    chat_format = ChatFormat("", {"user": ("U", "\n"), "assistant": ("A", "</s>")}, "A")
    text = modelfile(
        "m.gguf", chat_format, stop=["</s>"], context=99, system="Hi.", adapter="a.gguf"
    )
    assert text.splitlines()[1:3] == ["FROM ./m.gguf", "ADAPTER ./a.gguf"]
    assert f'TEMPLATE """{chat_format.go_template()}"""\nPARAMETER stop "</s>"\n' in text
    assert text.endswith('PARAMETER num_ctx 99\nSYSTEM """Hi."""\n')
