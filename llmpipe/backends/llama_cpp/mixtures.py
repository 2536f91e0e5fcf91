"""Choose the type of each tensor for a quantization such as ``q4_k_m``, as llama.cpp does.

A quantization is a mixture: most tensors get its default type, and tensors that suffer most from
rounding get a larger one. The rules are those of ``llama-quant.cpp``. A test compares every choice
with llama.cpp's own function. A tensor whose rows are not a multiple of the type's block size gets
another type instead (a fallback), which is larger for most types.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULTS = {
    "q8_0": "Q8_0", "q6_k": "Q6_K", "q5_k_m": "Q5_K", "q5_k_s": "Q5_K", "q5_0": "Q5_0",
    "q4_k_m": "Q4_K", "q4_k_s": "Q4_K", "q4_0": "Q4_0", "iq4_nl": "IQ4_NL", "iq4_xs": "IQ4_XS",
    "q3_k_l": "Q3_K", "q3_k_m": "Q3_K", "q3_k_s": "Q3_K", "iq3_m": "IQ3_S", "iq3_s": "IQ3_S",
    "iq3_xs": "IQ3_S", "iq3_xxs": "IQ3_XXS", "q2_k": "Q2_K", "q2_k_s": "Q2_K", "iq2_m": "IQ2_S",
    "iq2_s": "IQ2_XS", "iq2_xs": "IQ2_XS", "iq2_xxs": "IQ2_XXS", "iq1_m": "IQ1_M",
    "iq1_s": "IQ1_S",
}  # fmt: skip
"""The default type of each mixture, from the largest file to the smallest."""

CONVERTED = ("f16", "bf16")
"""The types that the converter writes and that need no choice."""
TYPES = (*CONVERTED, *DEFAULTS)
"""Every type of a file that can be written."""

NEED_IMPORTANCE = frozenset(
    ("iq3_xs", "iq3_xxs", "q2_k_s", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s")
)
"""The mixtures that llama.cpp does not write without an importance matrix."""

FALLBACKS = {
    **dict.fromkeys(("Q2_K", "Q3_K"), "Q4_0"),
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"), "IQ4_NL"),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""The types with blocks of `WIDE` weights, and what a tensor with narrower rows gets instead."""
WIDE, NARROW = 256, 32
"""The block sizes: of the types that have a fallback, and of the others."""

BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q5_1": (32, 24),
    "Q5_0": (32, 22), "Q4_1": (32, 20), "Q4_0": (32, 18), "IQ4_NL": (32, 18), "Q6_K": (256, 210),
    "Q5_K": (256, 176), "Q4_K": (256, 144), "IQ4_XS": (256, 136), "Q3_K": (256, 110),
    "IQ3_S": (256, 110), "IQ3_XXS": (256, 98), "Q2_K": (256, 84), "IQ2_S": (256, 82),
    "IQ2_XS": (256, 74), "IQ2_XXS": (256, 66), "IQ1_M": (256, 56), "IQ1_S": (256, 50),
}  # fmt: skip
"""How many weights a block of a type holds, and its bytes."""

OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"

_ROLES = (
    "attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight", "attn_k.weight", "attn_q.weight",
    "attn_output.weight", "ffn_up", "ffn_gate", "ffn_down",
)  # fmt: skip
_VALUES = ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")
_LOWEST = ("iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq1_s", "iq1_m")
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid|altup|laurel|per_layer_model_proj"
    r"|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight"
    r"|indexer\.[kq]_proj\.weight|attn_rel_b\.weight"
    r"|time_mix_(first|[wva][012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|\.position_embd|sam\.(pos_embd|neck\.|net_)|\.rel_pos|\.patch_(embd|merger)"
    r"|a\.rvq\.codebook|mm\.a\.code_embd"
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What the rules look at in a model's metadata."""

    architecture: str
    layers: int
    experts: int
    heads_per_kv: int
    """How many attention heads share one key and value."""

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Traits:
        """Read the traits from the metadata fields of a GGUF."""
        name = str(fields.get("general.architecture", ""))
        heads = _first(fields.get(f"{name}.attention.head_count", 1))
        shared = _first(fields.get(f"{name}.attention.head_count_kv", heads))
        return cls(
            name,
            int(fields.get(f"{name}.block_count", 0)),
            int(fields.get(f"{name}.expert_count", 0)),
            heads // shared if shared else 0,
        )

    @property
    def shares_values(self) -> bool:
        """Whether value tensors are so small that more bits for them cost little."""
        return self.heads_per_kv >= 4

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp calls it a 70B Llama, whose value tensors get more bits."""
        return self.architecture == "llama" and self.layers == 80 and self.heads_per_kv > 1


@dataclass(frozen=True, slots=True)
class Choice:
    """The type of one tensor.

    Attributes:
        wanted: the type that the mixture asks for.
        type: the type to write; another one if the rows are too narrow for ``wanted``.
    """

    wanted: str
    type: str

    @property
    def fell_back(self) -> bool:
        """Whether the rows are too narrow for the wanted type."""
        return self.type != self.wanted


def choose(
    mixture: str, traits: Traits, shapes: Mapping[str, tuple[int, ...]], importance: bool = False
) -> dict[str, Choice]:
    """Return the type of every tensor that is quantized; the others keep theirs.

    Args:
        mixture: one of `DEFAULTS`.
        traits: those of the model.
        shapes: the shape of each tensor, rows first.
        importance: whether there is an importance matrix, which changes a few choices.
    """
    rules = _Rules(mixture, traits, shapes, importance)
    names = sorted((name for name in shapes if quantizable(name, shapes[name])), key=_place)
    found = {}
    for name in names:
        width = shapes[name][-1]
        wanted = rules.wanted(name, width)
        found[name] = Choice(wanted, _fitting(wanted, width))
    return found


def quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether llama.cpp quantizes a tensor: a matrix of weights that is not very small."""
    matrix = any(size > 1 for size in shape[:-1])
    return matrix and name.endswith("weight") and not _KEPT.search(name)


def requires_importance(mixture: str, name: str, kind: str) -> bool:
    """Return whether a tensor of this type is garbage without an importance matrix."""
    if name in (OUTPUT, EMBEDDING, "per_layer_token_embd.weight"):
        return False
    if kind == "Q2_K":
        return mixture == "q2_k_s"
    return kind in ("IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S")


def _fitting(kind: str, width: int) -> str:
    if width % WIDE and kind in FALLBACKS:
        kind = FALLBACKS[kind]
    return "F16" if width % NARROW else kind


class _Rules:
    """The rules of one mixture for one model; tensors must be asked for in llama.cpp's order."""

    def __init__(
        self, mixture: str, traits: Traits, names: Iterable[str], importance: bool
    ) -> None:
        self.mixture, self.traits, self.importance = mixture, traits, importance
        self.names = set(names)
        self.values = sum(_role(name) in _VALUES for name in self.names)
        self.seen: Counter[str] = Counter()

    def wanted(self, name: str, width: int) -> str:
        """Return the type for the next tensor."""
        default, role = DEFAULTS[self.mixture], _role(name)
        embedding = name in (EMBEDDING, "per_layer_token_embd.weight")
        if name == OUTPUT or (embedding and OUTPUT not in self.names):
            return self._output(default, width)
        if embedding:
            return self._embedding() or default
        if role in _VALUES:
            role = "values"
        number = self._number(role, name)
        self.seen[role] += 1
        rules = self._lowest if self.mixture in _LOWEST else self._usual
        return rules(role, number) or default

    def _number(self, role: str, name: str) -> int:
        """Return the number of the layer: counted, or read from the name of a layer of experts."""
        layer = re.match(r"blk\.(\d+)\.", name)
        if self.traits.experts > 1 and role.startswith("ffn_") and self.mixture not in _LOWEST:
            return int(layer[1]) if layer else 0
        return self.seen[role]

    def _output(self, default: str, width: int) -> str:
        block = WIDE if default in FALLBACKS else NARROW
        if self.traits.architecture == "falcon" or width % block or default == "Q8_0":
            return "Q8_0"
        return "Q5_K" if self.mixture in (*_LOWEST, "iq3_xxs") else "Q6_K"

    def _embedding(self) -> str | None:
        if self.mixture in ("iq2_xxs", "iq2_xs", "iq1_s", "iq1_m"):
            return "Q2_K"
        return "IQ3_S" if self.mixture in ("iq2_s", "iq2_m", "iq3_xxs") else None

    def _lowest(self, role: str, number: int) -> str | None:
        better = self.mixture in ("iq2_s", "iq2_m")
        eight = self.traits.experts == 8
        if role == "values":
            if self.traits.shares_values or self.traits.experts >= 4:
                return "Q4_K"
            return "IQ3_S" if better else "Q2_K"
        if role == "attn_k.weight" and eight:
            return "Q4_K"
        if role == "ffn_down" and number < self.traits.layers // 8:
            return "IQ3_S" if better else "Q2_K"
        if role == "attn_output.weight":
            low = "IQ2_XXS" if self.mixture in ("iq1_s", "iq1_m") else None
            return "Q5_K" if eight else "IQ3_S" if better else low
        return None

    def _usual(self, role: str, number: int) -> str | None:
        layers, mixture = self.traits.layers, self.mixture
        if role == "values":
            return self._value(number)
        if role in ("attn_k.weight", "attn_q.weight"):
            if role == "attn_k.weight" and self.traits.experts == 8:
                return "Q8_0"
            return {"iq3_xs": "IQ3_XXS", "iq3_xxs": "IQ2_S"}.get(mixture)
        if role == "ffn_down":
            return self._down(number)
        if role == "attn_output.weight":
            return self._attention_output()
        if role in ("ffn_gate", "ffn_up") and mixture == "iq3_xs":
            return "IQ3_XXS" if layers // 8 <= number < 7 * layers // 8 else None
        return None

    def _value(self, number: int) -> str | None:
        if self.traits.experts == 8:
            return "Q8_0"
        shared = self.traits.shares_values
        with_shared = {
            "q2_k_s": "Q4_K", "iq3_xs": "Q4_K", "iq3_s": "Q4_K", "iq4_nl": "Q5_K", "iq4_xs": "Q5_K"
        }  # fmt: skip
        always = {
            "q2_k": "Q4_K" if shared else "Q3_K",
            "iq3_xxs": "Q4_K" if shared else "IQ3_XXS" if self.importance else "IQ3_S",
            "iq3_m": "Q4_K",
            "q3_k_m": "Q5_K" if number < 2 else "Q4_K",
            "q3_k_l": "Q5_K",
            "q4_k_s": "Q5_K" if number < 4 else None,
        }
        found = always.get(self.mixture) or (with_shared.get(self.mixture) if shared else None)
        if self.mixture in ("q4_k_m", "q5_k_m") and _more_bits(number, self.values):
            found = "Q6_K"
        if self.traits.is_70b and (found or DEFAULTS[self.mixture]) in ("Q3_K", "Q4_K"):
            return "Q5_K"
        return found

    def _down(self, number: int) -> str | None:
        layers, falcon = self.traits.layers, self.traits.architecture == "falcon"
        first, more = number < layers // 8, _more_bits(number, layers)
        very_first = number < layers // 16
        eight = self.traits.experts == 8
        rounded = "Q4_K" if not falcon or more else "Q3_K"
        falcons = "Q6_K" if very_first else "Q5_K" if more else "Q4_K"
        without = not self.importance
        return {
            "q2_k": "Q3_K",
            "q2_k_s": "Q4_K" if first else None,
            "iq3_xxs": ("Q4_K" if first else "Q3_K") if without else None,
            "q3_k_m": "Q5_K" if very_first else rounded,
            "iq3_m": "Q4_K" if first or (eight and more) else None,
            "q3_k_l": "Q4_K" if falcon else "Q5_K",
            "q4_k_m": falcons if falcon else "Q6_K" if more else None,
            "iq4_nl": "Q5_K" if first and without else None,
            "iq4_xs": "Q5_K" if first and without else None,
            "q5_k_m": "Q6_K" if more else None,
            "q4_k_s": "Q5_K" if first and not falcon else None,
            "q4_0": "Q4_1" if first and self.importance else None,
            "q5_0": "Q5_1" if first and self.importance else None,
        }.get(self.mixture)

    def _attention_output(self) -> str | None:
        if self.traits.architecture == "falcon":
            return "Q4_K" if self.mixture == "q3_k_l" else None
        if self.traits.experts == 8:
            larger = ("q3_k_l", "q5_0", "q5_k_s", "q5_k_m", "q6_k", "q8_0", "q4_0", "q2_k_s")
            return None if self.mixture in larger else "Q5_K"
        return {
            "q2_k": "Q3_K", "iq3_xxs": "IQ3_S", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K", "iq3_m": "Q4_K"
        }.get(self.mixture)  # fmt: skip


def _role(name: str) -> str:
    return next((role for role in _ROLES if role in name), "")


def _place(name: str) -> tuple[int, str]:
    """Sort tensors as llama.cpp does: those outside the layers first, then layer by layer."""
    layer = re.match(r"blk\.(\d+)\.", name)
    return int(layer[1]) if layer else -1, name


def _more_bits(number: int, count: int) -> bool:
    eighth = count // 8
    return number < eighth or number >= 7 * count // 8 or (number - eighth) % 3 == 2


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)
