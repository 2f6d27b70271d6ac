"""docs/writing-a-backend.md is followed to the letter: every change applies, everything that is said to pass does."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from isotoken.conformance.rig import Rig, Strand

from .stranger import Stranger

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-backend.md").read_text()
BLOCKS = [
    (language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
    for indent, language, text in re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", PAGE, re.MULTILINE | re.DOTALL)
]


def apply(change: str, package: Path) -> None:
    """Apply a change as shown."""
    if shutil.which("git") is None:
        pytest.skip("git applies the changes, and is not installed")
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, cwd=package, input=change, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{change}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_leads_to_a_backend_that_conforms(tmp_path: Path) -> None:
    stranger, said = Stranger(tmp_path), ""
    package = tmp_path / "isotoken-mine"
    changes = checked = 0
    for language, text in BLOCKS:
        if language == "diff":
            apply(text, package)
            changes += 1
        for line in text.splitlines():
            if language == "sh" and line == "isotoken new-backend mine":
                made = stranger.isotoken("new-backend", "mine")
                assert made.returncode == 0, made.stderr
                stranger.pip("install", "--editable", package)
            elif language == "sh" and line.startswith("isotoken conformance --backend mine"):
                done = stranger.isotoken(*shlex.split(line)[1:], "-p", "no:cacheprovider")
                said = done.stdout
                assert done.returncode == 0, f"{line}\n{said}\n{done.stderr}"
                assert " passed" in said.splitlines()[-1], f"{line} ran nothing"
            elif language == "text" and line.startswith("  declared absent: "):
                assert line in said.splitlines(), f"the page quotes {line!r}, the suite says:\n{said}"
                checked += 1
    assert changes == 6
    assert checked >= 8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_package_goes_its_way_in_the_house_style(tmp_path: Path) -> None:
    """Before and after all changes formatted and typed; in the end no absence is left that the page took away."""
    stranger = Stranger(tmp_path)
    assert stranger.isotoken("new-backend", "mine").returncode == 0
    package = tmp_path / "isotoken-mine"
    shutil.copytree(package / "isotoken_mine", tmp_path / "before")
    for language, text in BLOCKS:
        if language == "diff":
            apply(text, package)
    backend = (package / "isotoken_mine" / "backend.py").read_text()
    assert re.findall(r"(\w+)=not_implemented", backend) == ["batch_invariant"]
    assert "invariant_to" not in backend
    shutil.copytree(package / "isotoken_mine", tmp_path / "after")
    (tmp_path / "isotoken").symlink_to(ROOT)  # mypy does not see an editable installation
    for tool in (
        ["ruff", "format", "--check", "--no-cache", "--line-length=120", "before", "after"],
        ["mypy", f"--config-file={ROOT / 'pyproject.toml'}", "-p", "before", "-p", "after"],
    ):
        done = stranger.run("-m", *tool)
        assert done.returncode == 0 or f"No module named {tool[0]}" in done.stderr, done.stdout + done.stderr


def test_the_batch_that_is_shown_is_a_batch() -> None:
    (shown,) = (text for language, text in BLOCKS if language == "text" and text.startswith("input_ids"))
    info = SimpleNamespace(block_size=16, num_blocks=16, max_num_batched_tokens=64, max_num_seqs=8)
    rig = Rig(SimpleNamespace(info=info))  # type: ignore[arg-type]
    strands = [
        Strand(list(range(20, 58)), [7, 2, 5], computed=37, row_id=0),
        Strand(list(range(60, 81)), [4, 0], computed=18, row_id=1),
        Strand([31, 32, 33, 34, 35], [9], row_id=2),
    ]
    batch = rig.batch(list(zip(strands, (1, 3, 5), (1, 3, 0), strict=True)))
    for line in shown.splitlines():
        values, _ = json.JSONDecoder().raw_decode(line[line.index("[") :])
        assert getattr(batch, line.split()[0]).tolist() == values, line
