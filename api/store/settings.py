"""Where the database is."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, Field


class StoreSettings(BaseModel, extra="forbid"):
    """The database of keys, usage and model versions. It is opened by the first feature that needs it."""

    url: str = Field(
        default="",
        description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; empty: isotoken.db in the data folder",
    )
    migrate: bool = Field(
        default=True,
        description="bring the tables up to date at start; false: refuse to start until `isotoken store upgrade` ran",
    )
    connect_timeout_s: float = Field(default=5.0, gt=0, description="before a server that does not answer is given up")
    statement_timeout_s: float = Field(default=30.0, gt=0, description="before a statement that does not end is")

    def resolved_url(self) -> str:
        """Return the URL, the default one where none is set."""
        return self.url or f"sqlite:///{data_folder() / 'isotoken.db'}"


def data_folder() -> Path:
    """Return the folder of what isotoken keeps: $ISOTOKEN_DATA, or the user's data folder. It may not exist yet."""
    if folder := os.environ.get("ISOTOKEN_DATA"):
        return Path(folder)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "isotoken"
