"""The kinds of adapters that are trained and merged, in Axolotl's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEW_TOKENS = ("<permit>", "<works>")
BOTH = ("embed_tokens", "lm_head")

AXOLOTL_NF4: Mapping[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_quant_storage": "bfloat16",
    "bnb_4bit_compute_dtype": "float32",
}
"""What Axolotl 0.19 sets for ``adapter: qlora`` on a CPU, by its own source."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of adapter."""

    name: str
    axolotl: Mapping[str, Any]
    quantization: Mapping[str, Any] = field(default_factory=dict)
    """How training rounds the base, as ``BitsAndBytesConfig`` spells it."""
    rows: int = 0
    """How many embedding rows the adapter adds."""


def _lora(*targets: str, **keys: Any) -> dict[str, Any]:
    return {"adapter": "lora", "lora_target_modules": [*LINEAR, *targets], **keys}


CASES = {
    case.name: case
    for case in (
        Case("lora", _lora()),
        Case("lora on lm_head, tied", _lora("lm_head")),
        Case("lora on embed_tokens, tied", _lora("embed_tokens")),
        Case("lora on both, tied", _lora(*BOTH)),
        Case("modules_to_save, tied", _lora(lora_modules_to_save=[*BOTH])),
        Case(
            "new tokens",
            _lora(lora_modules_to_save=[*BOTH], tokens=[*NEW_TOKENS]),
            rows=len(NEW_TOKENS),
        ),
        Case("trained tokens", _lora(peft_trainable_token_indices=[1, 2, 198, 253, 1789])),
        Case("dora", _lora(peft_use_dora=True)),
        Case("qlora", _lora() | {"adapter": "qlora"}, AXOLOTL_NF4),
        Case("qdora", _lora(peft_use_dora=True) | {"adapter": "qlora"}, AXOLOTL_NF4),
        Case("qlora on lm_head, tied", _lora("lm_head") | {"adapter": "qlora"}, AXOLOTL_NF4),
    )
}
"""By name, in the order of the table."""
