"""Test your own stage kind: run it without a pipeline, and check it against the contract.

    from llmpipe.testing import StageConformance, run_stage

    class TestWordCount(StageConformance):
        stage = WordCount
        configs = ({"data": "./rows.jsonl", "column": "text"},)

    def test_words_are_counted(tmp_path):
        (tmp_path / "rows.jsonl").write_text('{"text": "a rose is a rose"}\\n')
        done = run_stage(WordCount, {"data": "./rows.jsonl", "column": "text"}, tmp_path)
        assert done.metrics["words"] == 5

It needs pytest, or any other runner that collects classes whose methods begin with ``test_``.
llmpipe's own kinds are tested by the same code.
"""

from llmpipe.testing.conformance import HEAVY, StageConformance
from llmpipe.testing.running import Done, make_config, make_context, require_same_twice, run_stage

__all__ = [
    "HEAVY",
    "Done",
    "StageConformance",
    "make_config",
    "make_context",
    "require_same_twice",
    "run_stage",
]
