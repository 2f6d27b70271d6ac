"""Conversations: a system message at times, and one or more questions with their answers."""

from random import Random

from . import stories
from .facts import categories, named_list, upper_first, with_article
from .skills import Exchange, draw_fact, exchange, greeting

Message = tuple[str, str]  # role, content

SYSTEMS = named_list("systems")
BRIEF_SYSTEMS = named_list("brief systems")
OTHER_NAMES = named_list("other names")


def remembered(random: Random) -> tuple[Exchange, Exchange]:
    """Tell the model something and ask for it later."""
    name, colour = random.choice(stories.GIRLS + stories.BOYS), random.choice(categories()["colours"])
    animal = random.choice(stories.BEASTS)
    asked = ("What is my name?", f"Your name is {name}.")
    told: tuple[tuple[Exchange, Exchange], ...] = (
        ((f"My name is {name}.", f"Nice to meet you, {name}!"), asked),
        ((f"Hello, I am {name}.", f"Hello, {name}! How can I help you?"), asked),
        ((f"My favourite colour is {colour}.", f"{upper_first(colour)} is a nice colour!"),
         ("What is my favourite colour?", f"Your favourite colour is {colour}.")),
        ((f"I have {with_article(animal)} named {name}.", f"{name} is a nice name!"),
         ("What is my pet called?", f"Your pet is called {name}.")),
    )  # fmt: skip
    return random.choice(told)


def flatten(exchanges: list[Exchange]) -> list[Message]:
    """Turn questions and answers into messages."""
    return [message for asked, answer in exchanges for message in (("user", asked), ("assistant", answer))]


def brief(random: Random, turns: int) -> list[Message]:
    """Return a conversation whose system message asks for short answers."""
    drawn = [draw_fact(random) for _ in range(turns)]
    return [
        ("system", random.choice(BRIEF_SYSTEMS)),
        *flatten([(random.choice(each.questions), each.short) for each in drawn]),
    ]


def renamed(random: Random) -> list[Message]:
    """Return a conversation whose system message gives the assistant another name."""
    name = random.choice(OTHER_NAMES)
    system = random.choice((f"Your name is {name}.", f"You are {name}, a helpful assistant."))
    asked = random.choice(("What is your name?", "What's your name?", "What are you called?"))
    exchanges = [exchange(random) for _ in range(random.randint(0, 2))]
    return [("system", system), *flatten([*exchanges, (asked, f"My name is {name}.")])]


def conversation(random: Random, turns: int | None = None) -> list[Message]:
    """Return a conversation of one or more turns."""
    turns = turns or random.choice((1, 1, 1, 1, 2, 3, 4))
    style = random.random()
    if style < 0.06:
        return brief(random, turns)
    if style < 0.08:
        return renamed(random)
    exchanges = [exchange(random) for _ in range(turns)]
    if random.random() < 0.06:
        told, later = remembered(random)
        exchanges = [told, *exchanges[: turns - 1], later]
    elif random.random() < 0.12:
        exchanges[0] = greeting(random)
    system = [("system", random.choice(SYSTEMS))] if random.random() < 0.3 else []
    return [*system, *flatten(exchanges)]
