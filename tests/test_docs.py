"""The documentation says what the code does: hooks, examples, flags and links are compared with it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from isotoken.api.cli import reference
from isotoken.core.sampling import gumbel, philox4x32_10, splitmix64
from isotoken.plugins import hookspecs
from isotoken.plugins.api_version import misfit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").rglob("*.md")])
HOOKS = {
    node.name: node
    for node in ast.parse(Path(hookspecs.__file__).read_text()).body
    if isinstance(node, ast.FunctionDef) and any("hookspec" in ast.unparse(mark) for mark in node.decorator_list)
}


def signature(hook: ast.FunctionDef) -> str:
    return f"def {hook.name}({ast.unparse(hook.args)}) -> {ast.unparse(hook.returns) if hook.returns else None}"


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_exact_signature(name: str) -> None:
    section = (DOCS / "plugins.md").read_text().split("## Every hook")[1]
    assert signature(HOOKS[name]) in section.splitlines()


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_what_it_is_for(name: str) -> None:
    docstring = ast.get_docstring(HOOKS[name])
    assert docstring
    assert "\n" not in docstring


def test_no_documented_hook_is_gone() -> None:
    section = (DOCS / "plugins.md").read_text().split("## Every hook")[1]
    assert set(re.findall(r"^def (\w+)\(", section, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("page", ["plugins.md", "writing-a-backend.md"])
def test_the_documented_plugin_api_is_spoken_here(page: str) -> None:
    stated = set(re.findall(r'ISOTOKEN_API = "([^"]+)"', (DOCS / page).read_text()))
    assert stated
    assert [misfit("documented", "example", each) for each in stated] == [None] * len(stated)


def test_the_command_lines_page_is_fresh() -> None:
    assert (DOCS / "cli.md").read_text() == reference.render(), (
        "run: python -m isotoken.api.cli.reference > docs/cli.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_quoted_files_are_quoted_as_they_are(page: Path) -> None:
    """A block after `<!-- from: PATH -->` is that file, or a part of it."""
    for path, block in re.findall(r"<!-- from: (\S+) -->\n```\w+\n(.*?)```", page.read_text(), re.DOTALL):
        assert block in (ROOT / path).read_text(), f"{page} quotes {path} differently"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.relative_to(ROOT)} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.relative_to(ROOT)} links to {link}"


def test_the_sampling_page_has_the_right_values() -> None:
    page = (DOCS / "sampling.md").read_text()
    zero = np.zeros(1, np.uint64)
    words = philox4x32_10(zero, (zero, zero, zero, zero))
    assert " ".join(f"{int(word[0]):08x}" for word in words) in page
    noise = gumbel(np.full(4, 7, np.uint64), np.full(4, 10, np.int64), np.arange(4))
    assert " ".join(f"{value:.5f}" for value in noise) in page
    assert f"`{splitmix64(8)}`" in page


def test_every_decision_has_its_four_parts_and_is_listed() -> None:
    decisions = sorted(DOCS.glob("adr/[0-9]*.md"))
    assert decisions
    listed = (DOCS / "adr" / "README.md").read_text()
    for decision in decisions:
        parts = re.findall(r"^## (.*)$", decision.read_text(), re.MULTILINE)
        assert parts == ["Context", "Options", "Decision", "Consequences"], decision.name
        assert f"({decision.name})" in listed
