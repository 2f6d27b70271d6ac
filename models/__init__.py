"""The built-in models: small trained checkpoints in Hugging Face layout that ship with the package."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

BUILTIN: dict[str, Path] = {name: _HERE / name for name in ("isotoken-small", "isotoken-draft")}
DEFAULT_MODEL = "isotoken-small"
