"""Model names: built in, folders, the cache and the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from isotoken.api.errors import ModelNotFound
from isotoken.api.models import list_models, pull_model, resolve_model
from isotoken.models import BUILTIN, DEFAULT_MODEL


def test_built_in_names_and_folders(model_dir: Path) -> None:
    assert resolve_model() == resolve_model(DEFAULT_MODEL) == BUILTIN[DEFAULT_MODEL]
    assert resolve_model(model_dir) == resolve_model(str(model_dir)) == model_dir.resolve()


@pytest.mark.parametrize("name", ["isotoken-smal", "./nowhere", "/nowhere/at/all", "a/b/c"])
def test_an_unknown_name_says_what_there_is(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"isotoken-small|no folder"):
        resolve_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        resolve_model(tmp_path)


def test_a_hub_id_that_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_options: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelNotFound, match="not in the Hugging Face cache, and the hub cannot be reached"):
        pull_model("owner/name")
    with pytest.raises(ModelNotFound, match="downloads are off"):
        resolve_model("owner/name", download=False)


def test_a_hub_id_is_looked_up_with_its_revision(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def download(repo_id: str, *, revision: object, **_options: object) -> str:
        asked.append((repo_id, revision))
        return str(model_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_model("owner/name@v2") == model_dir
    assert resolve_model("owner/name") == model_dir
    assert asked == [("owner/name", "v2"), ("owner/name", None)]


def test_models_at_hand_are_listed(monkeypatch: pytest.MonkeyPatch, model_dir: Path) -> None:
    monkeypatch.setitem(BUILTIN, "tiny", model_dir)
    tiny = next(model for model in list_models() if model.name == "tiny")
    assert (tiny.source, tiny.path) == ("built-in", model_dir)
    assert tiny.num_bytes > 100_000
