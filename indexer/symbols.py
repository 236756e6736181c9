"""Door to tree-sitter: which nodes of a syntax tree define something, and what they call it. Any language, by shape."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from tree_sitter_language_pack import get_parser

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

# Grammars name their nodes alike: <thing>_definition, <thing>_declaration, <thing>_item, <thing>_spec ...
_DEFINITION = re.compile(
    r"^(?:(?:\w+_)?(?:function|method|class|struct|enum|trait|interface|impl|module|mod|namespace|object|protocol"
    r"|extension|constructor|destructor|macro|record|union|type|alias|data|newtype|instance|property|delegate|template"
    r"|annotation_type|function_def|const|static|init|subroutine|procedure|test|actor|package_body|service|message|rpc)"
    r"(?:_signature)?_(?:definition|declaration|item|specifier|spec|statement|def|signature)"
    r"|class|module|method|singleton_method|internal_module|data_type|newtype|function|preproc_def|FnProto|VarDecl|TestDecl"
    r"|macro_rule|variable_declarator|const_spec|var_spec|assignment|assignment_expression|assignment_statement|test)$"
)
_WRAPPER = frozenset(
    (
        "export_statement decorated_definition template_declaration expression_statement lexical_declaration Decl "
        "variable_declaration type_declaration const_declaration var_declaration local_declaration "
        "ambient_declaration linkage_specification attributed_item declaration export_declaration binding visibility"
    ).split()
)
# What holds definitions that can be reached from outside; what is inside a function is its own business.
_CONTAINER = re.compile(
    r"class|struct|trait|interface|impl|module|namespace|object|protocol|extension|enum|instance|Decl|body|block"
    r"|declaration_list|statement|wrapper|template|union|declarations"
)
_FUNCTION_LIKE = re.compile(r"function|arrow|lambda|class|closure|method|proc")
_DEF_CALLS = frozenset(
    ("def defp defmodule defmacro defmacrop defprotocol defimpl defstruct describe namespace task").split()
)
_COMMENT = re.compile(r"comment|decorator|annotation$|attribute_item|^attribute$|marker_annotation")
_FUNCTION = re.compile(r"^(?!class).*(?:function|arrow|lambda|closure|method|proc)")
_BODY = re.compile(r"block$|compound_statement|function_body")
_NAME = re.compile(r"[\w$.:#?!]+")


@cache
def parser_for(language: str) -> Parser | None:
    """tree-sitter's parser for `language`; None when the language pack has no such grammar."""
    try:
        parser: Parser = get_parser({"notebook": "json"}.get(language, language))
        return parser
    except LookupError:
        return None


def is_comment(node: Node) -> bool:
    """A comment, decorator or attribute: it belongs to the definition that follows."""
    return bool(_COMMENT.search(node.type))


def definition_name(node: Node) -> str:
    """The name that `node` defines, dotted where it says of what; "" when it defines nothing."""
    if node.type == "declaration" and is_inside_function(node):
        return ""
    if node.type in _WRAPPER:
        names = (definition_name(child) for child in node.named_children[:6])
        return next((name for name in names if name), "") or _declared_name(node)
    if node.type == "call":
        return _called_definition(node)
    if not _DEFINITION.match(node.type):
        return ""
    if node.type.startswith("assignment"):
        return _assigned_name(node)
    if node.type == "variable_declarator" and _is_local_or_import(node):
        return ""
    return _receiver(node) + (_declared_name(node) or _first_identifier(node))


def defined_names(node: Node, scope: str, depth: int = 6) -> list[str]:
    """Dotted names of everything that `node` defines, itself first, nested members after; not what is in functions."""
    own = definition_name(node)
    names = [join_scope(scope, own)] if own else []
    open_to_view = own or node.type in _WRAPPER or _CONTAINER.search(node.type)
    if depth and open_to_view and not _FUNCTION.search(node.type):
        for child in node.named_children:
            names += defined_names(child, names[0] if own else scope, depth - 1)
    return list(dict.fromkeys(names))


def join_scope(scope: str, name: str) -> str:
    """`Class` and `method` -> `Class.method`; a name that repeats its scope is taken once."""
    if not scope or not name or name == scope:
        return name or scope
    return f"{scope}.{name.removeprefix(scope + '.')}"


def _text(node: Node) -> str:
    raw = (node.text or b"").decode("utf-8", "replace")
    match = _NAME.search(raw.replace("::", "."))
    return match[0].strip(".:#")[:120] if match else ""


def _declared_name(node: Node) -> str:
    """The `name` field, or what the chain of `declarator`s (C, C++) ends in, or the `type` of an `impl`."""
    if (name := node.child_by_field_name("name")) is not None:
        return _text(name)
    inner = node.child_by_field_name("declarator")
    while inner is not None and (deeper := inner.child_by_field_name("declarator")) is not None:
        inner = deeper
    if inner is None and node.type.startswith(("impl", "extension", "instance")):
        inner = node.child_by_field_name("type")
    return _text(inner) if inner is not None else ""


def _first_identifier(node: Node) -> str:
    for child in node.named_children[:8]:
        if "identifier" in child.type or child.type in ("IDENTIFIER", "name", "constant", "word"):
            return _text(child)
    return ""


def _receiver(node: Node) -> str:
    """Go: `func (e *Engine) Use()` is `Engine.Use`."""
    receiver = node.child_by_field_name("receiver")
    if receiver is None or node.type != "method_declaration":
        return ""
    words = re.findall(r"\w+", (receiver.text or b"").decode("utf-8", "replace").split("[")[0])
    return f"{words[-1]}." if words else ""


def _assigned_name(node: Node) -> str:
    """`app.use = function () {}` and module-level `NAME = ...`; other assignments define nothing."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None:
        left, right = (node.named_children[0], node.named_children[-1]) if node.named_child_count >= 2 else (None, None)
    if left is None or right is None:
        return ""
    if left.type in ("identifier", "constant") and is_inside_function(node):
        return ""
    plain = left.type in ("identifier", "constant")
    functional = _FUNCTION_LIKE.search(right.type) or any(
        _FUNCTION_LIKE.search(c.type) for c in right.named_children[:1]
    )
    if plain or functional:
        return _text(left).removeprefix("module.").removeprefix("exports.")
    return ""


def _is_local_or_import(node: Node) -> bool:
    """`const x = require("x")` names something defined elsewhere; a variable in a function nobody can reach."""
    value = node.child_by_field_name("value")
    if value is not None and _FUNCTION_LIKE.search(value.type):
        return False
    if value is not None and (value.text or b"").startswith((b"require(", b"await import(")):
        return True
    return is_inside_function(node)


def is_inside_function(node: Node) -> bool:
    """Does a function's body hold `node`?"""
    above = node.parent
    while above is not None:
        body, above = above, above.parent
        if above is not None and _BODY.search(body.type) and _FUNCTION.search(above.type):
            return True
    return False


def _called_definition(node: Node) -> str:
    """Elixir's `def`, `defmodule` and the like are calls."""
    target = node.child_by_field_name("target")
    if target is None or _text(target) not in _DEF_CALLS or node.named_child_count < 2:
        return ""
    return _text(node.named_children[1])
