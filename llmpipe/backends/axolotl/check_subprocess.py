"""Answer whether the installed Axolotl accepts a configuration; runs as a subprocess with ``-m``.

As ``axolotl train`` does before it loads a model, this registers the configuration's plugins and
validates it with the capabilities of this machine's device. It also finds the keys that Axolotl
would silently drop. Axolotl reads some keys that it does not list, under another name. To recognize
them, each unknown key is compared with a key that does not exist: if Axolotl's result differs, it
reads the key.
"""

from __future__ import annotations

import copy
import logging
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.answering import answer_in_forks
from llmpipe.backends.axolotl.capabilities import capabilities_elsewhere, capabilities_here
from llmpipe.backends.axolotl.check import NOT_LOADED
from llmpipe.backends.axolotl.config import (
    GPU_PLUGINS,
    OWNED,
    BlockProblem,
    DataFile,
    KeyPath,
    Sources,
    compile_config,
)
from llmpipe.backends.axolotl.keys import (
    entry_problems,
    of_an_entry,
    optimizer_problems,
    path_in,
    path_in_entries,
    unknown_keys,
)
from llmpipe.backends.axolotl.modules import search_path
from llmpipe.backends.axolotl.paths import without_path
from llmpipe.backends.axolotl.training import PLUGINS, write_plugins
from llmpipe.backends.device import Device
from llmpipe.canonical import leaves

NO_SUCH_KEY = "llmpipe_no_such_key"
"""A key that Axolotl does not read."""

ESSENTIAL = frozenset(OWNED) | {
    "gradient_accumulation_steps",
    "learning_rate",
    "max_steps",
    "micro_batch_size",
    "num_epochs",
    "plugins",
}
"""The keys without which Axolotl refuses any document."""

SOUND: Mapping[str, Any] = {
    "base_model": "base",
    "datasets": [{"path": "rows.jsonl", "type": "chat_template"}],
    "test_datasets": None,
    "val_set_size": 0,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-4,
    "micro_batch_size": 1,
}
"""Values of essential keys that Axolotl accepts."""

_AGED = re.compile(r"deprecat|superseded|ignor|no longer", re.IGNORECASE)


def main() -> int:
    """Answer questions until they end; see `llmpipe.backends.axolotl.answering`."""
    if not sys.flags.safe_path:
        sys.path.pop(0)  # llmpipe's working folder, which a training does not search
    with tempfile.TemporaryDirectory(prefix="llmpipe-plugins-") as folder:
        write_plugins(Path(folder))
        sys.path.insert(0, str(Path(folder) / PLUGINS))
        _warm_up()
        return answer_in_forks(_answer)


def _warm_up() -> None:
    """Import slow modules once; the forks query the device."""
    import axolotl.cli.config
    import axolotl.integrations.base  # noqa: F401

    data = DataFile("rows.jsonl", {"type": "chat_template"})
    compiled = compile_config(
        {}, Sources("base", data, "out", "prepared"), Device("cpu", "float32")
    )
    _outcome({key: value for key, value in compiled.config.items() if key != "plugins"}, {})


def _answer(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the problems of a configuration."""
    sys.path[1:] = search_path(asked["modules"])  # after llmpipe's plugins, as in a training
    block, owner = asked["block"], f"axolotl {asked['axolotl']}"
    entry = list(entry_problems(asked["dataset"], block, owner))
    told = {problem.message for problem in entry}
    given = capabilities_elsewhere(asked["device"]) if asked["elsewhere"] else None
    if given is None and asked["device"]["count"] > 1:
        given = capabilities_here(asked["document"])
        given.get("capabilities", {})["n_gpu"] = asked["device"]["count"]
    # Repeats the entry's problems, without a key.
    whole = _problems(asked["document"], block, owner, given)
    found = [*(p for p in whole if p.path or p.message not in told), *entry]
    return [asdict(problem) for problem in found]


def _problems(
    document: dict[str, Any],
    block: dict[str, Any],
    owner: str,
    elsewhere: Mapping[str, Any] | None = None,
) -> Iterator[BlockProblem]:
    """Yield the problems of a document; ``elsewhere`` are the capabilities of another machine."""
    if elsewhere is not None:
        document, absent = _without_absent(document)
        yield from (_not_here(plugin) for plugin in absent)
    try:
        _register(document.get("plugins") or [])
    except Exception as error:  # a plugin is foreign code and may fail in any way
        yield BlockProblem(("plugins",), f"{NOT_LOADED}: {_one_line(error)}")
        return
    given = capabilities_here(document) if elsewhere is None else dict(elsewhere)
    with _Aged() as aged:
        refused = list(_refused(document, block, given))
    unchecked = _register_left_out(document, block)
    found = unknown_keys(_config_model(document), block, (), owner)
    unknown = [p for p in found if not str(p.path[-1]).startswith(unchecked)]
    said = {p.path: _read_as(document, block, p.path, given) for p in unknown}
    whole = "datasets" in block
    yield from (of_an_entry(p, whole) for p in unknown if said[p.path] is None)
    yield from (p for path, names in said.items() for p in _renamed(path, names))
    yield from (problem for problem in dict.fromkeys(refused) if problem.path not in said)
    yield from optimizer_problems(document, block)
    for message in dict.fromkeys(aged.messages):
        path = _named_in(block, message)
        if path and path[0] not in {place[0] for place in said}:
            yield BlockProblem(path, message, warning=True)


def _register(plugins: Iterable[str]) -> None:
    """Load plugins as Axolotl does, but raise an error where it would continue without one."""
    from axolotl.integrations.base import PluginManager

    manager = PluginManager.get_instance()
    for plugin in plugins:
        manager.register(plugin)
        if plugin not in manager.plugins:
            raise ImportError(f"no plugin {plugin!r}")


def _without_absent(document: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the document without the plugins of a GPU that are not installed here, and these."""
    plugins, absent = document.get("plugins"), []
    if not isinstance(plugins, list):
        return document, []
    for plugin in plugins:
        if not str(plugin).startswith(tuple(GPU_PLUGINS)):
            continue
        try:
            _register([plugin])
        except Exception:
            absent.append(str(plugin))
    return {**document, "plugins": [kept for kept in plugins if kept not in absent]}, absent


def _not_here(plugin: str) -> BlockProblem:
    message = f"{plugin} is not installed here: its keys are unchecked"
    return BlockProblem(("plugins",), message, warning=True)


def _register_left_out(document: Mapping[str, Any], block: Mapping[str, Any]) -> tuple[str, ...]:
    """Load the plugins that this machine leaves out, for their keys.

    These plugins need not be installed. Return the key prefixes of those that cannot be loaded;
    their keys stay unchecked.
    """
    unchecked = []
    for plugin in block.get("plugins") or []:
        if plugin in (document.get("plugins") or []):
            continue
        try:
            _register([plugin])
        except Exception:
            unchecked += [keys for name, keys in GPU_PLUGINS.items() if plugin.startswith(name)]
    return tuple(unchecked)


def _config_model(document: Mapping[str, Any]) -> Any:
    """Return Axolotl's config class, with the fields of every plugin registered so far."""
    from axolotl.integrations.config import merge_input_args
    from axolotl.utils.schemas.config import AxolotlInputConfig

    return merge_input_args()[1] if document.get("plugins") else AxolotlInputConfig


def _validate(document: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    made = validate_config(DictDefault(copy.deepcopy(dict(document))), **given)
    plain: dict[str, Any] = made.to_dict()
    return plain


def _refused(
    document: Mapping[str, Any], block: Mapping[str, Any], given: Mapping[str, Any]
) -> Iterator[BlockProblem]:
    """Let Axolotl validate the document; yield its errors at their places in the block."""
    from pydantic import ValidationError

    try:
        _validate(document, given)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            message = found["msg"].removeprefix("Value error, ")
            where = path_in(block, found["loc"]) or path_in_entries(block, found)
            yield BlockProblem(where or _named_in(block, message), message)
    except Exception as error:  # Axolotl's validators raise other errors as well
        message = _one_line(error)
        yield BlockProblem(_named_in(block, message), message)


def _outcome(document: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return Axolotl's result for a document: a mapping, or its errors."""
    from pydantic import ValidationError

    try:
        return _validate(document, given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return [(problem["loc"], problem["msg"]) for problem in found]
    except Exception as error:
        return _one_line(error)


def _read_as(
    document: Mapping[str, Any], block: Mapping[str, Any], path: KeyPath, given: Mapping[str, Any]
) -> list[str] | None:
    """Return the names under which Axolotl reads a key that it does not list.

    Return None if it does not read the key, and an empty list if it does but the name is unknown.
    """
    value = _at(block, path)
    top, is_read = str(path[0]), False
    alone = {key: item for key, item in document.items() if key in ESSENTIAL}
    if top not in SOUND:
        alone |= SOUND  # what is wrong elsewhere in the document must not hide that a key is read
    for whole in ({**document, top: block[top]}, alone):
        for probe in (value, _another(value)):
            read = _outcome(_with(whole, path, probe), given)
            unread = _outcome(
                _with(without_path(whole, path), (*path[:-1], NO_SUCH_KEY), probe), given
            )
            if read == unread:
                continue
            is_read = True
            if not isinstance(read, dict) or not isinstance(unread, dict):
                continue  # an error does not show the name
            before = dict(leaves(unread))
            return [
                str(place[-1])
                for place, item in leaves(read)
                if place not in before and (type(item), item) == (type(probe), probe)
            ]
    return [] if is_read else None


def _renamed(path: KeyPath, names: list[str] | None) -> Iterator[BlockProblem]:
    """Yield the warning for a key that Axolotl reads under another name."""
    if names is None or path[-1] in names:
        return
    message = (
        f"Axolotl reads {path[-1]!r} as {' and '.join(names)}"
        if names
        else (f"Axolotl reads {path[-1]!r}, although it does not list it")
    )
    yield BlockProblem(path, message, f"write {names[0]}" if names else None, warning=True)


class _Aged(logging.Handler):
    """Collects Axolotl's log messages about outdated keys during validation."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        if _AGED.search(message):
            self.messages.append(message)

    def __enter__(self) -> _Aged:
        logging.getLogger("axolotl").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("axolotl").removeHandler(self)


def _named_in(block: Mapping[str, Any], message: str) -> KeyPath:
    """Return the path of the first key of the block that a general message mentions."""
    words = re.findall(r"\w+", message)
    return next(((word,) for word in words if word in block), ())


def _at(value: Any, path: KeyPath) -> Any:
    for step in path:
        value = value[step]
    return value


def _with(value: Any, path: KeyPath, leaf: Any) -> Any:
    """Return a copy with another value at a path; missing mappings are created."""
    if not path:
        return leaf
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [_with(item, rest, leaf) if i == step else item for i, item in enumerate(value)]
    below = value if isinstance(value, dict) else {}
    return {**below, step: _with(below.get(step), rest, leaf)}


def _another(value: Any) -> Any:
    """Return a different value of the same type, in case the given value equals the default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}-" if isinstance(value, str) else value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
