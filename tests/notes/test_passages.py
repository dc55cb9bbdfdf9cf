"""Cutting text into passages: they fit, nothing is lost, sentences stay whole."""

from __future__ import annotations

import random

import pytest

from notes.embedding import tokenize
from notes.passages import Span, split
from scribes.management.commands.demo import psalm


def tokens(text: str) -> int:
    return len(tokenize(text))


def cut(text: str, max_tokens: int = 50) -> list[str]:
    return [text[start:end] for start, end in split(text, max_tokens, tokenize)]


def without_space(text: str) -> str:
    return "".join(text.split())


PSALM_119 = str(psalm(119)["content"])

TEXTS = {
    "english": PSALM_119,
    "one line": PSALM_119.replace("\n", " "),
    "no sentence ends": " ".join(PSALM_119.replace(".", "").replace("\n", " ").split()),
    "chinese": "起初，神创造天地。地是空虚混沌，渊面黑暗。" * 40,
    "hebrew": "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ. " * 30,
    "emoji": "Praise 🙏🏽 the Lord! 👨‍👩‍👧‍👦 Amen. " * 60,
    "code": "```python\nfor verse in psalm:\n    print(verse)\n```\n" * 20,
    "only punctuation": "?!." * 500,
    "no spaces": "".join(PSALM_119.split()).replace(".", ""),
    "blank lines": "\n\n\nOne.\n\n\n\nTwo.\n\n" * 50,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_passages_fit_and_nothing_is_lost(text: str):
    passages = cut(text)
    assert len(passages) > 1
    assert max(tokens(passage) for passage in passages) <= 50
    assert without_space("".join(passages)) == without_space(text)


@pytest.mark.parametrize("word", ["hallelujah", "xqzj0", "\u200d", "…", "."])
def test_a_word_without_end_loses_nothing(word: str):
    passages = cut(word * 3000)
    assert max(tokens(passage) for passage in passages) <= 50
    assert "".join(passages) == word * 3000


def test_random_texts_fit_and_lose_nothing():
    dice = random.Random(23)
    alphabet = "ab é.?!\n\t 。'”)🙏本\u200d\u0301"
    for _ in range(300):
        text = "".join(dice.choices(alphabet, k=dice.randrange(120)))
        passages = cut(text, max_tokens=7)
        assert all(passage == passage.strip() != "" for passage in passages)
        assert all(tokens(passage) <= 7 for passage in passages), repr(text)
        assert without_space("".join(passages)) == without_space(text)


def test_passages_end_where_sentences_end():
    passages = cut(TEXTS["one line"])
    assert sum(passage[-1] in ".?!" for passage in passages) / len(passages) > 0.9


def test_a_short_text_is_one_passage_without_the_space_around_it():
    text = "  \n In the beginning. \n"
    assert split(text, 50, tokenize) == [Span(4, 21)]


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0\n"])
def test_a_blank_text_has_no_passages(text: str):
    assert split(text, 50, tokenize) == []


def test_passages_are_as_full_as_sentences_allow():
    sentence = "The Lord is my shepherd. "
    assert [passage.count("shepherd") for passage in cut(sentence * 20)] == [8, 8, 4]
