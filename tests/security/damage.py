"""Kinds of damage: model folders and configuration files that must be refused, and the table of what is said of them.

`python tests/security/damage.py` writes the table that docs/security.md shows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isotoken.api.config.load import load
from isotoken.api.models import resolve_model
from isotoken.api.text import TextModel
from isotoken.core.checkpoint import Checkpoint
from isotoken.core.types import IsotokenError
from isotoken.models import BUILTIN

WEIGHTS = "model.safetensors"
Damage = Callable[[Path], Any]

MODELS: dict[str, Damage] = {}
CONFIGURATIONS: dict[str, tuple[str, str]] = {}  # the file's name, and what stands in it


def model(kind: str) -> Callable[[Damage], Damage]:
    def keep(damage: Damage) -> Damage:
        MODELS[kind] = damage
        return damage

    return keep


def read(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(folder: Path, header: Any, data: bytes) -> None:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(head).to_bytes(8, "little") + head + data)


def edit(folder: Path, change: Callable[[dict[str, Any], str], Any]) -> None:
    """Change the header's entry of one tensor, or the header."""
    header, data = read(folder)
    name = min(name for name in header if name != "__metadata__")
    write(folder, change(header, name) or header, data)


def with_json(file: str, **changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **changes}))

    return damage


def with_text(file: str, text: str) -> Damage:
    return lambda folder: (folder / file).write_text(text)


def without_weights(file: str, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / file).write_bytes(content)

    return damage


def instead_of_weights(content: bytes) -> Damage:
    return lambda folder: (folder / WEIGHTS).write_bytes(content)


PICKLE = b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."

MODELS |= {
    "weights: empty file": instead_of_weights(b""),
    "weights: a pickle under another name": instead_of_weights(PICKLE),
    "weights: a zip of pickles (torch.save) under another name": instead_of_weights(b"PK\x03\x04" + bytes(64)),
    "weights: pytorch_model.bin alone": without_weights("pytorch_model.bin", PICKLE),
    "weights: model.pt alone": without_weights("model.pt", PICKLE),
    "weights: consolidated.00.pth alone": without_weights("consolidated.00.pth", PICKLE),
    "weights: GGUF alone": without_weights("model.gguf", b"GGUF"),
    "weights: none": lambda folder: (folder / WEIGHTS).unlink(),
    "weights: a Git LFS pointer": instead_of_weights(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "weights: a web page": instead_of_weights(b"<!DOCTYPE html><title>404</title>"),
    "header: claims 2^63 bytes": instead_of_weights((2**63).to_bytes(8, "little") + bytes(64)),
    "header: claims more than the file has": instead_of_weights((4096).to_bytes(8, "little") + b"{}"),
    "header: is not JSON": lambda folder: write(folder, b"{nothing", read(folder)[1]),
    "header: nested 100,000 deep": lambda folder: write(folder, b'{"a":' * 100_000, b""),
    "header: is a list": lambda folder: write(folder, b"[]", b""),
    "header: a number of 5,000 digits": lambda folder: write(
        folder, b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4)
    ),
    "config.json: missing": lambda folder: (folder / "config.json").unlink(),
    "config.json: truncated": lambda folder: (folder / "config.json").write_bytes(
        (folder / "config.json").read_bytes()[:40]
    ),
    "config.json: a list": with_text("config.json", "[]"),
    "config.json: unknown architecture with code of its own": with_json(
        "config.json", architectures=["EvilForCausalLM"], auto_map={"AutoModelForCausalLM": "evil.EvilForCausalLM"}
    ),
    "config.json: layers below zero": with_json("config.json", num_hidden_layers=-1),
    "config.json: 2^40 layers": with_json("config.json", num_hidden_layers=2**40),
    "config.json: more layers than the weights have": with_json("config.json", num_hidden_layers=100),
    "config.json: a vocabulary that the weights lack": with_json("config.json", vocab_size=1_000_000),
    "config.json: an infinite epsilon": with_json("config.json", rms_norm_eps=float("inf")),
    "generation_config.json: end of sequence as a word": with_json("generation_config.json", eos_token_id="end"),
    "tokenizer.json: truncated": lambda folder: (folder / "tokenizer.json").write_bytes(
        (folder / "tokenizer.json").read_bytes()[:1000]
    ),
    "tokenizer.json: missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer.json: bytes": lambda folder: (folder / "tokenizer.json").write_bytes(bytes(range(256))),
    "tokenizer_config.json: not JSON": with_text("tokenizer_config.json", "{"),
    "tokenizer_config.json: nested 100,000 deep": with_text("tokenizer_config.json", '{"a":' * 100_000),
    "chat template: not Jinja": with_text("chat_template.jinja", "{% for %}"),
    "chat template: reaches for the interpreter": with_text(
        "chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    ),
    "chat template: loops without end": with_text(
        "chat_template.jinja", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "chat template: a text of 2^60 characters": with_text(
        "chat_template.jinja",
        "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    ),
}


@model("weights: truncated")
def _(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1000)


@model("weights: a named pipe")
def _(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


@model("weights: bytes after the last tensor")
def _(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"more")


@model("tensor: missing")
def _(folder: Path) -> None:
    header, data = read(folder)
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    begin = header.pop(last)["data_offsets"][0]
    write(folder, header, data[:begin])


@model("tensor: listed twice")
def _(folder: Path) -> None:
    header, data = read(folder)
    entries = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in header.items()]
    write(folder, ("{" + ",".join([*entries, entries[-1]]) + "}").encode(), data)


@model("tensor: overlaps another")
def _(folder: Path) -> None:
    edit(folder, lambda header, name: header.update(copy=dict(header[name])))


@model("tensor: bytes that are nobody's before it")
def _(folder: Path) -> None:
    header, data = read(folder)
    for name in header:
        if name != "__metadata__":
            header[name]["data_offsets"] = [offset + 8 for offset in header[name]["data_offsets"]]
    write(folder, header, bytes(8) + data)


def _entry(**changes: Any) -> Damage:
    return lambda folder: edit(folder, lambda header, name: header[name].update(changes))


MODELS |= {
    "tensor: ends before it begins": _entry(data_offsets=[8, 0]),
    "tensor: ends beyond the file": _entry(data_offsets=[0, 2**47]),
    "tensor: offsets that are no numbers": _entry(data_offsets=["0", "8"]),
    "tensor: another shape than its bytes": _entry(shape=[3, 5]),
    "tensor: a size below zero": _entry(shape=[-1, 5]),
    "tensor: a size of 2^62": _entry(shape=[2**62, 2**62]),
    "tensor: a million dimensions": _entry(shape=[9] * 1_000_000),
    "tensor: an unknown type": _entry(dtype="F128"),
    "tensor: no description": lambda folder: edit(folder, lambda header, name: header.update({name: 7})),
}


def _sharded(weight_map: Any) -> Damage:
    def damage(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return damage


MODELS |= {
    "index: leads out of the folder": _sharded({"model.norm.weight": "../../../etc/passwd"}),
    "index: names a file that is not there": _sharded({"model.norm.weight": "model-00001-of-00002.safetensors"}),
    "index: no table": _sharded([]),
}

CONFIGURATIONS |= {
    "a misspelt field": ("a.yaml", "server:\n  prot: 9000\n"),
    "a misspelt section": ("a.yaml", "sever:\n  port: 9000\n"),
    "a field in the wrong section": ("a.yaml", "server:\n  max_body_bytes: 5\n"),
    "a number out of bounds": ("a.yaml", "server:\n  port: 99999\n"),
    "words for a number": ("a.yaml", "limits:\n  max_body_bytes: plenty\n"),
    "an infinite time-out": ("a.yaml", "limits:\n  head_timeout: .inf\n"),
    "a section that is a list": ("a.yaml", "server:\n  - port\n"),
    "no sections": ("a.yaml", "just a text\n"),
    "a field twice": ("a.yaml", "server:\n  port: 1\n  port: 2\n"),
    "no YAML": ("a.yaml", "server: {port: 1\n"),
    "a tab for indentation": ("a.yaml", "server:\n\tport: 1\n"),
    "a tag that makes a Python object": ("a.yaml", "server: !!python/object/apply:os.system ['true']\n"),
    "aliases that stand for billions of values": (
        "a.yaml",
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    ),
    "an alias of itself": ("a.yaml", "server: &a\n  port: *a\n"),
    "two documents": ("a.yaml", "server: {}\n---\nserver: {}\n"),
    "no TOML": ("a.toml", "[server\nport = 1\n"),
    "a misspelt field in TOML": ("a.toml", "[server]\nhost = '::1'\n\n[limits]\nmax_hedaers = 5\n"),
    "another kind of file": ("a.ini", "[server]\n"),
    "a chat template that is not there": ("a.yaml", "server:\n  chat_template: nowhere.jinja\n"),
    "a model without a name": ("a.yaml", "models:\n  - model: isotoken-small\n"),
    "one name for two models": ("a.yaml", "models:\n  - name: a\n  - name: a\n"),
    "an unknown kind of log": ("a.yaml", "telemetry:\n  log_format: xml\n"),
}


def refuse_model(kind: str, folder: Path) -> None:
    """Damage a copy of the built-in draft model and open it, as a server would."""
    copy = folder / "model"
    shutil.copytree(BUILTIN["isotoken-draft"], copy)
    MODELS[kind](copy)
    path = resolve_model(copy)
    Checkpoint.open(path)
    TextModel.load(path).apply_chat_template([{"role": "user", "content": "Hello"}])


def refuse_configuration(kind: str, folder: Path) -> None:
    name, text = CONFIGURATIONS[kind]
    (folder / name).write_text(text)
    load(folder / name, environment={})


def what_is_said(refuse: Callable[[str, Path], None], kind: str, folder: Path) -> str:
    """Return the error's message, with the folder left out."""
    try:
        refuse(kind, folder)
    except IsotokenError as error:
        return tidy(str(error), folder)
    return "NOTHING: it was taken"


def tidy(message: str, folder: Path) -> str:
    lines = [line.strip() for line in message.replace(f"{folder.resolve()}/", "").splitlines()]
    if lines[0].startswith("the configuration has"):
        del lines[0]
    return re.sub(r"\s+", " ", " / ".join(lines))


def rows() -> Iterator[str]:
    """Yield the table's lines."""
    for title, kinds, refuse in (
        ("A model folder with", MODELS, refuse_model),
        ("A configuration with", CONFIGURATIONS, refuse_configuration),
    ):
        yield f"| {title} | is refused with |"
        yield "|---|---|"
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                said = what_is_said(refuse, kind, Path(folder)).replace("|", "\\|").replace("<", "&lt;")
            yield f"| {kind} | {said} |"
        yield ""


if __name__ == "__main__":
    print("\n".join(rows()))
