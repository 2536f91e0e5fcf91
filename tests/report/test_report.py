"""The page of a run: what it tells, that nothing in it can act, and when it is written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpipe.report.axis import moment_text, moments, ticks
from llmpipe.report.page import write_report
from llmpipe.report.rendering import number
from llmpipe.report.results import by_model
from llmpipe.runner.store import Store

Call = Callable[..., subprocess.CompletedProcess[str]]

SIMPLE = """\
version: 1
name: simple
stages:
  first: {kind: command, run: "%s", outputs: {o: o.txt}}
  second: {kind: command, run: "cp ${inputs.i} ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
"""


class Page(HTMLParser):
    """The page as a browser reads it: elements, their attributes, and text by section."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        (path,) = (folder / ".llmpipe" / "runs").glob("*/report.html")
        self.source = path.read_text("utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.section = "header"
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)
        if tag == "section":
            self.section = str(dict(attrs)["id"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.sections[self.section] = self.sections.get(self.section, "") + data + "\n"

    def count(self, tag: str, class_: str) -> int:
        """Count elements of a class."""
        return sum(t == tag and class_ in str(a.get("class")).split() for t, a in self.elements)


def start(folder: Path) -> subprocess.Popen[str]:
    """Start a run in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmpipe", "run", "spec.yaml"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def simple(folder: Path, command: str) -> Path:
    """Write a spec of two stages, the first of which runs this."""
    (folder / "spec.yaml").write_text(SIMPLE % command, "utf-8")
    return folder


def test_a_failed_run_tells_what_went_wrong(failed_run: Path) -> None:
    """The failure comes first: its message, its log's last lines, and how to go on."""
    page = Page(failed_run)
    assert list(page.sections)[:2] == ["header", "failures"]
    assert "the command ended with exit status 3" in page.sections["failures"]
    assert "no such thing: the checker" in page.sections["failures"]
    assert "The last lines of check.log:" in page.sections["failures"]
    assert "llmpipe run spec.yaml" in page.sections["header"]
    assert "--set params.greeting=good morning" in page.sections["header"]
    assert "1 failed" in page.sections["header"]


def test_every_stage_stands_in_the_table(failed_run: Path) -> None:
    """With kind, status, cause and summary; what was blocked says so."""
    page = Page(failed_run)
    record = json.loads(next(failed_run.glob(".llmpipe/runs/*/run.json")).read_bytes())
    text = page.sections["stages"]
    for stage in record["stages"].values():
        assert stage["stage"].partition("@")[0] in text
    assert "it has not run yet" in text
    assert "what it needs did not end well" in text
    assert record["stages"]["dataset"]["summary"] in text


def test_the_graph_has_the_statuses(failed_run: Path) -> None:
    """The drawing marks what is done, failed and blocked."""
    page = Page(failed_run)
    record = json.loads(next(failed_run.glob(".llmpipe/runs/*/run.json")).read_bytes())
    statuses = [stage["status"] for stage in record["stages"].values()]
    drawing = page.source.partition('<section id="graph"')[2].partition("</section>")[0]
    for status in set(statuses):
        assert drawing.count(f'<g class="{status}">') == statuses.count(status)


def test_rows_of_data_are_counted(failed_run: Path) -> None:
    """A `format` stage's rows in, kept by part, and dropped by reason."""
    text = Page(failed_run).sections["data"].split()
    assert text[text.index("dataset") + 1] == "30"
    assert text[-2:] == ["1", "duplicate"]


def test_a_sweep_marks_the_choice(failed_run: Path) -> None:
    """A row for every point with the metric that decided; the chosen one is marked."""
    page = Page(failed_run)
    assert page.count("tr", "marked") == 1
    assert "★ best" in page.sections["sweeps"]
    assert page.sections["sweeps"].count("3.25") == 3


def test_the_lock_has_keys_digests_and_inputs(failed_run: Path) -> None:
    """For every stage that the store knows: its key, its artifacts and what they were made from."""
    text = Page(failed_run).sections["lock"]
    for path in (failed_run / ".llmpipe" / "store" / "keys").iterdir():
        record = json.loads(path.read_bytes())
        assert record["key"] in text
        for held in (*record["outputs"].values(), *record["ingredients"]["inputs"].values()):
            assert held["digest"] in text


def test_a_training_has_its_curves(trained_run: Path) -> None:
    """Each point's loss is a line, what was held out a dashed one with its points marked."""
    page = Page(trained_run)
    lines = [a for tag, a in page.elements if tag == "polyline"]
    assert [line["class"] for line in lines] == [
        "c0", "c0 held-out", "c1", "c1 held-out", "c2", "c2 held-out",
    ]  # fmt: skip
    assert len(str(lines[0]["points"]).split()) == 56
    assert page.count("circle", "held-out") == 12
    record = json.loads(next(trained_run.glob(".llmpipe/runs/*/run.json")).read_bytes())
    stage = record["stages"]["sft@axolotl.learning_rate=0.0005"]
    measured, text = stage["metrics"], page.sections["training"]
    first = fmean(loss for _, loss in measured["loss"][:12])
    last = measured["loss_last_fifth"]
    assert last == fmean(loss for _, loss in measured["loss"][-12:])
    assert f"{number(first)} → {number(last)}, means of the first and last fifth" in text
    assert f"loss {first:.2f} → {last:.2f} (means of the first and last fifth)" in stage["summary"]
    held_out = measured["eval_loss"]
    assert measured["eval_loss_last"] == held_out[-1][1]
    assert f"{number(held_out[0][1])} → {number(held_out[-1][1])}, first and last" in text


def test_models_are_compared_with_intervals(trained_run: Path) -> None:
    """Figures with intervals, and against the first model whether the difference is clear."""
    page = Page(trained_run)
    text = page.sections["results"]
    assert "50 rows, 95 % intervals" in text
    assert text.count("lower is better") == 1
    assert page.count("span", "better") == 3
    summary = next(
        data
        for path in trained_run.glob(".llmpipe/store/objects/*/data/artifact.json")
        if len((data := json.loads(path.read_bytes())).get("models", [])) == 3
    )
    for measured in summary["models"].values():
        for metric in measured.values():
            assert f"{metric['mean']:.3f}\n[{metric['low']:.3f}, {metric['high']:.3f}]" in text
    assert "[" in text.partition("against base")[0]


def test_without_the_file_the_means_are_shown(
    trained_run: Path, tmp_path: Path, command_line: Call
) -> None:
    """When the store has freed the metrics file, those of the record stand alone."""
    import shutil

    folder = shutil.copytree(trained_run, tmp_path / "copy")
    shutil.rmtree(folder / ".llmpipe" / "store" / "objects")
    assert command_line(folder, "report").returncode == 0
    text = Page(folder).sections["results"]
    assert "against base" in text
    assert "50 rows" not in text


def test_warnings_and_changes_are_told(trained_run: Path) -> None:
    """What a stage warned of stands beside it, and what changed from what to what."""
    text = Page(trained_run).sections["stages"]
    assert "! 40 rows of 44: 4 are too long" in text
    assert "axolotl.max_steps: 40 → 56" in text


def test_trained_rows_are_shown(trained_run: Path) -> None:
    """A stage's first rows, with what is trained marked."""
    page = Page(trained_run)
    assert "the first rows, what is trained marked" in page.source
    assert "Why?<mark>⟦So.⟧</mark>" in page.source


def test_timings_are_drawn_for_what_ran(trained_run: Path) -> None:
    """A bar for each stage that ran, with its time; none for what was cached."""
    page = Page(trained_run)
    assert "2 min 53 s" in page.sections["timings"]
    assert not re.search(r"^extra", page.sections["timings"], re.M)


def test_the_environment_is_told(trained_run: Path) -> None:
    """Versions, profiles, settings and the resolved spec."""
    text = Page(trained_run).sections["environment"]
    for told in ("gpu", "0.19.0", "stages.sft.axolotl.max_steps=56", "learning_rate"):
        assert told in text


def test_the_page_is_accessible(trained_run: Path) -> None:
    """A language, one main heading, named regions, headers in tables, titles in drawings."""
    page = Page(trained_run)
    tags = [tag for tag, _ in page.elements]
    assert dict(page.elements)["html"] == {"lang": "en"}
    assert tags.count("h1") == tags.count("main") == tags.count("header") == tags.count("nav") == 1
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for tag, a in page.elements:
        if tag == "section":
            assert a["aria-labelledby"] in ids
        if tag == "th":
            assert a["scope"] in ("col", "row")
        if a.get("role") == "region":
            assert a["aria-label"]
    for found in re.findall(r"<svg[^>]*>\s*(?:<title>)?", page.source):
        nested = "preserveAspectRatio" in found
        assert found.endswith("<title>") or 'aria-hidden="true"' in found or nested


@pytest.mark.slow
@pytest.mark.parametrize("run", ["failed_run", "trained_run", "hostile_run"])
def test_nothing_in_the_page_can_act(run: str, request: pytest.FixtureRequest) -> None:
    """No script, no handler, no address of anything else; the policy allows its one style sheet."""
    page = Page(request.getfixturevalue(run))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form", "use"}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "style", "action", "srcset")
            assert name != "href" or str(value).startswith("#")
    (style,) = re.findall("<style>(.*?)</style>", page.source, re.S)
    assert "url(" not in style
    assert "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(str(a["content"]) for _, a in page.elements if "http-equiv" in a)
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_hostile_text_is_shown_as_text(hostile_run: Path, hostile: str) -> None:
    """Names, points, settings, causes, logs and metrics with markup in them read as they are."""
    page = Page(hostile_run)
    assert hostile.split('"')[0] in page.sections["header"]
    for section in page.sections.keys() - {"timings"}:
        assert "<img src=x onerror=alert(1)>" in page.sections[section], section
    assert "<img" not in page.source


def test_no_secret_is_shown(hostile_run: Path) -> None:
    """A secret that a command has printed is nowhere in the page."""
    page = Page(hostile_run)
    assert "hunter2" not in page.source
    assert "${secret:TOKEN}" in page.sections["environment"]


@pytest.mark.slow
def test_an_interrupted_run_has_its_page(tmp_path: Path) -> None:
    """Ctrl-C leaves a page that says which stage was stopped."""
    simple(tmp_path, "touch began; sleep 60; touch ${outputs.o}")
    process = start(tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    page = Page(tmp_path)
    assert "interrupted" in page.sections["header"]
    assert "first" in page.sections["failures"]
    assert ">Interrupted</h2>" in page.source


def test_a_run_in_which_nothing_ran_writes_none(tmp_path: Path, command_line: Call) -> None:
    """It costs nothing then; `llmpipe report` writes it when somebody wants it."""
    simple(tmp_path, "echo x > ${outputs.o}")
    assert command_line(tmp_path, "run", "spec.yaml").returncode == 0
    (first,) = (tmp_path / ".llmpipe" / "runs").iterdir()
    assert command_line(tmp_path, "run", "spec.yaml").returncode == 0
    (second,) = (f for f in (tmp_path / ".llmpipe" / "runs").iterdir() if f != first)
    assert (first / "report.html").exists()
    assert not (second / "report.html").exists()
    result = command_line(tmp_path, "report")
    assert result.stdout == f"{second / 'report.html'}\n"
    assert "2 cached" in (second / "report.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_fails_no_run(tmp_path: Path, command_line: Call) -> None:
    """It is said on standard error; the run is as done as it was."""
    simple(
        tmp_path,
        "for d in .llmpipe/runs/*; do mkdir -p $d/report.html/x; done; echo x > ${outputs.o}",
    )
    result = command_line(tmp_path, "run", "spec.yaml")
    assert result.returncode == 0
    assert "the run's report could not be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_damaged_record_fails_no_run_and_is_a_message(tmp_path: Path, command_line: Call) -> None:
    """A record of a newer llmpipe, or of another shape, is refused in words."""
    simple(tmp_path, "echo x > ${outputs.o}")
    assert command_line(tmp_path, "run", "spec.yaml").returncode == 0
    (path,) = tmp_path.glob(".llmpipe/runs/*/run.json")
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "v": 99}))
    assert "is of version 99" in command_line(tmp_path, "report").stderr
    path.write_text(json.dumps({**record, "graph": 3}))
    result = command_line(tmp_path, "report")
    assert result.returncode == 1
    assert "run.json cannot be read" in result.stderr
    for text in ("{}", "[]", json.dumps({**record, "stages": 3})):
        path.write_text(text)
        for name in ([], [path.parent.name]):
            result = command_line(tmp_path, "report", *name)
            assert result.returncode == 2
            assert "run.json is not a run record" in result.stderr


def test_an_unknown_run_is_a_message(failed_run: Path, command_line: Call) -> None:
    """Exit code 2, and the run that was meant."""
    (folder,) = (failed_run / ".llmpipe" / "runs").iterdir()
    result = command_line(failed_run, "report", folder.name[:-1] + "z")
    assert result.returncode == 2
    assert f"did you mean {folder.name!r}?" in result.stderr
    assert command_line(failed_run, "report", "../../x").returncode == 2


def test_the_beginning_of_a_runs_name_is_enough(failed_run: Path, command_line: Call) -> None:
    """As for `runs show`."""
    (folder,) = (failed_run / ".llmpipe" / "runs").iterdir()
    result = command_line(failed_run, "report", folder.name[:-2])
    assert result.stdout == f"{folder / 'report.html'}\n"


def test_a_run_says_where_its_page_is(tmp_path: Path, command_line: Call) -> None:
    """Its last line is the path, when one was written."""
    simple(tmp_path, "echo x > ${outputs.o}")
    first = command_line(tmp_path, "run", "spec.yaml")
    (path,) = tmp_path.glob(".llmpipe/runs/*/report.html")
    assert first.stderr.splitlines()[-1] == f"report: {path}"
    assert "report:" not in command_line(tmp_path, "run", "spec.yaml").stderr


def test_no_run_at_all_is_a_message(tmp_path: Path, command_line: Call) -> None:
    """Exit code 2, and where runs would be."""
    (tmp_path / "other.yaml").touch()
    result = command_line(tmp_path, "report", "--spec", "other.yaml")
    assert result.returncode == 2
    assert "nothing has run yet" in result.stderr
    assert "--spec" in result.stderr
    assert not (tmp_path / ".llmpipe").exists()


def test_a_killed_run_is_a_message(tmp_path: Path, command_line: Call) -> None:
    """A run without a record was killed, or goes on still."""
    simple(tmp_path, "echo x > ${outputs.o}")
    assert command_line(tmp_path, "run", "spec.yaml").returncode == 0
    (path,) = tmp_path.glob(".llmpipe/runs/*/run.json")
    path.unlink()
    result = command_line(tmp_path, "report", path.parent.name)
    assert result.returncode == 2
    assert "is still running, or was killed" in result.stderr


def test_the_page_goes_where_it_is_sent(
    failed_run: Path, tmp_path: Path, command_line: Call
) -> None:
    """--output names the file; where it cannot be written, that is a message."""
    (folder,) = (failed_run / ".llmpipe" / "runs").iterdir()
    target = tmp_path / "new" / "page.html"
    result = command_line(failed_run, "report", folder.name, "--output", str(target))
    assert result.stdout == f"{target}\n"
    assert target.read_text("utf-8") == (folder / "report.html").read_text("utf-8")
    result = command_line(failed_run, "report", "--output", str(target / "page.html"))
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    for folder_name in ("", ".", "/"):
        result = command_line(failed_run, "report", "--output", folder_name)
        assert result.returncode == 2
        assert "is a folder" in result.stderr


def test_metrics_of_other_shapes_are_no_comparison() -> None:
    """Only metrics by model are compared: counts, curves and sizes are not."""
    assert by_model({"a": {"loss": 1.0}, "b": {"loss": 2.0}})
    assert by_model({"a": {"recall": 1.0}, "paired": {}})
    for other in (
        {},
        {"in": 3, "kept": {"train": 1}},
        {"q8_0": {"bytes": 3}},
        {"loss": [[1, 2.0]]},
        {"a": {"loss": True}},
    ):
        assert by_model(other) == {}


def test_axes_have_round_numbers() -> None:
    """Values by 1, 2 and 5, moments as clocks have them."""
    assert ticks(2.96, 4.53, 4) == [3.0, 3.5, 4.0, 4.5]
    assert ticks(1, 1, 4) == [1]
    assert moments(717.0, 6) == [0, 120, 240, 360, 480, 600]
    assert [moment_text(s) for s in (0.2, 90, 120, 5400)] == [
        "0.2 s",
        "1:30 min",
        "2 min",
        "1:30 h",
    ]
    assert len(moments(10_000_000.0, 6)) == 6


NAMES = st.sampled_from(
    ["models", "paired", "loss", "eval_loss", "mean", "low", "high", "rows", "rejected", "kept",
     "dropped", "read", "points", "value", "point", "by", "x"]
)  # fmt: skip
METRICS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(NAMES, below, max_size=5),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, METRICS, max_size=6), st.dictionaries(NAMES, METRICS, max_size=6))
def test_whatever_a_stage_measures_there_is_a_page(
    failed_run: Path, tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Metrics of any shape, null and without end among them, leave a page: kinds may be anybody's."""
    (record,) = (failed_run / ".llmpipe" / "runs").glob("*/run.json")
    run = json.loads(record.read_bytes())
    first, second, *_ = run["stages"].values()
    first["metrics"], second["metrics"] = one, other
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(run))
    write_report(Store(failed_run / ".llmpipe"), tmp_path)
    assert (tmp_path / "report.html").read_text("utf-8").endswith("</html>\n")
