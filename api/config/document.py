"""A configuration file as plain values, with the line that each of them stands on."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NoReturn

import yaml

from .problems import ConfigError, Path, Problem

MAX_BYTES = 2**20
MAX_VALUES = 100_000  # aliases counted each time: a few lines of YAML can stand for billions
MAX_DEPTH = 32


@dataclass(slots=True)
class Document:
    """One file."""

    name: str  # as the user gave it
    values: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return "file:line" of a value, or of what holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


def read_document(path: FilePath) -> Document:
    """Read a .yaml, .yml, .json or .toml file. Raises ConfigError naming the file and the line."""
    readers: dict[str, Callable[[str, str], Document]] = {".toml": _read_toml}
    readers |= dict.fromkeys((".yaml", ".yml", ".json"), _read_yaml)
    name = str(path)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        _fail(name, f"its name ends in {path.suffix or 'nothing'}: expected {', '.join(readers)}")
    return reader(name, _read_text(path))


def _fail(where: str, message: str) -> NoReturn:
    raise ConfigError([Problem(where, message)])


def _read_text(path: FilePath) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            _fail(str(path), "is no file")
        if status.st_size > MAX_BYTES:
            _fail(str(path), f"has {status.st_size} bytes: a configuration has {MAX_BYTES} at most")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        _fail(str(path), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        _fail(str(path), f"is not text in UTF-8 (byte {error.start})")


def _read_yaml(name: str, text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document(name, {})
        if not isinstance(root, yaml.MappingNode):
            _fail(f"{name}:1", "expected sections, such as `server:`")
        return _YamlReader(name, loader).read(root)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _fail(f"{name}:{mark.line + 1}" if mark else name, f"is not YAML: {error.problem or error.context}")
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        _fail(name, f"is not YAML: {str(error).splitlines()[0]}")
    finally:
        loader.dispose()


_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _YamlReader:
    """Makes values of YAML's nodes, and remembers their lines."""

    def __init__(self, name: str, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._document = Document(name, {})
        self._num_values = 0

    def read(self, root: yaml.MappingNode) -> Document:
        """Return the document."""
        self._document.values = self._mapping(root, ())
        return self._document

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._num_values += 1
        line = node.start_mark.line + 1
        self._document.lines.setdefault(path, line)
        if self._num_values > MAX_VALUES:
            _fail(f"{self._document.name}:{line}", f"it has more than {MAX_VALUES} values, those of aliases included")
        if len(path) > MAX_DEPTH:
            _fail(f"{self._document.name}:{line}", f"values are nested more than {MAX_DEPTH} deep")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN:
            _fail(f"{self._document.name}:{line}", f"the tag {node.tag} is not allowed: plain values only")
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except yaml.constructor.ConstructorError:
            _fail(f"{self._document.name}:{line}", f"the tag {node.tag} is not allowed: plain values only")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, value in node.value:
            where = f"{self._document.name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                _fail(where, "a field's name is plain text")
            if own.count(key.value) > 1:
                _fail(where, f"{key.value!r} is there twice")
            if key.value == "<<" and not isinstance(value, yaml.MappingNode):  # of many, some lines make billions
                _fail(where, "<< takes one mapping")
        self._loader.flatten_mapping(node)  # `<<: *defaults`
        values: dict[str, Any] = {}
        for key, value in node.value:
            self._document.lines[*path, key.value] = key.start_mark.line + 1
            values[key.value] = self._value(value, (*path, key.value))
        return values


_TOML_ERROR = re.compile(r"(.*) \(at line (\d+), column \d+\)")
_TOML_TABLE = re.compile(r"\s*(\[\[?)\s*([\w.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")
_TOML_KEY = re.compile(r"\s*([\w\-\"'.]+)\s*=")


def _read_toml(name: str, text: str) -> Document:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_ERROR.fullmatch(str(error))
        _fail(f"{name}:{found[2]}" if found else name, f"is not TOML: {found[1] if found else error}")
    except RecursionError:
        _fail(name, "values are nested too deeply")
    return Document(name, values, dict(_toml_lines(text)))


def _toml_lines(text: str) -> Iterator[tuple[Path, int]]:
    """Yield where tables and keys stand. Keys in inline tables and in texts of several lines are not looked for."""
    table: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TOML_TABLE.match(line):
            table = _numbered(tuple(part.strip(" \"'") for part in found[2].split(".")), counts, found[1] == "[[")
            yield table, number
        elif found := _TOML_KEY.match(line):
            yield (*table, *(part.strip("\"'") for part in found[1].split("."))), number


def _numbered(names: tuple[str, ...], counts: dict[Path, int], begins: bool) -> Path:
    """Return a table's path with the numbers of the [[tables]] that it lies in."""
    path: Path = ()
    for i, name in enumerate(names):
        path = (*path, name)
        if begins and i == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path
