"""What every stage kind must keep, llmpipe's own and any other: tests to inherit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from llmpipe.contracts import StageConfig
from llmpipe.contracts.checks import astray, ports_complaint, shortcomings
from llmpipe.registry import config_class, convert_config
from llmpipe.spec.described import described_schema
from llmpipe.testing.running import make_config

HEAVY = (
    "asyncio", "axolotl", "bm25s", "bs4", "datasets", "docutils", "faiss", "gguf", "jsonschema",
    "mammoth", "markdown_it", "numpy", "onnxruntime", "openai", "pandas", "peft", "pypdfium2",
    "rensa", "rich", "rouge_score", "scipy", "semantic_text_splitter", "sentence_transformers",
    "sklearn", "tensorflow", "tokenizers", "torch", "transformers", "xllamacpp",
)  # fmt: skip
"""What no stage's module may import before the stage runs."""


class StageConformance:
    """Tests that every stage kind passes. Inherit, and set ``stage`` and some ``configs``."""

    stage: ClassVar[Any]
    """The kind's class."""
    configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Configs as specs write them, without ``kind``: one or more for each way to use the kind."""

    def test_it_offers_the_contract(self) -> None:
        """The class has a config, a version, a determinism, and answers the engine's questions."""
        stage = self._stage()
        lacks = "; ".join(shortcomings(stage))
        assert not lacks, f"{stage!r}: {lacks}"
        assert self.stage.Config.__struct_config__.frozen, "its Config is not frozen"
        assert self.stage.__doc__, "it has no docstring"
        assert sys.modules[self.stage.__module__].__doc__, "its module has no docstring"

    def test_every_field_is_described(self) -> None:
        """Each config field has a docstring: editors and the reference show it."""
        stage = self._stage()
        names = stage.variants.classes if stage.variants else ()
        forms = [stage.Config, *(config_class(stage, name) for name in names)]
        bare = [
            f"{title}.{name}"
            for form in forms
            for title, definition in described_schema(form)["$defs"].items()
            for name, field in definition.get("properties", {}).items()
            if not field.get("description")
        ]
        assert not bare, f"fields without a docstring: {', '.join(bare)}"

    def test_it_refuses_unknown_fields(self) -> None:
        """A misspelled key is an error, never ignored."""
        for fields in self.configs or ({},):
            told = ""
            try:
                convert_config(self._stage(), {"kind": "x", **fields, "no-such-field": 1})
            except msgspec.ValidationError as error:
                told = str(error)
            assert "unknown field" in told or "missing required" in told, told or "it is accepted"

    def test_it_is_quick_to_import(self) -> None:
        """Planning imports a kind's module: nothing heavy may come with it."""
        code = (
            f"import sys, {self._stage().__module__}; "
            f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
        )
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert not found.strip(), f"import inside of run: {found.strip()}"

    def test_its_ports_follow_the_config(self) -> None:
        """They are sound, the same when asked again, and lead to the fields that they name."""
        for config in self._configs():
            ports = self.stage.ports(config)
            assert ports_complaint(ports) is None, ports_complaint(ports)
            assert ports == self.stage.ports(config), "ports differ when asked again"
            wrong = astray("ports", ports, config)
            assert wrong is None, wrong
            data = msgspec.to_builtins(config)
            for port, wanted in ports.inputs.items():
                found = data
                for step in wanted.field:
                    found = found[step]
                if wanted.metrics:  # the field also names the metric
                    found = found[: len(wanted.value)]
                place = f"the field at the path {wanted.field} is {found!r}"
                assert found == wanted.value, f"the input {port!r} is {wanted.value!r}; {place}"

    def test_its_fingerprint_is_json(self) -> None:
        """It holds no value that could not be written down, and is the same when asked again."""
        for config in self._configs():
            found = self.stage.fingerprint(config)
            assert json.dumps(found, sort_keys=True, allow_nan=False) == json.dumps(
                self.stage.fingerprint(config), sort_keys=True
            )
            general = set(StageConfig.__struct_fields__) & set(found)
            assert not general, f"the fingerprint holds fields that make no artifact: {general}"

    def _stage(self) -> Any:
        found = getattr(self, "stage", None)
        assert found is not None, f"{type(self).__name__} does not set stage, the kind's class"
        return found

    def _configs(self) -> Iterator[Any]:
        stage = self._stage()
        needed = "without one, neither ports nor fingerprint is tested"
        assert self.configs, f"{type(self).__name__} does not set configs: {needed}"
        return (make_config(stage, fields) for fields in self.configs)
