"""The weight files of a model folder: one safetensors file, or many and the index that lists them."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .safetensors_file import SafetensorsFile
from .types import CheckpointError

MAX_JSON_BYTES = 100_000_000
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHERS = {".gguf": "GGUF", ".h5": "Keras", ".msgpack": "Flax", ".onnx": "ONNX", ".ggml": "GGML"}


def open_shards(path: Path) -> dict[str, SafetensorsFile]:
    """Map each tensor name to the file that holds it. Raises CheckpointError for whatever does not fit together."""
    if (path / SINGLE).exists() or (path / SINGLE).is_symlink():
        return _holders([path / SINGLE])
    if not (path / INDEX).exists():
        raise CheckpointError(_no_weights(path))
    weight_map = _read_weight_map(path)
    holders = _holders([path / name for name in dict.fromkeys(weight_map.values())])
    for name, file in weight_map.items():
        if name not in holders or holders[name].path.name != file:
            raise CheckpointError(
                f"{path / file}: tensor {name!r} is missing, but {INDEX} puts it there; download it again"
            )
    return holders


def read_json(path: Path, *, missing: str) -> Mapping[str, Any]:
    """Read a JSON object from a file. Raises CheckpointError naming the file, with `missing` where there is none."""
    try:
        if not stat.S_ISREG((status := path.stat()).st_mode):  # reading a pipe would wait for ever
            raise CheckpointError(f"{path}: cannot be read: it is no file")
        if status.st_size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path}: has {status.st_size} bytes, more than {MAX_JSON_BYTES}: not what it should be"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: does not exist; {missing}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); download or copy the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is not a JSON object; download or copy the file again")
    return value


def _no_weights(path: Path) -> str:
    names = sorted(file.name for file in path.iterdir())
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        kind = Path(pickles[0]).suffix
        return (
            f"{path}: has {pickles[0]} but no {SINGLE}; a {kind} file is a Python pickle, which can run any code when "
            "it is opened, so it is not read. Convert it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    if others := [name for name in names if Path(name).suffix in OTHERS]:
        form = OTHERS[Path(others[0]).suffix]
        return f"{path}: has {others[0]} but no {SINGLE}; weights in {form}'s format are not read: get the safetensors"
    found = ", ".join(sorted(file.name for file in path.glob("*.safetensors"))) or "none"
    return f"{path}: has neither {SINGLE} nor {INDEX} (safetensors files here: {found}); download the missing file"


def _read_weight_map(path: Path) -> dict[str, str]:
    """Read the index: tensor name -> file name. A file that is not there is an error."""
    index = path / INDEX
    table = read_json(index, missing="").get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index}: field 'weight_map' is missing or empty: expected tensor names and their files")
    for name, file in table.items():
        if not isinstance(file, str) or file in ("", ".", "..") or Path(file).name != file:
            raise CheckpointError(f"{index}: tensor {name!r} is said to be in {file!r}: expected a file name in here")
        if not (path / file).is_file():
            raise CheckpointError(f"{path / file}: does not exist, but {INDEX} puts tensor {name!r} there; download it")
    return table


def _holders(files: list[Path]) -> dict[str, SafetensorsFile]:
    """Open the files and index them by tensor name. A name in two files is an error."""
    holders: dict[str, SafetensorsFile] = {}
    for file in map(SafetensorsFile, files):
        for name in file.entries:
            if name in holders:
                other = holders[name].path.name
                raise CheckpointError(
                    f"{file.path}: tensor {name!r} is also in {other}; the files do not belong together, "
                    "download them again"
                )
            holders[name] = file
    return holders
