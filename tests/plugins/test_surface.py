"""The plugin API keeps its promise: nothing public changes without a new version, and a minor version only adds."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from isotoken.plugins.hookspecs import API_VERSION
from isotoken.plugins.surface import LISTS, PROTOCOLS, PUBLIC, ROOT, digest, render

VERSIONS = sorted((path.stem for path in LISTS.glob("*.txt")), key=lambda v: tuple(map(int, v.split("."))))
STEPS = [(a, b) for a, b in pairwise(VERSIONS) if a.split(".")[0] == b.split(".")[0]]


def names(version: str) -> list[str]:
    """The lines about names of a committed list."""
    lines = (LISTS / f"{version}.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith(("plugin API ", "follows "))]


def owner(line: str) -> str:
    """The class, or the function, that a line belongs to: core.batch.Batch, plugins.drafters.DrafterContext."""
    (found,) = (module for module in PUBLIC if line.startswith(f"{module}."))
    return f"{found}.{re.split('[.(:]', line.removeprefix(f'{found}.'))[0]}"


def test_the_list_of_this_version_is_fresh() -> None:
    committed = LISTS / f"{API_VERSION}.txt"
    assert committed.exists(), f"run: python -m isotoken.plugins.surface > docs/plugin-api/{API_VERSION}.txt"
    assert committed.read_text() == render(), (
        "the public names have changed. Is this version of the plugin API in a release? Then raise API_VERSION in "
        "plugins/hookspecs.py first: the minor number for additions, else the major one. Then run: "
        f"python -m isotoken.plugins.surface > docs/plugin-api/VERSION.txt (now {API_VERSION})"
    )


def test_every_version_has_its_list() -> None:
    major, minor = map(int, API_VERSION.split("."))
    assert VERSIONS[-1] == API_VERSION
    assert [v for v in VERSIONS if v.startswith(f"{major}.")] == [f"{major}.{i}" for i in range(minor + 1)]


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_older_lists_stay_as_they_were(before: str, after: str) -> None:
    header = (LISTS / f"{after}.txt").read_text().splitlines()[1]
    assert header == f"follows {before}, sha256 {digest(before)}", f"{before}.txt was edited after {after} came"


def breaks(before: list[str], after: list[str]) -> list[str]:
    """What in the lines of `after` can break a plugin that was written for those of `before`."""
    found = [f"gone or changed: {line}" for line in before if line not in after]
    known = {owner(line) for line in before}
    for line in (line for line in after if line not in before and owner(line) in known):
        if owner(line).split(".")[-1] in PROTOCOLS:
            found.append(f"plugins implement this: {line}")
        elif "(" not in line.split(": ")[0]:  # a field or a property
            if " = " not in line and not line.endswith(", property"):
                found.append(f"not optional: {line}")
        elif any(other.startswith(f"{line.split('(')[0]}(") for other in before) and " = " not in line:  # a parameter
            found.append(f"not optional: {line}")
    return found


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_a_minor_version_only_adds_and_asks_for_nothing(before: str, after: str) -> None:
    assert breaks(names(before), names(after)) == []


@pytest.mark.parametrize(
    ("before", "after", "broken"),
    [
        ("core.batch.f(1. a: int)", "core.batch.f(1. a: str)", True),
        ("core.batch.f(1. a: int)", "core.batch.f(1. a: int)\ncore.batch.f(2. b: int)", True),
        ("core.batch.f(1. a: int)", "core.batch.f(1. a: int)\ncore.batch.f(*, b: int = 0)", False),
        ("core.types.C: class", "core.types.C: class\ncore.types.C.x: int", True),
        ("core.types.C: class", "core.types.C: class\ncore.types.C.x: int = 0", False),
        ("core.types.C: class", "core.types.C: class\ncore.types.C.x: int, property", False),
        ("core.types.C: class", "core.types.C: class\ncore.types.C.m() -> int\ncore.types.C.m(1. a: int)", False),
        ("core.interfaces.Backend: class", "core.interfaces.Backend: class\ncore.interfaces.Backend.m() -> int", True),
        ("core.types.C: class", "core.types.C: class\ncore.types.D: class\ncore.types.D.x: int", False),
    ],
)
def test_the_rule_itself(before: str, after: str, broken: bool) -> None:
    assert bool(breaks(before.split("\n"), after.split("\n"))) == broken


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("def unsupported(reason: str)", "def unsupported(reason: str, why: str)", "unsupported(2. why: str)"),
        ("max_tensor_parallel_size: int = 1", "max_tensor_parallel_size: int = 2", "max_tensor_parallel_size: int = 2"),
        ("def not_implemented(", "def not_yet(", "not_yet() -> Unavailable"),
        ('Literal["company", ', "Literal[", "Aspect: Literal['placement', 'chunking', 'threads', 'recomputation']"),
        ("class Exclusion:", "class Exclusion(Unavailable):", "Exclusion: class(Unavailable), dataclass(frozen=True"),
        ("def __bool__(self) -> bool:", "@property\n    def truth(self) -> bool:", "Unavailable.truth: bool, property"),
    ],
)
def test_every_kind_of_change_shows(old: str, new: str, line: str, tmp_path: Path) -> None:
    for module in PUBLIC:
        source = ROOT.joinpath(*module.split("."))
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text())
    assert render(tmp_path) == render()
    changed = tmp_path / "core" / "capabilities.py"
    assert old in changed.read_text()
    changed.write_text(changed.read_text().replace(old, new))
    added = set(render(tmp_path).splitlines()) - set(render().splitlines())
    assert [found for found in added if line in found]


def test_every_promised_name_exists() -> None:
    listed = {owner(line) for line in names(API_VERSION)}
    for module, chosen in PUBLIC.items():
        assert {f"{module}.{name}" for name in chosen} <= listed
        assert any(name.startswith(module) for name in listed)


def test_the_documentation_names_every_public_module() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    for module, chosen in PUBLIC.items():
        assert f"`isotoken.{module}`" in text
        for name in chosen:
            assert f"`{name}`" in text
    assert f"(plugin-api/{API_VERSION}.txt)" in text
