"""Chat templates: tried once when a model is loaded, and rendered with a deadline always."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.sandbox

from longspan.errors import ModelError, UsageError
from longspan.model.budget import Budget, Expired, Refused, deadline, weigh
from longspan.model.quiet import reason
from longspan.model.sandbox import Sandbox, compiled

TRIAL_SECONDS = 2.0
LONGEST_TEMPLATE = 1 << 18
_TRIALS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ],
)


def render(
    tokenizer: Any, messages: list[dict[str, Any]], add_generation_prompt: bool = True, seconds: float = 5.0
) -> str:
    """The text that the tokenizer's chat template makes of `messages` ({"role", "content"} each).

    seconds: the deadline. Raises UsageError when there is no template, for messages that are empty or not
    dicts, and for what the template itself refuses (by raise_exception); ModelError when the template is
    hostile, damaged or too slow.
    """
    source = _source(tokenizer)
    if source is None:
        raise UsageError("the model has no chat template; give a prompt as plain text")
    if not messages or not all(isinstance(message, Mapping) for message in messages):
        raise UsageError("messages should be a list of objects with role and content, at least one")
    try:
        return _render(tokenizer, source, messages, add_generation_prompt, seconds)
    except jinja2.TemplateError as error:
        if type(error) is not jinja2.TemplateError:
            raise ModelError(f"the chat template fails on these messages: {reason(error)}") from None
        raise UsageError(f"the chat template refuses these messages: {reason(error)}") from None
    except _FAILURES as error:
        raise ModelError(f"the chat template fails on these messages: {reason(error)}") from None


def check(tokenizer: Any, seconds: float = TRIAL_SECONDS) -> None:
    """Try the tokenizer's chat template on plain conversations.

    A template may refuse those (some have no system role). Raises ModelError for one that does not parse, walks
    to Python's internals, does not end within `seconds`, or makes far more text than it is given.
    """
    source = _source(tokenizer)
    if source is None:
        return
    for messages in _TRIALS:
        try:
            _render(tokenizer, source, messages, True, seconds)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"the chat template does not parse: {reason(error)} (line {error.lineno})") from None
        except (jinja2.TemplateError, *_FAILURES):
            continue  # it may need other roles, tools or keys; what is unsafe raises ModelError instead


# what a well-meant template's code can run into when a message is not what it expects
_FAILURES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def _source(tokenizer: Any) -> str | None:
    held = getattr(tokenizer, "chat_template", None)
    if isinstance(held, Mapping):
        held = held.get("default")
    if held is None:
        return None
    if not isinstance(held, str):
        raise ModelError(f"the chat template should be text, not a {type(held).__name__}")
    if len(held) > LONGEST_TEMPLATE:
        raise ModelError(f"the chat template is {len(held):,} characters; at most {LONGEST_TEMPLATE:,} makes sense")
    return held


def _render(tokenizer: Any, source: str, messages: list[dict[str, Any]], prompt: bool, seconds: float) -> str:
    given = {
        "messages": [{key: item for key, item in _plain(message).items() if item is not None} for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": prompt,
        **_plain(getattr(tokenizer, "special_tokens_map", {})),
    }
    sandbox = Sandbox(Budget(weigh(given, float("inf"))))
    try:
        with deadline(seconds):
            code = compiled(source)
            template = jinja2.Template.from_code(sandbox, code, sandbox.make_globals(None))
            return sandbox.concat(template.root_render_func(template.new_context(given)))
    except jinja2.sandbox.SecurityError as error:
        raise ModelError(f"refusing the chat template: {reason(error)}") from None
    except Refused as error:
        raise ModelError(f"refusing the chat template: it {error}") from None
    except Expired:
        raise ModelError(f"refusing the chat template: it did not end within {seconds:g} seconds") from None
    except (RecursionError, MemoryError, OverflowError, SyntaxError) as error:
        raise ModelError(f"refusing the chat template: {reason(error)} ({type(error).__name__})") from None


def _plain(value: Any) -> Any:
    """`value` rebuilt from plain JSON types, so that a template meets no object with methods of its own."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"
