"""Writes the built-in corpus: English-like film reviews from a grammar of known entropy.

The grammar is probabilistic. It writes a review as a series of choices between texts (options). It
is *unifilar*: its state is a function of the text so far, and no option of a choice begins with all
the words of another. So the probability of a text is the product of its choices' probabilities,
with no hidden state to sum over. The mean of −ln p per token is the *entropy floor* (Shannon 1948,
section 7), the lowest loss that a language model can reach on this text.

Three properties make the text hard to predict for models whose sizes differ by a factor of 30:
facts of Zipfian frequency (each of 240 actors has a usual role, each of 60 directors a usual place,
each role its usual verbs), word pairs (each noun has its own usual adjectives of praise and blame),
and long-range structure (genre, verdict, cast, and number agreement across nested clauses).

Whether a review is short is decided before its first word. Short reviews have fewer than `EXACT[0]`
tokens, and all others at least `LONG[0]` words. So if windows are made of reviews of at least n
tokens, with n within `EXACT`, exactly the short reviews are dropped, whatever they say, and the
floor stays exact. Weights are integers and `random.Random.random` is the only source of randomness,
so every machine writes the same bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import accumulate
from itertools import count as counted
from random import Random

import yaml

SHORT = 0.15  # the share of reviews of one sentence
LONG = (90, 180)  # any other review has n words or a few more; n is uniform in this range
EXACT = (40, LONG[0])  # the shortest and the longest windows (tokens) whose floor is exact


def split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


LEXICON = yaml.safe_load((files("replicate.data") / "lexicon.yaml").read_text(encoding="utf-8"))
GENRES = {genre: split(words) for genre, words in LEXICON["genres"].items()}
CRAFT, PRAISE, BLAME, ADVERBS = (
    split(LEXICON[key]) for key in ("craft", "praise", "blame", "adverbs")
)
ROLES, PLACES, WOMEN, MEN = (split(LEXICON[key]) for key in ("roles", "places", "women", "men"))
PRESENT, PAST = zip(*(pair.split("/") for pair in split(LEXICON["verbs"])), strict=True)
SURNAMES = tuple(
    stem + end for stem in split(LEXICON["surname_stems"]) for end in split(LEXICON["surname_ends"])
)


@dataclass(frozen=True, eq=False)
class Table:
    """Holds a distribution over texts: their integer weights, and the running sums of these."""

    options: tuple[str, ...]
    weights: tuple[int, ...]
    cumulative: tuple[int, ...]


Choice = tuple[Table, int]  # a table, and the index of the option taken


@cache
def table(*weighted: tuple[str, int]) -> Table:
    """Returns the table of texts with integer weights."""
    options, weights = zip(*weighted, strict=True)
    return Table(options, weights, tuple(accumulate(weights)))


@cache
def ranked(words: tuple[str, ...], *key: str) -> tuple[str, ...]:
    """Returns shuffled words (Fisher–Yates); `key` and their number decide the permutation."""
    random, order = Random("/".join(key)).random, list(words)
    for i in range(len(order) - 1, 0, -1):
        j = int(random() * (i + 1))
        order[i], order[j] = order[j], order[i]
    return tuple(order)


@cache
def zipf(words: tuple[str, ...], *key: str) -> Table:
    """Returns the table of words with weights ∝ rank^(−3/2); `key` decides the ranks."""
    order = enumerate(ranked(words, *key), start=1)
    return table(*((f" {word}", math.isqrt(10**12 // rank**3)) for rank, word in order))


@cache
def mostly(words: tuple[str, ...], first: str) -> Table:
    """Returns the table of words in which `first` has probability 9/10 and all others the same."""
    others = ((f" {word}", 1) for word in words if word != first)
    return table((f" {first}", 9 * (len(words) - 1)), *others)


@cache
def either(*words: str) -> Table:
    """Returns the table that gives each word the same weight; repeated words count once."""
    return table(*((f" {word}", 1) for word in dict.fromkeys(words)))


@cache
def with_adverbs(adjectives: Table, genre: str) -> Table:
    """Returns the table of an adjective with probability 1/2, and of an adverb otherwise."""
    adverbs = zipf(ADVERBS, genre)
    weighted: list[tuple[str, int]] = []
    for part, other in ((adjectives, adverbs), (adverbs, adjectives)):
        weights = (weight * other.cumulative[-1] for weight in part.weights)
        weighted += zip(part.options, weights, strict=True)
    return table(*weighted)


def plural(noun: str) -> str:
    if noun[-1] == "y" and noun[-2] not in "aeo":
        return noun[:-1] + "ies"
    return noun + ("es" if noun[-1] == "s" else "s")


NAMES = tuple(f"{first} {last}" for last in SURNAMES for first in WOMEN + MEN)
ACTORS, DIRECTORS = ranked(NAMES, "actors")[:240], ranked(NAMES, "directors")[:60]
NOUNS = {
    genre: tuple(form for noun in words + CRAFT for form in (noun, plural(noun)))
    for genre, words in GENRES.items()
}
SINGULAR = {noun for words in GENRES.values() for noun in words + CRAFT}
PRAISING = LEXICON["openings"]["praise"]
OPENING = table(*(PRAISING | LEXICON["openings"]["blame"]).items())
SENTENCE = table((" The", 6), (" In", 3), (" Then", 3), (" What a", 2), (" Later", 2))
END = table((".", 5), (", and the", 2), (", but the", 1))


class Writer:
    """Writes one review; `say` writes each of its words."""

    def __init__(self, random: Random) -> None:
        self.random = random.random
        self.choices: list[Choice] = []
        self.words = 0

    def say(self, *parts: str | Table) -> str:
        """Writes fixed texts and texts drawn from tables; returns the last without its space."""
        text = ""
        for part in parts:
            options = table((part, 1)) if isinstance(part, str) else part
            taken = bisect_right(options.cumulative, int(self.random() * options.cumulative[-1]))
            self.choices.append((options, taken))
            text = options.options[taken]
            self.words += text.count(" ")
        return text.removeprefix(" ")

    def review(self, words: int = LONG[1]) -> list[Choice]:
        """Writes the opening and, unless the review is short, the cast and further sentences.

        No sentence is begun after `words` words.
        """
        length = 0 if self.random() < SHORT else LONG[0] + int(self.random() * (LONG[1] - LONG[0]))
        length = min(length, words)
        praise = self.say(OPENING) in PRAISING
        self.genre = self.say(zipf(tuple(GENRES), "genre"))
        director = self.say(" by", zipf(DIRECTORS, self.genre))
        self.place = self.say(" set in", mostly(PLACES, ranked(PLACES, director)[0]))
        self.cast = {}
        if length:
            self.member(" with")
            self.member(" and")
        self.say(".")
        while self.words < length:
            self.sentence(praise)
        return self.choices

    def member(self, before: str) -> None:
        """Writes an actor and the actor's role, and adds them to the cast with the pronoun."""
        actor = self.say(before, zipf(ACTORS, self.genre))
        role = self.say(" as the", mostly(ROLES, ranked(ROLES, actor)[0]))
        first, last = actor.split()
        self.cast.setdefault(last, (role, " her" if first in WOMEN else " his"))

    def sentence(self, praise: bool) -> None:
        roles = either(*(role for role, _ in self.cast.values()))
        match self.say(SENTENCE):
            case "The":
                self.judgement(praise)
            case "In":
                self.action(self.say(mostly(PLACES, self.place), " the", roles), " the")
                self.end(praise)
            case "Then":
                self.action(*self.cast[self.say(either(*self.cast))])
                self.end(praise)
            case "What a":
                noun = self.say(zipf(NOUNS[self.genre][::2], self.genre, "exclaimed"))
                self.say(", so", zipf(PRAISE if praise else BLAME, noun), "!")
            case _:
                role = self.say(" we learn that the", roles)
                self.say(" was a", zipf(ROLES, role, "was"))
                self.end(praise)

    def action(self, role: str, article: str) -> None:
        """Writes what a person in this role does in this genre."""
        verb = mostly(PRESENT, ranked(PRESENT, self.genre, role)[0])
        self.say(verb, article, zipf(NOUNS[self.genre], self.genre))

    def judgement(self, praise: bool) -> None:
        """Writes a noun, relative clauses, a verb that agrees, and an adjective of the noun."""
        noun = self.say(zipf(NOUNS[self.genre], self.genre))
        self.verb(" is" if noun in SINGULAR else " are")
        adjectives = zipf(PRAISE if praise else BLAME, noun)
        if self.say(with_adverbs(adjectives, self.genre)) in ADVERBS:
            self.say(adjectives)
        self.end(praise)

    def verb(self, verb: str, depth: int = 0) -> None:
        """Writes up to three nested relative clauses after a noun, and then the noun's verb."""
        if self.say(table((verb, 3), (" that", 2)) if depth < 3 else table((verb, 1))) != "that":
            return
        role, _ = self.cast[self.say(either(*self.cast))]
        self.say(mostly(PAST, ranked(PAST, role)[0]))
        if self.say(table((verb, 1), (" near the", 1))) == "near the":
            self.say(zipf(NOUNS[self.genre], self.genre))
            self.verb(verb, depth + 1)

    def end(self, praise: bool) -> None:
        """Ends the sentence, or adds a judgement; "but" reverses its verdict."""
        conjunction = self.say(END)
        if conjunction != ".":
            self.judgement(praise == (conjunction == ", and the"))


def reviews(seed: int, count: int) -> Iterator[list[Choice]]:
    """Yields the choices of `count` reviews; a review depends on the seed and its number alone."""
    for number in range(count):
        yield Writer(Random(f"{seed}/{number}")).review()


def beginnings(seed: int, words: int) -> Iterator[str]:
    """Yields whole sentences from the beginning of each review of endlessly many.

    They are the whole review, or have at least `words` words.
    """
    for number in counted():
        yield text(Writer(Random(f"{seed}/{number}")).review(words))


def text(choices: Sequence[Choice]) -> str:
    """Returns the text of a review."""
    return "".join(options.options[taken] for options, taken in choices)


class Floor:
    """Computes −ln p of each token of a review under the grammar.

    `encode` returns the token ids of a text; it must never join two options into one token. The
    probability of a token is computed over all options that have the same tokens before it. If a
    longer option begins with all tokens of the option taken, it is also a surprise that the option
    ends here. This surprisal is added to that of the next token.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self.encode = cache(lambda text: tuple(encode(text)))
        self.option = cache(self._option)

    def _option(self, options: Table, taken: int) -> tuple[tuple[float, ...], float]:
        """Returns the surprisals (nats) of the option's tokens, and of its end."""
        encoded = [self.encode(option) for option in options.options]
        alike = range(len(encoded))
        before, surprisals = options.cumulative[-1], []
        for position, token in enumerate(encoded[taken]):
            alike = [o for o in alike if encoded[o][position : position + 1] == (token,)]
            weight = sum(options.weights[o] for o in alike)
            surprisals.append(math.log(before / weight))
            before = weight
        return tuple(surprisals), math.log(before / options.weights[taken])

    def surprisals(self, choices: Sequence[Choice]) -> list[float]:
        """Returns the surprisal (nats) of each token; the sum is −ln p of the review.

        Raises:
            ValueError: the last option's tokens are the beginning of a longer option.
        """
        result, pending = [], 0.0
        for options, taken in choices:
            (first, *others), end = self.option(options, taken)
            result += [pending + first, *others]
            pending = end
        if pending:
            raise ValueError("the last choice of a review leaves open whether the review has ended")
        return result
