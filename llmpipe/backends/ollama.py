"""Write what Ollama needs beside a GGUF: a Modelfile with a Go template for chats.

Ollama does not run the Jinja template in a GGUF. It compares it with some that it knows and takes
the Go template that was written for the nearest, or none. `ChatFormat` is the family of chat
templates that can be a Go template here: every message stands between two texts of its role. It
renders chats in the same way as Ollama does with `ChatFormat.go_template`. Ollama's behavior, by
its source: it joins consecutive messages of a role by an empty line, ``.Messages`` holds the
result, and llama.cpp adds the begin token afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

Chat = Sequence[Mapping[str, str]]

QUOTES = '"""'
REFUSED = "{{ index $.Messages -1 }}"
"""A Go expression that fails: Ollama answers with an error, where nothing would be rendered."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A chat template in which every message stands between two texts of its role.

    Attributes:
        begin: The text before a chat that does not begin with a system message.
        turns: The text before and after the content of a message, by role. Without ``system``,
            Ollama refuses a chat with a system message.
        answer: The text that opens the answer.
    """

    begin: str
    turns: Mapping[str, tuple[str, str]]
    answer: str

    def render(self, chat: Chat) -> str:
        """Return a chat as Ollama renders it.

        Raises:
            KeyError: A message has a role that the template refuses.
        """
        roles = groupby(chat, lambda message: message["role"])
        joined = [(role, "\n\n".join(m["content"] for m in same)) for role, same in roles]
        begin = self.begin if not joined or joined[0][0] != "system" else ""
        texts = (f"{self.turns[r][0]}{content}{self.turns[r][1]}" for r, content in joined)
        return f"{begin}{''.join(texts)}{self.answer}"

    def go_template(self) -> str:
        """Return the template in Go's language, on one line: every line break would be rendered."""
        begin = f'{{{{ if and (eq $i 0) (ne $m.Role "system") }}}}{self.begin}{{{{ end }}}}'
        cases = [
            f'{{{{ {"if" if not n else "else if"} eq $m.Role "{role}" }}}}'
            f"{before}{{{{ $m.Content }}}}{after}"
            for n, (role, (before, after)) in enumerate(self.turns.items())
        ]
        turns = f"{''.join(cases)}{{{{ else }}}}{REFUSED}{{{{ end }}}}"
        loop = f"{begin if self.begin else ''}{turns}"
        return f"{{{{ range $i, $m := .Messages }}}}{loop}{{{{ end }}}}{self.answer}"

    def literals(self) -> list[str]:
        """Return all texts of the template that are not contents."""
        return [self.begin, self.answer, *(text for pair in self.turns.values() for text in pair)]


def modelfile(
    model: str,
    chat: ChatFormat,
    *,
    stop: Sequence[str],
    context: int,
    system: str = "",
    adapter: str | None = None,
) -> str:
    """Return a Modelfile.

    Args:
        model: The name of the GGUF beside it.
        chat: The template; its texts contain neither ``{{`` nor three quotes.
        stop: Texts that end an answer.
        context: Tokens of context.
        system: The system message of chats that have none.
        adapter: The name of a GGUF adapter beside it.
    """
    lines = ["# ollama create NAME -f Modelfile", f"FROM ./{model}"]
    if adapter:
        lines.append(f"ADAPTER ./{adapter}")
    lines.append(f"TEMPLATE {QUOTES}{chat.go_template()}{QUOTES}")
    lines += [f'PARAMETER stop "{text}"' for text in stop]
    lines.append(f"PARAMETER num_ctx {context}")
    if system:
        lines.append(f"SYSTEM {QUOTES}{system}{QUOTES}")
    return "\n".join(lines) + "\n"
