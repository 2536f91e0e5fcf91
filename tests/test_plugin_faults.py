"""Stage kinds of other packages that do not follow the contract: whose fault it is, and where."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from offered import CLASS, WHO, llmpipe, offer, refused

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("point", "code", "why"),
    [
        ("odd:Odd", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("odd:Odd", "1 / 0", "ZeroDivisionError: division by zero"),
        ("odd:Odd", "def (", "SyntaxError: "),
        ("odd:Odd", "raise SystemExit(3)", "SystemExit: 3"),
        ("odd:Odd", "x = 1", "AttributeError: module 'odd' has no attribute 'Odd'"),
        ("nowhere.odd:Odd", "", "ModuleNotFoundError: No module named 'nowhere'"),
        ("odd:Odd", "Odd = 3", "it is not a class"),
        ("odd:Odd", "class Odd: pass", "its Config is not a subclass of llmpipe.contracts.StageConfig"),
        ("odd:Odd", "class Odd: pass", "its VERSION is not a whole number"),
        ("odd:Odd", "class Odd: pass", "it does not inherit from llmpipe.contracts.StageDefaults"),
        ("odd:Odd", CLASS.replace('"exact"', '"always"'), "its determinism is not one of exact, same-machine"),
        ("odd:Odd", CLASS.replace("def run", "def walk"), "it has no run"),
        ("odd:Odd", CLASS.replace("VERSION = 1", "VERSION = True"), "its VERSION is not a whole number"),
        ("odd:Odd", CLASS.replace("frozen=True", "frozen=True, forbid_unknown_fields=False"),
         "its Config takes unknown fields"),
        ("odd:Odd", CLASS.replace("VERSION = 1", "VERSION = 1; imports = 'torch'"),
         "its imports are not a tuple of names"),
    ],
)  # fmt: skip
def test_a_broken_kind_is_named_with_its_package(
    tmp_path: Path, point: str, code: str, why: str
) -> None:
    """What is wrong, whose it is and where to look: never a traceback."""
    message = refused(tmp_path, offer(tmp_path, f"odd = {point}", code))
    assert message.startswith(WHO), message
    assert why in message
    assert f"it is the entry point {point} in the group llmpipe.stages; ask its authors" in message


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("def ports(config): return 1 / 0", "ports raised ZeroDivisionError: division by zero"),
        ("def ports(config): return {}", "ports returned {}, not Ports"),
        ("def ports(config): return Ports({}, {'o': 'metrics'})", "ports: the output 'o' is 'metrics', not an Output"),
        ("def ports(config): return Ports({}, {'o': Output('metric')})", "ports: the output 'o' is of type 'metric', not records, dataset"),
        ("def ports(config): return Ports({}, {'o': Output('gguf', origin='m')})", "the output 'o' comes from 'm', which is not an input"),
        ("def ports(config): return Ports({'i': Input(('i',), './x', ('rows',))}, {})", "the input 'i' accepts 'rows', not one of records"),
        ("def ports(config): return Ports({}, {'o': Output('file')}, 'p')", "the default output 'p' is not one of o"),
        ("def ports(config): return 1 / 0", "odd.py:10)"),
        ("def ports(config): return Ports({'i': Input(('dat',), './x', ('file',))}, {})", "ports: the input 'i' is at the path ('dat',), but Config has no field 'dat'"),
        ("def problems(config): return [(('dat',), 'wrong')]", "problems: the problem 'wrong' is at the path ('dat',), but Config has no field 'dat'"),
        ("def problems(config): return 1 / 0", "odd.py:12)"),
        ("def problems(config): return ['wrong']", "problems returned something else than a list of (path, message)"),
        ("def fingerprint(config): return {'a': {1, 2}}", "fingerprint returned what is not JSON"),
        ("def tools(config): return 'torch'", "tools returned 'torch', not a list of str"),
        ("def needs(config, inputs): raise KeyError('x')", "needs raised KeyError: 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_blamed_on_the_package(tmp_path: Path, answer: str, why: str) -> None:
    """The spec is sound: whose fault it is stands in the message, and no traceback."""
    code = CLASS.replace("import Ports,", "import Input, Output, Ports,")
    added = "    @staticmethod\n    def run"
    if answer.startswith("def ports"):
        code = code.replace("def ports(config): return Ports({}, {})", answer)
    else:
        code = code.replace(added, f"    @staticmethod\n    {answer}\n{added}")
    message = refused(tmp_path, offer(tmp_path, "odd = odd:Odd", code))
    assert message.startswith(WHO), message
    assert why in message


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("None", "run returned None, not a StageResult"),
        ("StageResult({'p': ctx.out})", "lacks the output 'o', which ports declares"),
        ("StageResult({'o': ctx.out}, {'loss': {'a': {1}}})", "the metric 'loss.a' is {1}, a set: not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_result_is_the_fault_of_its_kind(tmp_path: Path, answer: str, why: str) -> None:
    """The output or metric is named, and where the kind's ``run`` is."""
    code = CLASS.replace("import Ports,", "import Output, Ports,")
    code = code.replace("Ports({}, {})", "Ports({}, {'o': Output('file')})")
    packages = offer(tmp_path, "odd = odd:Odd", code.replace("StageResult({})", answer))
    (tmp_path / "spec.yaml").write_text("version: 1\nname: x\nstages:\n  a: {kind: odd}\n")
    told = llmpipe(tmp_path, packages, "run", "spec.yaml")
    assert told.returncode == 1
    assert why in told.stderr
    assert f"correct run of the kind odd: {packages / 'odd.py'}:11" in told.stderr


def test_a_metric_that_is_not_a_number_is_told(tmp_path: Path) -> None:
    """The artifacts of a long stage are kept; the metric is null."""
    code = CLASS.replace("StageResult({})", "StageResult({}, {'loss': float('nan')})")
    packages = offer(tmp_path, "odd = odd:Odd", code)
    (tmp_path / "spec.yaml").write_text("version: 1\nname: x\nstages:\n  a: {kind: odd}\n")
    told = llmpipe(tmp_path, packages, "run", "spec.yaml", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["stages"]["a"]["metrics"] == {"loss": None}
    assert "the metric 'loss' is nan, which JSON cannot hold: null is stored" in told.stderr


@pytest.mark.parametrize(
    ("ability", "why"),
    [
        ("Servable", "its Config is not a subclass of llmpipe.contracts.ServedConfig"),
        ("Servable", "it declares Servable and has no serve"),
        ("Answers", "it declares Answers and has no answerer"),
        ("Compilable", "it declares Compilable and has no compile_to"),
        ("Showable", "it declares Showable and has no show_rows"),
        ("Estimates", "it declares Estimates and has no estimate"),
    ],
)
def test_an_ability_is_what_a_kind_must_have(tmp_path: Path, ability: str, why: str) -> None:
    """What is declared and not there is told when the kind is used, not when it is served."""
    code = CLASS.replace("import Ports,", f"import {ability}, Ports,")
    code = code.replace("Odd(StageDefaults)", f"Odd(StageDefaults, {ability})")
    assert why in refused(tmp_path, offer(tmp_path, "odd = odd:Odd", code))


SERVED = """
from llmpipe.contracts import Input, Output, Ports, Servable, ServedConfig, StageDefaults, StageResult
from contextlib import contextmanager
from http.server import HTTPServer, BaseHTTPRequestHandler
class Config(ServedConfig, frozen=True, kw_only=True):
    data: str
class Odd(StageDefaults, Servable):
    Config = Config
    VERSION = 1
    determinism = "exact"
    @staticmethod
    def ports(config):
        return Ports({"data": Input(("data",), config.data, ("file",))}, {"o": Output("file")}, "o")
    @staticmethod
    def run(ctx):
        (ctx.out / "o").write_text("o")
        return StageResult({"o": ctx.out / "o"})
    @staticmethod
    @contextmanager
    def serve(ctx):
        ctx.output("o")
        HTTPServer((ctx.host, ctx.port), BaseHTTPRequestHandler)
        1 / 0
        yield
"""


def test_serving_that_fails_names_stage_package_and_place(tmp_path: Path) -> None:
    """One command makes what is missing; a taken port and a bug in ``serve`` are told apart."""
    packages = offer(tmp_path, "odd = odd:Odd", SERVED)
    (tmp_path / "spec.yaml").write_text(
        "version: 1\nname: x\nstages:\n"
        "  first: {kind: command, run: 'echo > ${outputs.o}', outputs: {o: o.txt}}\n"
        "  a: {kind: odd, data: first}\n"
    )
    early = llmpipe(tmp_path, packages, "serve", "spec.yaml")
    assert early.returncode == 1
    assert "make it first: llmpipe run spec.yaml --only a\n" in early.stderr
    assert llmpipe(tmp_path, packages, "run", "spec.yaml", "--only", "a").returncode == 0
    told = llmpipe(tmp_path, packages, "serve", "spec.yaml", "--port", "0")
    assert told.returncode == 2
    whose = "a: serve of the stage kind 'odd' of the package odd-kinds 1.2 raised "
    assert told.stderr.startswith(
        f"{whose}ZeroDivisionError: division by zero ({packages}/odd.py:2"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = llmpipe(tmp_path, packages, "serve", "spec.yaml", "--port", port)
    assert told.returncode == 1
    assert told.stderr.startswith(f"a: cannot listen on 127.0.0.1:{port}: the port is in use or")
