"""Compare the predictions of every model with those of a reference, token by token of the answers.

The reference is the model or adapter that an ``evaluate`` stage lists last before the GGUFs. Its
tokenizer turns the rows into tokens for all; its logits lie on disk while the stage runs. A GGUF's
logits come from the library that serves it, for the same tokens.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError

if TYPE_CHECKING:
    from llmpipe.backends.huggingface.chat_tokens import EncodedAnswer
    from llmpipe.backends.huggingface.inference import LoadedModel
    from llmpipe.parity.divergence import Divergence

COMPARED = ("kl", "same_top")
"""The metrics that compare a model's logits with the reference's."""
LIKELIHOODS = ("loss", *COMPARED)
"""The metrics of given answers; the others are of answers that the model writes."""


@dataclass(slots=True)
class Reference:
    """The model that the others are compared with.

    Attributes:
        label: what messages call it.
        folder: where its logits are kept; None if nothing is compared.
        rows: the chats as its tokens.
        prompts: the questions of the first rows as its tokens.
    """

    label: str
    folder: Path | None
    rows: list[EncodedAnswer] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)

    def encode(self, loaded: LoadedModel, chats: Sequence[Any]) -> None:
        """Turn the chats into the reference's tokens.

        Raises:
            StageError: a chat has no answer, or the disk has no room for the logits.
        """
        from llmpipe.backends.huggingface.chat_tokens import encode_answer

        self.rows = [encode_answer(loaded.tokenizer, chat) for chat in chats]
        if self.folder is None:
            return
        tokens = sum(len(row.ids) - row.start for row in self.rows)
        needed = 4 * tokens * int(loaded.model.config.get_text_config().vocab_size)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise StageError(
                f"the logits of {self.label} for {tokens} tokens take {needed / 1e9:.1f} GB on "
                f"disk, and {free / 1e9:.1f} GB are free",
                hint="lower `limit`, or leave `kl` and `same_top` out of `metrics`",
            )

    def keep(self, row: int, logits: Any) -> None:
        """Keep the reference's own logits of a row."""
        import numpy as np

        if self.folder is not None:
            np.save(self.folder / f"{row}.npy", logits)

    def compare(self, row: int, logits: Any) -> Divergence | None:
        """Compare a row's logits with the reference's; None if the vocabularies differ."""
        import numpy as np

        from llmpipe.parity.divergence import divergence

        assert self.folder is not None
        own = np.load(self.folder / f"{row}.npy", mmap_mode="r")
        return divergence(own, logits) if own.shape == logits.shape else None

    def loss(self, row: int, logits: Any) -> tuple[float, int]:
        """Return the nats of a row's answer and its number of tokens."""
        import numpy as np

        answer = self.rows[row].ids[self.rows[row].start :]
        total = 0.0
        for token, place in zip(answer, logits.astype(np.float64), strict=True):
            largest = place.max()
            total += float(largest + np.log(np.exp(place - largest).sum()) - place[token])
        return total, len(answer)


def reference_of(models: Sequence[Artifact]) -> Artifact | None:
    """Return the model or adapter listed last before the GGUFs, from which they were probably made.

    Without one before them it is the first of the list; None if all are GGUFs.
    """
    before = itertools.takewhile(lambda model: model.type != "gguf", models)
    others = [model for model in models if model.type != "gguf"]
    return next(reversed([*before]), others[0] if others else None)


def require_reference(
    models: Sequence[Artifact], metrics: Sequence[str], limits: Collection[str] = ()
) -> None:
    """Require something to compare, and something to compare it with.

    Raises:
        StageError: a metric that compares is asked for, or the loss has a limit, and there is no
            model or adapter.
    """
    if "loss" in limits and reference_of(models) is None:
        raise StageError(
            "`fail_above` limits the loss, and `models` lists no model or adapter, whose tokens "
            "the loss of a GGUF is measured on",
            hint="list the model that the GGUF was made from, or remove the limit",
        )
    compared = [metric for metric in metrics if metric in COMPARED]
    if compared and (reference_of(models) is None or len(models) < 2):
        raise StageError(
            f"`{compared[0]}` compares models with a model or adapter in `models`, and "
            + ("there is none" if reference_of(models) is None else "there is no other model"),
            hint="list the model that the GGUF was made from, as in `models: [sft, gguf.q4_k_m]`",
        )


def score_gguf(
    model: Artifact,
    reference: Reference,
    threads: int,
    on_row: Callable[[int, Any], None],
) -> None:
    """Call ``on_row`` with the number of each row and its logits, shape (tokens, vocabulary).

    Raises:
        StageError: llama.cpp cannot compute them.
    """
    from llmpipe.backends.llama_cpp.logits import gguf_logits

    longest = max(len(row.ids) for row in reference.rows)
    with gguf_logits(model.path, context=longest, threads=threads, label=model.label) as logits_of:
        for number, row in enumerate(reference.rows):
            on_row(number, logits_of(row.ids, row.start))
