"""Session data on its way to the authority and back: tagged JSON, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask.json.tag import TaggedJSONSerializer

#: Flask's own: datetime, UUID, bytes, tuple and Markup survive. Nothing is ever unpickled.
serializer = TaggedJSONSerializer()

Wire = dict[str, Any]


def encode(session: Mapping[str, Any]) -> Wire:
    """What a session holds as JSON, each value tagged by itself."""
    return {str(key): json.loads(serializer.dumps(value)) for key, value in session.items()}


def decode(wire: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`encode` has made."""
    return {key: serializer.loads(json.dumps(value)) for key, value in wire.items()}


class Changes:
    """Which keys differ between two states. A key is the unit: the last write of one wins."""

    def __init__(self, before: Wire, after: Wire) -> None:
        self.set = {k: v for k, v in after.items() if k not in before or before[k] != v}
        self.removed = [k for k in before if k not in after]

    def __bool__(self) -> bool:
        return bool(self.set or self.removed)

    def patch(self) -> Wire | None:
        """The merge patch (RFC 7396) that does exactly this; ``None``: there is none.

        A patch can't set anything to null, and would merge an object into what is there.
        """
        if any(value is None or isinstance(value, dict) for value in self.set.values()):
            return None
        return {**self.set, **dict.fromkeys(self.removed)}

    def apply(self, current: Wire) -> Wire:
        """``current`` with these keys set and removed, and all others as they are."""
        kept = {k: v for k, v in current.items() if k not in self.removed}
        return {**kept, **self.set}
