"""Compare what a model folder and a GGUF predict next, at several places of a few texts.

Equal token ids say nothing about the weights. Here both sides give the log-probabilities of the
next token: llama.cpp those of its likeliest `TOP` tokens, and the model folder, computed in float32
on the CPU, those of the same ones. What is left over on either side counts as one more token.
Rounding inside llama.cpp makes honest models differ a little; `LIMITS` says how much.
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
"""How many of llama.cpp's likeliest tokens are compared, each by itself. On SmolLM2-135M they show
96 % of the divergence over the whole vocabulary."""

LONGEST = 400
"""Tokens of the longest text: some errors show only far from the beginning."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What rounding explains at the most.

    Attributes:
        mean_kl: mean KL divergence, nats a token.
        spread: median over the places of the distance between the two sides' log-probabilities,
            as a share of how far these are spread. It tells where a model finds all tokens about
            equally likely, as an untrained one does, and the divergence is always small.
    """

    mean_kl: float
    spread: float


LIMITS = {False: Limits(mean_kl=0.001, spread=0.03), True: Limits(mean_kl=0.02, spread=0.2)}
"""By whether the GGUF holds quantised tensors, for which llama.cpp rounds activations as well."""

_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_LEAST = 1e-9
"""The probability that is left over at the least: what a sum of floats lacks to 1 is noise."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the predictions of the two sides lie apart, and what they were held against."""

    divergence: Divergence
    spread: float
    limits: Limits

    @property
    def holds(self) -> bool:
        """Whether rounding explains it; what is not a number it does not explain."""
        kl, spread = self.divergence.mean_kl, self.spread
        return kl <= self.limits.mean_kl and spread <= self.limits.spread

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON data."""
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
        server: a server of the GGUF, whose predictions are the reference.
        label: what messages call the GGUF.
        threads: CPU threads to compute on.

    Raises:
        StageError: the predictions differ by more than rounding explains.
    """
    quantised = not open_gguf(gguf).types <= _PLAIN
    places = [_Place(ids, server.next_tokens(ids, TOP)) for ids in _prompts(server, folder)]
    found = _agreement(places, _logits(folder, places, threads), LIMITS[quantised])
    if not found.holds:
        raise StageError(
            f"{label} became a model that predicts otherwise than llama.cpp does with the file: at "
            f"{found.divergence.tokens} places they lie {found.divergence.mean_kl:.3g} nats a "
            f"token apart (KL divergence) and {found.spread:.2g} of the spread; rounding explains "
            f"{found.limits.mean_kl:g} and {found.limits.spread:g}",
            hint=f"transformers does not compute what the file means: {USE_THE_ORIGINAL}",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """A prompt as token ids, and the log-probabilities that llama.cpp gives for the next token."""

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
    """Yield the beginnings of some texts, 2, 4, 8 … tokens long, and each text whole."""
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
    """Add what is left over to 1 as the log-probability of one more token."""
    import numpy as np

    rest = max(1 - float(np.exp(log_probabilities).sum()), _LEAST)
    return np.append(log_probabilities, np.log(rest))
