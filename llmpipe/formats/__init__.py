"""Rows of training data: typed examples, the formats they are written in, and their files.

Examples and formats are in `llmpipe.formats.example`, turns in `llmpipe.formats.turn`, files in
`llmpipe.formats.records`, the comparison of examples in `llmpipe.formats.leakage`, and where rows
come from in `llmpipe.formats.provenance`.
"""

from __future__ import annotations

from llmpipe.formats.conversation import Conversation
from llmpipe.formats.example import (
    Example,
    FormatName,
    Reading,
    Written,
    detect,
    read_conversation,
    read_example,
    require_usable,
    write_example,
)
from llmpipe.formats.labeled import Labeled
from llmpipe.formats.preference import Preference
from llmpipe.formats.prompt import Prompt
from llmpipe.formats.row import RowError, UnusableRowError
from llmpipe.formats.text import Text
from llmpipe.formats.turn import Turn

__all__ = [
    "Conversation",
    "Example",
    "FormatName",
    "Labeled",
    "Preference",
    "Prompt",
    "Reading",
    "RowError",
    "Text",
    "Turn",
    "UnusableRowError",
    "Written",
    "detect",
    "read_conversation",
    "read_example",
    "require_usable",
    "write_example",
]
