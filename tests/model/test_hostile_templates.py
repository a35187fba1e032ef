"""Chat templates that do not end, eat memory or want out of the sandbox."""

from __future__ import annotations

import resource
import sys
import threading
import time
from typing import Any

import pytest
from test_chat_template import PLAIN, Fake

from longspan.errors import ModelError
from longspan.model import render
from longspan.model.template import check

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
SECONDS = {
    "nested loops": LOOP,
    "loop with text": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "loop in a macro": "{% macro f() %}" + LOOP + "{% endmacro %}{{ f() }}",
    "filters": "{% for a in range(99999) %}{% set x = range(99999) | map('string') | list | length %}{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
}
DOUBLE = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = VALUE %}{% endfor %}{{ ns.x | length }}"
MEMORY = {
    "product": "{{ 'x' * 10**10 }}",
    "product the other way": "{{ 10**10 * 'x' }}",
    "list product": "{{ [1] * 10**10 }}",
    "nested list product": "{{ ([['x' * 1000] * 1000] * 1000) }}",
    "sum": DOUBLE.replace("VALUE", "ns.x + ns.x"),
    "tilde": DOUBLE.replace("VALUE", "ns.x ~ ns.x"),
    "percent": DOUBLE.replace("VALUE", "'%s%s' % (ns.x, ns.x)"),
    "format": DOUBLE.replace("VALUE", "'{0}{0}'.format(ns.x)"),
    "format filter": DOUBLE.replace("VALUE", "'%s%s' | format(ns.x, ns.x)"),
    "join": DOUBLE.replace("VALUE", "[ns.x, ns.x] | join"),
    "join with": DOUBLE.replace("VALUE", "'aaa' | join(ns.x)"),
    "str.join": DOUBLE.replace("VALUE", "ns.x.join(['', '', ''])"),
    "replace": DOUBLE.replace("VALUE", "ns.x.replace('', 'ab')"),
    "replace filter": DOUBLE.replace("VALUE", "ns.x | replace('a', 'aa')"),
    "many": "{% set s = 'x' * 100000 %}{{ s.replace('x', s) }}",
    "block": DOUBLE.replace("{% set ns.x = VALUE %}", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
    "macro": "{% macro f(s) %}{{ s }}{{ s }}{% endmacro %}" + DOUBLE.replace("VALUE", "f(ns.x)"),
    "shared lists": DOUBLE.replace("VALUE", "[ns.x, ns.x]"),
    "shared tuples": DOUBLE.replace("VALUE", "(ns.x, ns.x)"),
    "shared dicts": DOUBLE.replace("VALUE", "{'a': ns.x, 'b': ns.x}"),
    "shared dict()": DOUBLE.replace("VALUE", "dict(a=ns.x, b=ns.x)"),
    "shared namespaces": DOUBLE.replace("VALUE", "namespace(a=ns.x, b=ns.x)").replace("| length", ""),
    "tojson": DOUBLE.replace("VALUE", "ns.x | tojson | tojson"),
    "indent": "{{ ('a\n' * 100000) | indent(999) }}",
    "wide indent": "{{ 'a' | indent(10**9) }}",
    "wide tojson": "{{ [1] | tojson(indent=10**9) }}",
    "wide percent": "{{ '%9999999999d' % 1 }}",
    "wide star": "{{ '%*d' % (10**9, 1) }}",
    "wide format": "{{ '{:>9999999999}'.format(1) }}",
    "wide inner format": "{{ '{:{}}'.format(1, 10**9) }}",
    "wide date": "{{ strftime_now('%9999999999Y') }}",
    "power": "{{ 2 ** 10000000 }}",
    "numbers": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}"
    "{{ ns.x }}",
    "hexadecimal": "{{ ('f' * 1000000) | int(0, 16) }}",
    "printed lists": "{% set l = ['x' * 1000] * 500 %}{% set s %}{% for i in range(99999) %}{{ l }}{% endfor %}"
    "{% endset %}",
    "slices": "{% set s = 'x' * 1000000 %}" + "{% set a = s[1:] %}{% set b = [a] %}" * 400,
    "long output": "{% set s = 'x' * 100000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
    "range": "{{ range(10**12) | list }}",
}
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by item": "{{ ''['__class__']['__mro__'] }}",
    "class by attr": "{{ ('' | attr('__class__')).mro() }}",
    "class by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "class by map": "{{ messages | map(attribute='__class__') | list }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "function": "{{ raise_exception.__code__.co_consts }}",
    "init": "{{ namespace.__init__.__globals__['sys'] }}",
    "self": "{{ self._TemplateReference__context.environment.globals }}",
    "generator": "{{ (messages | select).gi_frame.f_globals }}",
    "change": "{% set x = messages.append(1) %}",
    "change dict": "{% set x = messages[0].update({'role': 'x'}) %}",
    "bytes": "{{ ''.encode('utf-8') }}",
    "translate": "{{ 'x'.translate({120: 'xxxxxx'}) }}",
    "to_bytes": "{{ (5).to_bytes(10**9, 'big') }}",
}


@pytest.mark.parametrize("name", SECONDS)
def test_a_template_without_end_is_refused_in_time(name: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ModelError, match=r"did not end within 0\.2 seconds"):
        check(Fake(SECONDS[name]), seconds=0.2)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("name", MEMORY)
def test_a_template_that_eats_memory_is_refused(name: str) -> None:
    check_fails = pytest.raises(ModelError, match=r"refusing the chat template|did not end|Range too big")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with check_fails as caught:
        render(Fake(MEMORY[name]), PLAIN, seconds=20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kilobytes
    assert caught.value.exit_code == 3
    assert grown < 400 << 10


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_cannot_leave_the_sandbox(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"refusing the chat template: .*(unsafe|private)|fails on these messages"
    ) as caught:
        render(Fake(ESCAPES[name]), PLAIN)
    assert "subclass" not in str(caught.value)


@pytest.mark.parametrize("name", ["class", "class by format", "change", "self"])
def test_an_escape_is_refused_when_the_model_is_loaded(name: str) -> None:
    with pytest.raises(ModelError, match="refusing the chat template: access to attribute"):
        check(Fake(ESCAPES[name]))


@pytest.mark.parametrize(
    "source",
    ["{% if", "{{ 1 | no_such_filter }}", "{% no_such_tag %}", "{% endfor %}", "{{ " + "(" * 5000 + ")" * 5000 + " }}"],
)
def test_a_template_that_does_not_parse_is_refused(source: str) -> None:
    with pytest.raises(ModelError, match=r"does not parse|refusing the chat template"):
        check(Fake(source))


def test_a_template_of_absurd_length_is_refused() -> None:
    with pytest.raises(ModelError, match=r"300,000 characters; at most 262,144"):
        check(Fake("x" * 300_000))
    with pytest.raises(ModelError, match="should be text, not a int"):
        check(Fake(3))


@pytest.mark.parametrize("source", ["{% include 'x' %}", "{% import 'os' as os %}", "{% extends '/etc/passwd' %}"])
def test_a_template_reaches_no_files(source: str) -> None:
    with pytest.raises(ModelError, match="fails on these messages"):
        render(Fake(source), PLAIN)


def test_what_hides_until_later_is_refused_then() -> None:
    source = "{% if messages[0].content == 'now' %}" + LOOP + "{% endif %}ok"
    check(Fake(source))
    with pytest.raises(ModelError, match=r"did not end within 0\.2 seconds"):
        render(Fake(source), [{"role": "user", "content": "now"}], seconds=0.2)


def test_the_deadline_holds_in_any_thread_and_leaves_nothing_behind() -> None:
    seen: list[Any] = []

    def mine(frame: Any, event: str, argument: Any) -> None:
        return None

    def work() -> None:
        sys.settrace(mine)
        try:
            render(Fake(LOOP), PLAIN, seconds=0.2)
        except ModelError as error:
            seen.append(str(error))
        seen.append(sys.gettrace())
        sys.settrace(None)

    before = sys.gettrace()
    thread = threading.Thread(target=work)
    thread.start()
    assert render(Fake("{{ messages[0].content }}"), PLAIN) == "Hello"
    thread.join(5)
    assert "did not end within 0.2 seconds" in seen[0]
    assert seen[1] is mine
    assert sys.gettrace() is before
