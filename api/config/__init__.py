"""One configuration for a server: a file, the environment and flags, checked together. See docs/configuration.md."""

from __future__ import annotations

from collections.abc import Iterable

ENV_PREFIX = "ISOTOKEN_"
ENV_DELIMITER = "__"
ENV_FILE = "ISOTOKEN_CONFIG"
"""Names a configuration file where no --config does."""


def environment_configures(names: Iterable[str]) -> bool:
    """Whether a variable sets a field, such as ISOTOKEN_SERVER__PORT. Costs nothing where none does."""
    return any(name.startswith(ENV_PREFIX) and (ENV_DELIMITER in name or name == "ISOTOKEN_MODELS") for name in names)
