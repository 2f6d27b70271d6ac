"""`isotoken serve`: a model behind HTTP."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..config import environment_configures
from .flags import DEFAULT_MODEL, EngineFlags, ModelArgument, flag
from .log import log_to_stderr

if TYPE_CHECKING:
    from ..engine import AsyncEngine
    from ..server.service import Service
    from ..server.settings import ServerSettings

_SERVER, _LIMITS = "Server", "Limits"


@dataclass(frozen=True, kw_only=True)
class LimitFlags:
    """One flag for each field of Limits; times are in seconds, and 0 takes a limit off where None would."""

    max_waiting_requests: Annotated[
        int, flag(_LIMITS, "Requests that may wait. Beyond: 429.", metavar="N", least=0)
    ] = 1024
    max_waiting_prompt_tokens: Annotated[
        int, flag(_LIMITS, "Prompt tokens that may wait. Beyond: 429.", metavar="N", least=1)
    ] = 1_000_000
    max_body_bytes: Annotated[int, flag(_LIMITS, "Of one request. Beyond: 413.", metavar="N", least=1)] = 16 * 2**20
    max_logprobs: Annotated[int, flag(_LIMITS, "Per position. -1: the vocabulary.", metavar="N", least=-1)] = 20
    request_timeout: Annotated[
        float, flag(_LIMITS, "From submission to the last token. 0: none.", metavar="SEC", least=0)
    ] = 600
    start_timeout: Annotated[float, flag(_LIMITS, "For one start of the engine.", metavar="SEC", above=0)] = 1800
    step_timeout: Annotated[
        float, flag(_LIMITS, "An engine silent for so long is taken for hung.", metavar="SEC", above=0)
    ] = 300
    stall_after: Annotated[
        float, flag(_LIMITS, "An engine silent for so long may be stuck: not ready.", metavar="SEC", above=0)
    ] = 5
    max_start_attempts: Annotated[
        int, flag(_LIMITS, "Failed starts in a row before giving up.", metavar="N", least=1)
    ] = 5
    backoff: Annotated[float, flag(_LIMITS, "Before the second restart in a row.", metavar="SEC", least=0)] = 0.5
    max_backoff: Annotated[float, flag(_LIMITS, "It doubles up to this.", metavar="SEC", least=0)] = 30
    max_connections: Annotated[
        int, flag(_LIMITS, "Open at once. Beyond, the longest idle one goes.", metavar="N", least=1)
    ] = 10_000
    max_headers: Annotated[int, flag(_LIMITS, "Of one request. Beyond: 431.", metavar="N", least=1)] = 100
    max_header_bytes: Annotated[int, flag(_LIMITS, "Likewise, all together.", metavar="N", least=1024)] = 32 * 2**10
    max_url_bytes: Annotated[int, flag(_LIMITS, "Beyond: 414.", metavar="N", least=256)] = 8 * 2**10
    head_timeout: Annotated[
        float, flag(_LIMITS, "For a request's headers to come, or its first byte.", metavar="SEC", above=0)
    ] = 15
    body_timeout: Annotated[float, flag(_LIMITS, "For a request's body to come.", metavar="SEC", above=0)] = 120


@dataclass(frozen=True, kw_only=True)
class ServerFlags:
    """One flag for each field of ServerSettings (but the limits, which have their own), and the log's level."""

    host: Annotated[str, flag(_SERVER, "Address to listen on. 0.0.0.0: every one.", metavar="HOST")] = "127.0.0.1"
    port: Annotated[int, flag(_SERVER, "0: any free one.", metavar="N", least=0, most=65535)] = 8000
    served_model_name: Annotated[
        list[str], flag(_SERVER, "The model's id for clients. May be repeated for aliases.", metavar="NAME")
    ] = field(default_factory=list)
    generation_config: Annotated[
        Literal["isotoken", "model"],
        flag(_SERVER, "Whose sampling defaults apply: isotoken's, or the model's own.", metavar="WHO"),
    ] = "isotoken"
    chat_template: Annotated[
        Path | None,
        flag(_SERVER, "A Jinja file, instead of the model's.", metavar="FILE", exists=True, dir_okay=False),
    ] = None
    trust_request_chat_template: Annotated[
        bool, flag(_SERVER, "Let a request bring a chat template of its own.", "--trust-request-chat-template")
    ] = False
    enable_routes: Annotated[
        list[str], flag(_SERVER, "Serve this plugin's HTTP routes too. May be repeated.", metavar="NAME")
    ] = field(default_factory=list)
    slow_reader_timeout: Annotated[
        float, flag(_SERVER, "A stream whose client reads nothing for so long is cut.", metavar="SEC", above=0)
    ] = 30
    drain_timeout: Annotated[float, flag(_SERVER, "For running requests after SIGTERM.", metavar="SEC", least=0)] = 30
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        flag(_SERVER, "info: one line for each finished request.", metavar="LEVEL"),
    ] = "info"
    keep_alive_timeout: Annotated[
        int, flag(_SERVER, "How long an idle connection stays open.", metavar="SEC", least=0)
    ] = 75

    def settings(self, limits: LimitFlags) -> ServerSettings:
        """Build the ServerSettings."""
        from ..engine import Limits  # noqa: PLC0415
        from ..server.settings import ServerSettings  # noqa: PLC0415

        return ServerSettings(
            host=self.host,
            port=self.port,
            served_model_names=tuple(self.served_model_name),
            limits=Limits(
                max_waiting_requests=limits.max_waiting_requests,
                max_waiting_prompt_tokens=limits.max_waiting_prompt_tokens,
                max_body_bytes=limits.max_body_bytes,
                max_logprobs=limits.max_logprobs,
                request_timeout_s=limits.request_timeout or None,
                start_timeout_s=limits.start_timeout,
                step_timeout_s=limits.step_timeout,
                stall_after_s=limits.stall_after,
                max_start_attempts=limits.max_start_attempts,
                backoff_s=limits.backoff,
                max_backoff_s=limits.max_backoff,
                max_connections=limits.max_connections,
                max_headers=limits.max_headers,
                max_header_bytes=limits.max_header_bytes,
                max_url_bytes=limits.max_url_bytes,
                head_timeout_s=limits.head_timeout,
                body_timeout_s=limits.body_timeout,
            ),
            generation_config=self.generation_config,
            chat_template=None if self.chat_template is None else self.chat_template.read_text(),
            trust_request_chat_template=self.trust_request_chat_template,
            route_plugins=tuple(self.enable_routes),
            slow_reader_timeout=self.slow_reader_timeout,
            drain_timeout=self.drain_timeout,
            keep_alive_timeout=self.keep_alive_timeout,
        )


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="ISOTOKEN_CONFIG",
        show_envvar=False,
        rich_help_panel=_SERVER,
        help="Read settings from this file: see `isotoken config`. Flags win over it.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="K=V", rich_help_panel=_SERVER, help="Any setting, such as server.port=9000."),
]


def serve(
    context: typer.Context,
    server: ServerFlags,
    engine: EngineFlags,
    limits: LimitFlags,
    model: ModelArgument = DEFAULT_MODEL,
    config_file: ConfigOption = None,
    assignments: SetOption = [],  # noqa: B006  (Typer copies it)
) -> None:
    """Serve a model over HTTP: OpenAI's completions and chat, TGI's /generate, metrics and health.

    The engine runs in a process of its own and is started again should it die; clients notice a pause and nothing else.
    """
    if config_file is not None or assignments or environment_configures(os.environ):
        from ..config.serving import plan  # noqa: PLC0415

        config, settings, level = plan(config_file, assignments, _given(context), server, engine, limits, model)
    else:
        config, settings, level = engine.config(model), server.settings(limits), server.log_level
    log_to_stderr(level, sys.stderr)
    from ..server.run import serve as run  # noqa: PLC0415  (the server: only once the arguments are known to be good)

    try:
        gateway = settings.features.gateway
        has_keys = gateway is not None and bool(gateway.authenticator)
        banner = partial(_print_banner, settings.served_model_names, has_keys)
        code = run(config, settings, on_started=banner, on_fleet=partial(_print_fleet_banner, has_keys))
    except socket.gaierror as error:
        raise typer.BadParameter(f"{settings.host!r}: {error.strerror}", param_hint="'--host'") from error
    raise typer.Exit(code)


def _given(context: typer.Context) -> frozenset[str]:
    """Return the names of the flags and arguments that are on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


def _print_banner(names: tuple[str, ...], has_keys: bool, url: str, engine: AsyncEngine) -> None:
    from ..server.served import default_name  # noqa: PLC0415

    info = engine.info
    name = names[0] if names else default_name(Path(info.model))
    weights = info.settings.get("quantization", "none")
    computes = info.dtype if weights == "none" else f"{info.dtype} with {weights} weights"
    lines = [
        f"isotoken serves {name} on {url}",
        f"  engine   {info.backend} on {info.device} in {computes}, context of {info.max_model_len} tokens",
        *(f"           {reason}" for reason in info.why),
        f"  docs     {url}/docs",
        f"  try      {_curl(url, {}, has_keys)}",
    ]
    print("\n".join(lines), flush=True)


def _print_fleet_banner(has_keys: bool, url: str, service: Service) -> None:
    names = [model.names for model in service.directory.models]
    lines = [
        f"isotoken serves {len(names)} model{'s' * (len(names) != 1)} on {url}",
        *(f"  model    {', '.join(each)}" for each in names),
        f"  docs     {url}/docs",
        f"  try      {_curl(url, {'model': names[0][-1]} if names else {}, has_keys)}",
    ]
    print("\n".join(lines), flush=True)


def _curl(url: str, more: dict[str, str], has_keys: bool) -> str:
    """Return a line to paste; where keys are asked for, it takes one from the environment."""
    body = json.dumps({**more, "prompt": "The capital of France is", "max_tokens": 16, "temperature": 0})
    line = shlex.join(["curl", "-s", f"{url}/v1/completions", "-H", "Content-Type: application/json", "-d", body])
    return line + ' -H "Authorization: Bearer $ISOTOKEN_API_KEY"' * has_keys
