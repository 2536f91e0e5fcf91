"""A real, tiny Llama that writes a given text: each token has but one likeliest successor.

Its layers add nothing, so what follows depends on the last token alone. ``rivals`` are second-best
tokens, close behind the best: a penalty on the best makes them win.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = TURNS + OPENING
OPENS_THINKING = TURNS + OPENING.replace("assistant\n", "assistant\n<think>\n")
"""A template that opens the tag, and does not write it in finished turns, as DeepSeek-R1's."""
KNOWS_THINKING = PLAIN + "{# the model writes <think> itself #}"

WIDTH = 128


def write_model(
    folder: Path,
    tokenizer_of: Path,
    text: str,
    *,
    template: str = PLAIN,
    rivals: Mapping[str, str] | None = None,
    added: tuple[str, ...] = (),
    special: bool = False,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder whose model answers any chat with ``text``.

    The template's last token before the answer and the tokens of the text must all be different.
    ``added`` tokens are added to the vocabulary, as ``special`` ones or not; ``generation`` is
    added to generation_config.json.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from llmpipe.backends.huggingface.chat_tokens import render_chat, token_ids

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of, local_files_only=True)
    tokenizer.chat_template = template
    tokenizer.add_tokens(list(added), special_tokens=special)
    prompt = render_chat(tokenizer, [{"role": "user", "content": "?"}], answer_next=True)
    chain = [token_ids(tokenizer, prompt)[-1], *token_ids(tokenizer, text)]
    assert len(set(chain)) == len(chain), tokenizer.convert_ids_to_tokens(chain)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=2048, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.copy_(torch.nn.functional.normalize(torch.randn_like(embedding), dim=-1))
        head.zero_()
        for last, following in itertools.pairwise(chain):
            head[following] += embedding[last]
        for best, rival in (rivals or {}).items():
            [winner], [second] = token_ids(tokenizer, best), token_ids(tokenizer, rival)
            head[second] += 0.8 * embedding[chain[chain.index(winner) - 1]]
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = folder / "generation_config.json"
    known = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**known, **(generation or {})}), "utf-8")
    return folder


def write_gguf(model: Path, work: Path, tools_dir: Path) -> Path:
    """Convert a model folder to an F16 GGUF beside it, by llama.cpp's converter."""
    from llmpipe.backends.llama_cpp import converter

    work.mkdir(exist_ok=True)
    gguf = model.with_suffix(".gguf")
    found = converter.find(tools_dir)
    converter.convert(model, gguf, "f16", converter=found, work=work, threads=1)
    return gguf
