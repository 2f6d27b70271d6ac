"""create_app: every route, error handler and document of the server, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, get
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import License
from litestar.response import Redirect
from litestar.types import ASGIApp, Receive, Scope, Send

from ... import __version__
from ...plugins.manager import Plugins
from ..engine import AsyncEngine
from .assembly import feature_routes
from .docs_page import DocsPage
from .errors import answer_error, send_error
from .exchange import Exchange
from .express import Express
from .health import health, live, metrics, ready
from .models import list_models, show_model
from .observe import Observer
from .openai_chat import answer_chat, create_chat_completion
from .openai_completions import complete, create_completion
from .openai_schemas import ChatRequest, CompletionRequest
from .service import Served, Service
from .settings import ServerSettings
from .tgi import compat_generate, generate, generate_stream, info
from .tokenization import detokenize, tokenize

ROUTES: Sequence[Any] = (
    create_completion,
    create_chat_completion,
    list_models,
    show_model,
    tokenize,
    detokenize,
    generate,
    generate_stream,
    compat_generate,
    info,
    health,
    live,
    ready,
    metrics,
)


class Application(Litestar):
    """Litestar, observed from outside: answers to unknown routes have ids and are counted too."""

    __slots__ = ("_express", "_observed", "_paths", "_stages")

    def observe(self, service: Served) -> None:
        """Let every request pass by the observer, and those of the busy routes take the short way."""
        ways = (
            Express("/v1/completions", CompletionRequest, complete, service),
            Express("/v1/chat/completions", ChatRequest, answer_chat, service),
        )
        self._express: dict[str, ASGIApp] = {way.path: way for way in ways}
        self._paths = frozenset(route.path for route in self.routes)
        self._stages = service.stages
        self._observed = Observer(self._dispatch, service.metrics, service.stages)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stages.gate is not None:
            try:
                await self._stages.gate.enter(Exchange.of(scope))
            except Exception as error:
                if scope["path"] in self._paths:
                    scope["path_template"] = scope["path"]  # nobody else will say which route it was for
                await send_error(error, scope, receive, send)
                return
        express = self._express.get(scope["path"]) if scope.get("method") == "POST" else None
        await (express or super().__call__)(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Answer one request."""
        await self._observed(scope, receive, send)


@get("/", include_in_schema=False)
async def home() -> Redirect:
    """Show the documentation to people who open the server's address."""
    return Redirect("/docs")


@get("/openapi.json", include_in_schema=False)
async def openapi_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the OpenAPI document where most tools look for it."""
    return request.app.openapi_schema.to_schema()


def create_app(engine: AsyncEngine, settings: ServerSettings) -> Litestar:
    """Return the ASGI application that serves an engine which is up."""
    return build_app(Service(settings, engine))


def build_app(service: Served) -> Litestar:
    """Return the ASGI application for a service whose engine may still be starting."""

    def provide_service() -> Service:
        return service

    app = Application(
        route_handlers=[
            *ROUTES,
            home,
            openapi_json,
            *feature_routes(service.settings.features),
            *_plugin_routes(service.settings.route_plugins),
        ],
        dependencies={"service": Provide(provide_service, sync_to_thread=False)},
        exception_handlers={Exception: answer_error},
        request_max_body_size=service.settings.limits.max_body_bytes,
        openapi_config=OpenAPIConfig(
            title="isotoken",
            version=__version__,
            description="OpenAI's and text-generation-inference's HTTP interfaces to one served model.",
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
            path="/docs",
            render_plugins=[DocsPage(), JsonRenderPlugin()],
            use_handler_docstrings=True,
        ),
        logging_config=None,
        debug=False,
    )
    app.observe(service)
    return app


def _plugin_routes(names: Sequence[str]) -> list[Any]:
    """Return the routes of the plugins that were asked for by name. Raises PluginError for one that is not there."""
    return Plugins.load().routes(names) if names else []
