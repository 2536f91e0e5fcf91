"""The store: immutable objects by content, and key records that are replaced atomically.

    .llmpipe/
      format                 the version of the layout
      lock                   shared by all users of the store; exclusive for cleaning up
      store/objects/<id>/    one artifact each; <id> is the digest of its manifest
      store/keys/<key>.json  what a stage with this cache key made
      store/leases/          one file per key that a worker holds: who, on which machine
      store/locks/<host>/    a machine's own locks, one per key: held by worker and children
      store/tmp/<host>/      half-written files; worthless once their writer has ended
      statcache-<host>.sqlite  the digests of files, with the inodes of one machine
      work/<key>/            what a stage needs for resuming after a crash (checkpoints)
      journal/               replies of paid services
      projects/              the places of the lock files of the specs that use the store
      latest/                the ingredients of each stage's last run, to explain the next, by
                             spec and choice of profiles
      runs/<id>/             run.json, events.jsonl, a log per stage

An object is written and synced, then enters by one rename; a key record follows its objects. After
a crash at any moment, the store holds the old artifact, the new one, or none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.canonical import digest
from llmpipe.errors import StoreError, UsageError, is_text
from llmpipe.paths import expanded
from llmpipe.runner.disk import atomic_write, sync_folder, writing
from llmpipe.runner.occupancy import alone, shared
from llmpipe.runner.process import host
from llmpipe.runner.records import (
    Entry,
    KeyInputs,
    KeyRecord,
    StoredOutput,
    decode_record,
    describes,
    encode_record,
    is_manifest_of,
    stored_output,
)
from llmpipe.runner.statcache import folder_files, hash_file
from llmpipe.runner.trees import discard, entries

FORMAT = 1


_MANIFEST = msgspec.json.Decoder(list[Entry])


def home_for(spec_path: Path) -> Path:
    """Return the folder of a spec's store: ``LLMPIPE_HOME``, or ``.llmpipe`` next to the spec.

    Raises:
        UsageError: ``LLMPIPE_HOME`` names the home of an unknown user, or a path is not UTF-8
            text.
    """
    chosen = os.environ.get("LLMPIPE_HOME")
    spec_path = spec_path.absolute()
    home = expanded(chosen) if chosen else spec_path.parent / ".llmpipe"
    if str(home).startswith("~"):
        raise UsageError(f"LLMPIPE_HOME={chosen}: there is no such user")
    for path in (spec_path, home.absolute()):
        if not is_text(str(path)):  # records name their specs by path
            raise UsageError(
                f"{path}: the path is not UTF-8 text", hint="rename the part that is not"
            )
    return home.absolute()


class Store:
    """The folder that holds everything of a project.

    Raises:
        StoreError: It was written by a newer llmpipe, or cannot be created.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.objects = home / "store" / "objects"
        self.keys = home / "store" / "keys"
        self.leases = home / "store" / "leases"
        self.locks = home / "store" / "locks" / host()
        self.tmp = home / "store" / "tmp" / host()
        self.work = home / "work"
        self.journal = home / "journal"
        self.latest = home / "latest"
        self.projects = home / "projects"
        self.runs = home / "runs"
        self.memo = home / "memo"
        self.statcache = home / f"statcache-{host()}.sqlite"
        self._check_format()

    def _check_format(self) -> None:
        marker = self.home / "format"
        try:
            found = int(marker.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return  # not yet created
        except OSError as error:
            raise StoreError(f"{marker} cannot be read: {error.strerror}") from None
        except ValueError:
            raise StoreError(
                f"{marker} is damaged: it does not hold the number of a format",
                hint=f"write {FORMAT} into it, where no newer llmpipe has used {self.home}",
            ) from None
        if found > FORMAT:
            raise StoreError(
                f"{self.home} was written in format {found}; this llmpipe knows format {FORMAT}",
                hint="use the newer llmpipe, or another folder through LLMPIPE_HOME",
            )

    def create(self) -> None:
        """Create the folders of a store that is about to be written to."""
        with writing(self.home):
            for folder in (
                *(self.objects, self.keys, self.leases, self.locks, self.tmp),
                *(self.journal, self.runs),
            ):
                folder.mkdir(parents=True, exist_ok=True)
            marker = self.home / "format"
            if not marker.exists():
                atomic_write(marker, f"{FORMAT}\n")
            ignore = self.home / ".gitignore"
            if not ignore.exists():
                atomic_write(ignore, "*\n")

    def in_use(self) -> AbstractContextManager[None]:
        """Hold the store's shared lock; see `llmpipe.runner.occupancy.shared`."""
        return shared(self.home, self._heal)

    def alone(self, purpose: str) -> AbstractContextManager[None]:
        """Hold the store exclusively; see `llmpipe.runner.occupancy.alone`."""
        return alone(self.home, purpose)

    def _heal(self) -> None:
        """Remove half-written files; no other process of this machine uses the store."""
        for entry in (*self.tmp.iterdir(), *self.leases.glob(f".*.{host()}.*")):
            discard(entry)

    def record(self, key: str) -> KeyRecord | None:
        """Return the record of a key, or None if there is none or it is damaged."""
        try:
            return decode_record(_read(self._record_file(key)), key)
        except (OSError, ValueError):
            return None

    def record_damage(self, key: str) -> str | None:
        """Return what is wrong with the record of a key, or None if it is valid or missing."""
        try:
            decode_record(_read(self._record_file(key)), key)
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        except ValueError as error:
            return str(error)
        return None

    def discard_record(self, key: str) -> None:
        """Remove a damaged record from the store; its stage then counts as not made."""
        with writing(self.home):
            Path(self._record_file(key)).unlink()

    def _record_file(self, key: str) -> str:
        return f"{self.keys}/{key}.json"

    def output_path(self, output: StoredOutput) -> Path:
        """Return the path of an output."""
        return self.objects / output.object / "data" / output.path

    def missing(self, record: KeyRecord, outputs: Collection[str] = ()) -> list[str]:
        """Return the outputs that the store lacks, which keep a record from being fresh.

        Args:
            record: What a stage made.
            outputs: What the stage would make now; it may never have made some of it.
        """
        lost = [name for name, output in record.outputs.items() if not self.holds(output)]
        return lost + sorted(set(outputs) - record.outputs.keys())

    def holds(self, output: StoredOutput) -> bool:
        """Return whether an artifact exists with all the files that its record lists."""
        files = self._files(output.object)
        return files is not None and describes(output, files)

    def put(self, source: Path, type_: str) -> StoredOutput:
        """Move a finished file or folder into the store; return its record."""
        single = source.is_file()
        found = [(source.name, source)] if single else folder_files(source)
        files = [Entry(name, hash_file(path), path.stat().st_size) for name, path in found]
        output = stored_output(type_, files, source.name if single else "")
        if not self.lacks(output.object):
            return output
        with writing(self.home):
            staging = self.tmp / f"{output.object}-{os.getpid()}"
            discard(staging)
            staging.mkdir()
            data = staging / "data"
            if single:
                data.mkdir()
                source.rename(data / source.name)
            else:
                source.rename(data)
            manifest = json.dumps(msgspec.to_builtins(files), indent=1) + "\n"
            atomic_write(staging / "manifest.json", manifest)
        self.adopt(staging, output.object)
        return output

    def lacks(self, object_id: str) -> bool:
        """Return whether an object is missing or incomplete."""
        files = self._files(object_id)
        return files is None or not is_manifest_of(files, object_id)

    def _files(self, object_id: str) -> list[Entry] | None:
        """Return the manifest of an object if all its files exist with the right size."""
        target = f"{self.objects}/{object_id}"
        try:
            files = _manifest(target)
            for entry in files:
                if os.stat(f"{target}/data/{entry.path}").st_size != entry.size:  # noqa: PTH116 (speed)
                    return None
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            return None
        return files

    def adopt(self, staging: Path, object_id: str) -> None:
        """Sync a finished folder and add it as an object by one rename.

        Raises:
            StoreError: It could not be added.
        """
        target = self.objects / object_id
        with writing(self.home):
            if target.exists() and self.lacks(object_id):  # files were removed from it
                target.rename(self.tmp / f"{object_id}-{os.getpid()}-damaged")
            _sync_and_protect(staging / "data")
            with contextlib.suppress(OSError):  # another process added the same object
                staging.rename(target)
            discard(staging)
            sync_folder(self.objects)
        if self.lacks(object_id):
            raise StoreError(f"the object {object_id} could not be put into {self.objects}")

    def manifest(self, object_id: str) -> list[Entry]:
        """Return the files of an object.

        Raises:
            OSError: The manifest cannot be read.
            msgspec.MsgspecError: It is not a manifest.
        """
        return _manifest(f"{self.objects}/{object_id}")

    def rotten(self, object_id: str) -> str | None:
        """Read an object again, byte by byte; return what is wrong with it, or None.

        Raises:
            StoreError: It cannot be read, so its state is unknown.
        """
        data = self.objects / object_id / "data"
        try:
            files = self.manifest(object_id)
            if not is_manifest_of(files, object_id):
                return "its manifest has changed"
            for entry in files:
                if hash_file(data / entry.path) != entry.sha256:
                    return f"{entry.path} has changed since it was stored"
            strange = {name for name, _ in folder_files(data)} - {entry.path for entry in files}
            if strange:
                return f"{min(strange)} does not belong to it"
        except PermissionError as error:
            hint = f"make it readable: chmod -R u+rX {self.objects / object_id}"
            raise StoreError(f"{error.filename} cannot be read", hint=hint) from None
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (OSError, msgspec.MsgspecError) as error:
            return f"cannot be read: {error}"
        return None

    def discard(self, object_id: str) -> None:
        """Remove a damaged object from the store; its outputs then count as missing."""
        with writing(self.home):
            (self.objects / object_id).rename(self.tmp / f"{object_id}-{os.getpid()}-rotten")

    def save(self, record: KeyRecord) -> None:
        """Write a key record, which completes its stage."""
        with writing(self.home):
            atomic_write(self.keys / f"{record.key}.json", encode_record(record))

    def latest_folder(self, spec_path: Path, section: str) -> Path:
        """Return the folder for the last runs of a spec's stages under some profiles."""
        return self.latest / _latest_name(spec_path, section)

    def _latest_file(self, spec_path: Path, section: str, stage: str) -> str:
        return f"{self.latest}/{_latest_name(spec_path, section)}/{file_name(stage)}.json"

    def last_ingredients(self, spec_path: Path, section: str, stage: str) -> dict[str, Any] | None:
        """Return the ingredients of a stage's last run, to explain why the next one differs.

        Args:
            spec_path: The spec.
            section: The choice of profiles, as the lock file names it.
            stage: The stage's id.
        """
        try:
            raw = _read(self._latest_file(spec_path, section, stage))
            found: dict[str, Any] = msgspec.json.decode(raw)
            msgspec.convert(found, KeyInputs)  # only checked: a later version may add to it
        except (OSError, ValueError, RecursionError):  # those of msgspec are ValueErrors
            return None
        return found

    def remember_latest(
        self, spec_path: Path, section: str, stage: str, key_inputs: Mapping[str, Any]
    ) -> None:
        """Store the ingredients of a stage's last run."""
        if self.last_ingredients(spec_path, section, stage) == key_inputs:
            return
        path = Path(self._latest_file(spec_path, section, stage))
        with writing(self.home):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(key_inputs, sort_keys=True) + "\n", durable=False)

    def forget_latest(self, spec_path: Path, section: str, stages: Collection[str]) -> None:
        """Forget the last runs of all but these stages, so that their artifacts can be freed."""
        kept = {f"{file_name(stage)}.json" for stage in stages}
        with writing(self.home):
            for path in self.latest_folder(spec_path, section).glob("*.json"):
                if path.name not in kept:
                    path.unlink(missing_ok=True)


def file_name(stage: str) -> str:
    """Return a stage's id as a file name; ids of derived stages and sweeps hold any character."""
    safe = re.sub(r"[^\w.@=,+-]", "-", stage)[:100]
    return safe if safe == stage else f"{safe}-{digest(stage)[:8]}"


def _manifest(target: str) -> list[Entry]:
    return _MANIFEST.decode(_read(f"{target}/manifest.json"))


def _read(path: str) -> bytes:
    """Read a small file. Speed matters: a run without work reads three for every stage."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 (speed)
        return stream.read()


@cache
def _latest_name(spec_path: Path, section: str) -> str:
    return f"{spec_path.stem}-{digest([str(spec_path), section])[:12]}"


def _sync_and_protect(data: Path) -> None:
    """Sync every file of an object, and remove write permission."""
    sync_folder(data)
    for entry in entries(data):
        if entry.is_dir(follow_symlinks=False):
            sync_folder(Path(entry.path))
        elif not entry.is_symlink():
            descriptor = os.open(entry.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.fchmod(descriptor, os.fstat(descriptor).st_mode & ~0o222)
            finally:
                os.close(descriptor)
