"""Chat messages -> the text of the prompt, by the model's Jinja2 template.

The environment is that of Hugging Face's ``apply_chat_template``, which the engines use: sandboxed, blocks
trimmed, loop controls, and the names ``raise_exception``, ``strftime_now`` and a ``tojson`` that escapes no
HTML.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from extproc.tokens.conversation import Conversation
from extproc.tokens.question import Untellable


class Template:
    """A chat template, compiled; raises jinja2.TemplateSyntaxError where that fails."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], now: Callable[[], datetime]) -> None:
        """`special_tokens`: ``bos_token``, ``eos_token`` and so on, as the template names them."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        self._template = environment.from_string(source)
        self._special_tokens = special_tokens
        self.lists = any(_walks_contents(environment.parse(source)))
        """Whether it walks through the parts of a content."""
        self.developers = "'developer'" in source or '"developer"' in source
        """Whether it knows the role ``developer``."""

    def render(self, conversation: Conversation) -> str:
        """The prompt's text. `Untellable` where the template refuses: the engine will refuse as well."""
        variables = {**self._special_tokens, **conversation.variables}
        variables |= {"messages": conversation.messages, "tools": conversation.tools}
        try:
            return self._template.render(variables)
        except Exception as error:  # whatever the expressions of a template may raise
            raise Untellable(f"the chat template refuses the messages ({type(error).__name__})") from None


class _Generation(Extension):
    """``{% generation %}`` marks what the model said; of no effect on the text."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 wants a plain set

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _walks_contents(tree: nodes.Template) -> Iterator[bool]:
    """True for each loop over a content: ``message.content``, ``message['content']`` or ``content``."""
    for loop in tree.find_all(nodes.For):
        over = loop.iter
        while isinstance(over, nodes.Filter | nodes.Test) and over.node is not None:
            over = over.node
        match over:
            case (
                nodes.Getitem(arg=nodes.Const(value="content"))
                | nodes.Getattr(attr="content")
                | nodes.Name(name="content")
            ):
                yield True
