"""The plugin of the onnxruntime backend. Importing it does not import onnxruntime."""

from __future__ import annotations

ISOTOKEN_API = "1.0"
