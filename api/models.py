"""Models by name: built in, in a local folder, in the Hugging Face cache, or on the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..models import BUILTIN, DEFAULT_MODEL
from .errors import ModelNotFound

__all__ = ["DEFAULT_MODEL", "LocalModel", "list_models", "pull_model", "resolve_model"]

# What serving needs of a repository on the hub: no pickles, no other engines' weights.
FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "LICENSE*", "README.md"]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that can be served without the network."""

    name: str
    path: Path
    source: Literal["built-in", "cached"]
    num_bytes: int  # of its files


def resolve_model(name: str | Path | None = None, *, download: bool = True) -> Path:
    """Return the folder of a model: a built-in name, a folder, or an id on the hub ("owner/name", maybe "@revision").

    None is the default built-in model. Raises ModelNotFound saying what was tried.
    """
    text = str(name or DEFAULT_MODEL)
    if text in BUILTIN:
        return BUILTIN[text]
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"the folder {folder} has no config.json: it holds no model in Hugging Face layout")
        return folder.resolve()
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1 or "\\" in text:
        raise ModelNotFound(f"there is no folder {folder}")
    if "/" not in text:
        raise ModelNotFound(
            f"unknown model {text!r}: built in are {', '.join(BUILTIN)}; "
            "else give a folder, or an id on the Hugging Face hub such as owner/name"
        )
    try:
        return _snapshot(text, local_files_only=not download)
    except ModelNotFound as error:
        raise ModelNotFound(f"there is no folder {folder}, and as an id on the hub: {error}") from error


def pull_model(repo_id: str) -> Path:
    """Download a model from the hub ("owner/name", maybe "@revision") unless it is cached, and return its folder.

    Raises ModelNotFound when it is neither there nor to be had.
    """
    return _snapshot(repo_id, local_files_only=False)


def list_models() -> Iterator[LocalModel]:
    """Yield the models at hand: the built-in ones, then those of the Hugging Face cache."""
    for name, path in BUILTIN.items():
        if (path / "config.json").is_file():
            yield LocalModel(name, path, "built-in", _num_bytes(path))
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415  (slow to import; built-in models do without)
    from huggingface_hub.errors import CacheNotFound  # noqa: PLC0415

    try:
        repos = sorted(scan_cache_dir().repos, key=lambda repo: repo.repo_id)
    except CacheNotFound:
        return
    for repo in repos:
        revisions = [r for r in repo.revisions if (r.snapshot_path / "config.json").exists()]
        if repo.repo_type == "model" and revisions:
            newest = max(revisions, key=lambda revision: revision.last_modified)
            yield LocalModel(repo.repo_id, newest.snapshot_path, "cached", newest.size_on_disk)


def _snapshot(name: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import; built-in models do without)
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    repo_id, _, revision = name.partition("@")
    try:
        path = snapshot_download(
            repo_id, revision=revision or None, allow_patterns=FILES, local_files_only=local_files_only
        )
    except LocalEntryNotFoundError as error:
        offline = local_files_only or os.environ.get("HF_HUB_OFFLINE")
        why = "downloads are off" if offline else "the hub cannot be reached from here"
        raise ModelNotFound(f"model {name!r} is not in the Hugging Face cache, and {why}") from error
    except (HFValidationError, OSError, ValueError) as error:
        raise ModelNotFound(f"model {name!r} cannot be had from the hub: {str(error).splitlines()[0]}") from error
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{name!r} on the hub has no config.json: it holds no model in Hugging Face layout")
    return folder


def _num_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
