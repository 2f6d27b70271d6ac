"""What counts as a credential, and the headers that tell clients of their limits."""

from __future__ import annotations

from typing import Any

import pytest
from isotoken.api.gateway.authentication import MAX_CREDENTIAL_LENGTH, credential_of
from isotoken.api.gateway.limiter import Demand, Level
from isotoken.api.gateway.principal import Principal
from isotoken.api.gateway.rate_headers import duration, rate_headers


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer itk_1")], "itk_1"),
        ([(b"authorization", b"bearer   itk_1 ")], "itk_1"),
        ([(b"x-api-key", b"itk_1")], "itk_1"),
        ([(b"authorization", b"Bearer itk_1"), (b"x-api-key", b"itk_2")], "itk_1"),
        ([], ""),
        ([(b"authorization", b"Basic aXRrOg==")], ""),
        ([(b"authorization", b"Bearer")], ""),
        ([(b"authorization", b"Bearer ")], ""),
        ([(b"authorization", b"itk_1")], ""),
        ([(b"authorization", b"Bearer itk_1"), (b"authorization", b"Bearer itk_2")], ""),
        ([(b"x-api-key", b"itk_1"), (b"x-api-key", b"itk_1")], ""),
        ([(b"authorization", b"Basic x"), (b"x-api-key", b"itk_1")], ""),
        ([(b"authorization", b"Bearer \xff\xfe")], ""),
        ([(b"authorization", b"Bearer " + b"x" * (MAX_CREDENTIAL_LENGTH + 1))], ""),
    ],
)
def test_credentials(headers: list[tuple[bytes, bytes]], token: str) -> None:
    scope: Any = {"headers": headers}
    assert credential_of(scope, "192.0.2.1").token == token


def test_durations_are_written_as_openai_does() -> None:
    assert [duration(s) for s in (0, 0.12, 1.5, 59.9, 60, 360, 3725.2)] == [
        "0ms",
        "120ms",
        "1.5s",
        "59.9s",
        "1m0s",
        "6m0s",
        "62m5s",
    ]


def test_the_tightest_bucket_is_told() -> None:
    demands = [Demand("key", "requests", 100), Demand("key", "concurrency", 3), Demand("address", "requests", 10)]
    levels = [Level(90, 6.0), Level(1, 0.0), Level(2, 48.0)]
    assert rate_headers(demands, levels) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "48s",
    }


def test_routes_of_a_key() -> None:
    some = Principal(routes=frozenset({"/v1/completions", "/v1/models*"}))
    assert some.may_use_route("/v1/completions")
    assert some.may_use_route("/v1/models/small")
    for path in ("/v1/completions/", "/v1", "/v1/chat/completions", "/admin/keys", "/V1/completions", ""):
        assert not some.may_use_route(path)
    assert Principal().may_use_route("/anything")
