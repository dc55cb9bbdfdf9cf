"""Text -> passages that fit, lose nothing and keep sentences whole."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from notes.embeddings.chunking import Span, Token, heading_at, split
from notes.embeddings.encoder import encoder
from tests.helpers.samples import psalm

tokenize = encoder().tokenize


def count_tokens(text: str) -> int:
    return len(tokenize(text))


def cut(text: str, max_tokens: int = 50) -> list[str]:
    return [text[start:end] for start, end, _ in split(text, max_tokens, 0, tokenize)]


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
def test_passages_fit_and_lose_nothing(text: str):
    passages = cut(text)
    assert len(passages) > 1
    assert max(count_tokens(passage) for passage in passages) <= 50
    assert without_space("".join(passages)) == without_space(text)


@pytest.mark.parametrize("word", ["hallelujah", "xqzj0", "\u200d", "…", "."])
def test_endless_word_loses_nothing(word: str):
    passages = cut(word * 3000)
    assert max(count_tokens(passage) for passage in passages) <= 50
    assert "".join(passages) == word * 3000


def test_random_texts_fit_and_lose_nothing():
    dice = random.Random(23)
    alphabet = "ab é.?!\n\t 。'”)🙏本\u200d\u0301"
    for _ in range(300):
        text = "".join(dice.choices(alphabet, k=dice.randrange(120)))
        passages = cut(text, max_tokens=7)
        assert all(passage == passage.strip() != "" for passage in passages)
        assert all(count_tokens(passage) <= 7 for passage in passages), repr(text)
        assert without_space("".join(passages)) == without_space(text)


def test_passages_end_with_sentences():
    passages = cut(TEXTS["one line"])
    assert sum(passage[-1] in ".?!" for passage in passages) / len(passages) > 0.9


def test_short_text_is_one_trimmed_passage():
    text = "  \n In the beginning. \n"
    assert split(text, 50, 0, tokenize) == [Span(4, 21)]


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0\n"])
def test_blank_text_has_no_passages(text: str):
    assert split(text, 50, 0, tokenize) == []


def test_passages_are_as_full_as_possible():
    sentence = "The Lord is my shepherd. "
    assert [passage.count("shepherd") for passage in cut(sentence * 20)] == [8, 8, 4]


def test_neighbours_overlap_by_whole_sentences():
    sentences = [f"Sentence number {n} says this and that. " for n in range(20)]
    text = "".join(sentences)
    spans = split(text, 50, 12, tokenize)
    for before, after in pairwise(spans):
        shared = text[after.start : before.end]
        assert shared.startswith("Sentence number")
        assert 0 < count_tokens(shared) <= 12
    assert max(count_tokens(text[span.start : span.end]) for span in spans) <= 50


def two_per_word(text: str) -> list[Token]:
    """Two tokens per word: its first letter, and the rest."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    return [Token(start + n, number) for number, start in enumerate(starts) for n in range(2)]


def test_overlap_stays_in_its_section():
    """The overlap has room for the heading, but repeats only what follows it."""
    text = "In the beginning.\n\n# Two\nIt was. And God said let there be."
    spans = split(text, 24, 16, two_per_word)
    assert [text[start:end] for start, end, _ in spans] == [
        "In the beginning.\n\n# Two\nIt was.",
        "It was. And God said let there be.",
    ]


def test_long_sentence_is_cut_between_words():
    text = "in the beginning was the word and the word was with god " * 4
    passages = [text[start:end] for start, end, _ in split(text, 7, 0, two_per_word)]
    assert " ".join(passages).split() == text.split()
    assert all(len(two_per_word(passage)) <= 7 for passage in passages)


def test_character_of_more_tokens_than_fit_is_a_passage():
    def three_per_character(text: str) -> list[Token]:
        return [Token(at, 0) for at in range(len(text)) for _ in range(3)]

    spans = split("光有了光", 2, 0, three_per_character)
    assert [(start, end) for start, end, _ in spans] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_section_starts_a_passage_and_repeats_its_heading():
    before = (
        "Before that, there was something else to say, and it was said at length, by all of them."
    )
    text = f"{before}\n\n# The Shepherd #\n{'He leadeth me. ' * 30}\n## Other\nThe end."
    spans = split(text, 50, 10, tokenize)
    assert text[spans[0].start : spans[0].end] == before
    assert text[spans[1].start :].startswith("# The Shepherd")
    assert [span.heading for span in spans] == ["", "", *["The Shepherd"] * (len(spans) - 3), ""]
    assert len(spans) > 4
    assert text[spans[-1].start : spans[-1].end] == "## Other\nThe end."
    for span in spans:
        assert count_tokens(span.heading) + count_tokens(text[span.start : span.end]) <= 50


def test_small_sections_share_a_passage():
    (span,) = split("# One\nA.\n# Two\nB.\n# Three\nC.", 50, 10, tokenize)
    assert span == Span(0, 28)


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_comment_in_a_code_block_is_no_heading(fence: str):
    text = f"# Real\n{fence}\n# comment\n{fence}\nafter"
    assert heading_at(text, text.index("comment")) == "Real"
    assert heading_at(text, text.index("after")) == "Real"


@pytest.mark.parametrize("line", ["a", "\u200d\n", "# a\n", "…"])
def test_million_characters_are_split_without_loss(line: str):
    """Texts that could take quadratic time: no spaces, no tokens, or only headings."""
    text = line * (1_000_000 // len(line))
    spans = split(text, 128, 16, no_tokens if "\u200d" in line else tokenize)
    covered = sum(after.start - before.start for before, after in pairwise(spans))
    assert covered + spans[-1].end - spans[-1].start >= len(text) - len(line)


def no_tokens(text: str) -> list[Token]:
    return []


@pytest.mark.parametrize("heading", ["한국어제목" * 20, "起初神" * 40, "🙏" * 100, "x" * 100])
def test_long_heading_leaves_room_for_the_text(heading: str):
    text = f"# {heading}\n" + "He leadeth me. " * 30
    spans = split(text, 40, 10, tokenize)
    assert len(spans) > 2
    assert text[spans[-1].start : spans[-1].end].endswith("He leadeth me.")
    for span in spans:
        assert count_tokens(span.heading) <= 10
        assert count_tokens(span.heading) + count_tokens(text[span.start : span.end]) <= 40
