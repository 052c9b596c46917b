"""Prompt -> token ids, for matching it exactly against what the engines have cached.

    question.py   what is asked and what is answered: Question, Parts, Found, Miss (pure)
    gather.py        Tokens: the prompt's own ids, a cache, the tokeniser here, an engine; under a deadline
    given.py         what the prompt's fields say before any tokeniser is asked (pure)
    local.py         encodes here, off the event loop, and only pieces that are new
    directory.py     which tokenisers there are, read when first asked for and again when they change
    files.py         a tokeniser's directory -> Model
    model.py         one tokeniser: a question's pieces, and their encoding
    conversation.py  a chat request's fields -> what a chat template is given (pure)
    template.py      that -> the text of the prompt, by Jinja2
    seams.py         where a text may be cut so that its pieces give the tokens of the whole (pure)
    remote.py        asks an engine
    lru.py           a cache bounded by bytes

The only importer of `tokenizers` and `jinja2`. Prompts are never logged.
"""

from extproc.tokens.gather import Tokens
from extproc.tokens.question import Found, Miss, Parts, Question

__all__ = ["Found", "Miss", "Parts", "Question", "Tokens"]
