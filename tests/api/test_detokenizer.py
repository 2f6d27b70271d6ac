"""Deltas add up to what decoding everything at once gives, for every kind of decoder in use."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from isotoken.api.text import TextModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

WORDS = ["▁", "▁the", "▁quick", "fox", "é", "ü", "🙂", "▁▁", "ab", ".", ",", "'s"]


def byte_fallback(*decoder: decoders.Decoder) -> Tokenizer:
    """Like Llama 2's: pieces with a mark for the space, and one token for each byte."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(list(decoder))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def llama_2() -> Tokenizer:
    strip = decoders.Strip(" ", 1, 0)
    return byte_fallback(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip)


def gemma() -> Tokenizer:
    return byte_fallback(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse())


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in ("<unk>", *WORDS)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_pieces() -> Tokenizer:
    vocab = {word: i for i, word in enumerate(["[UNK]", "the", "quick", "##er", "##s", "fox", ".", "is"])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


def stream(text: TextModel, ids: list[int], *, at_start: bool = True) -> str:
    detokenizer = text.detokenizer(at_start=at_start)
    return "".join(detokenizer.push(token_id) for token_id in ids) + detokenizer.flush()


def test_byte_level_equals_the_tokenizer_for_any_tokens(text_model: TextModel) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(300):
        ids = rng.choices(range(text_model.tokenizer.get_vocab_size()), k=rng.randrange(40))
        expected = text_model.tokenizer.decode(ids)
        assert stream(text_model, ids) == text_model.decode(ids) == expected
        with_special = text_model.tokenizer.decode(ids, skip_special_tokens=False)
        assert text_model.decode(ids, skip_special_tokens=False) == with_special


@pytest.mark.parametrize("token_id", [-1, -(2**70), 2**31, 2**40, 2**70, 10**6])
@pytest.mark.parametrize("make", [llama_2, word_pieces])
def test_a_number_that_is_no_token_has_no_text(make: object, tmp_path: Path, token_id: int) -> None:
    """Clients may send any: it is neither an error nor kept."""
    assert callable(make)
    make().save(str(tmp_path / "tokenizer.json"))
    text = TextModel.load(tmp_path)
    assert stream(text, [token_id]) == ""


@pytest.mark.parametrize("make", [llama_2, gemma, metaspace, word_pieces])
def test_other_decoders_equal_the_tokenizer_for_well_formed_tokens(make: object, tmp_path: Path) -> None:
    tokenizer = make()  # type: ignore[operator]
    text = TextModel(tmp_path, tokenizer)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    singles = [[i] for i in range(tokenizer.get_vocab_size()) if not tokenizer.id_to_token(i).startswith("<0x")]
    spelled = [[3 + byte for byte in character.encode()] for character in "ß漢🚀"] if make in (llama_2, gemma) else []
    for _ in range(300):
        ids = [token for _ in range(rng.randrange(12)) for token in rng.choice(singles + spelled)]
        assert stream(text, ids) == text.decode(ids) == tokenizer.decode(ids), ids


def test_no_character_is_shown_before_its_last_byte(tmp_path: Path) -> None:
    text = TextModel(tmp_path, gemma())
    detokenizer = text.detokenizer()
    shown = [detokenizer.push(3 + byte) for byte in "🙂é".encode()]
    assert shown == ["", "", "", "🙂", "", "é"]


def test_ill_formed_bytes_show_as_replacement_and_spoil_nothing_else(tmp_path: Path) -> None:
    text = TextModel(tmp_path, llama_2())
    the = text.tokenizer.token_to_id("▁the")
    ids = [3 + 0xF0, 3 + 0x9F, the, 3 + 0xC3]
    assert stream(text, ids, at_start=False) == "\ufffd the\ufffd"


def test_a_continuation_keeps_the_space_that_the_start_of_a_text_loses(tmp_path: Path) -> None:
    text = TextModel(tmp_path, llama_2())
    ids = [text.tokenizer.token_to_id(piece) for piece in ("▁the", "▁quick")]
    assert stream(text, ids, at_start=True) == text.tokenizer.decode(ids) == "the quick"
    assert stream(text, ids, at_start=False) == " the quick"


def test_added_tokens_that_are_no_bytes_stand_for_themselves(model_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.add_special_tokens(["<｜end▁of▁text｜>"])
    text = TextModel(model_dir, tokenizer)
    added = tokenizer.token_to_id("<｜end▁of▁text｜>")
    ids = [*text.encode("fox"), added]
    assert text.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids, skip_special_tokens=False)
    assert text.token_text(added) == "<｜end▁of▁text｜>"
    assert text.decode(ids) == "fox"


def test_token_bytes_join_to_the_text(text_model: TextModel) -> None:
    sentence = "Größe: 漢字 🙂!"
    ids = text_model.encode(sentence)
    assert b"".join(map(text_model.token_bytes, ids)).decode() == sentence
    assert text_model.token_text(text_model.tokenizer.token_to_id("<|end|>")) == "<|end|>"
