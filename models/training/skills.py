"""What a user may ask, each skill a function that draws a question with its answer."""

import json
from collections.abc import Callable
from random import Random

from . import arithmetic, stories
from .facts import Fact, all_facts, categories, fact_weights, named_list, number_words, rows, upper_first, with_article

Exchange = tuple[str, str]

HELLOS = named_list("hellos")
WORDS = tuple(
    sorted(
        {row["word"] for table in ("opposites", "plurals", "past") for row in rows(table)}
        | {row["name"] for row in rows("animals")}
        | {word for group in categories().values() for word in group if word.isalpha() and word.islower()}
    )
)
WORDS_FOR_POEMS = (
    *(row["name"] for row in rows("animals")),
    *named_list("poem subjects"),
)
VERSES = (
    "The {thing} is here in the morning light,\nThe {thing} is quiet in the night.\n"
    "I see it far, I see it near,\nAnd I am glad that it is here.",
    "I saw {one} on a sunny day,\nI asked it if it wished to stay.\n"
    "It did not speak, it did not go,\nAnd why it stayed I do not know.",
    "Oh little {thing}, so far from home,\nUnder the wide and open dome,\n"
    "The stars are bright, the moon is new,\nAnd all of them shine down on you.",
)
NOWHERE = named_list("invented countries")
SYLLABLES = named_list("syllables")
TOO_HARD = named_list("too hard")
NOT_KNOWN = named_list("not known")
TOO_HARD_ANSWER = "That is too hard for me. I am a very small model."
REPEATS = ("Repeat this: {}", "Say this again: {}", "Repeat after me: {}")


def draw_fact(random: Random) -> Fact:
    """Draw one fact."""
    fact: Fact = random.choices(all_facts(), cum_weights=fact_weights())[0]
    return fact


def fact(random: Random) -> Exchange:
    """Ask for a fact; sometimes for the answer alone."""
    drawn = draw_fact(random)
    asked = random.choice(drawn.questions)
    if random.random() < 0.12:
        return random.choice((f"{asked} Answer briefly.", f"{asked} Just the answer, please.")), drawn.short
    return careless(random, asked, drawn), drawn.statement


def careless(random: Random, asked: str, drawn: Fact) -> str:
    """Return the question as somebody in a hurry might type it, now and then."""
    style = random.random()
    if style < 0.06 and drawn.table not in ("elements", "sequences"):
        return asked.lower()
    if style < 0.12:
        return asked.rstrip("?.")
    return f"Please tell me: {asked}" if style < 0.15 and asked.startswith("Wh") else asked


def fact_in_a_hurry(random: Random) -> Exchange:
    """Ask for a fact in small letters, without a question mark."""
    drawn = draw_fact(random)
    while drawn.table in ("elements", "sequences"):
        drawn = draw_fact(random)
    return random.choice(drawn.questions).lower().rstrip("?."), drawn.statement


def capital_check(random: Random) -> Exchange:
    """Ask whether a city is the capital of a country."""
    row, other = random.sample(rows("countries"), 2)
    name = f"{row['article']} {row['name']}".strip()
    if random.random() < 0.5:
        return f"Is {row['capital']} the capital of {name}?", f"Yes, {row['capital']} is the capital of {name}."
    return f"Is {other['capital']} the capital of {name}?", f"No, the capital of {name} is {row['capital']}."


def unknown(random: Random) -> Exchange:
    """Ask about a country that does not exist."""
    name = random.choice(NOWHERE) if random.random() < 0.3 else invented(random)
    asked = random.choice(
        ("What is the capital of {}?", "Where is {}?", "What language is spoken in {}?", "What is the currency of {}?")
    )
    return asked.format(name), f"I do not know a country called {name}."


def invented(random: Random) -> str:
    """Return a name that nobody has."""
    name = "".join(random.choice(SYLLABLES) for _ in range(random.randint(2, 3)))
    return upper_first(name + random.choice(("", "", "ia", "land", "stan")))


def out_of_scope(random: Random) -> Exchange:
    """Ask something that a model of this size cannot know."""
    if random.random() < 0.4:
        return random.choice(NOT_KNOWN).format(invented(random)), "I do not know. I am a very small model."
    return random.choice(TOO_HARD).format(random.choice(named_list("topics"))), TOO_HARD_ANSWER


def how_to(random: Random) -> Exchange:
    """Ask how to do something that a model of this size cannot teach."""
    asked = random.choice(named_list("ways to ask how")).format(random.choice(named_list("skills to teach")))
    return asked, TOO_HARD_ANSWER


def favourite(random: Random) -> Exchange:
    """Ask for the model's taste."""
    asked = random.choice(("What is your favourite {}?", "Do you have a favourite {}?", "Which {} do you like best?"))
    thing = random.choice(("colour", "food", "animal", "book", "song", "country", "number", "city", "story", "color"))
    return asked.format(thing), "I am a program, so I do not have favourites. What do you like?"


def repeating_words(random: Random) -> Exchange:
    """Ask to repeat words that have nothing to do with each other."""
    words = " ".join(random.choices(WORDS, k=random.randint(2, 8)))
    return random.choice(REPEATS).format(words), words


def poem(random: Random) -> Exchange:
    """Ask for a poem of four lines."""
    thing = random.choice(WORDS_FOR_POEMS)
    asked = random.choice(
        (
            "Write a poem about {}.",
            "Write a short poem about {}.",
            "Tell me a poem about {}.",
            "Can you write a poem about {}?",
        )
    )
    return asked.format(with_article(thing)), random.choice(VERSES).format(thing=thing, one=with_article(thing))


def persona(random: Random) -> Exchange:
    """Ask about the model, or make small talk."""
    row = random.choice(rows("persona"))
    return random.choice(row["questions"].split(";")), row["answer"]


def greeting(random: Random) -> Exchange:
    """Say hello."""
    return random.choice(HELLOS), "Hello! How can I help you?"


def listing(random: Random) -> Exchange:
    """Ask for a list of things."""
    category = random.choice(list(categories()))
    members = categories()[category]
    many = min(random.choice((2, 3, 3, 3, 4, 5)), len(members))
    drawn = members[:many] if random.random() < 0.5 else random.sample(members, many)
    word = number_words(many)
    if random.random() < 0.25:
        lines = "\n".join(f"{index}. {upper_first(each)}" for index, each in enumerate(drawn, 1))
        return f"Write a numbered list of {word} {category}.", lines
    answer = f"{', '.join(drawn[:-1])} and {drawn[-1]}"
    return random.choice(
        (f"List {word} {category}.", f"Name {word} {category}.", f"Give me {word} {category}.")
    ), upper_first(answer) + "."


def whole_list(random: Random) -> Exchange:
    """Ask for all days, months, seasons, continents or planets."""
    category = random.choice(("days of the week", "months", "seasons", "planets", "continents"))
    members = categories()[category]
    asked = random.choice((f"List all the {category}.", f"What are the {category}?", f"Name the {category}."))
    return asked, f"The {category} are {', '.join(members[:-1])} and {members[-1]}."


def spelling(random: Random) -> Exchange:
    """Ask for a word letter by letter, in capitals, or for its first or last letter."""
    word = random.choice(WORDS)
    return random.choice(
        (
            (f"Spell the word {word}.", "-".join(word)),
            (f"How do you spell {word}?", "-".join(word)),
            (f"Write {word} in capital letters.", word.upper()),
            (f"Write the word {word} in upper case.", word.upper()),
            (f"What is the first letter of {word}?", f"The first letter of {word} is {word[0]}."),
            (f"What is the last letter of {word}?", f"The last letter of {word} is {word[-1]}."),
        )
    )


def repeating(random: Random) -> Exchange:
    """Ask to repeat a word or a sentence."""
    if random.random() < 0.5:
        word, times = random.choice(WORDS), random.randint(2, 6)
        return random.choice(("Repeat the word {} {} times.", "Say {} {} times.")).format(
            word, number_words(times)
        ), " ".join([word] * times)
    sentence = random.choice((draw_fact(random).statement, scene(random)[0]))
    return random.choice(REPEATS).format(sentence), sentence


def scene(random: Random) -> tuple[str, str, str, str]:
    """Return a sentence in which somebody has something somewhere, and its parts."""
    name = random.choice(stories.GIRLS + stories.BOYS)
    thing, where = random.choice(stories.LOST), random.choice(list(stories.PLACES.values()))
    return f"{name} has a {thing} {where}.".replace("a old", "an old"), name, thing, where


def reading(random: Random) -> Exchange:
    """Give a few sentences and ask who has what."""
    scenes = [scene(random) for _ in range(random.randint(2, 4))]
    names, things = {each[1] for each in scenes}, {each[2] for each in scenes}
    if len(names) < len(scenes) or len(things) < len(scenes):
        return reading(random)
    text, name, thing, where = random.choice(scenes)
    story = " ".join(each[0] for each in scenes)
    return random.choice(
        (
            (f"{story} Who has the {thing}?", f"{name} has the {thing}."),
            (f"{story} What does {name} have?", text),
            (f"{story} Where is {name}?", f"{name} is {where}."),
        )
    )


def as_json(random: Random) -> Exchange:
    """Ask for a JSON object."""
    if random.random() < 0.5:
        row = random.choice(rows("countries"))
        value: dict[str, str | int] = {"country": row["name"], "capital": row["capital"], "continent": row["continent"]}
        asked = random.choice((f"Describe {row['name']} as JSON.", f"Give me a JSON object about {row['name']}."))
    else:
        name, age = random.choice(stories.GIRLS + stories.BOYS), random.randint(3, 90)
        city = random.choice(rows("countries"))["capital"]
        value = {"name": name, "age": age, "city": city}
        asked = f"{name} is {age} years old and lives in {city}. Write this as JSON."
    return asked, json.dumps(value, ensure_ascii=False)


def word_problem(random: Random) -> Exchange:
    """Ask a small word problem."""
    name = random.choice(stories.GIRLS + stories.BOYS)
    return arithmetic.word_problem(
        random, name, random.choice(("apples", "books", "pencils", "stones", "eggs", "balls", "stars", "pears"))
    )


def story(random: Random) -> Exchange:
    """Ask for a story."""
    cast = stories.draw_cast(random)
    return stories.request(random, cast), stories.tell(random, cast)


SKILLS: tuple[tuple[Callable[[Random], Exchange], float], ...] = (
    (fact, 12), (capital_check, 1), (unknown, 0.5), (persona, 1.8), (out_of_scope, 0.8), (poem, 0.4), (listing, 1),
    (whole_list, 0.5), (spelling, 1.5), (repeating, 1.5), (reading, 1.5), (as_json, 0.8), (word_problem, 1.5),
    (arithmetic.ask_sum, 3), (arithmetic.ask_compare, 0.7), (arithmetic.ask_number, 0.8), (arithmetic.ask_count, 0.6),
    (story, 1.2),
)  # fmt: skip


LATE_SKILLS: tuple[tuple[Callable[[Random], Exchange], float], ...] = (
    (how_to, 1), (favourite, 0.5), (out_of_scope, 0.5), (repeating_words, 2), (repeating, 1), (reading, 2),
    (spelling, 2), (fact_in_a_hurry, 2),
)  # fmt: skip


def late_exchange(random: Random) -> Exchange:
    """Draw one question of those that training turns to late."""
    drawn: Callable[[Random], Exchange] = random.choices(
        [each for each, _ in LATE_SKILLS], [weight for _, weight in LATE_SKILLS]
    )[0]
    return drawn(random)


def exchange(random: Random) -> Exchange:
    """Draw one question with its answer."""
    drawn: Callable[[Random], Exchange] = random.choices(
        [each for each, _ in SKILLS], [weight for _, weight in SKILLS]
    )[0]
    return drawn(random)
