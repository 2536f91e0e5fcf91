"""Compare the next-token predictions of a model folder and a GGUF at several places of some texts.

Equal token ids say nothing about the weights. Here, both sides return the log-probabilities of the
next token: llama.cpp for its `TOP` most likely tokens, and the model folder, computed in float32 on
the CPU, for the same tokens. The remaining probability of each side counts as one more token.
Rounding in llama.cpp makes even equal models differ slightly; `LIMITS` says by how much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.huggingface.gguf_weights import USE_THE_ORIGINAL
from llmpipe.backends.llama_cpp.gguf_file import open_gguf
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.errors import StageError
from llmpipe.parity.divergence import Divergence, divergence
from llmpipe.parity.golden import TEXTS

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer

TOP = 1000
"""How many of llama.cpp's most likely tokens are compared. On SmolLM2-135M, they account for 96 %
of the divergence over the whole vocabulary."""

LONGEST = 400
"""Length in tokens of the longest text: some errors show only far from the beginning."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that rounding explains.

    Attributes:
        mean_kl: mean KL divergence in nats per token.
        spread: median over the places of the distance between the log-probabilities of both sides,
            divided by the spread of the log-probabilities. It detects differences in a model that
            finds all tokens about equally likely, such as an untrained one, whose divergence is
            always small.
    """

    mean_kl: float
    spread: float


LIMITS = {False: Limits(mean_kl=0.001, spread=0.03), True: Limits(mean_kl=0.02, spread=0.2)}
"""By whether the GGUF has quantized tensors, for which llama.cpp also rounds activations."""

_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_LEAST = 1e-9
"""The least remaining probability: below it, the difference of a sum of floats to 1 is noise."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the predictions of both sides differ, and the limits that apply."""

    divergence: Divergence
    spread: float
    limits: Limits

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference; it never explains NaN."""
        kl, spread = self.divergence.mean_kl, self.spread
        return kl <= self.limits.mean_kl and spread <= self.limits.spread

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "places": self.divergence.tokens,
            "mean_kl": self.divergence.mean_kl,
            "max_kl": self.divergence.max_kl,
            "same_first": self.divergence.same_first,
            "spread": self.spread,
            "limits": asdict(self.limits),
        }


def compare_predictions(
    folder: Path, gguf: Path, server: LlamaServer, *, label: str, threads: int
) -> Agreement:
    """Compare a model folder with the GGUF that ``server`` serves.

    Args:
        folder: the Hugging Face folder.
        gguf: the GGUF, or the first of its parts.
        server: llama.cpp serving the GGUF; its predictions are the reference.
        label: what messages call the GGUF.
        threads: CPU threads to compute on.

    Raises:
        StageError: the predictions differ by more than rounding explains.
    """
    quantized = not open_gguf(gguf).types <= _PLAIN
    places = [_Place(ids, server.next_tokens(ids, TOP)) for ids in _prompts(server, folder)]
    found = _agreement(places, _logits(folder, places, threads), LIMITS[quantized])
    if not found.holds:
        raise StageError(
            f"{label} became a model that predicts differently than llama.cpp does with the file: "
            f"at {found.divergence.tokens} places they differ by {found.divergence.mean_kl:.3g} "
            f"nats per token (KL divergence) and {found.spread:.2g} of the spread; rounding "
            f"explains {found.limits.mean_kl:g} and {found.limits.spread:g}",
            hint=f"transformers does not interpret the file correctly: {USE_THE_ORIGINAL}",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """A prompt as token ids, and llama.cpp's log-probabilities for the next token."""

    ids: list[int]
    expected: dict[int, float]


def _agreement(places: Sequence[_Place], logits: Sequence[Any], limits: Limits) -> Agreement:
    import numpy as np

    reference, candidate, spreads = [], [], []
    for place, row in zip(places, logits, strict=True):
        theirs = np.array(list(place.expected.values()), np.float64)
        shifted = row - row.max()
        ours = (shifted - np.log(np.exp(shifted).sum()))[list(place.expected)]
        reference.append(_with_rest(theirs))
        candidate.append(_with_rest(ours))
        theirs_spread = theirs - theirs.mean()
        apart = float(np.linalg.norm(ours - ours.mean() - theirs_spread))
        spreads.append(apart / max(float(np.linalg.norm(theirs_spread)), _LEAST))
    found = divergence(np.array(reference), np.array(candidate))
    return Agreement(found, float(np.median(spreads)), limits)


def _prompts(server: LlamaServer, folder: Path) -> Iterator[list[int]]:
    """Yield prefixes of some texts, 2, 4, 8 … tokens long, and each whole text."""
    longest = min(LONGEST, _context(folder) - 1)
    for text in (TEXTS[0], TEXTS[8], TEXTS[9], " ".join(TEXTS)):
        ids = server.tokenize(text, add_special=True)[:longest]
        length = 2
        while length < len(ids):
            yield ids[:length]
            length *= 2
        yield ids


def _context(folder: Path) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return int(getattr(config, "max_position_embeddings", None) or LONGEST + 1)


def _logits(folder: Path, places: Sequence[_Place], threads: int) -> list[Any]:
    """Return the folder's logits for the token after each prompt, shape (vocabulary,)."""
    with suppress_logs():
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        ).eval()
        with torch.inference_mode():
            return [
                model(torch.tensor([place.ids]), use_cache=False).logits[0, -1].double().numpy()
                for place in places
            ]


def _with_rest(log_probabilities: Any) -> Any:
    """Add the log-probability of one more token that has the remaining probability."""
    import numpy as np

    rest = max(1 - float(np.exp(log_probabilities).sum()), _LEAST)
    return np.append(log_probabilities, np.log(rest))
