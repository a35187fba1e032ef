"""The environment that chat templates run in.

A template is code from whoever made the checkpoint. jinja's sandbox keeps it from Python's internals, but not
from loops without end, nor from strings that double until memory is gone. Here only a short list of methods
and filters exists, every value that a template makes is weighed before or as it is made, and nothing runs at
compile time.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import TemplateError, ext, nodes
from jinja2.compiler import CodeGenerator
from jinja2.defaults import DEFAULT_FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError, safe_range
from jinja2.utils import Namespace

from longspan.model.budget import Budget, Refused, check_number, check_power

_WIDEST = 1000
_TEXT = """strip lstrip rstrip split rsplit splitlines partition rpartition startswith endswith removeprefix
    removesuffix lower upper title capitalize swapcase casefold replace join find rfind index rindex count format
    isdigit isdecimal isnumeric isalpha isalnum isspace isupper islower istitle isascii isidentifier"""
_METHODS: tuple[tuple[Any, frozenset[str]], ...] = (
    (str, frozenset(_TEXT.split())),
    (dict, frozenset(("get", "items", "keys", "values", "copy"))),
    (list, frozenset(("index", "count", "copy"))),
    (tuple, frozenset(("index", "count"))),
    ((range, int, float, bytes, type(None), type, types.ModuleType), frozenset()),
    ((types.FunctionType, types.BuiltinFunctionType, types.MethodType), frozenset()),
)
_FILTERS = """abs attr capitalize count d default dictsort e escape first float format groupby indent int items join
    last length list lower map max min reject rejectattr replace reverse round safe select selectattr sort string sum
    title trim truncate unique upper wordcount"""
# these neither copy text nor turn containers into it
_PASS = "count d default first last length list map reject rejectattr safe select selectattr"
_PASSING = frozenset(_PASS.split())
_SIZED = frozenset(("indent", "round", "tojson", "truncate"))
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{4})")
_WIDE_BRACES = re.compile(r"\{[^{}]*(\{|\d{4})")


class _Generator(CodeGenerator):  # type: ignore[misc]
    """Sends through the environment what jinja would compile to plain Python: "~", slices and literals."""

    def visit_Concat(self, node: Any, frame: Any) -> None:
        self.write("environment.join((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: Any, frame: Any) -> None:
        if isinstance(node.arg, nodes.Slice):
            self._taken(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def visit_List(self, node: Any, frame: Any) -> None:
        self._taken(super().visit_List, node, frame)

    def visit_Tuple(self, node: Any, frame: Any) -> None:
        if node.ctx == "load":
            self._taken(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: Any, frame: Any) -> None:
        self._taken(super().visit_Dict, node, frame)

    def _taken(self, visit: Callable[[Any, Any], None], node: Any, frame: Any) -> None:
        self.write("environment.take(")
        visit(node, frame)
        self.write(")")


class _Generation(ext.Extension):  # type: ignore[misc]
    """The {% generation %} block, which marks the assistant's text for training; here it passes its body through."""

    tags = {"generation"}  # noqa: RUF012 – jinja's attribute

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):  # type: ignore[misc]
    """The environment of one rendering, which may spend one budget."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, budget: Budget) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # folding constants would compute them outside the budget
            extensions=[ext.loopcontrols, _Generation],
            finalize=self._text,
            cache_size=0,
        )
        self.budget, self.take = budget, budget.take
        self.filters = {name: self._bounded(name, DEFAULT_FILTERS[name]) for name in _FILTERS.split()}
        self.filters["tojson"] = self._bounded("tojson", _to_json)
        self.globals = {
            "range": safe_range,
            "dict": lambda *args, **kwargs: budget.take(dict(*args, **kwargs)),
            "namespace": _namespace,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.datetime.now().strftime(self._percent(form)),
        }

    def concat(self, parts: Iterable[str]) -> str:
        """The text of a block, a macro or the whole template."""
        kept, total = [], 0
        for part in parts:
            kept.append(part)
            total += len(part)
            if total > self.budget.each:
                break
        self.budget.spend(total)
        return "".join(kept)

    def join(self, values: tuple[Any, ...]) -> str:
        """a ~ b ~ …"""
        return self.concat([str(self._text(value)) for value in values])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            check_power(left, right)
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, bytes, list, tuple)) and isinstance(other, int):
                    self.budget.spend(self.budget.hold(one) * max(other, 0))
        elif operator == "%" and isinstance(left, str):
            self._percent(left, right)
        elif operator == "+" and not isinstance(left, (int, float)):
            self.budget.spend(self.budget.hold(left) + self.budget.hold(right))
        made = super().call_binop(context, operator, left, right)
        return check_number(made) if isinstance(made, int) else made

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str):
            self.budget.hold((args, kwargs))
            if name == "join" and args:
                args = (self._joined(args[0], owner), *args[1:])
            elif name == "replace" and len(args) > 1:
                self._replaced(owner, args[0], args[1])
        made = super().call(context, function, *args, **kwargs)
        return self.budget.take(made) if isinstance(made, (str, bytes, list, tuple, dict)) else made

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return next((attr in names for kinds, names in _METHODS if isinstance(obj, kinds)), True)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        if attribute.startswith("_"):  # jinja would let this pass until it is used; no honest template asks for it
            raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__} is unsafe")
        return super().unsafe_undefined(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        made: Callable[..., str] | None = super().wrap_str_format(value)
        if made is None:
            return None
        text = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            if _WIDE_BRACES.search(text.replace("{{", "")):
                raise Refused("formats to a huge width")
            self.budget.spend(len(text) + text.count("{") * self.budget.hold((args, kwargs)))
            return made(*args, **kwargs)

        return bounded

    def _text(self, value: Any) -> Any:
        """What {{ value }} writes: text is shared, anything else is turned into new text and paid for."""
        if isinstance(value, str):
            return value
        self.budget.hold(value)
        return self.budget.take(str(value))

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """jinja's filter `function`, its arguments held against the budget and its result paid for."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            passed, given = args[:first], args[first:]
            if name not in _PASSING:
                self.budget.hold((given, kwargs))
            given = self._prepared(name, given, kwargs)
            made = function(*passed, *given, **kwargs)
            if isinstance(made, int):
                return check_number(made)
            return self.budget.take(made) if isinstance(made, (str, bytes, list, tuple, dict)) else made

        return bounded

    def _prepared(self, name: str, given: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of a filter, once what it would make of them is known to be bounded."""
        more = (*given[1:], *kwargs.values())
        if name in _SIZED and any(len(n) > _WIDEST if isinstance(n, str) else _wide(n) for n in more):
            raise Refused(f"asks the filter {name} for a huge size")
        if name == "join":
            return (self._joined(given[0], given[1] if len(given) > 1 else kwargs.get("d", "")), *given[1:])
        if name == "replace" and len(given) > 2:
            self._replaced(str(given[0]), given[1], given[2])
        elif name == "format":
            self._percent(str(given[0]), (given[1:], kwargs))
        elif name == "indent":
            width = given[1] if len(given) > 1 else kwargs.get("width", 4)
            self.budget.spend((str(given[0]).count("\n") + 1) * (len(width) if isinstance(width, str) else int(width)))
        elif name == "sum" and any(isinstance(n, (list, tuple)) for n in more):
            raise Refused("sums lists")
        return given

    def _joined(self, values: Any, separator: Any) -> Any:
        """What a join reads, listed: its separators are paid for, its items held."""
        if not isinstance(values, (str, list, tuple, dict)):
            kept = []
            for value in values:
                kept.append(value)
                if len(kept) > self.budget.each:
                    break
            values = kept
        self.budget.hold(values)
        self.budget.spend(len(values) * len(str(separator)))
        return values

    def _replaced(self, text: str, old: Any, new: Any) -> None:
        self.budget.spend(len(text) + text.count(str(old)) * len(str(new)))

    def _percent(self, text: Any, values: Any = ()) -> Any:
        if not isinstance(text, str) or _WIDE_PERCENT.search(text):
            raise Refused("formats to a huge width")
        self.budget.spend(len(text) + text.count("%") * self.budget.hold(values))
        return text


def _wide(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > _WIDEST


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message)[:500])


def _namespace(*args: Any, **names: Any) -> Any:
    held = dict(*args, **names)
    if any(str(name).startswith("_") for name in held):
        raise Refused("stores a private name in a namespace")
    return Namespace(held)


@functools.lru_cache(maxsize=8)
def compiled(source: str) -> types.CodeType:
    """The code of a template, which any sandbox can run. Raises jinja2.TemplateSyntaxError."""
    code: types.CodeType = Sandbox(Budget(0)).compile(source)
    return code
