"""Chat templates: rendered as transformers renders them, and what messages may be."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import checkpoints
import pytest

from longspan.errors import ModelError, UsageError
from longspan.model import render
from longspan.model.template import check


@dataclasses.dataclass
class Fake:
    """All that rendering asks of a tokenizer."""

    chat_template: Any
    special_tokens_map: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"bos_token": "<s>", "eos_token": "</s>"}
    )


PLAIN = [{"role": "user", "content": "Hello"}]
LONGER = [
    {"role": "system", "content": "  Be brief.\nBe kind. "},
    {"role": "user", "content": "Hello <b>&amp;</b> ünï"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi!", "tool_calls": None},
    {"role": "user", "content": "Bye"},
]

# in the manner of published templates
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
        "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "inst": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
        "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}"
        "{% endif %}"
        "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
        "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "headers": (
        "{{- bos_token }}\n{%- if not date_string is defined %}\n"
        "    {%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n"
        "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n"
        "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n"
        "{{- 'system\\n\\nToday Date: ' ~ date_string ~ '\\n' ~ system_message }}\n"
        "{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}\n"
        "        {{- '<|start|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}\n"
        "    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- 'assistant:' }}\n{%- endif %}\n"
    ),
    "thinking": (
        "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.multi_step_tool and message.role == 'user' and message.content is string and not("
        "message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n"
        "        {%- set ns.multi_step_tool = false %}\n"
        "        {%- set ns.last_query_index = index %}\n    {%- endif %}\n"
        "{%- endfor %}\n{%- for message in messages %}\n    {%- if message.content is string %}\n"
        "        {%- set content = message.content %}\n    {%- else %}\n"
        "        {%- set content = '' %}\n    {%- endif %}\n"
        "    {%- if '</think>' in content %}\n        {%- set reasoning = content.split('</think>')[0].rstrip('\\n')."
        "split('<think>')[-1].lstrip('\\n') %}\n"
        "        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
        "        {{- loop.index0 ~ ':' ~ ns.last_query_index ~ reasoning }}\n    {%- endif %}\n"
        "    {{- message.role|upper + ': ' + content.replace('b', '*') }}\n{%- endfor %}"
    ),
    "json": (
        "{%- macro show(x, depth=1) -%}{{ x | tojson(indent=2) | indent(depth * 2) }}{%- endmacro -%}"
        "{% for m in messages if m.content %}{{ show(m) }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{{ messages | map(attribute='role') | unique | join(', ') }} {{ '%s is %d' % ('n', messages | length) }}"
        "{{ '{}-{:>4}'.format('a', 'b') }} {{ [1, 2] + [3] }} {{ {'a': 1}.items() | list }} {{ 3 * '-' }} {{ 2 ** 5 }}"
        "{{ (messages | selectattr('role', 'equalto', 'user') | list)[0].content }} {{ none }} {{ undefined_name }}"
    ),
    "marked": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "blocks": "{% set s %}{{ messages[0].content }}!{% endset %}{{ s }}{{ s | length }}{{ dict(a=s)['a'] }}"
    "{{ s[:-1] }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("messages", [PLAIN, LONGER], ids=["one", "more"])
@pytest.mark.parametrize("prompt", [True, False])
def test_templates_render_as_transformers_renders_them(
    tmp_path: Path, name: str, messages: list[dict[str, Any]], prompt: bool
) -> None:
    tokenizer = checkpoints.tokenizer(tmp_path, TEMPLATES[name])
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    check(tokenizer)
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    assert render(tokenizer, messages, prompt) == theirs


def test_a_date_is_written() -> None:
    assert render(Fake("{{ strftime_now('%Y') }}"), PLAIN) == time.strftime("%Y")


def test_one_of_several_templates_is_the_default() -> None:
    assert render(Fake({"tool_use": "no", "default": "yes"}), PLAIN) == "yes"


def test_no_template_is_said_so() -> None:
    for absent in (None, {"tool_use": "no"}):
        check(Fake(absent))
        with pytest.raises(UsageError, match="no chat template"):
            render(Fake(absent), PLAIN)


@pytest.mark.parametrize("messages", [[], ["Hello"], [None]])
def test_messages_are_objects(messages: Any) -> None:
    with pytest.raises(UsageError, match="messages should be a list"):
        render(Fake("x"), messages)


def test_a_template_may_refuse_messages() -> None:
    source = (
        "{% if messages|length > 1 or messages[0].content == 'Hello' %}{{ raise_exception('one only') }}{% endif %}ok"
    )
    check(Fake(source))
    assert render(Fake(source), [{"role": "user", "content": "x"}]) == "ok"
    with pytest.raises(UsageError, match="refuses these messages: one only"):
        render(Fake(source), LONGER)


def test_a_template_that_fails_on_some_messages_loads_and_says_so_later() -> None:
    source = "{{ messages[0].extra.deep }}"
    check(Fake(source))
    with pytest.raises(ModelError, match="fails on these messages"):
        render(Fake(source), PLAIN)
    assert render(Fake(source), [{"role": "user", "extra": {"deep": "x"}}]) == "x"


def test_a_long_conversation_is_rendered_in_time() -> None:
    many = [{"role": ("user", "assistant")[i % 2], "content": "word " * 200} for i in range(2000)]
    begin = time.monotonic()
    for name in ("chatml", "inst", "thinking"):
        assert len(render(Fake(TEMPLATES[name]), many)) > 2_000_000
    assert time.monotonic() - begin < 5
    huge = [{"role": "user", "content": "x" * 40_000_000}]
    assert len(render(Fake(TEMPLATES["chatml"]), huge)) > 40_000_000


def test_messages_are_not_changed_and_objects_do_not_reach_the_template() -> None:
    class Rich(str):
        secret = "secret"

    messages = [{"role": "user", "content": Rich("x"), "image": object()}]
    assert render(Fake("{{ messages[0].image }} {{ messages[0].content.secret }}"), messages) == "<object> "
    assert type(messages[0]["content"]) is Rich
