"""Publish files in a model repository of the Hugging Face hub, in one commit.

The hub stores large files first and shows nothing of them until the commit names them. So a
publish that stops at any moment has changed nothing that readers see, and the next one sends only
what the hub does not have yet. Files are compared by their digests before the commit and after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.publish_errors import TOKEN_HINT, explained
from llmpipe.errors import HubError, MissingDependencyError, StoreError

CARD = "README.md"
"""The file that the hub shows as the model card."""
HOUSEKEEPING = frozenset({".gitattributes"})
"""Files that the hub itself puts into a repository."""
BRANCH = "main"
NAMED = 3
"""The number of files that a message names."""
_UNCHANGED = "nothing was published"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file to publish.

    Attributes:
        path: Its name in the repository.
        source: Where it is, or its content.
        sha256: The digest that it must have, here and on the hub.
        size: Its size in bytes.
    """

    path: str
    source: Path | bytes
    sha256: str
    size: int

    def blob_id(self) -> str:
        """Return git's id of the content, by which the hub knows files that are not large."""
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        header = f"blob {len(data)}\0".encode()
        return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that the hub has: ``sha256`` of a large one, ``blob_id`` of any other."""

    size: int
    blob_id: str
    sha256: str | None = None

    def equals(self, file: HubFile) -> bool:
        """Return whether it has the content of a file here."""
        if self.size != file.size:
            return False
        return self.sha256 == file.sha256 if self.sha256 else self.blob_id == file.blob_id()


@dataclass(frozen=True, slots=True)
class State:
    """What a repository contains at a commit."""

    commit: str
    private: bool
    files: Mapping[str, RemoteFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Files whose bytes were compared with their digests and with what the hub has.

    Attributes:
        files: All files that the repository shall contain.
        new: The names of those that the hub does not have.
        additions: What the client needs to send these.
    """

    files: Sequence[HubFile]
    new: Sequence[str]
    additions: Sequence[Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a publish has changed: the commit, and the files by what happened to them."""

    commit: str
    uploaded: Sequence[str]
    unchanged: Sequence[str]
    removed: Sequence[str]


class Repository:
    """A model repository of the hub that ``HF_ENDPOINT`` names, as the holder of ``HF_TOKEN`` sees
    it.

    Raises:
        MissingDependencyError: ``huggingface_hub`` is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise MissingDependencyError(
                "the hub needs the package huggingface_hub", hint="pip install 'llmpipe[train]'"
            ) from None
        self.name = name
        self._hub = huggingface_hub
        self._api = huggingface_hub.HfApi()
        self.url = f"{self._api.endpoint}/{name}"

    def require_writer(self) -> None:
        """Require a token that may write, before anything is sent.

        Raises:
            HubError: There is no token, the hub does not know it, or it may only read.
        """
        hint = TOKEN_HINT.format(endpoint=self._api.endpoint)
        if self._hub.get_token() is None:
            raise HubError("there is no token for the hub", hint=hint)
        with self._asking(_UNCHANGED):
            account = self._api.whoami()
        role = account.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise HubError(
                f"the token of {account.get('name')} may only read; nothing was published",
                hint=hint,
            )

    def state(self, outcome: str = _UNCHANGED) -> State | None:
        """Return what the repository contains, or None if the token sees no such repository.

        Args:
            outcome: What is published if the hub does not say.

        Raises:
            HubError: The hub cannot be reached, or refuses.
        """
        with self._asking(outcome):
            try:
                info = self._api.model_info(self.name, revision=BRANCH)
            except self._hub.errors.RepositoryNotFoundError:
                return None
            return State(info.sha, bool(info.private), self._files(info.sha))

    def card(self, state: State) -> str | None:
        """Return the model card at a commit, or None if there is none.

        Raises:
            HubError: It cannot be read.
        """
        if CARD not in state.files:
            return None
        with self._asking(_UNCHANGED), tempfile.TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(
                self.name, CARD, revision=state.commit, local_dir=folder
            )
            return Path(path).read_bytes().decode("utf-8", "replace")

    def create(self, *, private: bool) -> State:
        """Create the repository.

        Raises:
            HubError: The name is taken, or the token may not create it.
        """
        with self._asking(_UNCHANGED):
            self._api.create_repo(self.name, private=private)
        state = self.state(f"{self.url} exists and is empty: {_UNCHANGED}")
        if state is None:
            raise HubError(f"{self.url} was created, and is not there", hint="run again")
        return state

    def prepare(self, files: Sequence[HubFile], state: State | None) -> Prepared:
        """Read the files that the repository does not have; nothing is sent.

        Args:
            files: The files that it shall contain.
            state: What it contains; None if there is no repository yet.

        Raises:
            StoreError: A file here cannot be read, or is not what its digest says.
        """
        there = state.files if state else {}
        with self._asking(_UNCHANGED):
            new = [f for f in files if f.path not in there or not there[f.path].equals(f)]
            return Prepared(files, [f.path for f in new], [*map(self._addition, new)])

    def push(
        self, ready: Prepared, state: State, message: str, *, remove: Sequence[str] = ()
    ) -> Pushed:
        """Bring the repository from a state to these files by one commit, and check the result.

        Args:
            ready: The files that it shall contain, as `prepare` returns them.
            state: What it contains.
            message: The message of the commit.
            remove: Files to remove.

        Raises:
            StoreError: A file here can no longer be read.
            HubError: The hub refuses, cannot be reached, or has other bytes afterwards.
        """
        files = ready.files
        unchanged = [file.path for file in files if file.path not in ready.new]
        if not ready.new and not remove:
            return Pushed(state.commit, [], unchanged, [])
        operations = [
            *ready.additions,
            *(self._hub.CommitOperationDelete(path, is_folder=False) for path in remove),
        ]
        commit = self._commit(operations, state, message, files)
        with self._asking(f"the commit {commit} was published and could not be checked"):
            found = self._files(commit)
        wrong = _wrong(files, found)
        if wrong:
            raise HubError(
                f"{self.url}/tree/{commit} was published, but {wrong}",
                hint="is there a .gitignore in the repository? Correct it, then publish again",
            )
        return Pushed(commit, ready.new, unchanged, list(remove))

    def _addition(self, file: HubFile) -> Any:
        source = file.source if isinstance(file.source, bytes) else str(file.source)
        if isinstance(file.source, Path):
            file.source.open("rb").close()  # the client would not say why it cannot be read
        operation = self._hub.CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=source)
        if operation.upload_info.sha256.hex() != file.sha256:
            raise StoreError(
                f"{file.path} is damaged here: its bytes have changed since it was stored",
                hint="remove it with: llmpipe cache verify SPEC",
            )
        return operation

    def _commit(
        self, operations: list[Any], state: State, message: str, files: Sequence[HubFile]
    ) -> str:
        """Send the files and commit them; return the commit."""
        try:
            with _quiet(self._hub), self._asking(""):
                done = self._api.create_commit(
                    self.name,
                    operations,
                    commit_message=message,
                    revision=BRANCH,
                    parent_commit=state.commit,
                )
                return str(done.oid)
        except (HubError, StoreError) as error:
            try:
                now = self.state()
            except HubError:
                raise HubError(
                    f"{error.message}; it is unknown whether the commit was made",
                    hint=f"{error.hint}\npublish again: that finds out, and does what is left",
                ) from None
            if now and now.commit != state.commit and not _wrong(files, now.files):
                return now.commit  # only the answer was lost
            what = self._unpublished(now, state)
            raise type(error)(f"{error.message}; {what}", hint=error.hint) from None

    def _unpublished(self, now: State | None, before: State) -> str:
        """Describe what readers see after a commit that failed."""
        if now is None or now.commit != before.commit:
            return f"{self.url} was changed by someone else, and nothing of this was published"
        if before.files.keys() <= HOUSEKEEPING:
            return f"{self.url} exists and is empty: nothing was published"
        return f"{self.url} is as it was before: nothing of this was published"

    def _files(self, commit: str) -> dict[str, RemoteFile]:
        tree = self._api.list_repo_tree(self.name, recursive=True, revision=commit)
        return {
            entry.path: RemoteFile(
                entry.lfs.size if entry.lfs else entry.size,
                entry.blob_id,
                entry.lfs.sha256 if entry.lfs else None,
            )
            for entry in tree
            if isinstance(entry, self._hub.hf_api.RepoFile)
        }

    @contextlib.contextmanager
    def _asking(self, outcome: str) -> Iterator[None]:
        """Turn whatever a request or the reading of a file raises into one clear error.

        Args:
            outcome: What is published if a request fails.
        """
        try:
            yield
        except (HubError, StoreError):
            raise
        except Exception as error:  # the client's errors have no common base class
            token = self._hub.get_token()
            raise explained(error, outcome, self._api.endpoint, self.name, token) from None


def _wrong(files: Sequence[HubFile], found: Mapping[str, RemoteFile]) -> str | None:
    """Return which files the hub does not have as they are here, or None."""
    missing = [file.path for file in files if file.path not in found]
    unlike = [f.path for f in files if f.path in found and not found[f.path].equals(f)]
    told = [(missing, "is missing", "are missing"), (unlike, "differs", "differ")]
    parts = [
        f"{_listed(names)} {one if len(names) == 1 else many}" for names, one, many in told if names
    ]
    return ", ".join(parts) or None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


@contextlib.contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Hide the client's progress bars where nobody watches."""
    import sys

    if sys.stderr.isatty() or hub.utils.are_progress_bars_disabled():
        yield
        return
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        hub.utils.enable_progress_bars()
