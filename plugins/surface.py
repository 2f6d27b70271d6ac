"""What the plugin API promises, as a list: every public name with its signature, read from the sources.

`python -m isotoken.plugins.surface > docs/plugin-api/1.1.txt` writes it anew. A test compares it with the committed
lists: a change needs a new version of the API, and a minor version may only add.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from .hookspecs import API_VERSION

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "docs" / "plugin-api"
ALL: tuple[str, ...] = ()
PUBLIC: dict[str, tuple[str, ...]] = {
    "api.safety.filters": ALL,
    "core.batch": ALL,
    "core.capabilities": ALL,
    "core.checkpoint": ("Checkpoint",),
    "core.constraints": ("Constraint", "ConstraintError", "GrammarCompiler"),
    "core.decoder_spec": ALL,
    "core.fast_sampler": ("FastSampler",),
    "core.interfaces": ALL,
    "core.kv_cache": ("KVCacheConfig",),
    "core.packed_format": ("PackedFormat",),
    "core.packed_weights": ("QuantizedMatrix",),
    "core.quantization": ("QuantizationScheme", "refuse_absent"),
    "core.rope": ("RopeSpec", "inverse_frequencies", "rope_tables"),
    "core.sampling": ("HostSampler",),
    "core.scheduler": ("SchedulerConfig",),
    "core.types": ALL,
    "plugins.drafters": ALL,
    "plugins.grammars": ALL,
    "plugins.hookspecs": ALL,
}
"""Modules, and which of their names a plugin may rely on; ALL: those without a leading underscore."""

PROTOCOLS = (
    "Backend",
    "AheadOfTime",
    "ModelRunner",
    "Sampler",
    "KVCache",
    "Scheduler",
    "Drafter",
    "PricedDrafter",
    "Exporter",
    "Constraint",
    "GrammarCompiler",
    "Filter",
    "Classifier",
)
"""What plugins implement, so that even an addition breaks them: fixed within a major version."""

_DUNDERS = ("__call__", "__len__")
_LEFT_OUT = ("API_VERSION", "__all__")


def render(root: Path = ROOT, version: str = API_VERSION) -> str:
    """Return the list: a line for the version, one for the list before it, one for each name."""
    lines = [f"plugin API {version}", *_predecessor(version)]
    for module, names in PUBLIC.items():
        path = root.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            lines += (f"{module}.{line}" for line in _node(node) if not names or _owner(line) in names)
    return "\n".join(lines) + "\n"


def digest(version: str) -> str:
    """Return the hash of a committed list, by which the next one names it."""
    return hashlib.sha256((LISTS / f"{version}.txt").read_bytes()).hexdigest()


def _predecessor(version: str) -> Iterator[str]:
    major, minor = map(int, version.split("."))
    before = f"{major}.{minor - 1}"
    if minor and (LISTS / f"{before}.txt").exists():
        yield f"follows {before}, sha256 {digest(before)}"


def _owner(line: str) -> str:
    """The top-level name that a line is about."""
    return next(part for part in line.replace("(", " ").replace(".", " ").replace(":", " ").split())


def _node(node: ast.stmt, owner: str = "") -> Iterator[str]:
    """Yield the lines of one statement of a module or class body."""
    match node:
        case ast.FunctionDef(name=name) if not name.startswith("_") or name in _DUNDERS:
            yield from (f"{owner}{name}{part}" for part in _signature(node))
        case ast.ClassDef(name=name) if not name.startswith("_"):
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
            yield f"{name}: class{bases}{''.join(f', {mark}' for mark in marks)}"
            for child in node.body:
                yield from _node(child, f"{name}.")
        case ast.AnnAssign(target=ast.Name(id=name)) if _is_public(name):
            yield f"{owner}{name}: {ast.unparse(node.annotation)}{_default(node.value)}"
        case ast.Assign(targets=[ast.Name(id=name)]) if _is_public(name):
            yield f"{owner}{name}: {ast.unparse(node.value)}"
        case _:
            pass


def _signature(node: ast.FunctionDef) -> Iterator[str]:
    """Yield what comes back and, a line each, the parameters: so an optional one more is a line more."""
    returns = ast.unparse(node.returns) if node.returns else ""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    if "property" in marks:
        yield f": {returns}, property"
        return
    yield f"() -> {returns}{''.join(f', {mark}' for mark in marks)}"
    given = node.args
    positional = [arg for arg in (*given.posonlyargs, *given.args) if arg.arg not in ("self", "cls")]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    for place, (arg, default) in enumerate(zip(positional, defaults, strict=True), 1):
        yield f"({place}. {ast.unparse(arg)}{_default(default)})"
    for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield f"(*, {ast.unparse(arg)}{_default(default)})"


def _default(value: ast.expr | None) -> str:
    return "" if value is None else f" = {ast.unparse(value)}"


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name not in _LEFT_OUT


if __name__ == "__main__":
    print(render(), end="")
