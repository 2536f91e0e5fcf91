"""The rewards of the stage `grpo`: what a right and a short answer is worth."""

import re


def right(completions, answer, **kwargs):
    """1 where the first number of the text is the answer, else 0."""
    rewards = []
    for chat, expected in zip(completions, answer, strict=True):
        found = re.search(r"\d+", chat[0]["content"])
        rewards.append(float(found is not None and int(found[0]) == expected))
    return rewards


def short(completions, **kwargs):
    """Between 0 and 1: the fewer letters, the more."""
    return [1 / (1 + len(chat[0]["content"]) / 20) for chat in completions]
