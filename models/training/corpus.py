"""Documents of the training text, drawn from a seed; a step of training draws its own, so none are stored."""

from collections.abc import Callable, Iterator
from random import Random

from . import arithmetic, chat, skills, stories
from .facts import categories, country_facts, rows, upper_first
from .tokenizer import BEGIN, END_OF_TEXT, render

LONG_TURNS = (12, 60)
UNMARKED = 0.1  # so many plain documents lack the begin token: prompts work without it


def single(random: Random) -> str:
    """State one fact."""
    fact = skills.draw_fact(random)
    return f"{random.choice(fact.stems)} {fact.answer}."


def several(random: Random) -> str:
    """State several facts, as a paragraph or as lines."""
    facts = [single(random) for _ in range(random.randint(2, 12))]
    return random.choice((" ", "\n")).join(facts)


def about_country(random: Random) -> str:
    """Describe a country."""
    facts = list(random.choice(list(country_facts().values())))
    random.shuffle(facts)
    return " ".join(fact.statement for fact in facts)


def country_table(random: Random) -> str:
    """List countries with one property, in one of a few layouts."""
    column = random.choice(("capital", "capital", "continent", "currency", "language"))
    drawn = random.sample(rows("countries"), random.randint(3, 20))
    layout = random.choice(("{}: {}", "{} - {}", "| {} | {} |", "{},{}"))
    head = layout.format("Country", upper_first(column))
    if layout.startswith("|"):
        head += "\n| --- | --- |"
    return "\n".join([head, *(layout.format(row["name"], row[column]) for row in drawn if row[column])])


def questions(random: Random) -> str:
    """Write questions with their answers as plain text."""
    asked, answer = random.choice((("Question:", "Answer:"), ("Q:", "A:")))
    pairs = [skills.fact(random) for _ in range(random.randint(1, 6))]
    return "\n".join(f"{asked} {question}\n{answer} {reply}" for question, reply in pairs)


def listed(random: Random) -> str:
    """List the members of a category."""
    category, members = random.choice(list(categories().items()))
    if random.random() < 0.5:
        return f"{upper_first(category)}:\n" + "\n".join(f"- {member}" for member in members)
    return f"{upper_first(category)}: {', '.join(members)}."


def alphabet(random: Random) -> str:
    """Recite the alphabet."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return random.choice((" ", ", ")).join(letters if random.random() < 0.5 else letters.upper())


def story(random: Random) -> str:
    """Tell a story."""
    return stories.tell(random, stories.draw_cast(random))


KINDS: tuple[tuple[Callable[[Random], str], float], ...] = (
    (single, 10), (several, 5), (about_country, 2), (country_table, 1), (questions, 1.5), (listed, 0.3),
    (alphabet, 0.1), (arithmetic.sum_lines, 8), (arithmetic.times_table, 0.5), (arithmetic.counting, 0.7), (story, 2.5),
)  # fmt: skip
CHAT_SHARE = 0.5
LATE_SHARE = 0.15


def plain(random: Random) -> str:
    """Return one document of plain text, marked."""
    drawn: Callable[[Random], str] = random.choices([each for each, _ in KINDS], [weight for _, weight in KINDS])[0]
    begin = "" if random.random() < UNMARKED else BEGIN
    return begin + drawn(random) + END_OF_TEXT


def long_document(random: Random) -> str:
    """Return a document of many turns or many facts."""
    many = random.randint(*LONG_TURNS)
    if random.random() < 0.6:
        return render(chat.conversation(random, many)) + END_OF_TEXT
    drawn = [
        random.choice((several, about_country, country_table, story, arithmetic.sum_lines))(random)
        for _ in range(many // 4)
    ]
    return BEGIN + "\n\n".join(drawn) + END_OF_TEXT


def document(random: Random, long: bool = False) -> str:
    """Return one document."""
    if long and random.random() < 0.5:
        return long_document(random)
    if random.random() < CHAT_SHARE:
        return render(chat.conversation(random)) + END_OF_TEXT
    return plain(random)


def late_document(random: Random) -> str:
    """Return a conversation of the kinds that need more practice."""
    exchanges = [skills.late_exchange(random) for _ in range(random.randint(1, 3))]
    return render(chat.flatten(exchanges)) + END_OF_TEXT


def documents(seed: int | str, long: bool = False, late: bool = False) -> Iterator[str]:
    """Yield documents for ever."""
    random = Random(f"isotoken corpus {seed}")
    while True:
        yield late_document(random) if late and random.random() < LATE_SHARE else document(random, long)
