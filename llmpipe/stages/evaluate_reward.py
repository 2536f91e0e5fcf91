"""Mark the answers of an `evaluate` stage by a reward model: the metric ``reward``.

A reward model reads the conversation with an answer, in its own chat template, and returns one
number. Numbers of different reward models cannot be compared; differences between models that one
reward model marks can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.huggingface.base_model import require_reward_model
from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.contracts import StageContext
from llmpipe.errors import StageError
from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.stages.evaluate_config import EvaluateConfig

if TYPE_CHECKING:
    from llmpipe.stages.evaluate_models import Result
from llmpipe.stages.evaluate_rows import Chat

REWARD = "reward"


def rewards(
    ctx: StageContext[EvaluateConfig], chats: Sequence[Chat], results: Mapping[str, Result]
) -> dict[str, RowScores]:
    """Return the rewards of every model's answers, by the model's label.

    Raises:
        StageError: what is named is not a reward model, or its template cannot render a row.
    """
    judge = ctx.input("reward_model")
    require_reward_model(judge.path, judge.label)
    with suppress_logs():
        score = _scorer(judge.path, judge.label, ctx.threads)
        return {
            label: RowScores.mean(
                [
                    score([*chat[:-1], {"role": "assistant", "content": reply.answer}])
                    for chat, reply in zip(chats, result.replies, strict=True)
                ]
            )
            for label, result in results.items()
            if result.replies
        }


def _scorer(folder: Path, label: str, threads: int) -> Callable[[Chat], float]:
    """Load a reward model; return the function that marks a conversation."""
    import torch
    from jinja2 import TemplateError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto").eval()

    def score(chat: Chat) -> float:
        try:
            text = tokenizer.apply_chat_template(chat, tokenize=False)
        except (TemplateError, ValueError) as error:
            raise StageError(f"{label}: its chat template does not render a row: {error}") from None
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            return float(model(input_ids=ids).logits[0, 0])

    return score
