"""Which chat templates need no budget: those that can be seen to do little for each message, whatever it says."""

from __future__ import annotations

from jinja2 import nodes

MAX_SOURCE = 4096  # characters
MAX_NAMES = 60  # in all expressions: how often a message's text can be repeated
_PLAIN = (
    *(nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.List, nodes.Tuple),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.If, nodes.For, nodes.Assign),
    *(nodes.Filter, nodes.Test, nodes.Call, nodes.CondExpr),
)
_FILTERS = frozenset({"trim", "length", "count", "lower", "upper", "title", "capitalize", "first", "last", "string"})
_FUNCTIONS = frozenset({"raise_exception", "strftime_now"})
_METHODS = frozenset({"strip", "lstrip", "rstrip", "startswith", "endswith", "get"})
_LONG = frozenset({"messages", "tools", "documents"})  # what as a whole must not be looked at for each message


def is_plain(source: str, tree: nodes.Template) -> bool:
    """Whether a template takes time in proportion to its messages: one loop over them, and nothing that grows."""
    inner = list(tree.find_all(nodes.Node))
    if len(source) > MAX_SOURCE or sum(isinstance(each, nodes.Name) for each in inner) > MAX_NAMES:
        return False
    long = _long_names(inner)
    return all(isinstance(each, _PLAIN) and _is_harmless(each, long) for each in inner)


def _long_names(inner: list[nodes.Node]) -> frozenset[str]:
    """Return what stands for the conversation, or for a part of it that may be all of it."""
    long, assigned = set(_LONG), [each for each in inner if isinstance(each, nodes.Assign)]
    for _ in assigned:  # one may be set from another
        long |= {name for each in assigned if _names(each.node) & long for name in _names(each.target)}
    return frozenset(long)


def _names(node: nodes.Node) -> set[str]:
    return {each.name for each in (node, *node.find_all(nodes.Name)) if isinstance(each, nodes.Name)}


def _is_harmless(node: nodes.Node, long: frozenset[str]) -> bool:
    match node:
        case nodes.For():
            inside = [each for part in (*node.body, *node.else_) for each in part.find_all(nodes.Node)]
            loops = any(isinstance(each, nodes.For) for each in (*node.body, *node.else_, *inside))
            whole = any(isinstance(each, nodes.Name) and each.name in long for each in inside)
            over_messages = isinstance(node.iter, nodes.Name) and node.iter.name == "messages"
            return over_messages and not (node.recursive or node.test or loops or whole)
        case nodes.Assign():  # what is set may be set again from itself: it must not grow
            grows = isinstance(node.node, nodes.Add) or node.node.find(nodes.Add) is not None
            return isinstance(node.target, nodes.Name) and node.target.name not in _LONG and not grows
        case nodes.List() | nodes.Tuple():  # one of names may hold another, and that one more: its text would grow
            return all(isinstance(each, nodes.Const) for each in node.items)
        case nodes.Filter():
            return node.name in _FILTERS and not node.args and not node.kwargs
        case nodes.Call():
            return _is_known(node.node) and all(isinstance(each, nodes.Const) for each in node.args) and not node.kwargs
    return True


def _is_known(called: nodes.Expr) -> bool:
    if isinstance(called, nodes.Getattr):
        return called.attr in _METHODS
    return isinstance(called, nodes.Name) and called.name in _FUNCTIONS
