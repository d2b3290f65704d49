"""Parts that need no authority, against everything that may come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloakroom_flask._bounded import Bounded
from cloakroom_flask._config import ConfigurationError, limit, seconds
from cloakroom_flask._data import Changes, decode, encode
from cloakroom_flask._feed import parse
from cloakroom_flask._guards import has_claims
from cloakroom_flask._rate import Limiter, network_of
from cloakroom_flask._revocations import Listener, Revocations, instant
from cloakroom_flask._views import Known, Views

SIDS = st.sampled_from(["s1", "s2", "s3"])
SUBJECTS = st.sampled_from(["ada", "grace"])
TIMES = st.integers(1_800_000_000, 1_800_000_100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
DATA = st.dictionaries(st.sampled_from("abcdef"), JSON)


def rfc3339(at: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(at, timezone.utc).isoformat().replace("+00:00", "Z")


EVENTS = st.one_of(
    st.builds(
        lambda sid, at: ("session", {"sid": sid, "reason": "signed_out", "until": rfc3339(at)}),
        SIDS,
        TIMES,
    ),
    st.builds(lambda sid, at: ("session", {"sid": sid, "auth_time": rfc3339(at)}), SIDS, TIMES),
    st.builds(
        lambda subject, epoch: ("subject", {"subject": subject, "epoch": epoch}),
        SUBJECTS,
        st.integers(1, 5),
    ),
    st.builds(lambda at: ("token", {"jti": "j1", "until": rfc3339(at)}), TIMES),
    st.builds(lambda at: ("all", {"at": rfc3339(at)}), TIMES),
    st.just(("changed", {"sid": "s1"})),
    st.just(("of a later release", {"x": 1})),
)
CLAIMS = st.fixed_dictionaries(
    {
        "sid": SIDS,
        "sub": SUBJECTS,
        "jti": st.sampled_from(["j1", "j2"]),
        "epoch": st.integers(0, 5),
        "iat": TIMES,
        "auth_time": TIMES,
    }
)


def told(events: list[tuple[str, Any]]) -> Revocations:
    revocations = Revocations(Listener())
    for number, (event, entry) in enumerate(events):
        revocations.apply(event, entry, f"c{number}")
    return revocations


@given(st.lists(EVENTS, max_size=12), CLAIMS, st.data())
def test_repeated_events_change_no_verdict(
    events: list[tuple[str, Any]], claims: dict[str, Any], data: st.DataObject
) -> None:
    once = told(events)
    start = data.draw(st.integers(0, len(events)))
    # A stream that was resumed may repeat what was told.
    again = told(events + events[start:])
    assert bool(once.against(claims)) == bool(again.against(claims))


@given(st.lists(EVENTS, max_size=8), st.lists(EVENTS, max_size=8), CLAIMS)
def test_nothing_that_is_told_brings_a_session_back(
    events: list[tuple[str, Any]], later: list[tuple[str, Any]], claims: dict[str, Any]
) -> None:
    if told(events).against(claims) is not None:
        assert told(events + later).against(claims) is not None


@given(st.lists(EVENTS, max_size=8), CLAIMS)
def test_an_ended_session_stays_ended_over_a_snapshot(
    events: list[tuple[str, Any]], claims: dict[str, Any]
) -> None:
    revocations = told(events)
    before = revocations.against(claims)
    empty: dict[str, Any] = {"sessions": [], "subjects": [], "tokens": [], "keys": [], "all": None}
    revocations.snapshot({**empty, "cursor": "c"})
    assert revocations.against(claims) == before


def test_the_feeds_words_are_told_apart() -> None:
    claims = {"sid": "s", "sub": "ada", "jti": "j", "epoch": 0, "iat": 100, "auth_time": 50}
    spared = {"subject": "ada", "epoch": 1, "except": "s"}
    cases: list[tuple[str, dict[str, Any], tuple[str, str | None] | None]] = [
        ("subject", {"subject": "ada", "epoch": 1}, ("session_ended", "signed_out_everywhere")),
        ("subject", spared, ("token_expired", None)),
        ("subject", {"subject": "grace", "epoch": 1}, None),
        ("token", {"jti": "j", "until": rfc3339(1)}, ("token_invalid", None)),
        ("session", {"sid": "s", "auth_time": rfc3339(51)}, ("token_invalid", None)),
        ("session", {"sid": "s", "auth_time": rfc3339(50)}, None),
        ("all", {"at": rfc3339(95)}, ("session_ended", "ended_by_operator")),
        ("all", {"at": rfc3339(94)}, None),
        (
            "session",
            {"sid": "s", "reason": "refresh_reused", "until": rfc3339(1)},
            ("session_ended", "refresh_reused"),
        ),
    ]
    for event, entry, expected in cases:
        found = told([(event, entry)]).against(claims)
        assert (None if found is None else tuple(found)) == expected, (event, entry)


def test_what_is_over_is_forgotten_when_nothing_can_meet_it() -> None:
    revocations = told(
        [
            ("session", {"sid": "s", "reason": "signed_out", "until": rfc3339(100)}),
            ("token", {"jti": "j", "until": rfc3339(100)}),
        ]
    )
    revocations.forget(99)
    assert revocations.end_of("s") == "signed_out"
    revocations.forget(100)
    assert revocations.end_of("s") is None and not revocations._tokens


@given(st.text(max_size=200))
def test_any_message_of_a_stream_is_read_or_left(text: str) -> None:
    try:
        parse(text)
    except ValueError:
        assert "data" in text


def test_messages_are_read_as_they_are_written() -> None:
    block = 'event: session\nid: c1\ndata: {"sid":"s"}'
    assert parse(block) == ("session", {"sid": "s"}, "c1")
    assert parse(block.replace("\n", "\r\n")) == ("session", {"sid": "s"}, "c1")
    assert parse("retry: 1000") is None
    assert parse("") is None
    assert parse(": comment") is None


@given(DATA)
def test_data_survives_the_way_there_and_back(data: dict[str, Any]) -> None:
    assert decode(json.loads(json.dumps(encode(data)))) == data


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


@given(DATA, DATA, DATA)
def test_a_patch_does_exactly_what_applying_does(
    before: dict[str, Any], after: dict[str, Any], others: dict[str, Any]
) -> None:
    changes = Changes(before, after)
    assert changes.apply(before) == after
    patch = changes.patch()
    if patch is not None:
        assert merged(before, patch) == after
        assert merged(others, patch) == changes.apply(others)
    assert bool(changes) == (before != after)


@given(DATA, DATA, DATA)
def test_changes_of_different_keys_commute(
    base: dict[str, Any], one: dict[str, Any], other: dict[str, Any]
) -> None:
    mine = {**base, **{key: one[key] for key in one if key in "abc"}}
    theirs = {**base, **{key: other[key] for key in other if key in "def"}}
    first, second = Changes(base, mine), Changes(base, theirs)
    assert second.apply(first.apply(base)) == first.apply(second.apply(base))


@given(st.integers(1, 20), st.floats(0.5, 100), st.lists(st.floats(0, 30), max_size=60))
def test_a_limit_is_never_exceeded(count: int, window: float, pauses: list[float]) -> None:
    limiter = Limiter(count, window)
    now, admitted = 1000.0, []
    for pause in pauses:
        now += pause
        if limiter.admit("key", now).admitted:
            admitted.append(now)
    # A burst, then one for each share of the window that passes.
    for index, at in enumerate(admitted):
        span = admitted[-1] - at
        assert len(admitted) - index <= count + span / window * count + 1.001


def test_a_limit_tells_when_to_come_again() -> None:
    limiter = Limiter(2, 60)
    assert limiter.admit("a", 0) == (True, 1, 30)
    assert limiter.admit("a", 0) == (True, 0, 60)
    assert limiter.admit("a", 0) == (False, 0, 30)
    assert limiter.admit("b", 0).admitted
    assert limiter.admit("a", 30).admitted


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1%eth0", "2001:db8::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("socket", "unknown"),
    ],
)
def test_networks(address: str | None, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("text", "value"), [("15m", 900), ("2s", 2), ("300ms", 0.3), ("30d", 2592000), (90, 90)]
)
def test_durations(text: Any, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "soon", "15", "-1m", "1w", "m"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError):
        seconds(text)


@pytest.mark.parametrize("text", ["", "5", "0/1m", "x/1m", "5/", "5/x"])
def test_what_is_no_limit_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError):
        limit(text)


def test_limits() -> None:
    assert limit("100/15m") == (100, 900)
    assert limit("5/m") == (5, 60)


@given(JSON, JSON)
def test_a_claim_matches_itself_and_its_list(one: Any, other: Any) -> None:
    if isinstance(one, list | dict):
        return
    assert has_claims({"c": one}, (), {"c": one})
    assert has_claims({"c": [other, one]}, (), {"c": one})
    assert not has_claims({}, (), {"c": one})
    assert not has_claims({"c": True}, (), {"c": 1})


def test_a_cache_keeps_what_was_used_last() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (1, None, 3, 2)


def known(sid: str, subject: str | None) -> Known:
    view: Any = {"id": sid, "subject": subject}
    return Known(view, 0.0, 0.0, 0.0, 0.0, 0.0)


DIGESTS = st.sampled_from([f"d{number}" for number in range(6)])
STEPS = st.one_of(
    st.tuples(st.just("put"), DIGESTS, SIDS, st.none() | SUBJECTS),
    st.tuples(st.just("get"), DIGESTS),
    st.tuples(st.just("session"), SIDS),
    st.tuples(st.just("subject"), SUBJECTS),
    st.tuples(st.just("clear")),
)


@given(st.lists(STEPS, max_size=60))
def test_e6_what_the_feed_tells_reaches_every_view_that_is_kept(steps: list[Any]) -> None:
    views = Views(3)
    kept: dict[str, tuple[str, str | None]] = {}
    for step, *rest in steps:
        if step == "put":
            digest, sid, subject = rest
            views.put(digest, known(sid, subject))
            kept[digest] = (sid, subject)
        elif step == "get":
            views.get(rest[0])
        elif step == "session":
            views.drop_session(rest[0])
            kept = {d: one for d, one in kept.items() if one[0] != rest[0]}
        elif step == "subject":
            views.drop_subject(rest[0])
            kept = {d: one for d, one in kept.items() if one[1] != rest[0]}
        else:
            views.clear()
            kept = {}
        assert len(views) <= 3
        for digest in [f"d{number}" for number in range(6)]:
            found = views._known.get(digest)
            assert found is None or (found.view["id"], found.view["subject"]) == kept.get(digest)
        assert all(views._of_session.values()) and all(views._of_subject.values())


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-01-15T08:00:00Z", 1_800_000_000),
        ("2027-01-15T08:00:00.5Z", 1_800_000_000.5),
        ("2027-01-15T08:00:00.804Z", 1_800_000_000.804),
        ("2027-01-15T08:00:00.123456789Z", 1_800_000_000.123456),
        ("2027-01-15T09:00:00.25+01:00", 1_800_000_000.25),
    ],
)
def test_times_are_rfc_3339(text: str, at: float) -> None:
    assert instant(text) == pytest.approx(at, abs=1e-5)
    for bad in (text[:-1], text[1:], "soon", ""):
        with pytest.raises(ValueError, match="time"):
            instant(bad)
