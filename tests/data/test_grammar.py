"""The built-in corpus is the same everywhere and its entropy is what `Floor` says."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from replicate.data import grammar, windows

REVIEWS = list(grammar.reviews(1, 2000))
TEXTS = [grammar.text(review) for review in REVIEWS]
TOKENIZER = windows.train_tokenizer(TEXTS, 768)


def test_every_machine_writes_the_same_bytes() -> None:
    digest = hashlib.sha256("\n".join(TEXTS).encode()).hexdigest()
    assert digest == "d745ed089c4e1981e86b338a5d900678f4c251bcb4ad640ccc538a0cda06976f"


def test_a_review_depends_on_the_seed_and_its_number_alone() -> None:
    assert next(islice(grammar.reviews(1, 10**6), 7, None)) == REVIEWS[7]
    assert grammar.text(next(grammar.reviews(2, 1))) != TEXTS[0]


def test_no_alternative_is_the_beginning_of_another() -> None:
    """Otherwise a text could be written in two ways, with another probability."""
    tables = {options for review in REVIEWS for options, _ in review}
    assert len(tables) > 1000
    for options in tables:
        ordered = sorted(f"{text} " for text in options.options)
        assert not any(after.startswith(before) for before, after in pairwise(ordered))


def test_surprisals_of_the_tokens_sum_to_that_of_the_review() -> None:
    floor = grammar.Floor(lambda text: TOKENIZER.encode(text).ids)
    for review, text in zip(REVIEWS[:200], TEXTS, strict=False):
        surprisals = floor.surprisals(review)
        assert len(surprisals) == len(TOKENIZER.encode(text).ids)
        exact = -sum(
            math.log(options.weights[taken] / options.cumulative[-1]) for options, taken in review
        )
        assert sum(surprisals) == pytest.approx(exact, rel=1e-12)
        assert min(surprisals) >= 0


def test_token_probabilities_by_hand() -> None:
    """Letters of ab (1/2), ac and a (1/4) have p(a) = 1, p(b|a) = 1/2, p(c|a) = p(end|a) = 1/4."""
    options = grammar.table(("ab", 2), ("ac", 1), ("a", 1))
    end = grammar.table((".", 1))
    floor = grammar.Floor(lambda text: [ord(letter) for letter in text])
    for taken, by_hand in enumerate(([0, math.log(2), 0], [0, math.log(4), 0], [0, math.log(4)])):
        assert floor.surprisals([(options, taken), (end, 0)]) == pytest.approx(by_hand)


def test_the_floor_is_the_entropy_of_what_is_written() -> None:
    """The mean surprisal of the first choice is its entropy, within four standard errors."""
    first = [review[0] for review in REVIEWS]
    options = first[0][0]
    p = np.diff(options.cumulative, prepend=0) / options.cumulative[-1]
    surprisal = -np.log(p[[taken for _, taken in first]])
    error = surprisal.std() / math.sqrt(len(first))
    assert abs(surprisal.mean() + (p * np.log(p)).sum()) < 4 * error


def test_dropping_short_reviews_drops_no_long_one() -> None:
    """So selection by length cannot bias the floor."""
    lengths = np.array([len(TOKENIZER.encode(text).ids) for text in TEXTS])
    short = np.array([" with " not in text for text in TEXTS])
    assert 0.1 < short.mean() < 0.2
    assert lengths[short].max() < grammar.EXACT[0]
    assert lengths[~short].min() >= grammar.EXACT[1]


def test_agreement_reaches_across_nested_clauses() -> None:
    """A singular noun has its verb 'is', a plural one 'are', whatever stands between."""
    sentences = [sentence for text in TEXTS for sentence in text.split(". ")]
    nested = [s.split() for s in sentences if s.startswith("The ") and s.count(" that ") > 1]
    assert len(nested) > 20
    for words in nested:
        noun = words[1]
        verb = next(word for word in words if word in ("is", "are"))
        assert verb == ("is" if noun in grammar.SINGULAR else "are")


def test_words_are_zipfian() -> None:
    """ln frequency falls with ln rank with a slope of about −1 over the middle ranks."""
    words = Counter(word for text in TEXTS for word in text.split())
    counts = np.array(sorted(words.values(), reverse=True), float)
    ranks = np.arange(1, len(counts) + 1)
    middle = slice(5, 300)
    slope = np.polyfit(np.log(ranks[middle]), np.log(counts[middle]), 1)[0]
    assert -1.6 < slope < -0.7
