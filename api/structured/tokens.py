"""The vocabulary as grammars need it: the bytes that each token adds to a text."""

from __future__ import annotations

from ...plugins.grammars import TokenTable
from ..text import TextModel


def token_table(text: TextModel) -> TokenTable:
    """Return a tokenizer's table. Raises ValueError for one whose text is not the bytes of its tokens in a row."""
    vocabulary = text.vocabulary
    if not vocabulary.is_bytes:
        raise ValueError("grammars need a tokenizer whose text is the bytes of its tokens in a row")
    size = max(text.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    special = {token_id: text.tokenizer.id_to_token(token_id) for token_id in vocabulary.special_ids}
    tokens = [vocabulary.token_bytes(token_id) for token_id in range(size)]
    return TokenTable(tokens, special, lambda string: text.tokenizer.encode(string, add_special_tokens=False).ids)
