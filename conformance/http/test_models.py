"""What the server says of itself."""

from __future__ import annotations

from urllib.parse import quote

from ..spec import spec
from .checks import check_error
from .server import Server


@spec("HTTP-1")
def test_the_models_are_listed(server: Server) -> None:
    body = server.get("/v1/models").body
    assert body["object"] == "list"
    names = [card["id"] for card in body["data"]]
    assert server.facts.model in names
    assert len(names) == len(set(names)), f"listed twice: {names}"
    for card in body["data"]:
        assert card["object"] == "model", card
        assert isinstance(card["created"], int), card
        assert isinstance(card["owned_by"], str) and card["owned_by"], card


@spec("HTTP-2")
def test_a_model_is_found_by_its_name(server: Server) -> None:
    reply = server.get(f"/v1/models/{quote(server.facts.model)}")
    assert reply.status == 200
    assert reply.body == server.facts.card
    check_error(server.get("/v1/models/no-such-model"), 404)


@spec("HTTP-3")
def test_health(server: Server) -> None:
    paths = ["/health", "/health/live", "/health/ready"] if server.facts.is_isotoken else ["/health"]
    for path in paths:
        status = server.get(path).status
        if status == 404 and not server.facts.is_isotoken:
            server.absent(f"{path} is not offered")
        assert status == 200, f"{path}: {status} from a server that answers"
