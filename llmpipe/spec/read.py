"""Read a spec from its path to a `Spec`: load, overlay, fill, validate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llmpipe.errors import SpecError, UsageError
from llmpipe.spec.extends import load_extended
from llmpipe.spec.interpolate import interpolate
from llmpipe.spec.merge import apply_profiles, apply_settings
from llmpipe.spec.model import Spec
from llmpipe.spec.validate import validate


def read_spec(
    path: Path | str,
    *,
    profiles: Sequence[str] = (),
    settings: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    memo: Path | None = None,
    text: str | None = None,
) -> Spec:
    """Read, fill and validate a spec.

    Args:
        path: The YAML file.
        profiles: Profiles to lay over it, in order.
        settings: ``path=value`` texts, laid over the profiles.
        environment: The variables for ``${env:NAME}``; by default, those of the process.
        memo: A folder that remembers valid documents.
        text: The content of a file that is not written yet.

    Raises:
        SpecError: Something is wrong with the spec. The error carries every problem.
        UsageError: A profile or setting names what the spec does not have.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, not a spec", hint=f"did you mean {path / 'spec.yaml'}?"
        )
    root, files = load_extended(path, text)
    root = apply_settings(apply_profiles(root, profiles), settings)
    root, problems = interpolate(root, environment)
    stages, more = validate(root, memo)
    problems = [*problems, *more]
    if problems:
        raise SpecError(problems)
    document = {
        key: value for key, value in root.plain().items() if key not in ("profiles", "extends")
    }
    return Spec(
        path=path.absolute(),
        name=document["name"],
        profiles=tuple(profiles),
        params=document.get("params", {}),
        stages=stages,
        document=document,
        root=root,
        files=files,
    )
