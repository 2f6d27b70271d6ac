"""Facts read from the tables in `facts/`, each with several phrasings."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

TABLES = Path(__file__).parent / "facts"
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
]
UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: each stem is completed by the answer; each question is answered by the statement."""

    table: str
    subject: str
    stems: tuple[str, ...]
    answer: str
    questions: tuple[str, ...]
    said: str = ""  # the sentence that states the fact, where it is not the first stem and the answer

    @property
    def statement(self) -> str:
        """Return the sentence that states the fact."""
        return self.said or f"{self.stems[0]} {self.answer}."

    @property
    def short(self) -> str:
        """Return the answer alone, as a reply."""
        return upper_first(self.answer) + "."


def upper_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return ("an " if noun[0] in "aeio" else "a ") + noun


def number_words(number: int) -> str:
    """Return a number from 0 to 100 in words."""
    if number < len(UNITS):
        return UNITS[number]
    if number == 100:
        return "one hundred"
    tens, unit = divmod(number, 10)
    return TENS[tens] + (f"-{UNITS[unit]}" if unit else "")


@cache
def rows(table: str) -> tuple[Row, ...]:
    """Read one table."""
    with (TABLES / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def categories() -> dict[str, tuple[str, ...]]:
    """Return the named groups of things, for lists."""
    return {row["category"]: tuple(row["members"].split(";")) for row in rows("categories")}


@cache
def named_list(name: str) -> tuple[str, ...]:
    """Return one of the lists in `lists.csv`."""
    return next(tuple(row["members"].split(";")) for row in rows("lists") if row["name"] == name)


def place(row: Row) -> str:
    """Return a country's name as it stands inside a sentence."""
    return f"{row['article']} {row['name']}".strip()


def capitals() -> Iterator[Fact]:
    """Yield the capital of each country."""
    for row in rows("countries"):
        name = place(row)
        yield Fact(
            "capitals",
            row["name"],
            (f"The capital of {name} is", f"The capital city of {name} is", f"{upper_first(name)} has the capital"),
            row["capital"],
            (
                f"What is the capital of {name}?",
                f"What's the capital of {name}?",
                f"Tell me the capital of {name}.",
                f"Which city is the capital of {name}?",
                f"What is the capital city of {name}?",
                f"Name the capital of {name}.",
                f"Do you know the capital of {name}?",
                f"Capital of {row['name']}?",
            ),
        )


def capital_owners() -> Iterator[Fact]:
    """Yield the country of each capital."""
    for row in rows("countries"):
        city, name = row["capital"], place(row)
        if city == row["name"]:
            continue
        stem = f"{city} is the capital of"
        questions = (f"Which country has the capital {city}?", f"{city} is the capital of which country?")
        yield Fact(
            "capital_owners",
            city,
            (stem, f"The country whose capital is {city} is"),
            name,
            questions,
            f"{stem} {name}.",
        )


def continents() -> Iterator[Fact]:
    """Yield the continent of each country."""
    for row in rows("countries"):
        name = place(row)
        stems = (f"{upper_first(name)} is a country in", f"The continent of {name} is")
        questions = (f"Which continent is {name} in?", f"Where is {name}?", f"On which continent is {name}?")
        yield Fact("continents", row["name"], stems, row["continent"], questions)


def languages() -> Iterator[Fact]:
    """Yield a language spoken in each country."""
    for row in rows("countries"):
        name = place(row)
        stems = (f"A language spoken in {name} is", f"Many people in {name} speak")
        questions = (f"What language is spoken in {name}?", f"Which language do people in {name} speak?")
        if row["language"]:
            yield Fact("languages", row["name"], stems, row["language"], questions)


def currencies() -> Iterator[Fact]:
    """Yield the currency of each country."""
    for row in rows("countries"):
        name = place(row)
        stems = (f"The currency of {name} is the", f"People in {name} pay with the")
        questions = (f"What is the currency of {name}?", f"Which money is used in {name}?")
        yield Fact("currencies", row["name"], stems, row["currency"], questions)


def animal_facts() -> Iterator[Fact]:
    """Yield the class, sound, young, legs and home of each animal."""
    for row in rows("animals"):
        name, one = row["name"], with_article(row["name"])
        kind = with_article(row["kind"]) if row["kind"] != "fish" else "fish"
        asked = (f"What kind of animal is {one}?", f"Is {one} a mammal, a bird, a fish or something else?")
        yield Fact("animals", f"{name} kind", (f"{upper_first(one)} is a kind of",), row["kind"], asked,
                   f"{upper_first(one)} is {'a ' if kind == 'fish' else ''}{kind}.")  # fmt: skip
        if row["sound"]:
            asked = (f"What sound does {one} make?", f"What does {one} do to make a sound?")
            yield Fact("animals", f"{name} sound", (f"To make a sound, {one}",), row["sound"], asked,
                       f"{upper_first(one)} {row['sound']}.")  # fmt: skip
        if row["young"]:
            stems = (f"A young {name} is called", f"The young of {one} is called")
            asked = (f"What is a young {name} called?", f"What do you call a baby {name}?")
            yield Fact("animals", f"{name} young", stems, with_article(row["young"]), asked)
        if row["legs"]:
            legs = row["legs"] if row["legs"] != "0" else "no"
            yield Fact("animals", f"{name} legs", (f"The number of legs of {one} is",), row["legs"],
                       (f"How many legs does {one} have?",), f"{upper_first(one)} has {legs} legs.")  # fmt: skip
        yield Fact("animals", f"{name} home", (f"A good home for {one} is",), row["home"],
                   (f"Where could {one} live?", f"What is a good home for {one}?"))  # fmt: skip


def element_facts() -> Iterator[Fact]:
    """Yield symbol, number and state of each element."""
    for row in rows("elements"):
        name, symbol = row["name"], row["symbol"]
        stems = (f"The chemical symbol for {name} is", f"The symbol of {name} is")
        yield Fact("elements", f"{name} symbol", stems, symbol,
                   (f"What is the chemical symbol for {name}?", f"What is the symbol of {name}?"))  # fmt: skip
        yield Fact("elements", f"{name} of symbol", (f"The element with the symbol {symbol} is",), name,
                   (f"Which element has the symbol {symbol}?",
                    f"What does {symbol} stand for in chemistry?"))  # fmt: skip
        yield Fact("elements", f"{name} number", (f"The atomic number of {name} is",), row["number"],
                   (f"What is the atomic number of {name}?",))  # fmt: skip
        yield Fact("elements", f"{name} state", (f"At room temperature, {name} is a",), row["state"],
                   (f"Is {name} a solid, a liquid or a gas?",))  # fmt: skip


def word_facts() -> Iterator[Fact]:
    """Yield opposites, plurals and past tenses."""
    for row in rows("opposites"):
        word = row["word"]
        yield Fact("opposites", word, (f"The opposite of {word} is",), row["opposite"],
                   (f"What is the opposite of {word}?", f"Give me the opposite of {word}."))  # fmt: skip
    for row in rows("plurals"):
        word = row["word"]
        yield Fact("plurals", word, (f"The plural of {word} is", f"One {word}, two"), row["plural"],
                   (f"What is the plural of {word}?", f"Give me the plural of {word}."))  # fmt: skip
    for row in rows("past"):
        word = row["word"]
        yield Fact("past", word, (f"The past tense of {word} is",), row["past"],
                   (f"What is the past tense of {word}?", f"Give me the past tense of {word}."))  # fmt: skip


def colour_facts() -> Iterator[Fact]:
    """Yield colours of things and of mixtures."""
    for row in rows("colours"):
        thing = row["thing"]
        yield Fact("colours", thing, (f"The colour of {thing} is", f"The color of {thing} is"), row["colour"],
                   (f"What colour is {thing}?", f"What color is {thing}?"),
                   f"The colour of {thing} is {row['colour']}.")  # fmt: skip
    for row in rows("mixtures"):
        pair = f"{row['first']} and {row['second']}"
        yield Fact("colours", pair, (f"Mixing {pair} gives",), row["result"],
                   (f"What do you get when you mix {pair}?", f"What colour do {pair} make?"))  # fmt: skip


def trivia_facts() -> Iterator[Fact]:
    """Yield general knowledge and the planets."""
    for row in rows("trivia"):
        yield Fact("trivia", row["question"], (row["statement"],), row["answer"], (row["question"],))
    for row in rows("planets"):
        yield Fact("trivia", f"{row['order']} planet", (f"The {row['order']} planet from the Sun is",), row["name"],
                   (f"What is the {row['order']} planet from the Sun?",
                    f"Which planet is the {row['order']} from the Sun?"))  # fmt: skip
        yield Fact("trivia", f"about {row['name']}", (f"{row['name']} is",), row["note"],
                   (f"What is {row['name']}?", f"Tell me about the planet {row['name']}."))  # fmt: skip


def sequence_facts() -> Iterator[Fact]:
    """Yield what comes before and after in the week, the year, the alphabet and among the numbers."""
    days, months = categories()["days of the week"], categories()["months"]
    for kind, names in (("day", days), ("month", months)):
        for index, name in enumerate(names):
            after, before = names[(index + 1) % len(names)], names[index - 1]
            yield Fact("sequences", f"after {name}", (f"The {kind} after {name} is",), after,
                       (f"What {kind} comes after {name}?", f"Which {kind} follows {name}?"))  # fmt: skip
            yield Fact("sequences", f"before {name}", (f"The {kind} before {name} is",), before,
                       (f"What {kind} comes before {name}?", f"Which {kind} is before {name}?"))  # fmt: skip
    for order, name in zip(ORDINALS, months, strict=True):
        yield Fact("sequences", f"{order} month", (f"The {order} month of the year is",), name,
                   (f"What is the {order} month of the year?",))  # fmt: skip
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for letter, after in pairwise(letters):
        yield Fact("sequences", f"after {letter}", (f"The letter after {letter} is",), after,
                   (f"Which letter comes after {letter}?", f"What letter follows {letter}?"))  # fmt: skip
    for number in range(101):
        yield Fact("numbers", str(number), (f"The number {number} in words is",), number_words(number),
                   (f"How do you write {number} in words?", f"Write the number {number} in words."))  # fmt: skip


SOURCES: tuple[Callable[[], Iterator[Fact]], ...] = (
    capitals, capital_owners, continents, languages, currencies, animal_facts, element_facts, word_facts,
    colour_facts, trivia_facts, sequence_facts,
)  # fmt: skip
WEIGHTS = {"capitals": 3.0, "continents": 0.7, "capital_owners": 1.2, "languages": 1.0, "currencies": 1.0}


@cache
def all_facts() -> tuple[Fact, ...]:
    """Return every fact; two facts that share a stem would contradict each other, so that is an error."""
    found = tuple(fact for source in SOURCES for fact in source())
    repeated = [stem for stem, count in Counter(stem for fact in found for stem in fact.stems).items() if count > 1]
    if repeated:
        raise ValueError(f"stems with two answers: {repeated}")
    return found


@cache
def fact_weights() -> tuple[float, ...]:
    """Return how often to draw each fact, cumulated."""
    total, cumulated = 0.0, []
    for fact in all_facts():
        total += WEIGHTS.get(fact.table, 1.0)
        cumulated.append(total)
    return tuple(cumulated)


@cache
def country_facts() -> dict[str, tuple[Fact, ...]]:
    """Return the facts of each country together, for short descriptions."""
    found: dict[str, list[Fact]] = {}
    for fact in all_facts():
        if fact.table in ("capitals", "continents", "languages", "currencies"):
            found.setdefault(fact.subject, []).append(fact)
    return {name: tuple(facts) for name, facts in found.items()}
