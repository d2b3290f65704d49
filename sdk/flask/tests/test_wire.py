"""Answers of any shape, cut anywhere."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloakroom_flask._http import _lines
from cloakroom_flask._wire import Connection, ProtocolError, Reply

BODIES = st.binary(max_size=300)


def talk(answer: bytes, cuts: list[int], seconds: float = 5.0) -> tuple[Reply, bool]:
    """What a connection makes of an answer that comes in pieces, and whether it goes on."""
    ours, theirs = socket.socketpair()
    ends = sorted({cut % (len(answer) + 1) for cut in cuts} | {len(answer)})

    def write() -> None:
        theirs.recv(1024)
        start = 0
        for end in ends:
            theirs.sendall(answer[start:end])
            start = end
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=write)
    thread.start()
    connection = Connection(ours)
    try:
        return connection.ask(b"x", time.monotonic() + seconds), connection.is_open
    finally:
        thread.join()
        connection.close()
        theirs.close()


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    written = b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts)
    return written + b"0\r\nTrailer: x\r\n\r\n"


@given(BODIES, st.lists(st.integers(0, 500), max_size=6), st.integers(1, 50))
def test_every_framing_is_read_wherever_it_is_cut(body: bytes, cuts: list[int], size: int) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag:"7"\r\n'
    sized = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    found, goes_on = talk(sized, cuts)
    assert (found.status, found.body, found.headers["etag"]) == (200, body, '"7"')
    assert goes_on
    found, goes_on = talk(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size), cuts)
    assert (found.body, goes_on) == (body, True)
    found, goes_on = talk(head + b"\r\n" + body, cuts)
    assert (found.body, goes_on) == (body, False)


def test_interim_answers_are_passed_over_and_empty_ones_end_at_once() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    found, _ = talk(early + b"HTTP/1.1 204 No Content\r\n\r\n", [])
    assert (found.status, found.body) == (204, b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nand more",
    ],
)
def test_a_connection_that_is_over_isnt_used_again(head: bytes) -> None:
    assert talk(head, [])[1] is False


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_what_is_no_answer_is_an_error_of_the_connection(answer: bytes) -> None:
    with pytest.raises(OSError):
        talk(answer, [])


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(answer: bytes) -> None:
    try:
        talk(answer, [])
    except OSError:
        return


def test_an_answer_that_drips_has_one_deadline() -> None:
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def drip() -> None:
        for _ in range(100):
            if done.wait(0.05):
                return
            theirs.sendall(b"HTTP"[:1])

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises((TimeoutError, ProtocolError)):
        Connection(ours).ask(b"x", began + 0.3)
    assert time.monotonic() - began < 2
    done.set()
    thread.join()
    theirs.close()


@given(st.text())
def test_no_header_begins_another_line(value: str) -> None:
    try:
        written = _lines({"X": value})
    except ValueError:
        return
    assert written.count(b"\n") == 1
