"""A budget for chat templates: what a template does is paid for, so that no loop and no text grows without bound.

Jinja's sandbox keeps a template from data and code; it does not keep it from computing for ever. Here each iteration,
call and character of a text that is made costs something, and a template that spends more than it was given ends with
BudgetError. What it does to a text is paid by length before it is done: a doubling that is repeated ends early.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import wraps
from itertools import chain
from typing import Any, TypeVar, cast

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

B = TypeVar("B", nodes.For, nodes.Macro, nodes.CallBlock)  # what has a body

ITERATION, CALL = 50, 100  # in characters: what takes about as long to make
BASE = 20_000_000  # for a template whatever it is given: below a second
PER_CHARACTER = 20  # of the conversation
PER_MESSAGE = 5_000
MAX_SOURCE = 2**20  # characters of a template
MAX_BITS = 4096  # of a whole number

_WIDE = re.compile(r"\d{5,}")  # in a format: a width of 10,000 or more
_TEXT_OF_ALL = frozenset({"string", "tojson", "pprint", "urlencode", "xmlattr", "sum", "join", "format", "e", "escape"})
_NO_WIDTH = frozenset({"int", "float", "default", "d", "round", "abs", "sum", "attr", "first", "last"})
_SPEND, _SCAN, _EACH, _CONCAT = "spend it", "scan it", "each of it", "join them"  # no template can name these


class BudgetError(SecurityError):
    """A template that does too much."""


class BudgetedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a budget for each rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **more: Any) -> None:
        super().__init__(optimized=False, finalize=self._output, **more)
        self._budget = threading.local()  # templates are rendered in several threads
        self.globals.pop("lipsum", None)
        self.filters = {name: self._paid(name, function) for name, function in self.filters.items()}
        self.filters |= {_SPEND: self.spend, _SCAN: self._scan, _EACH: self._each, _CONCAT: self._concat}

    def open_budget(self, num_characters: int = 0, num_messages: int = 0) -> None:
        """Begin a rendering."""
        self._budget.left = BASE + PER_CHARACTER * num_characters + PER_MESSAGE * num_messages

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a filter of ours to templates."""
        self.filters[name] = self._paid(name, function)

    def spend(self, cost: int) -> None:
        """Take from what is left. Raises BudgetError when there is less."""
        left = getattr(self._budget, "left", BASE) - cost
        self._budget.left = left
        if left < 0:
            raise BudgetError("it does too much: more loops, calls or text than a chat template needs")

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for a template."""
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            args = self._pay_method(getattr(method, "__name__", ""), owner, args, kwargs)
        self.spend(CALL)
        return self._made(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute left operator right for a template."""
        if operator == "%" and isinstance(left, str):
            self._pay_format(left, right)
        elif operator == "+":
            self.spend(_length(left) + _length(right))
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            self._check_bits(bits * max(right, 0) if operator == "**" else bits + right.bit_length())
        elif operator == "*":
            self.spend(max(_length(left), _length(right)) * _sum_of_numbers((left, right)))
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise BudgetError(f"it has more than {MAX_SOURCE} characters")
        tree: nodes.Template = _Meter().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def _paid(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that costs what it does; wraps() keeps what tells Jinja which arguments it wants."""
        skip = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def paid(*args: Any, **kwargs: Any) -> Any:
            value, *rest = args[skip:]
            if name == "join" and not isinstance(value, Sized):
                value = list(value)
            self._pay_filter(name, value, rest, kwargs)
            return self._made(function(*args[:skip], value, *rest, **kwargs))

        return paid

    def _pay_filter(self, name: str, value: Any, rest: list[Any], kwargs: Mapping[str, Any]) -> None:
        given = [*rest, *kwargs.values()]
        self.spend(CALL + (self._weight(value) if name in _TEXT_OF_ALL else _length(value)))
        lines = 1 + str(value).count("\n") if name == "indent" else 1
        if name not in _NO_WIDTH:
            self.spend(lines * (_sum_of_numbers(given) + sum(len(each) for each in given if isinstance(each, str))))
        if name == "replace" and len(given) > 1:
            self.spend(str(value).count(str(given[0])) * len(str(given[1])))
        elif name == "wordwrap":
            self.spend(_length(value) * sum(len(each) for each in given if isinstance(each, str)))
        elif name == "join" and given:
            self.spend(_length(value) * len(str(given[0])))
        elif name == "sum" and given and not isinstance(given[-1], int | float):
            self.spend(self._weight(value) * _length(value))
        elif name == "format":
            self._pay_format(str(value), given)

    def _pay_method(self, name: str, owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Pay for a method of a text, or of a number; return its arguments."""
        given = [*args, *kwargs.values()]
        self.spend(_length(owner) // 16 + _sum_of_numbers(given))
        if name == "replace" and len(args) > 1:
            self.spend(owner.count(args[0]) * _length(args[1]))
        elif name == "join" and args:
            items = args[0] if isinstance(args[0], Sized) else list(args[0])
            self.spend(self._weight(items) + len(items) * _length(owner))
            return (items,)
        elif name in ("format", "format_map"):
            self._pay_format(owner, given)
        elif name in ("translate", "expandtabs"):
            self.spend(_length(owner) * (self._weight(given) + _sum_of_numbers(given)))
        return args

    def _pay_format(self, form: str, given: Any) -> None:
        if _WIDE.search(form) or (("*" in form or "{" in form) and _sum_of_numbers(_items(given)) > BASE):
            raise BudgetError("a format asks for a width of 10,000 or more")
        self.spend(len(form) + (form.count("%") + form.count("{")) * self._weight(given))

    def _output(self, value: Any) -> Any:
        """Pay for what goes into the prompt (Jinja's finalize)."""
        self.spend(len(value) if isinstance(value, str) else self._weight(value))
        return value

    def _concat(self, values: list[Any]) -> str:
        """Join what stands between `~`."""
        self.spend(CALL + self._weight(values))
        return "".join(map(str, values))

    def _scan(self, value: Any) -> Any:
        """Pay for looking through a value, and return it. Texts are fast."""
        self.spend(_length(value) // (16 if isinstance(value, str | bytes) else 1))
        return value

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        """Pay for each item that a loop's condition looks at."""
        for value in values:
            self.spend(ITERATION)
            yield value

    def _made(self, result: Any) -> Any:
        self.spend(_length(result))
        return result

    def _weight(self, value: Any) -> int:
        """Return how many characters a value's text has, about; raise BudgetError when more than are left."""
        total, waiting = 0, [value]
        while waiting:
            each = waiting.pop()
            if isinstance(each, str):
                total += len(each)
            elif isinstance(each, Mapping):
                waiting += chain(each.keys(), each.values())
            elif isinstance(each, list | tuple | set | frozenset):
                waiting += each
            total += ITERATION
            if total + ITERATION * len(waiting) > getattr(self._budget, "left", BASE):
                raise BudgetError("it makes too long a text")
        return total

    def _check_bits(self, bits: int) -> None:
        if bits > MAX_BITS:
            raise BudgetError(f"it computes with numbers of more than {MAX_BITS} bits")


class _Meter(NodeTransformer):
    """Puts a price on what costs time and is no call: rounds of loops, macros, comparisons, slices and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node = self._priced(node)
        if node.test is not None:
            node.iter = _filter(cast("nodes.Expr", node.iter), _EACH)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        return self._priced(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:
        return self._priced(node)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.expr, nodes.Const):
            node.expr = _filter(node.expr, _SCAN)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(node.node, _SCAN)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _CONCAT)

    def _priced(self, node: B, each: int = ITERATION) -> B:
        """Charge each round for itself and for the text that stands in it."""
        self.generic_visit(node)
        price = each + sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        charge = _filter(nodes.Const(price, lineno=node.lineno), _SPEND)
        node.body.insert(0, nodes.ExprStmt(charge, lineno=node.lineno))
        return node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | range) else 0


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _sum_of_numbers(values: Iterable[Any]) -> int:
    return sum(abs(value) for value in values if isinstance(value, int))
