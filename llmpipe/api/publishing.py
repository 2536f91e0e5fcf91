"""Publish what a pipeline made in a repository of the Hugging Face hub, with a model card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llmpipe.api.selection import Names, names_of
from llmpipe.errors import HubError, StoreError
from llmpipe.model_card.card import is_unedited, make_card, signed, spec_of
from llmpipe.model_card.facts import CardFacts, Piece
from llmpipe.runner.project import Project
from llmpipe.runner.redact import REDACTED, Redactor, secret_values

if TYPE_CHECKING:
    from llmpipe.api.stored import Stored
    from llmpipe.backends.huggingface.publish import HubFile, State
    from llmpipe.runner.store import Store

CardChoice = Literal["replace", "keep"]


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did.

    Attributes:
        url: the address of the repository.
        commit: the commit that has the files.
        private: whether only those with access see them.
        created: whether the repository is new.
        uploaded: the files that were sent.
        unchanged: the files that were there already.
        removed: the files that were removed.
        left: files of the repository that are not part of this publish.
    """

    url: str
    commit: str
    private: bool
    created: bool
    uploaded: Sequence[str]
    unchanged: Sequence[str]
    removed: Sequence[str]
    left: Sequence[str]


@dataclass(frozen=True, slots=True)
class Publication:
    """What would be published. Made by `Pipeline.publication`.

    Attributes:
        repo: the repository.
        card: the model card, as Markdown.
        contents: the files with their digests.
        spec: the name of the spec.
        store: where the artifacts are.
    """

    repo: str
    card: str
    contents: Sequence[HubFile] = field(repr=False)
    spec: str
    store: Store = field(repr=False)

    @property
    def files(self) -> dict[str, int]:
        """The files with their sizes in bytes, by their names in the repository."""
        return {file.path: file.size for file in self.contents}

    def publish(
        self,
        *,
        public: bool = False,
        card: CardChoice | None = None,
        prune: bool = False,
    ) -> Published:
        """Create the repository if needed, and bring it to these files by one commit.

        Args:
            public: whether everybody may see the repository.
            card: what to do with a card that llmpipe did not write, or that was edited:
                ``replace`` or ``keep`` it. Without it, such a repository is refused.
            prune: remove files of the repository that are not part of this publish.

        Raises:
            HubError: the hub refuses or cannot be reached; the message says what was published.
            StoreError: an artifact is damaged.
            MissingDependencyError: ``huggingface_hub`` is not installed.
        """
        from llmpipe.backends.huggingface.publish import CARD, HOUSEKEEPING, Repository

        there = Repository(self.repo)
        there.require_writer()
        found = there.state()
        if found is not None:
            self._require_visibility(found, public)
            if card is None:
                self._require_own(found, there.card(found), HOUSEKEEPING)
        before = found.files if found else {}
        keeps_card = card == "keep" and CARD in before
        files = [f for f in self.contents if not (keeps_card and f.path == CARD)]
        other = sorted(before.keys() - self.files.keys() - HOUSEKEEPING)
        with self.store.in_use():
            ready = there.prepare(files, found)  # a damaged file leaves no empty repository
            state = found or there.create(private=not public)
            done = there.push(
                ready, state, f"Publish {self.spec} by llmpipe", remove=other if prune else ()
            )
        return Published(
            there.url, done.commit, state.private, found is None,
            done.uploaded, done.unchanged, done.removed, [] if prune else other,
        )  # fmt: skip

    def _require_visibility(self, state: State, public: bool) -> None:
        """Require an existing repository to be seen by whom the caller means."""
        if state.private == (not public):
            return
        is_, asked = ("private", "public") if state.private else ("public", "private")
        raise HubError(
            f"{self.repo} exists and is {is_}, and {asked} was asked for; nothing was published",
            hint="change it in the settings of the repository"
            + ("" if state.private else ", or publish with --public"),
        )

    def _require_own(self, state: State, card: str | None, ours: frozenset[str]) -> None:
        """Require a repository that is empty, or has what this spec published, unedited."""
        there = sorted(state.files.keys() - ours)
        if not there:
            return
        spec = spec_of(card) if card is not None else None
        hint = "choose another name, or publish into it with --card replace or --card keep"
        if spec is None:
            named = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if there[3:] else "")
            what = f"holds files that llmpipe did not publish: {named}"
        elif spec != self.spec:
            what = f"holds what another spec, {spec!r}, published"
        elif card is not None and not is_unedited(card):
            what = "has a card that was edited since llmpipe wrote it"
            hint = "--card replace overwrites it, --card keep leaves it as it is"
        else:
            return
        raise HubError(f"{self.repo} {what}; nothing was published", hint=hint)


def make_publication(
    project: Project,
    stored: Stored,
    to: str,
    stages: Names = (),
    license: str | None = None,  # noqa: A002
    *,
    warn: Callable[[str], None],
) -> Publication:
    """Collect the files and write the card; see `Pipeline.publication`."""
    from llmpipe.api.published import (
        find_bases,
        find_license,
        find_pieces,
        measured,
        require_license,
        require_repo,
    )
    from llmpipe.backends.huggingface.publish import CARD, HubFile

    require_repo(to)
    require_license(license)
    graph, store = project.graph, project.store
    pieces = find_pieces(project, stored, to, names_of(stages), warn)
    way = {name for piece in pieces for name in (piece.stage, *graph.needs(piece.stage))}
    records = {name: stored.record(name) for name in graph.nodes if name in way}
    kept = [name for name in records if stored.is_kept(name)]
    if kept:
        raise StoreError(
            f"{', '.join(kept)} was kept although it has changed: a card would tell another recipe",
            hint="run it again (with --force if it is frozen), or publish what a run made before: "
            "--run RUN",
        )
    bases = find_bases(project, stored, pieces, license, warn)
    secrets = _Secrets(stored.document, graph.spec.document)
    name = secrets.hide(graph.spec.name)
    facts = CardFacts(
        repo=to,
        spec=name,
        document=stored.document,
        graph=graph,
        pieces=pieces,
        bases=bases,
        license=find_license(bases, license, warn),
        records=records,
        measured=measured(project, stored, pieces, warn),
        loader=_loader(project, pieces),
    )
    text = signed(secrets.hide(make_card(facts, secrets.hide)))
    if secrets.found:
        warn(f"the value of a secret stands in the spec: the card has {REDACTED} for it")
    data = text.encode()
    contents = [
        HubFile(CARD, data, hashlib.sha256(data).hexdigest(), len(data)),
        *(
            HubFile(
                path, store.objects / piece.stored.object / "data" / entry.path,
                entry.sha256, entry.size,
            )
            for piece in pieces
            for path, entry in piece.files.items()
        ),
    ]  # fmt: skip
    return Publication(to, text, contents, name, store)


class _Secrets:
    """Hides the values of the secrets that documents name.

    Attributes:
        found: Whether there was one to hide.
    """

    def __init__(self, *documents: Any) -> None:
        self._redactor = Redactor(secret_values(documents))
        self.found = False

    def hide(self, value: Any) -> Any:
        """Return plain data without secrets, in its keys too."""
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        clean = self._redactor.in_json(value)
        self.found |= clean != value
        return clean


def _loader(project: Project, pieces: Sequence[Piece]) -> str | None:
    """Return the class of transformers that loads the published model, if it is known."""
    import json

    for piece in pieces:
        if piece.type == "model" and "config.json" in piece.files:
            path = project.store.output_path(piece.stored) / "config.json"
            kinds = json.loads(path.read_bytes()).get("architectures") or [""]
            for task in ("CausalLM", "SequenceClassification"):
                if str(kinds[0]).endswith(f"For{task}"):
                    return f"AutoModelFor{task}"
    return None
