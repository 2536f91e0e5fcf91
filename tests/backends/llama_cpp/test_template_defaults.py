"""What templates do when a request does not say whether to think: by their texts, and served."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_model import PLAIN, TURNS, write_gguf, write_model

from llmpipe.backends.llama_cpp.template_defaults import thinks_only_on_request

EMPTY = "<think>\n\n</think>\n\n"
SWITCHED = (
    TURNS.replace("{{ m.content }}", "{{ '<think>' ~ m.reasoning_content ~ '</think>' "
                  "if m.reasoning_content }}{{ m.content }}")
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% if "
    "enable_thinking is defined and enable_thinking is true %}<think>\n"
    "{% else %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)  # fmt: skip
ON_UNLESS_TOLD = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{{ '' if enable_thinking else '<think></think>' }}"
)
"""As SmolLM3's."""


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (SWITCHED, True),
        (SWITCHED.replace("is defined and enable_thinking is true", "is not false"), False),
        ("{% if enable_thinking %}<think>{% endif %}", True),
        ("{% set enable_thinking = true %}{{ enable_thinking }}", False),
        (ON_UNLESS_TOLD, False),
        (PLAIN, False),
        ("{{ enable_thinking }", False),
        ("{{ raise_exception('no') if enable_thinking is undefined }}", False),
        ("{% generation %}{{ enable_thinking }}{% endgeneration %}", False),
    ],
)
def test_the_default_of_a_template(template: str, expected: bool) -> None:
    """Found by rendering it without the switch, with it on, and with it off."""
    assert thinks_only_on_request(template) is expected


@pytest.mark.heavy
def test_a_served_template_keeps_its_default(
    tiny_llama: Path, tools_dir: Path, tmp_path: Path
) -> None:
    """Regression: llama.cpp opened the thinking where transformers, and training, leave it out."""
    from llmpipe.backends.huggingface.chat_tokens import render_chat
    from llmpipe.backends.huggingface.inference import load_tokenizer
    from llmpipe.backends.llama_cpp.serve import serve_gguf

    chat = [{"role": "user", "content": "Is it Paris?"}]
    model = write_model(tmp_path / "model", tiny_llama, "Yes<|im_end|>", template=SWITCHED)
    expected = render_chat(load_tokenizer(model), chat, answer_next=True)
    assert expected.endswith("</think>\n\n")
    with serve_gguf(write_gguf(model, tmp_path / "work", tools_dir), threads=1) as server:
        assert server.apply_template(chat) == expected
