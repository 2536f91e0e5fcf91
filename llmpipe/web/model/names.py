"""Find out for which roles a chat template reads a name, by rendering one.

The source of a template does not tell, since it can read a name in many ways.
"""

from __future__ import annotations

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.errors import StageError

NAME = "Quillfeather"
"""A name that no template contains."""
OTHERS = {"role": "user", "content": "a"}


def named_roles(server: LlamaServer) -> frozenset[str]:
    """Return the roles whose ``name`` the model's chat template writes into the prompt."""
    found = {role for role in ("system", "user", "assistant") if _is_written(server, role)}
    return frozenset(found | ({"developer"} if "system" in found else set()))


def _is_written(server: LlamaServer, role: str) -> bool:
    named = {"role": role, "content": "a", "name": NAME}
    before = [OTHERS] if role == "assistant" else []
    after = [] if role == "user" else [OTHERS]
    try:
        return NAME in server.apply_template([*before, named, *after])
    except StageError:  # a template that refuses the role reads no name for it
        return False
