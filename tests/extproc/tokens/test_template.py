from collections.abc import Callable
from datetime import datetime

import jinja2
import pytest

from extproc.tokens.conversation import Conversation
from extproc.tokens.question import Untellable
from extproc.tokens.template import Template


@pytest.fixture
def rendered(noon: Callable[[], datetime]) -> Callable[..., str]:
    def render(source: str, *contents: object, tools: list | None = None, **variables: object) -> str:
        messages = [{"role": "user", "content": content} for content in contents]
        told = Conversation(messages, tools, variables)
        return Template(source, {"bos_token": "<s>"}, noon).render(told)

    return render


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>hi"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{{ strftime_now('%d %b %Y') }}", "09 Mar 2026"),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        ("{{ tools is none }} {{ more is defined }} {{ given }}", "True False 1"),
        ("{{ messages[0].content.split('i')[0] }}", "h"),
    ],
)
def test_renders_as_the_engines_do(rendered, source, text):
    assert rendered(source, "hi", given=1) == text


def test_the_clients_variables_hide_no_messages(rendered):
    assert (
        rendered("{{ messages[0].content }}{{ bos_token }}", "hi", messages="no", bos_token="[B]") == "hi[B]"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('system role: ' + messages[0].content) }}",
        "{{ messages[0].nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(999999999) %}{% endfor %}",
    ],
)
def test_a_template_that_refuses_gives_no_text_and_tells_nothing_of_the_prompt(rendered, source):
    with pytest.raises(Untellable, match=r"^the chat template refuses the messages \(\w+\)$") as caught:
        rendered(source, "secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("source", ["{% for %}", "{{", "{% nothing %}", "{% generation %}"])
def test_a_template_that_cannot_be_compiled_is_an_error(rendered, source):
    with pytest.raises(jinja2.TemplateSyntaxError):
        rendered(source)


@pytest.mark.parametrize(
    ("source", "lists"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{% for part in m.content %}{% endfor %}{% endfor %}", True),
        ("{% for m in messages %}{% for part in m['content'] | list %}{% endfor %}{% endfor %}", True),
        ("{% macro show(content) %}{% for part in content %}{% endfor %}{% endmacro %}", True),
    ],
)
def test_whether_it_walks_through_contents(noon, source, lists):
    assert Template(source, {}, noon).lists == lists


def test_whether_it_knows_developers(noon):
    assert Template("{% if m.role == 'developer' %}{% endif %}", {}, noon).developers
    assert not Template("a developer", {}, noon).developers
