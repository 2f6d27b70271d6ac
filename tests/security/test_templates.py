"""Chat templates come with models from strangers: they reach no data and no code, and none computes for ever."""

from __future__ import annotations

import json
import threading

import pytest
from isotoken.api.chat_template import ChatTemplate
from isotoken.api.errors import ParameterError
from isotoken.api.template_shape import is_plain
from isotoken.models import BUILTIN
from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

pytestmark = pytest.mark.timeout(60)  # for what hangs
MESSAGES = [{"role": "user", "content": "Hello"}]

ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ (1).__class__.__base__.__subclasses__() }}",
    "{{ messages|attr('__class__') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "{{ ('{0.__class__}'|string).format(1) }}",
    "{% for m in [messages]|map(attribute='__class__') %}{{ m.mro() }}{% endfor %}",
    "{% set _ = messages.append(1) %}",
    "{% set _ = messages[0].update({'role': 'system'}) %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('true') }}",
    "{% extends 'base' %}",
    "{{ self.__init__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ ''|attr(['__cl', 'ass__']|join) }}",
    "{{ (messages|map|list).gi_frame.f_globals }}",
]
EXHAUSTIONS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a huge range": "{{ range(10 ** 12)|list }}",
    "one loop over much": "{% for i in (range(99999)|list) * 1000 %}x{% endfor %}",
    "a loop whose condition looks at much": "{% for i in range(99999) if 'a' in range(99999) %}{% endfor %}",
    "a loop whose condition loops": "{% for i in (range(99999)|list) * 999 if i < 0 %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursion that branches": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a recursive loop": "{% set t = [1] %}{% for i in [[[[[[1]]]]]] recursive %}{{ loop([i, i]) }}{% endfor %}",
    "a text doubled": "{% set n = namespace(s='ab') %}{% for i in range(50) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a text doubled by ~": (
        "{% set n = namespace(s='ab') %}{% for i in range(50) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
    ),
    "a text doubled by replace": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}"
    ),
    "a text doubled by the replace filter": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = n.s|replace('a', 'aa') %}{% endfor %}"
    ),
    "a text doubled by a block": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set x %}{{ n.s }}{{ n.s }}{% endset %}"
        "{% set n.s = x %}{% endfor %}"
    ),
    "a text doubled by a macro": (
        "{% macro d(s) %}{{ s }}{{ s }}{% endmacro %}{% set n = namespace(s='a') %}"
        "{% for i in range(50) %}{% set n.s = d(n.s) %}{% endfor %}"
    ),
    "a text doubled by join": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = [n.s, n.s]|join %}{% endfor %}"
    ),
    "a text doubled by a method join": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = ''.join([n.s, n.s]) %}{% endfor %}"
    ),
    "a text doubled by %": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = '%s%s' % (n.s, n.s) %}{% endfor %}"
    ),
    "a text doubled by format": (
        "{% set n = namespace(s='a') %}{% for i in range(50) %}{% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}"
    ),
    "a list doubled": "{% set n = namespace(s=[1]) %}{% for i in range(50) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a list in itself": (
        "{% set n = namespace(s=['ab']) %}{% for i in range(50) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}"
    ),
    "a list in itself as JSON": (
        "{% set n = namespace(s=['ab']) %}{% for i in range(50) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
        "{{ n.s|tojson }}"
    ),
    "a long text repeated": "{{ 'a' * 10 ** 10 }}",
    "repeated before it is run": "{{ 'a'|center(10 ** 10) }}",
    "a wide field": "{{ 'a'.center(10000000000) }}",
    "zeros": "{{ '1'.zfill(10000000000) }}",
    "tabs": "{{ '\t\t\t\t'.expandtabs(1000000000) }}",
    "a wide format": "{{ '%010000000000d' % 1 }}",
    "a format of given width": "{{ '%*d' % (10000000000, 1) }}",
    "a wide format filter": "{{ '%10000000000s'|format('a') }}",
    "a wide format method": "{{ '{:>10000000000}'.format('a') }}",
    "a format method of given width": "{{ '{:>{}}'.format('a', 10000000000) }}",
    "a deep indent": "{{ ('a\n' * 1000)|indent(10000000) }}",
    "a wide indent": "{{ ('a\n' * 100000)|indent('x' * 100000) }}",
    "a wide word wrap": "{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
    "JSON indented": "{{ messages|tojson(indent=1000000000) }}",
    "a batch filled up": "{{ [1]|batch(10000000000, 'x')|list }}",
    "bytes of a number": "{{ (1).to_bytes(10000000000, 'big') }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a number squared": "{% set n = namespace(s=10) %}{% for i in range(50) %}{% set n.s = n.s * n.s %}{% endfor %}",
    "a table of long texts": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "brackets": "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
    "a long source": "x" * 2**21,
    "slices": "{% set s = 'a' * 9000000 %}{% for i in range(99999) %}{% set t = s[::-1] %}{% endfor %}",
    "much constant text": "{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "much made of little": "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
}


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_gets_nowhere(source: str) -> None:
    try:
        prompt = ChatTemplate(source, {}).render(MESSAGES)
    except ParameterError:
        return
    assert not any(secret in prompt for secret in ("class", "root:", "module", "builtin", "<code", "object"))


@pytest.mark.parametrize("kind", EXHAUSTIONS)
def test_a_template_that_never_ends_is_ended(kind: str) -> None:
    with pytest.raises(ParameterError):
        ChatTemplate(EXHAUSTIONS[kind], {}).render(MESSAGES)


def test_the_budget_is_each_renderings_own() -> None:
    """A rendering in another thread, or the one before, takes nothing from this one."""
    template = ChatTemplate("{% for i in range(90000) %}{% endfor %}{{ messages[0].content }}", {})
    prompts: list[str] = []
    threads = [threading.Thread(target=lambda: prompts.append(template.render(MESSAGES))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert prompts + [template.render(MESSAGES) for _ in range(4)] == ["Hello"] * 8


def test_a_long_conversation_has_a_larger_budget() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.role ~ ': ' ~ m.content|trim }}\n{% endfor %}", {})
    messages = [{"role": "user", "content": f"{i} " * 50} for i in range(5000)]
    assert len(template.render(messages)) > 500_000


ORDINARY = [
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{% set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% if m.role == 'user' and not ns.found %}"
    "{% set ns.found = true %}{{ loop.index0 }}{{ m.content.split('l')[-1].lstrip('o') }}{% endif %}{% endfor %}",
    "{{ messages | tojson(indent=2) }}{{ messages|map(attribute='role')|join(', ') }}",
    "{% macro show(m) %}{{ '%s: %s' % (m.role, m.content) }}{{ '{} {:>5}'.format(m.role, 3) }}{% endmacro %}"
    "{% for m in messages if m.role != 'tool' %}{{ show(m) }}{% endfor %}",
    "{% set x %}a{{ 1 + 2 * 3 ** 2 % 5 }}{% endset %}{{ x ~ '-' ~ messages|length }}{{ 'ab' * 3 }}{{ [1, 2] + [3] }}",
    "{% filter upper %}{% for k, v in messages[0].items() %}{{ k }}={{ v|replace('l', 'L') }};{% endfor %}"
    "{% endfilter %}",
    "{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ loop.first }}{{ a }}{% else %}none{% endfor %}",
    "{{ undefined_name is defined }}{{ messages[0].content[1:3] }}{{ 'a\nb'|indent(2) }}{{ messages is sequence }}",
    "{% if 'He' in messages[0].content and messages[0].content.startswith('H') %}yes{% else %}no{% endif %}{# no #}",
]


@pytest.mark.parametrize("source", ORDINARY)
def test_a_budget_changes_no_prompt(source: str) -> None:
    """The same template in Jinja's own sandbox, with the settings that transformers uses."""
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    plain.filters["tojson"] = lambda value, **more: json.dumps(value, ensure_ascii=False, **more)
    variables = {"messages": MESSAGES, "eos_token": "</s>", "add_generation_prompt": True}
    expected = plain.from_string(source).render(**variables)
    assert ChatTemplate(source, {"eos_token": "</s>"}).render(MESSAGES) == expected


@pytest.mark.parametrize("kind", EXHAUSTIONS)
def test_no_template_that_never_ends_is_taken_for_a_plain_one(kind: str) -> None:
    try:
        tree = ImmutableSandboxedEnvironment().parse(EXHAUSTIONS[kind])
    except (TemplateSyntaxError, RecursionError):
        return
    assert not is_plain(EXHAUSTIONS[kind], tree)


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("{% for m in messages %}{{ m.role + ': ' + (m.content | trim) }}{% endfor %}", True),
        ("{% if messages[0]['role'] == 'system' %}{% set s = messages[0].content.strip() %}{% endif %}{{ s }}", True),
        ("{% for m in messages %}{% for n in messages %}{{ n.content }}{% endfor %}{% endfor %}", False),
        ("{% for m in messages %}{{ messages }}{% endfor %}", False),
        ("{% set s = 'a' %}{% for m in messages %}{% set s = s + s %}{% endfor %}", False),
        ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", False),
        ("{% set s = messages[0].content %}{% for c in s %}much{% endfor %}", False),
        ("{% set messages = messages[0].content %}{% for c in messages %}much{% endfor %}", False),
        ("{% for i in range(99999) %}{% endfor %}", False),
        ("{% set m = messages %}{% for x in messages %}{{ m }}{% endfor %}", False),
        ("{% set m = messages[0] %}{% set s = m.content %}{% for x in messages %}{{ s }}{% endfor %}", False),
        ("{% set a = ['x', 'y'] %}{% set b = [a, a, a] %}{% set c = [b, b, b] %}{{ c }}", False),
        ("{% set s = messages[0].content.split('!')|string %}{% set s = s.split('!')|string %}{{ s }}", False),
        ("{% for m in messages %}{% if m.role in ['user', 'tool'] %}{{ m.content }}{% endif %}{% endfor %}", True),
        ("{{ messages[0].content }}" * 61, False),
    ],
)
def test_a_plain_template_does_little_for_each_message(source: str, plain: bool) -> None:
    assert is_plain(source, ImmutableSandboxedEnvironment().parse(source)) == plain


def test_what_a_client_gives_a_plain_template_is_paid_for() -> None:
    """It stands beside each message: a megabyte beside each of ten thousand messages would be ten gigabytes."""
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", {"eos_token": "</s>"})
    assert template.render(MESSAGES) == "Hello</s>"
    assert template.render(MESSAGES, template_kwargs={"eos_token": "!"}) == "Hello!"
    with pytest.raises(ParameterError, match="does too much"):
        template.render(MESSAGES * 10_000, template_kwargs={"eos_token": "x" * 2**20})


def test_the_built_in_models_templates_are_plain() -> None:
    """So that a budget costs them nothing."""
    for folder in BUILTIN.values():
        source = (folder / "chat_template.jinja").read_text()
        assert is_plain(source, ImmutableSandboxedEnvironment().parse(source))


def test_what_a_message_says_is_not_a_template() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", {})
    attack = "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}{# gone #}"
    assert template.render([{"role": "user", "content": attack}]) == attack
