"""What a connection may cost: heads and bodies that are too large or too slow, too many connections, and no HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

LIMITS = {
    "max_connections": 6,
    "max_headers": 20,
    "max_header_bytes": 2048,
    "max_url_bytes": 512,
    "max_body_bytes": 4096,
    "head_timeout_s": 2.0,
    "body_timeout_s": 1.0,
}
BODY = b'{"prompt": "a", "max_tokens": 2}'
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def strict(serve_tiny: Callable[..., Any]) -> Any:
    """A server that has little patience."""
    served = serve_tiny(limits=LIMITS)
    served.client.headers["connection"] = "close"  # its own connections count too
    return served


@contextmanager
def connected(server: Any) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def check(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == code


def exchange(server: Any, content: bytes) -> bytes:
    with connected(server) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may be cut while it is still talking
            connection.sendall(content)
        return rest(connection)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (POST + b"".join(b"x-%d: y\r\n" % i for i in range(30)) + b"\r\n", 431, "headers_too_large"),
        (POST + b"x: " + b"y" * 3000 + b"\r\n\r\n", 431, "headers_too_large"),
        (POST + b"x: " + b"y" * 100_000, 431, "headers_too_large"),  # which never ends
        (POST + b"y" * 100_000, 431, "headers_too_large"),  # a name that never ends
        (b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
        (b"GET /" + b"a" * 100_000, 431, "headers_too_large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400, "invalid_http"),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400, "invalid_http"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "invalid_http"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400, "invalid_http"),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "invalid_http"),
        (POST + b"Content-Length: -5\r\n\r\n", 400, "invalid_http"),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400, "invalid_http"),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n", 400, "invalid_http"),
        (POST + b"na me: y\r\n\r\n", 400, "invalid_http"),
    ],
    ids=lambda value: repr(value[-25:]) if isinstance(value, bytes) else None,
)
def test_what_is_too_large_or_no_http_is_answered_and_closed(
    strict: Any, content: bytes, status: int, code: str
) -> None:
    check(exchange(strict, content), status, code)


def test_a_body_that_never_ends_is_cut(strict: Any) -> None:
    endless = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n"
    answer = exchange(strict, endless + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 4000)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_trailers_that_never_end_are_cut(strict: Any) -> None:
    answer = exchange(
        strict,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(5000)),
    )
    check(answer, 431, "headers_too_large")


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"G", POST, POST + b"x: y"], ids=repr)
def test_a_head_that_does_not_come_is_not_waited_for(strict: Any, sent: bytes) -> None:
    check(exchange(strict, sent), 408, "timeout")


@pytest.mark.parametrize(
    "head", [b"Content-Length: 32\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"], ids=repr
)
def test_a_body_that_does_not_come_is_not_waited_for(strict: Any, head: bytes) -> None:
    check(exchange(strict, POST + head), 408, "timeout")


def test_a_byte_now_and_then_does_not_help(strict: Any) -> None:
    """As slowloris does it: each byte is in time, the head as a whole is not."""
    with connected(strict) as connection:
        connection.settimeout(0.05)
        answer = b""
        for byte in POST + b"x: " + b"y" * 200:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
        check(answer, 408, "timeout")


def test_an_answered_connection_may_wait_for_its_next_request(strict: Any) -> None:
    """The time for a head begins with its first byte: a connection between requests is kept alive longer."""
    request = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connected(strict) as connection:
        for _ in range(2):
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer or b'"usage"' not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            connection.settimeout(2.8)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(30)


def test_idle_connections_make_room_for_new_ones(strict: Any) -> None:
    before = strict.metric("llm_rejections_total", '{reason="too_many_connections"}')
    with ExitStack() as stack:
        held = [stack.enter_context(connected(strict)) for _ in range(LIMITS["max_connections"] + 2)]
        assert strict.get("/health").status_code == 200
        answers = [rest(connection) for connection in held]
    assert sum(b"too_many_connections" in answer for answer in answers) >= 2
    assert strict.metric("llm_rejections_total", '{reason="too_many_connections"}') >= before + 2


def test_busy_connections_are_not_given_up_for_new_ones(strict: Any) -> None:
    body = b'{"prompt": "a", "max_tokens": 1500, "ignore_eos": true, "stream": true}'
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as stack:
        busy = [stack.enter_context(connected(strict)) for _ in range(LIMITS["max_connections"])]
        for connection in busy:
            connection.sendall(request)
            assert connection.recv(1) == b"H"
        with connected(strict) as late:
            check(rest(late), 503, "too_many_connections")
        for connection in busy:
            assert connection.recv(10)


def test_refusals_are_counted(strict: Any) -> None:
    before = strict.metric("llm_rejections_total", '{reason="invalid_http"}')
    exchange(strict, b"nonsense\r\n\r\n")
    assert strict.metric("llm_rejections_total", '{reason="invalid_http"}') == before + 1


def test_an_id_cannot_smuggle_a_header(strict: Any) -> None:
    with connected(strict) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nx-request-id: a\tb\x0bc\r\nConnection: close\r\n\r\n")
        answer = rest(connection)
    assert b"\x0b" not in answer


def test_a_compressed_body_is_not_unpacked(strict: Any) -> None:
    import gzip

    bomb = gzip.compress(bytes(2_000_000))
    response = strict.post("/v1/completions", content=bomb, headers={"content-encoding": "gzip"})
    assert response.status_code == 400
