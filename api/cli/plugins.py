"""`isotoken plugins`: what is installed, from which distribution, what it provides, and what failed and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ...plugins.manager import PluginInfo, Plugins


def plugins(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", metavar="", help="With tracebacks of what failed, and the API that each states."
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Import each backend's engine too, and say what it can do.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="As JSON, for programs.")] = False,
) -> None:
    """List the installed plugins, what they provide, and those that failed with the reason.

    Backends, schedulers, caches, samplers, drafters, exporters, quantisations: all are plugins, the built-in ones too.
    """
    from ...plugins.manager import Plugins  # noqa: PLC0415

    installed = Plugins.load()
    checks = _check_backends(installed) if check else {}
    if as_json:
        report = {"plugins": [asdict(info) for info in installed.infos], "names": _names(installed)}
        typer.echo(json.dumps({**report, "conflicts": _conflicts(installed), "checks": checks}, indent=2))
        return
    for info in installed.infos:
        _print_plugin(info, installed, verbose=verbose)
    for what, owners in _conflicts(installed).items():
        typer.secho(f"conflict: {what} is claimed by {' and '.join(owners)}: uninstall one of them", fg="red")
    for name, result in checks.items():
        typer.echo(f"backend {name}: {result}")
    if not verbose and any(info.error for info in installed.infos):
        typer.echo("\nisotoken plugins --verbose shows the tracebacks.")


def _print_plugin(info: PluginInfo, installed: Plugins, *, verbose: bool) -> None:
    typer.echo(f"{typer.style(info.name, bold=True)}  ({info.distribution} {info.version})".replace(" )", ")"))
    if info.error is not None:
        typer.secho(f"  failed: {info.error}", fg="red")
        if verbose and info.traceback:
            typer.echo("".join(f"    {line}\n" for line in info.traceback.splitlines()), nl=False)
        return
    for provided in info.provides:
        kind, _, name = provided.rpartition(" ")
        typer.echo(f"  {kind:<12} {name:<12} {_description(installed, kind, name)}".rstrip())
    for hook in info.hooks:
        if not hook.startswith("register_"):
            typer.echo(f"  {'hook':<12} {hook}")
    for deprecation in info.deprecations:
        typer.secho(f"  deprecated: {deprecation}", fg="yellow")
    if verbose:
        typer.echo(f"  plugin API {info.api}")


def _description(installed: Plugins, kind: str, name: str) -> str:
    registry = getattr(installed, f"{kind.replace(' ', '_')}s")
    return "" if name in registry.conflicts() else str(registry[name].description)


def _names(installed: Plugins) -> dict[str, dict[str, dict[str, str]]]:
    return {
        registry.kind: {
            name: {"plugin": provider.plugin, "description": provider.description}
            for name, provider in _uncontested(registry).items()
        }
        for registry in installed.registries()
    }


def _uncontested(registry: Any) -> dict[str, Any]:
    return {name: registry[name] for name in registry if name not in registry.conflicts()}


def _conflicts(installed: Plugins) -> dict[str, list[str]]:
    return {
        f"{registry.noun} {name}": [f"{c.distribution} (plugin {c.plugin})" for c in claims]
        for registry in installed.registries()
        for name, claims in registry.conflicts().items()
    }


def _check_backends(installed: Plugins) -> dict[str, str]:
    results = {}
    for name, provider in _uncontested(installed.backends).items():
        try:
            can = provider.factory().capabilities
        except Exception as error:  # an engine that cannot be imported is what this looks for
            results[name] = f"not usable here: {type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            results[name] = "; ".join(
                f"{what} {', '.join(sorted(names))}"
                for what, names in (
                    ("devices", can.devices),
                    ("dtypes", can.dtypes),
                    ("quantizations", can.quantizations),
                    ("K/V also in", can.kv_cache_dtypes),
                )
                if names
            )
    return results
