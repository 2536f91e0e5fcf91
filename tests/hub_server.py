"""A hub of one's own, on a free port: what ``huggingface_hub`` asks when it uploads to a model
repository, answered as the real one does.

Accounts with tokens, repositories that only their owners see, commits as NDJSON with a parent,
large files by LFS (whole or in parts, each part with an ETag), checks of the card's metadata. Large
files are kept by content, so that nothing is sent twice, and only if their bytes have the digest.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

PART = 1 << 20
"""Bytes of a part of a large file."""
LARGE = re.compile(r".*\.(safetensors|gguf|bin)")
ATTRIBUTES = b"*.safetensors filter=lfs\n*.gguf filter=lfs\n"

Refusal = tuple[int, str]


@dataclass
class Account:
    """Who has a token, and where it may write."""

    name: str
    role: str = "write"
    writes: tuple[str, ...] = ()


@dataclass
class Repo:
    """A repository: its commits with all their files; a large file is a digest."""

    private: bool
    commits: list[tuple[str, dict[str, bytes | str]]] = field(default_factory=list)

    def commit(self, files: Mapping[str, bytes | str]) -> str:
        """Add a commit; return its id."""
        told = json.dumps([len(self.commits), sorted(map(str, files.items()))]).encode()
        oid = hashlib.sha1(told).hexdigest()
        self.commits.append((oid, dict(files)))
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes | str]] | None:
        """Return a commit by its id, or the last one of ``main``."""
        if revision == "main":
            return self.commits[-1]
        return next((found for found in self.commits if found[0] == revision), None)


class HubServer(http.server.ThreadingHTTPServer):
    """The state of the hub. ``asked`` lists the requests, ``before`` may refuse one or wait."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.accounts = {"hf_writer": Account("ana", writes=("ana", "acme"))}
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.asked: list[str] = []
        self.before: Callable[[str], Refusal | None] = lambda request: None
        self.after: Callable[[str], None] = lambda request: None
        self.lose: str | None = None
        """The end of the path whose next answer is lost: the connection is cut instead."""

    def add(self, repo: str, files: Mapping[str, bytes], *, private: bool = False) -> str:
        """Put a commit with files into a repository, a new one if needed; return its id."""
        kept = {
            p: hashlib.sha256(d).hexdigest() if LARGE.fullmatch(p) else d for p, d in files.items()
        }
        self.large |= {name: files[path] for path, name in kept.items() if isinstance(name, str)}
        found = self.repos.setdefault(repo, Repo(private))
        return found.commit({".gitattributes": ATTRIBUTES, **kept})

    def files(self, repo: str) -> dict[str, bytes]:
        """Return what readers of a repository see."""
        _, files = self.repos[repo].commits[-1]
        return {p: self.large[f] if isinstance(f, str) else f for p, f in files.items()}

    def sent(self) -> list[str]:
        """Return the requests that sent a large file, or a part of one."""
        return [request for request in self.asked if request.startswith("PUT ")]


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """Run a hub until the block ends."""
    server = HubServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class RefusedError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keep the test's output quiet."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.sent_body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {unquote(url.path)}"
        self.server.asked.append(f"{request}?{url.query}" if url.query else request)
        try:
            if refusal := self.server.before(request):
                raise RefusedError(*refusal)
            for method, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, unquote(url.path))
                if match and self.command in method:
                    answer(self, **match.groupdict())
                    self.server.after(request)
                    return
            raise RefusedError(404, f"no route for {request}")
        except RefusedError as refused:
            self._send(
                refused.status,
                json.dumps({"error": refused.message}).encode(),
                {"X-Error-Message": refused.message, "X-Error-Code": refused.code},
            )

    def _send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, data: Any) -> None:
        lose = self.server.lose
        if lose and urlsplit(self.path).path.endswith(lose):
            self.server.lose, self.close_connection = None, True
            return
        self._send(200, json.dumps(data).encode())

    def _account(self) -> Account | None:
        sent = self.headers.get("Authorization", "")
        if not sent:
            return None
        account = self.server.accounts.get(sent.removeprefix("Bearer "))
        if account is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return account

    def _repo(self, repo: str, *, write: bool = False) -> Repo:
        account, found = self._account(), self.server.repos.get(repo)
        may_write = account is not None and repo.split("/")[0] in account.writes
        if found is None or (found.private and not may_write):
            raise RefusedError(404 if account else 401, "Repository not found", "RepoNotFound")
        if write and not (may_write and account and account.role == "write"):
            raise RefusedError(403, f"Forbidden: you may not write to {repo}")
        return found

    def whoami(self) -> None:
        account = self._account()
        if account is None:
            raise RefusedError(401, "Invalid username or password.")
        token = {"displayName": "t", "role": account.role}
        self._json({"type": "user", "name": account.name, "auth": {"accessToken": token}})

    def create(self) -> None:
        asked, account = json.loads(self.sent_body), self._account()
        repo = f"{asked['organization'] or (account and account.name)}/{asked['name']}"
        if account is None or repo.split("/")[0] not in account.writes:
            raise RefusedError(403, f"You don't have the rights to create a model under {repo}")
        if repo in self.server.repos:
            raise RefusedError(409, "You already created this model repo")
        made = self.server.repos[repo] = Repo(asked.get("visibility") == "private")
        made.commit({".gitattributes": ATTRIBUTES})
        self._json({"url": f"{self.server.url}/{repo}", "name": repo})

    def info(self, repo: str, revision: str = "main") -> None:
        found = self._repo(repo)
        oid, files = found.at(revision) or self._no_revision()
        names = [{"rfilename": name} for name in files]
        card = files.get("README.md", b"")
        assert isinstance(card, bytes)
        told = {"id": repo, "sha": oid, "private": found.private, "siblings": names}
        self._json({**told, "cardData": front_matter(card.decode())})

    def tree(self, repo: str, revision: str) -> None:
        _, files = self._repo(repo).at(revision) or self._no_revision()
        self._json([self._entry(path, content) for path, content in sorted(files.items())])

    def _entry(self, path: str, content: bytes | str) -> dict[str, Any]:
        if isinstance(content, bytes):
            return {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
        size = len(self.server.large[content])
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{content}\nsize {size}\n"
        lfs = {"oid": content, "size": size, "pointerSize": len(pointer)}
        return {
            "type": "file", "path": path, "size": size, "oid": git_id(pointer.encode()), "lfs": lfs,
        }  # fmt: skip

    def preupload(self, repo: str, revision: str) -> None:
        _, files = self._repo(repo, write=True).at(revision) or self._no_revision()
        ignored = files.get(".gitignore", b"")
        assert isinstance(ignored, bytes)
        told = []
        for file in json.loads(self.sent_body)["files"]:
            there = files.get(file["path"])
            oid = there if isinstance(there, str) else git_id(there) if there else None
            told.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if LARGE.fullmatch(file["path"]) else "regular",
                    "shouldIgnore": file["path"] in ignored.decode().split(),
                    "oid": oid,
                }
            )
        self._json({"files": told})

    def batch(self, repo: str) -> None:
        self._repo(repo, write=True)
        told = []
        for large in json.loads(self.sent_body)["objects"]:
            oid, size = large["oid"], large["size"]
            if oid not in self.server.large:
                place = f"{self.server.url}/storage/{oid}"
                parts = -(-size // PART)
                header = {str(n): f"{place}/{n}" for n in range(1, parts + 1)}
                upload = {"href": place}
                if parts > 1:
                    upload = {
                        "href": f"{place}/complete",
                        "header": {"chunk_size": str(PART), **header},
                    }
                verify = {"href": f"{self.server.url}/verify"}
                large["actions"] = {"upload": upload, "verify": verify}
            told.append(large)
        self._json({"transfer": "multipart", "objects": told})

    def store(self, oid: str) -> None:
        self._keep(oid, self.sent_body)
        self._send(200)

    def store_part(self, oid: str, number: str) -> None:
        self.server.parts[oid, int(number)] = self.sent_body
        self._send(200, headers={"ETag": f'"{hashlib.md5(self.sent_body).hexdigest()}"'})

    def complete(self, oid: str) -> None:
        parts = json.loads(self.sent_body)["parts"]
        data = [self.server.parts[oid, part["partNumber"]] for part in parts]
        if [part["etag"] for part in parts] != [f'"{hashlib.md5(d).hexdigest()}"' for d in data]:
            raise RefusedError(400, "an ETag is not that of its part")
        self._keep(oid, b"".join(data))
        self._json({})

    def _keep(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            raise RefusedError(400, "the bytes do not have the digest")
        self.server.large[oid] = data

    def verify(self) -> None:
        asked = json.loads(self.sent_body)
        if len(self.server.large.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404, "no such object")
        self._json({})

    def check_card(self) -> None:
        found = front_matter(json.loads(self.sent_body)["content"])
        problems = [
            {"message": f'"{name}" must be a string or a list of strings'}
            for name in ("license", "base_model", "tags", "datasets")
            for values in [found.get(name, [])]
            if not all(
                isinstance(v, str) for v in ([values] if isinstance(values, str) else values)
            )
        ]
        status = 400 if problems else 200
        self._send(status, json.dumps({"errors": problems, "warnings": []}).encode())

    def commit(self, repo: str, revision: str) -> None:
        found = self._repo(repo, write=True)
        oid, files = found.commits[-1]
        changed = dict(files)
        for line in map(json.loads, self.sent_body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header" and value.get("parentCommit", oid) != oid:
                raise RefusedError(
                    412, "A commit has happened since. Please refresh and try again."
                )
            if key == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.server.large:
                    raise RefusedError(400, f"{value['path']}: its content was not uploaded")
                changed[value["path"]] = value["oid"]
            elif key == "deletedFile":
                del changed[value["path"]]
        made = found.commit(changed)
        self._json({"commitUrl": f"{self.server.url}/{repo}/commit/{made}", "commitOid": made})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        oid, files = self._repo(repo).at(revision) or self._no_revision()
        content = files.get(path)
        if content is None:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        data = self.server.large[content] if isinstance(content, str) else content
        etag = content if isinstance(content, str) else git_id(content)
        headers = {"Content-Type": "application/octet-stream", "X-Repo-Commit": oid}
        self._send(200, data, {**headers, "ETag": f'"{etag}"'})

    def _no_revision(self) -> Any:
        raise RefusedError(404, "Invalid rev id", "RevisionNotFound")


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", Handler.whoami),
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.check_card),
    ("GET", rf"/api/models/{REPO}", Handler.info),
    ("GET", rf"/api/models/{REPO}/revision/(?P<revision>[^/]+)", Handler.info),
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", Handler.tree),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/storage/(?P<oid>\w+)", Handler.store),
    ("PUT", r"/storage/(?P<oid>\w+)/(?P<number>\d+)", Handler.store_part),
    ("POST", r"/storage/(?P<oid>\w+)/complete", Handler.complete),
    ("POST", r"/verify", Handler.verify),
    ("GET HEAD", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]


def front_matter(card: str) -> dict[str, Any]:
    """Return the metadata above a card."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(match[1]) if match else {}
    return found


def git_id(content: bytes) -> str:
    """Return git's id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
