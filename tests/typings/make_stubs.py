"""Make the typing stub of TensorRT that the backend is checked against, and the table of the names that it uses.

    python tests/typings/make_stubs.py 10.16.1=STUBS 11.4.0=STUBS

STUBS is a folder with full stubs of that version's bindings (`tensorrt/__init__.pyi`, as pybind11-stubgen writes it).
The stub holds what is both used in backends/tensorrt and there in every version, with the last version's signatures.
The table tells each version's.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
BACKEND = HERE.parent.parent / "backends" / "tensorrt"
STUB, TABLE = HERE / "tensorrt" / "__init__.pyi", HERE / "names.json"
ALWAYS = {"__init__", "__int__", "__buffer__", "__eq__", "__hash__"}
BETTER = {"OnnxParser.get_error": "ParserError"}  # what pybind11-stubgen could not name
HEAD = """# mypy: ignore-errors
# Made by make_stubs.py from the stubs of {versions}: do not edit.
import builtins
import collections.abc
import typing
import typing_extensions

DimsLike = typing.Union["Dims", collections.abc.Sequence[int]]
__version__: str
"""
ABSENT = "absent"


@dataclass(slots=True)
class Uses:
    """What the backend's source mentions."""

    dotted: set[str] = field(default_factory=set)  # "BuilderFlag.TF32", "Builder"
    attributes: set[str] = field(default_factory=set)  # x.NAME for any x, and methods of subclasses


def uses(folder: Path = BACKEND) -> Uses:
    """Read what every module that imports tensorrt mentions."""
    found = Uses()
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text())
        if not any(isinstance(node, ast.Import) and node.names[0].name == "tensorrt" for node in ast.walk(tree)):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.attributes.add(node.attr)
                if (name := ast.unparse(node)).startswith("trt."):
                    found.dotted.add(name.removeprefix("trt."))
            elif isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("trt.") for base in node.bases):
                found.attributes |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    found.dotted = {name for name in found.dotted if name.split(".")[0] != "__version__"}
    return found


class Stubs:
    """One version's full stubs."""

    def __init__(self, path: Path) -> None:
        tree = ast.parse(path.read_text())
        self.classes: dict[str, ast.ClassDef] = {}
        self._collect(tree.body, "")

    def _collect(self, body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.classes[prefix + node.name] = node
                self._collect(node.body, f"{prefix}{node.name}.")

    def members(self, name: str) -> dict[str, list[ast.stmt]]:
        """The members of a class by name, overloads and setters together."""
        found: dict[str, list[ast.stmt]] = {}
        for node in self.classes[name].body:
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.AnnAssign):
                found.setdefault(ast.unparse(node.target), []).append(node)
        return found


def _signature(nodes: list[ast.stmt] | None) -> str:
    if nodes is None:
        return ABSENT
    parts = []
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            mark = "".join(f"@{ast.unparse(d)} " for d in node.decorator_list if "overload" not in ast.unparse(d))
            result = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
            parts.append(f"{mark}({ast.unparse(node.args)}){result}")
        elif isinstance(node, ast.AnnAssign):
            parts.append(ast.unparse(node.annotation))
    return " / ".join(parts)


def _mentioned(nodes: list[ast.stmt], classes: dict[str, ast.ClassDef]) -> set[str]:
    """Classes that signatures mention, by their full name or (nested ones) their first part."""
    text = {ast.unparse(n) for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)}
    return {"Dims" if name == "DimsLike" else name for name in text if name in classes or name == "DimsLike"}


def select(used: Uses, versions: dict[str, Stubs]) -> dict[str, dict[str, list[ast.stmt]]]:
    """Return the classes and members to keep, in the last version's words: used, and there in every version."""
    newest = versions[list(versions)[-1]]
    todo = [n if n in newest.classes else n.rpartition(".")[0] for n in sorted(used.dotted)]
    kept: dict[str, dict[str, list[ast.stmt]]] = {}
    while todo:
        name = todo.pop()
        if name in kept or name not in newest.classes:
            continue
        if "." in name:
            todo.append(name.rpartition(".")[0])
        kept[name] = {}
        for member, nodes in newest.members(name).items():
            if member not in used.attributes | ALWAYS:
                continue
            if better := BETTER.get(f"{name}.{member}"):
                for node in nodes:
                    node.returns = ast.Name(better)  # type: ignore[attr-defined]
            if all(name in stubs.classes and member in stubs.members(name) for stubs in versions.values()):
                kept[name][member] = nodes
                todo += sorted(_mentioned(nodes, newest.classes))
    return kept


def write_class(name: str, kept: dict[str, dict[str, list[ast.stmt]]], newest: Stubs, indent: str = "") -> list[str]:
    """Return the lines of a class with its nested classes."""
    bases = [ast.unparse(base) for base in newest.classes[name].bases if ast.unparse(base) in kept]
    lines = [f"{indent}class {name.rpartition('.')[2]}{'(' + ', '.join(bases) + ')' if bases else ''}:"]
    for nested in sorted(n for n in kept if n.rpartition(".")[0] == name):
        lines += write_class(nested, kept, newest, indent + "    ")
    for nodes in kept[name].values():
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                node.body = [ast.Expr(ast.Constant(...))]
            lines += [
                indent + "    " + line for line in ast.unparse(node).replace("FallbackString", "str").splitlines()
            ]
    return [*lines, f"{indent}    ..."] if len(lines) == 1 else lines


def main(arguments: list[str]) -> int:
    """Write the stub and the table."""
    versions = {}
    for argument in arguments:
        version, _, folder = argument.partition("=")
        versions[version] = Stubs(Path(folder) / "tensorrt" / "__init__.pyi")
    used, newest = uses(), versions[list(versions)[-1]]
    kept = select(used, versions)
    table = {}
    for name in sorted(kept):
        for member in sorted(kept[name]):
            table[f"{name}.{member}"] = {
                version: _signature(stubs.members(name).get(member)) for version, stubs in versions.items()
            }
    missing = sorted(d for d in used.dotted if d not in kept and d not in table)
    if missing:
        print(f"not in every version: {', '.join(missing)}", file=sys.stderr)
        return 1
    STUB.parent.mkdir(exist_ok=True)
    body = "\n\n".join("\n".join(write_class(n, kept, newest)) for n in sorted(kept) if "." not in n)
    STUB.write_text(HEAD.format(versions=" and ".join(versions)) + "\n" + body + "\n")
    TABLE.write_text(
        json.dumps({"versions": list(versions), "classes": sorted(kept), "members": table}, indent=1) + "\n"
    )
    for member, signatures in table.items():
        if len(set(signatures.values())) > 1:
            print(f"differs: {member}: {signatures}", file=sys.stderr)
    print(f"{len(kept)} classes, {len(table)} members")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
