"""What goes wrong around an application, and what its users see of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from cloakroom_flask import Cloakroom, ConfigurationError
from conftest import AppMaker, Server, authority_of, free_port, wait_until, wait_until_fresh
from site_of_tests import build


def signed_in(app: Flask, user: str = "ada") -> FlaskClient:
    client = app.test_client()
    client.post("/login", json={"user": user})
    return client


def test_an_authority_that_is_down_is_503_and_cookies_stay(
    own_server: Server, make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(make_app(of=own_server))
    client = signed_in(app)
    tokens = client.post("/tokens", json={"user": "ada"}).json
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    wait_until_fresh(app)
    assert client.get("/me").status_code == 200
    caplog.clear()
    own_server.stop()
    wait_until(lambda: client.get("/me").status_code == 503, "the outage", 4)
    for call in (
        lambda: client.get("/me"),
        lambda: client.get("/me", headers=bearer),
        lambda: client.get("/data"),
        lambda: client.post("/data", json={"a": 1}),
        lambda: client.post("/login", json={"user": "ada"}),
        lambda: client.post("/logout"),
        lambda: client.post("/everywhere"),
        lambda: client.get("/csrf"),
        lambda: client.post("/guarded"),
    ):
        answer = call()
        assert answer.status_code == 503, answer.text
        assert answer.json["code"] == "authority_unreachable"
        assert int(answer.headers["Retry-After"]) >= 1
        assert "Set-Cookie" not in answer.headers
    assert client.get("/").text == "public", "who needs no session notices nothing"
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1 and own_server.url in told[0].getMessage()
    own_server.start()
    wait_until(lambda: client.get("/me").status_code == 200, "the authority", 8)
    wait_until_fresh(app)
    assert "is back" in caplog.text


def test_a_save_that_fails_is_told_to_the_browser(own_server: Server, make_app: AppMaker) -> None:
    app = build(make_app(of=own_server))

    @app.get("/slow")
    def slow() -> Any:
        session["a"] = 1
        own_server.stop()
        return "saved, I think", 200, {"ETag": "x", "Location": "/there"}

    answer = signed_in(app).get("/slow")
    assert answer.status_code == 503 and answer.json["code"] == "authority_unreachable"
    assert not {"ETag", "Location", "Set-Cookie"} & set(answer.headers.keys())


def test_waiting_has_a_deadline_and_others_dont_wait_again(
    own_server: Server, make_app: AppMaker
) -> None:
    app = build(make_app(of=own_server))
    client = signed_in(app)
    transport = authority_of(app).transport
    transport.timeout = 0.5
    own_server.freeze()
    try:
        began = time.monotonic()
        assert client.get("/data").status_code == 503
        assert 0.4 < time.monotonic() - began < 4
        # Whoever comes before the next attempt is due isn't kept waiting.
        transport._down_until = time.monotonic() + 60
        began = time.monotonic()
        statuses = [client.get("/data").status_code for _ in range(5)]
        assert statuses == [503] * 5
        assert time.monotonic() - began < 0.5
        transport._down_until = 0
    finally:
        own_server.thaw()
    transport.timeout = 8
    wait_until(lambda: client.get("/data").status_code == 200, "the authority", 8)


def test_a_restarted_authority_is_followed_again(own_server: Server, make_app: AppMaker) -> None:
    app = build(make_app(of=own_server))
    client = signed_in(app)
    wait_until_fresh(app)
    own_server.stop()
    own_server.start()
    wait_until(lambda: client.get("/me").status_code == 200, "the authority", 8)
    wait_until(lambda: authority_of(app).is_fresh, "the feed", 8)
    sid = authority_of(app).lookup(client.get_cookie("session").value).view["id"]
    own_server.ask("DELETE", f"/admin/v1/sessions/{sid}")
    wait_until(lambda: client.get("/me").status_code == 401, "the ending", 5)


def test_without_the_feed_every_request_asks(
    server: Server, make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    app = build(make_app())
    authority = authority_of(app)
    stream = authority.transport.stream

    def lost(*_: Any, **__: Any) -> Any:
        raise OSError("lost on the way")

    client = signed_in(app)
    wait_until_fresh(app)
    authority.transport.stream = lost
    authority.feed._connection.sock.shutdown(2)
    wait_until(lambda: not authority.is_fresh, "the loss", 4)
    sid = client.post("/login", json={"user": "ada"}).json["sid"]
    assert client.get("/me").status_code == 200
    server.ask("DELETE", f"/admin/v1/sessions/{sid}")
    assert client.get("/me").status_code == 401, "at once"
    told = [r for r in caplog.records if "feed is lost" in r.getMessage()]
    assert len(told) == 1
    authority.transport.stream = stream
    wait_until(lambda: authority.is_fresh, "the feed", 8)
    assert "feed is back" in caplog.text


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (lambda server: "cka_wrong", "set CLOAKROOM_API_KEY to a key of this authority"),
        (lambda server: server.make_key("sessions:read"), "sessions:write"),
        (lambda server: server.make_key("sessions:write"), "sessions:read"),
        (lambda server: "secret", "begin with cka_"),
        (lambda server: "/etc/key", "CLOAKROOM_API_KEY_FILE"),
        (lambda server: "", "CLOAKROOM_API_KEY is not set"),
    ],
)
def test_a_wrong_api_key_is_told_at_the_start(
    server: Server, key: Callable[[Server], str], hint: str
) -> None:
    app = Flask("app")
    app.config.update(CLOAKROOM_URL=server.url, CLOAKROOM_API_KEY=key(server))
    with pytest.raises(ConfigurationError, match=hint):
        Cloakroom(app)


def test_settings_that_cant_work_are_told_at_the_start() -> None:
    for config, hint in [
        ({}, "CLOAKROOM_URL is not set"),
        ({"CLOAKROOM_URL": "localhost:1", "CLOAKROOM_API_KEY": "cka_x"}, "http://"),
        ({"CLOAKROOM_URL": "fake:"}, "TESTING"),
        (
            {
                "CLOAKROOM_URL": "http://h",
                "CLOAKROOM_API_KEY": "cka_x",
                "CLOAKROOM_TIMEOUT": "soon",
            },
            "duration",
        ),
    ]:
        app = Flask("app")
        app.config.update(config)
        with pytest.raises(ConfigurationError, match=hint):
            Cloakroom(app)


def test_the_key_may_be_in_a_file(server: Server, tmp_path: Any) -> None:
    file = tmp_path / "key"
    file.write_text(f"{server.key}\n")
    app = Flask("app")
    app.config.update(CLOAKROOM_URL=server.url, CLOAKROOM_API_KEY_FILE=str(file))
    Cloakroom(app)


def test_an_application_starts_before_its_authority(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    app = Flask("app")
    app.config.update(CLOAKROOM_URL=f"http://127.0.0.1:{port}", CLOAKROOM_API_KEY="cka_x")
    Cloakroom(app)
    assert "can't be reached" in caplog.text
    client = build(app).test_client()
    client.set_cookie("session", "cks_x")
    assert client.get("/me").status_code == 503
    authority_of(app).close()


def test_a_key_that_is_deleted_signs_nobody_out(own_server: Server, make_app: AppMaker) -> None:
    app = build(make_app(of=own_server))
    client = signed_in(app)
    wait_until_fresh(app)
    keys = own_server.ask("GET", "/admin/v1/api-keys")["api_keys"]
    ours = next(key["id"] for key in keys if key["name"] == "test")
    own_server.ask("DELETE", f"/admin/v1/api-keys/{ours}")
    wait_until(lambda: client.get("/me").status_code == 503, "the refusal", 8)
    answer = client.get("/me")
    assert answer.json["code"] == "api_key_refused"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_asks_and_is_told_once(
    hours: int,
    server: Server,
    make_app: AppMaker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + hours * 3600)
    app = build(make_app())
    client = signed_in(app)
    token = client.post("/tokens", json={"user": "ada"}).json["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    wait_until(lambda: "clock" in caplog.text, "the warning")
    time.sleep(1.2)
    assert not authority_of(app).is_fresh
    assert client.get("/me").status_code == 200
    assert client.get("/jwt", headers=bearer).status_code == 200
    sid = client.post("/login", json={"user": "ada"}).json["sid"]
    server.ask("DELETE", f"/admin/v1/sessions/{sid}")
    assert client.get("/me").status_code == 401
    assert caplog.text.count("clock") == 1


def run_all(calls: list[Callable[[], Any]]) -> list[Any]:
    """All at once."""
    barrier = threading.Barrier(len(calls))
    found: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        barrier.wait()
        found[index] = call()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def clones(app: Flask, client: FlaskClient, count: int) -> list[FlaskClient]:
    """As many tabs of one browser."""
    made = [app.test_client() for _ in range(count)]
    for clone in made:
        clone.set_cookie("session", client.get_cookie("session").value)
    return made


@pytest.mark.parametrize("value", [1, {"nested": True}, None, [1], (1, 2)])
def test_concurrent_changes_of_different_keys_are_all_kept(make_app: AppMaker, value: Any) -> None:
    app = build(make_app())
    everybody = threading.Barrier(12)

    @app.get("/set/<key>")
    def put(key: str) -> str:
        session.get("anything")
        everybody.wait()
        session[key] = value
        return ""

    client = signed_in(app)
    tabs = clones(app, client, 12)
    keys = [f"k{number}" for number in range(12)]
    calls = [lambda t=t, k=k: t.get(f"/set/{k}") for t, k in zip(tabs, keys, strict=True)]
    answers = run_all(calls)
    assert [answer.status_code for answer in answers] == [200] * 12
    found = client.get("/data").json
    assert sorted(found) == sorted(keys)


def test_of_concurrent_changes_of_one_key_the_last_wins_whole(make_app: AppMaker) -> None:
    app = build(make_app())
    client = signed_in(app)
    calls = [
        lambda t=t, n=n: t.post("/data", json={"cart": {f"item{n}": n}})
        for n, t in enumerate(clones(app, client, 8))
    ]
    assert {answer.status_code for answer in run_all(calls)} == {200}
    assert len(client.get("/data").json["cart"]) == 1, "one of them, not a mixture"


def test_a_removed_key_stays_removed(make_app: AppMaker) -> None:
    app = build(make_app())

    @app.get("/drop")
    def drop() -> str:
        del session["a"]
        return ""

    client = signed_in(app)
    client.post("/data", json={"a": 1, "b": {"c": 1}})
    client.get("/drop")
    assert client.get("/data").json == {"b": {"c": 1}}


def test_c8_a_slow_request_doesnt_undo_a_sign_out(make_app: AppMaker, server: Server) -> None:
    app = build(make_app())
    inside, go = threading.Event(), threading.Event()

    @app.get("/slow")
    def slow() -> str:
        session["before"] = 1
        inside.set()
        go.wait(10)
        session["after"] = 1
        return "done"

    client = signed_in(app, "slow")
    client.post("/data", json={"a": 1})
    (tab,) = clones(app, client, 1)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(tab.get("/slow")))
    thread.start()
    inside.wait(10)
    client.post("/logout")
    go.set()
    thread.join()
    assert answers[0].text == "done"
    assert "Set-Cookie" not in answers[0].headers
    assert app.extensions["cloakroom"].late_saves == 1
    assert tab.get("/me").status_code == 401
    assert server.live_sessions("slow") == []


def test_a_double_click_on_sign_in_leaves_no_old_session(
    make_app: AppMaker, server: Server
) -> None:
    app = build(make_app())
    client = app.test_client()
    client.post("/data", json={"a": 1})
    tabs = clones(app, client, 2)
    calls = [lambda t=t: t.post("/login", json={"user": "twice"}) for t in tabs]
    assert [answer.status_code for answer in run_all(calls)] == [200, 200]
    for tab in tabs:
        assert tab.get("/data").json == {"a": 1}
        assert tab.get("/me").json["id"] == "twice"
    # The authority gives both the same successor, where it sees both in time.
    assert len(server.live_sessions("twice")) in (1, 2)
    assert client.get("/data").json == {}


def test_a_trace_goes_on_at_the_authority_and_nothing_else_does(make_app: AppMaker) -> None:
    app = build(make_app())
    transport = authority_of(app).transport
    sent: list[bytes] = []
    exchange = transport._exchange
    transport._exchange = lambda request: sent.append(request) or exchange(request)

    def opening() -> bytes:
        """What opened the session; the feed's own thread asks as well, on nobody's behalf."""
        (found,) = [one for one in sent if one.startswith(b"POST /admin/v1/sessions ")]
        sent.clear()
        return found

    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    client = app.test_client()
    login = {"json": {"user": "ada"}}
    assert client.post("/login", headers={"traceparent": parent}, **login).status_code == 200
    assert f"\r\ntraceparent: {parent}\r\n".encode() in opening()
    for strange in ("", parent.upper(), f"{parent}x", f"00-{'a' * 32}", "00"):
        headers = {"traceparent": strange} if strange else {}
        assert client.post("/login", headers=headers, **login).status_code == 200
        assert b"traceparent" not in opening()
