"""Sessions that this process knows, found by credential, by session and by subject."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict


class _Acted(TypedDict, total=False):
    actor: str | None


class SessionView(_Acted):
    """A session as the authority shows it to holders of an API key."""

    id: str
    subject: str | None
    created_at: str
    last_seen_at: str
    auth_time: str
    idle_expires_at: str
    expires_at: str
    amr: list[str]
    acr: str
    delivery: str
    claims: dict[str, Any]
    client: dict[str, str | None]
    csrf_key: str


@dataclass
class Known:
    """A live session, as this process knows it."""

    view: SessionView
    fetched_at: float
    idle_until: float
    idle_span: float
    ends_at: float
    touched_at: float
    #: Whether its cookie outlives the browser; ``None``: its data wasn't read yet.
    permanent: bool | None = None


class Views:
    """Keeps those that were used last.

    Invariant: every session that is kept is found by its id and its subject, so what the feed
    tells of either reaches it.
    """

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._of_session: dict[str, set[str]] = {}
        self._of_subject: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, digest: str) -> Known | None:
        """The session of a credential, by the credential's digest; it counts as used."""
        with self._lock:
            found = self._known.get(digest)
            if found is not None:
                self._known.move_to_end(digest)
            return found

    def put(self, digest: str, known: Known) -> None:
        """Keeps a session; the one that was used longest ago may go."""
        with self._lock:
            self._remove([digest])
            self._known[digest] = known
            self._of_session.setdefault(known.view["id"], set()).add(digest)
            if known.view["subject"] is not None:
                self._of_subject.setdefault(known.view["subject"], set()).add(digest)
            if len(self._known) > self._size_max:
                self._remove([next(iter(self._known))])

    def of_session(self, sid: str) -> list[Known]:
        """What is kept of a session."""
        with self._lock:
            return [self._known[digest] for digest in self._of_session.get(sid, ())]

    def drop_session(self, sid: str) -> None:
        """Forgets a session."""
        with self._lock:
            self._remove(list(self._of_session.get(sid, ())))

    def drop_subject(self, subject: str) -> None:
        """Forgets all sessions of a subject."""
        with self._lock:
            self._remove(list(self._of_subject.get(subject, ())))

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            for one in (self._known, self._of_session, self._of_subject):
                one.clear()

    def _remove(self, digests: Iterable[str]) -> None:
        for digest in digests:
            known = self._known.pop(digest, None)
            if known is None:
                continue
            _unindex(self._of_session, known.view["id"], digest)
            if known.view["subject"] is not None:
                _unindex(self._of_subject, known.view["subject"], digest)


def _unindex(index: dict[str, set[str]], key: str, digest: str) -> None:
    found = index[key]
    found.discard(digest)
    if not found:
        del index[key]
