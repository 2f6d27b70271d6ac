"""The plugin of the tensorrt backend. Importing it does not import tensorrt."""

from __future__ import annotations

ISOTOKEN_API = "1.0"
