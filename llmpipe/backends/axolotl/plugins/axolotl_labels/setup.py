"""What a configuration makes of rows: what should end an answer, and what to do if it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axolotl.utils.chat_templates import get_chat_template_from_config

from . import endings, parts, report
from .endings import Ending
from .rows import UNTRAINED, Finding, Rules

BEFORE, AFTER = 12, 4
"""How many tokens before and after an answer's last one are shown."""

_FITTING = (
    "use a chat_template that fits the model (its own, if chat_template is left out) and ends "
    "every answer with one special token"
)


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration and the tokenizer that trains, for the data sets of one split."""

    cfg: Any
    tokenizer: Any
    entries: Sequence[Any]
    """The entries of Axolotl's ``datasets`` or ``test_datasets``."""
    endings: Sequence[Ending]
    """What ends an answer in the rows of each entry; nothing where that is unknown."""
    stops: frozenset[int]
    """The tokens that end generation: the tokenizer's and those of generation_config."""
    limit: int
    """The most tokens that a row may have."""
    unknown: str = ""
    """Why it is unknown what ends an answer."""

    @classmethod
    def of(cls, cfg: Any, trainer: Any, split: str) -> Setup:
        """Read the configuration for a split, ``train`` or ``test``."""
        tokenizer = trainer.processing_class
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
        entries = list((cfg.test_datasets if split == "test" else None) or cfg.datasets or [])
        stops = _stops(tokenizer, trainer.model)
        limit = (split == "test" and cfg.eval_sequence_len) or cfg.sequence_len
        try:
            expected = [_ending(cfg, entry, tokenizer, stops) for entry in entries]
        except ValueError as error:
            return cls(cfg, tokenizer, entries, (), stops, limit, str(error))
        return cls(cfg, tokenizer, entries, expected, stops, limit)

    @property
    def truncates(self) -> bool:
        """Whether rows are cut at `limit`, because the configuration says so."""
        return str(self.cfg.excess_length_strategy or "").lower() == "truncate"

    @property
    def rewritten(self) -> bool:
        """Whether rows were rewritten after they were shuffled, or are not the file's rows."""
        told = [_by_template(e) or str(e.type).startswith("alpaca") for e in self.entries]
        cfg = self.cfg
        return bool(cfg.rl or cfg.sample_packing or self.truncates or told != [True])

    @property
    def end(self) -> str:
        """What answers should end with, as it is shown; empty for plain text."""
        return " or ".join(dict.fromkeys(repr(e.text) for e in self.endings if e.tokens))

    def rules(self) -> Rules:
        """Return what the rows of the split are held against."""
        if not self.endings:
            return Rules()
        chunks = any(str(entry.type).startswith("completion") for entry in self.entries)
        answers = all("assistant" in (e.roles_to_train or ["assistant"]) for e in self.entries)
        ends = {token for ending in self.endings for token in ending.tokens}
        if self.cfg.rl:  # TRL adds it to an answer that does not end with it
            ends.add(self.tokenizer.eos_token_id)
        one = self.endings[0]
        in_part = any(entry.message_field_training_detail for entry in self.entries)
        return Rules(
            ends=tuple(ends),
            tail=one.tail,
            inner=all(ending.inner for ending in self.endings),
            opening=one.opening if answers and not self.cfg.rl else (),
            asked=one.asked if answers and not (self.cfg.rl or in_part) else (),
            special=endings.special_ids(self.tokenizer),
            limit=self.limit if chunks or self.truncates else None,
            chunks=chunks,
        )

    def marked(self, ids: Sequence[int], labels: Sequence[int] | None, end: int) -> str:
        """Return the text around token ``end`` of a row, what is trained of it between ⟦ and ⟧."""
        window = range(max(0, end + 1 - BEFORE), min(len(ids), end + 1 + AFTER))
        text, inside = "…" if window and window[0] else "", False
        for at in window:
            if (labels is None or labels[at] != UNTRAINED) != inside:
                text, inside = text + ("⟧" if inside else "⟦"), not inside
            text += self.tokenizer.decode([ids[at]])
        return repr(text + "⟧" * inside)

    def advice(self, finding: Finding) -> str:
        """Return advice on a finding that stops a run."""
        if finding is Finding.CUT or (finding is Finding.ROW and self.truncates):
            return "raise sequence_len, or leave long rows out: excess_length_strategy: drop"
        if finding is Finding.ROW:
            return "leave these rows out, or look at their roles and answers"
        if finding is Finding.EMPTY:
            return "leave rows with an empty answer out: Axolotl does not train it"
        plain = [ending.text for ending in self.endings if not ending.tokens]
        if plain:
            return f"after an answer the template writes {plain[0]!r}, which is plain: {_FITTING}"
        return self._masked() if finding is Finding.MASKED else _FITTING

    def _masked(self) -> str:
        """Explain how Axolotl trains the ends of answers, which the template does write."""
        known = {self.tokenizer.eos_token, *(self.cfg.eot_tokens or ())}
        ends = {token for ending in self.endings for token in ending.tokens}
        names = {self.tokenizer.decode([token]) for token in ends}
        if names <= known:
            return "set train_on_eos: turn (the default), and no other train_on_eot"
        listed = ", ".join(map(_quoted, sorted(names)))
        ways = [f"special_tokens: {{eos_token: {listed}}}"] if len(ends) == 1 else []
        ways += [f"eot_tokens: [{listed}]"] if ends <= self.stops or not ways else []
        return (
            f"Axolotl trains eos_token, here {self.tokenizer.eos_token!r}, and eot_tokens: "
            f"set {' or '.join(ways)}"
        )

    def unstopped(self) -> Iterator[report.Problem]:
        """Yield a problem where the end that is trained does not end generation."""
        for ending in self._of_templates():
            if not ending.tokens and self.cfg.rl:  # else its rows are found to have no end
                yield report.Problem(
                    report.END_OF_TURN,
                    f"the template ends an answer with {ending.text!r}, which is plain text: "
                    "the model would write it out",
                    _FITTING,
                )
            elif ending.tokens and ending.tokens[0] not in self.stops:
                stops = ", ".join(repr(self.tokenizer.decode([i])) for i in sorted(self.stops))
                end = self._text(ending)
                yield report.Problem(
                    report.END_OF_TURN,
                    f"answers end with {end!r}, which does not end generation "
                    f"(that is {stops or 'no token'}): the model would not stop",
                    f"set special_tokens: {{eos_token: {_quoted(end)}}}",
                )

    def refused_later(self) -> Iterator[str]:
        """Yield what an export to GGUF would refuse: llama.cpp stops at ``eos_token`` only."""
        for ending in self._of_templates():
            token = next(iter(ending.tokens), None)
            if token in self.stops - {self.tokenizer.eos_token_id}:
                yield (
                    f"answers end with {self._text(ending)!r}, eos_token is "
                    f"{self.tokenizer.eos_token!r}: generation_config ends generation at both, "
                    "a GGUF file may not know the former"
                )

    def unlike_prompt(self) -> Iterator[str]:
        """Yield how the prompt at generation differs from what stands before a trained answer.

        The strategies for preferences refuse such rows, or train what the prompt lacks.
        """
        if self.cfg.rl or self.cfg.reward_model:
            return
        options = self.cfg.chat_template_kwargs or {}
        templates = {_template(self.cfg, entry, self.tokenizer): None for entry in self.entries}
        for template in filter(None, templates):
            try:
                found = endings.unlike_prompt(self.tokenizer, template, options)
            except ValueError:  # `unknown` says so
                continue
            if found is not None:
                yield found

    def left_out(self) -> Iterator[str]:
        """Yield what the chat template does not write of the rows, and of how many rows."""
        for entry in self.entries:
            template = _template(self.cfg, entry, self.tokenizer)
            file = Path(str(entry.path))
            if template is None or entry.ds_type != "parquet" or not file.is_file():
                continue
            dropped = self._dropped(entry, template)
            reasoning = entry.field_thinking or "reasoning_content"
            split = bool(entry.split_thinking)
            found = parts.count_parts(file, dropped, thinking=reasoning, split=split)
            told = [
                f"{part} of {rows} row{'s' if rows > 1 else ''} (first: row {row})"
                for part, rows, row in found
            ]
            if told:
                yield f"the chat template leaves out {', '.join(told)}"

    def _dropped(self, entry: Any, template: str) -> list[str]:
        """Return the parts of rows that a template leaves out, other than by the user's choice."""

        def render(turns: list[dict[str, Any]], tools: list[Any] | None) -> str:
            options = {**(self.cfg.chat_template_kwargs or {}), "chat_template": template}
            if tools:
                options["tools"] = tools
            text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, **options)
            return text

        dropped = parts.dropped_by(render, entry.template_thinking_key or "reasoning_content")
        chosen = "system texts" if entry.drop_system_message else None
        return [part for part in dropped if part != chosen]

    def _of_templates(self) -> Iterator[Ending]:
        for entry, ending in zip(self.entries, self.endings, strict=False):
            if _template(self.cfg, entry, self.tokenizer):
                yield ending

    def _text(self, ending: Ending) -> str:
        text: str = self.tokenizer.decode([ending.tokens[0]])
        return text


def _stops(tokenizer: Any, model: Any) -> frozenset[int]:
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = declared if isinstance(declared, list) else [declared]
    return frozenset({tokenizer.eos_token_id, *ids} - {None})


def _by_template(entry: Any) -> bool:
    return str(entry.type or "").startswith(("chat_template", "axolotl_pairs."))


def _template(cfg: Any, entry: Any, tokenizer: Any) -> str | None:
    """Return the chat template that renders an entry's rows, or None where none does.

    Preference rows are taken to be rendered by it even if they come to Axolotl as text.
    """
    if not _by_template(entry) and not (cfg.rl and (cfg.chat_template or tokenizer.chat_template)):
        return None
    text: str = get_chat_template_from_config(cfg=cfg, ds_cfg=entry, tokenizer=tokenizer)
    return text


def _ending(cfg: Any, entry: Any, tokenizer: Any, stops: frozenset[int]) -> Ending:
    template = _template(cfg, entry, tokenizer)
    if template is None:
        return endings.of_eos(tokenizer)
    return endings.of_template(tokenizer, template, cfg.chat_template_kwargs or {}, stops)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
