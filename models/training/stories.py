"""A grammar for short stories: a hero with a goal, an obstacle, help, a resolution and an ending."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .facts import named_list, upper_first, with_article

GIRLS = named_list("girls")
BOYS = named_list("boys")
BEASTS = named_list("beasts")
TRAITS = ("small", "young", "brave", "curious", "kind", "quiet", "clever", "cheerful", "shy", "gentle")
PLACES = {
    "forest": "in the forest", "garden": "in the garden", "meadow": "in the meadow", "valley": "in the valley",
    "park": "in the park", "village": "in the village", "harbour": "at the harbour", "mountain": "on the mountain",
    "island": "on the island", "river": "by the river", "lake": "by the lake", "beach": "on the beach",
}  # fmt: skip
HOMES = ("a small house", "a little cottage", "an old mill", "a cosy home", "a tall tower", "a warm hut")
LOST = named_list("lost things")
FOODS = ("apple pie", "carrot cake", "honey cake", "pumpkin soup", "berry jam", "fresh bread")
SKILLS = {
    "swim": "swam all the way across the lake", "sing": "sang a whole song without a mistake",
    "whistle": "whistled a happy tune", "dance": "danced in front of everyone", "read": "read a whole book alone",
    "climb": "climbed to the top of the hill", "paint": "painted a beautiful picture", "skate": "skated across the ice",
}  # fmt: skip
MORALS = {
    "lost": ("It is easier to find something when you have a friend.", "Never give up too soon."),
    "share": ("Sharing makes good things better.", "A small gift can make a big friend."),
    "skill": ("Practice makes things easy.", "Every day you can get a little better."),
    "storm": ("Together, even a storm is not so bad.", "A friend is the best shelter."),
    "build": ("Many hands make light work.", "Good work needs good friends."),
    "fear": ("Things look smaller when you look at them closely.", "Being brave means trying although you are afraid."),
    "friend": ("A kind word can start a friendship.", "New friends are often very near."),
    "seed": ("The best things grow slowly.", "Patience is a quiet kind of work."),
}  # fmt: skip
BUILDS = {
    "bridge": "cross the stream",
    "boat": "sail on the lake",
    "treehouse": "see the stars",
    "raft": "float down the river",
    "kite": "fly it on the hill",
}
FEARS = {
    "a strange noise": "a branch that was tapping on the window",
    "a dark shadow": "a coat that was hanging on the door",
    "a tall monster": "an old tree in the moonlight",
    "two bright eyes": "a little owl that could not sleep",
}
SEEDS = {
    "seed": "a tall sunflower",
    "bean": "a long green plant",
    "apple seed": "a young apple tree",
    "acorn": "a small oak tree",
}


@dataclass(frozen=True, slots=True)
class Someone:
    """A character: how to name it the first time, later, and by pronoun."""

    first: str
    later: str
    he: str
    him: str
    his: str


def person(random: Random, name: str | None = None) -> Someone:
    """Return a boy or a girl."""
    name = name or random.choice(GIRLS + BOYS)
    pronouns = ("she", "her", "her") if name in GIRLS else ("he", "him", "his")
    return Someone(name, name, *pronouns)


def beast(random: Random, kind: str | None = None, besides: str = "") -> Someone:
    """Return an animal that talks."""
    kind = kind or random.choice([each for each in BEASTS if each != besides])
    return Someone(with_article(kind), f"the {kind}", "it", "it", "its")


@dataclass(frozen=True, slots=True)
class Cast:
    """What one story is about."""

    hero: Someone
    helper: Someone
    trait: str
    where: str
    opening: str
    thing: str
    plot: str


Plot = Callable[[Random, Cast], list[str]]


def lost(random: Random, cast: Cast) -> list[str]:
    """Something is lost and found."""
    hero, helper, thing = cast.hero, cast.helper, cast.thing
    spot = random.choice(("under a bush", "behind a stone", "high in a tree", "under the bridge", "in the long grass"))
    return [
        f"{upper_first(hero.later)} had {with_article(thing)} and loved it very much.",
        f"One day {hero.he} looked for the {thing}, but it was gone.",
        random.choice(
            (
                f"{upper_first(hero.he)} looked everywhere, but could not find it.",
                f"{upper_first(hero.later)} was very sad.",
            )
        ),
        f"Then {hero.he} met {helper.first}.",
        f'"Why are you so sad?" asked {helper.later}.',
        f'"I have lost my {thing}," said {hero.later}.',
        '"Let us look for it together," ' + f"said {helper.later}.",
        f"They looked and looked, and at last {helper.later} saw something {spot}.",
        f"It was the {thing}!",
        f'"Thank you!" said {hero.later}, and {hero.he} was happy again.',
    ]


def share(random: Random, cast: Cast) -> list[str]:
    """Food is shared with someone hungry."""
    hero, helper, food = cast.hero, cast.helper, cast.thing
    return [
        f"One morning {hero.later} made some {food}.",
        random.choice(
            (f"It smelled wonderful, and {hero.later} wanted to eat it all.", f"It was the best {food} in the land.")
        ),
        f"Then there was a knock at the door, and there stood {helper.first}.",
        f'"I am so hungry," said {helper.later}. "I have not eaten all day."',
        f"{upper_first(hero.later)} looked at the {food} and thought for a moment.",
        f'"Come in," said {hero.later}. "There is enough {food} for two."',
        "They sat down and ate together, and they talked until the evening.",
        f"The next day {helper.later} came back with a basket full of berries to say thank you.",
    ]


def skill(random: Random, cast: Cast) -> list[str]:
    """Something is learned by practice."""
    hero, helper, verb = cast.hero, cast.helper, cast.thing
    times = random.choice(("every day for a week", "every morning", "again and again", "until the sun went down"))
    return [
        f"{upper_first(hero.later)} wanted to learn to {verb}, but it was very hard.",
        f"The first time {hero.he} tried, it did not work at all.",
        f'"I will never learn to {verb}," said {hero.later}.',
        f"{upper_first(helper.first)} heard this and came closer.",
        f'"I could not {verb} either when I was little," said {helper.later}. "I will show you how."',
        f"So they practised {times}.",
        f"Little by little, {hero.later} got better.",
        f"At last {hero.later} {SKILLS[verb]}.",
        f"{upper_first(helper.later)} clapped and cheered, and {hero.later} was very proud.",
    ]


def storm(random: Random, cast: Cast) -> list[str]:
    """Two meet in a storm and find shelter."""
    hero, helper = cast.hero, cast.helper
    shelter = random.choice(("a dry cave", "an empty barn", "a hollow tree", "an old hut"))
    return [
        f"One evening {hero.later} was far from home when the sky turned dark.",
        random.choice(
            ("The wind began to blow and the rain began to fall.", "There was thunder, and the rain came down hard.")
        ),
        f"{upper_first(hero.later)} was cold and did not know where to go.",
        f'"Come here!" called a voice. It was {helper.first}, standing in front of {shelter}.',
        f"{upper_first(hero.later)} ran inside, and they sat close together to keep warm.",
        f"To pass the time, {helper.later} told a funny story, and soon {hero.later} was laughing.",
        "In the morning the storm was over and the sun was shining.",
        f"{upper_first(hero.later)} and {helper.later} walked home together.",
    ]


def build(random: Random, cast: Cast) -> list[str]:
    """Something is built together."""
    hero, helper, thing = cast.hero, cast.helper, cast.thing
    broke = random.choice(("The wood was too heavy.", "It fell apart at once.", "The pieces did not fit."))
    return [
        f"{upper_first(hero.later)} wanted to build a {thing}, to {BUILDS[thing]}.",
        f"{upper_first(hero.he)} worked all morning, but it did not go well. {broke}",
        f'"This is too hard for me alone," said {hero.later}.',
        f"Just then {helper.first} came by.",
        f'"What are you making?" asked {helper.later}.',
        f'"I am trying to build a {thing}," said {hero.later}. "Will you help me?"',
        f'"Of course," said {helper.later}.',
        f"They worked side by side, and by the evening the {thing} was ready.",
        f"Now they could {BUILDS[thing]} whenever they liked.",
    ]


def fear(random: Random, cast: Cast) -> list[str]:
    """Something frightening turns out to be harmless."""
    hero, helper, scare = cast.hero, cast.helper, cast.thing
    sense = "heard" if "noise" in scare else "saw"
    return [
        f"One night {hero.later} woke up and {sense} {scare}.",
        random.choice(
            (
                f"{upper_first(hero.he)} was so afraid that {hero.he} could not move.",
                f"{upper_first(hero.later)} wanted to hide.",
            )
        ),
        f"{upper_first(hero.he)} called for {helper.first}, who lived next door.",
        f'"Look, {scare}!" said {hero.later}.' if sense == "saw" else f'"I heard {scare}!" said {hero.later}.',
        f'"Let us look at it together," said {helper.later}, and lit a lamp.',
        "Slowly they went closer and closer.",
        f"Then they both began to laugh. It was only {FEARS[scare]}!",
        f"{upper_first(hero.later)} went back to bed and slept well until the morning.",
    ]


def friend(random: Random, cast: Cast) -> list[str]:
    """Someone lonely finds a friend."""
    hero, helper, thing = cast.hero, cast.helper, cast.thing
    return [
        f"{upper_first(hero.later)} had nobody to play with and often felt lonely.",
        f"One day {hero.he} took {hero.his} {thing} and went outside.",
        f"There {hero.he} saw {helper.first}, sitting all alone.",
        f'"Hello," said {hero.later}. "Would you like to play with me?"',
        random.choice((f"{upper_first(helper.later)} smiled and nodded.", f'"I would love to," said {helper.later}.')),
        f"They played with the {thing} all afternoon, and they laughed a lot.",
        f'When it was time to go home, {helper.later} said, "See you tomorrow!"',
        f"From that day on, {hero.later} was never lonely again.",
    ]


def seed(random: Random, cast: Cast) -> list[str]:
    """A seed is planted and grows."""
    hero, helper, thing = cast.hero, cast.helper, cast.thing
    return [
        f"One spring day {hero.later} found {with_article(thing)} and put it in the ground.",
        f"Every day {hero.he} gave it water, but nothing happened.",
        f'"It will never grow," said {hero.later}.',
        f'"You must wait," said {helper.first}. "Good things take time."',
        random.choice(("The rain came, and then the sun came.", "A week went by, and then another week.")),
        f"One morning {hero.later} saw something green.",
        f"It grew and grew, and by the summer it was {SEEDS[thing]}.",
        f"{upper_first(hero.later)} and {helper.later} sat beside it and were glad that they had waited.",
    ]


PLOTS: dict[str, tuple[Plot, tuple[str, ...]]] = {
    "lost": (lost, LOST),
    "share": (share, FOODS),
    "skill": (skill, tuple(SKILLS)),
    "storm": (storm, ("storm",)),
    "build": (build, tuple(BUILDS)),
    "fear": (fear, tuple(FEARS)),
    "friend": (friend, LOST),
    "seed": (seed, tuple(SEEDS)),
}
OPENINGS = ("Once upon a time", "Long ago", "One summer", "A long time ago", "Many years ago")
ENDINGS = ("And they lived happily ever after.", "They stayed friends for ever.", "It was a very good day.", "The end.")
ABOUT = {
    "lost": "a lost {thing}", "share": "sharing {thing}", "skill": "learning to {thing}", "storm": "a storm",
    "build": "building a {thing}", "fear": "being afraid", "friend": "making a friend", "seed": "a seed",
}  # fmt: skip


def draw_cast(random: Random) -> Cast:
    """Draw who and what a story is about."""
    plot = random.choice(list(PLOTS))
    hero = person(random) if random.random() < 0.5 else beast(random)
    if random.random() < 0.6:
        helper = beast(random, besides=hero.later.removeprefix("the "))
    else:
        helper = person(random, random.choice([name for name in GIRLS + BOYS if name != hero.later]))
    place = random.choice(list(PLACES))
    thing = random.choice(PLOTS[plot][1])
    return Cast(hero, helper, random.choice(TRAITS), PLACES[place], random.choice(OPENINGS), thing, plot)


def opening(random: Random, cast: Cast) -> str:
    """Return the sentence that introduces the hero."""
    hero, home = cast.hero, random.choice(HOMES)
    if hero.he == "it":
        kind = hero.later.removeprefix("the ")
        return f"{cast.opening} there was {with_article(cast.trait)} {kind} who lived in {home} {cast.where}."
    child = with_article(cast.trait) + (" girl" if hero.he == "she" else " boy")
    return f"{cast.opening} there was {child} named {hero.first} who lived in {home} {cast.where}."


def tell(random: Random, cast: Cast) -> str:
    """Tell the story of a cast."""
    sentences = [opening(random, cast), *PLOTS[cast.plot][0](random, cast)]
    if random.random() < 0.5:
        sentences.append(random.choice(MORALS[cast.plot]))
    sentences.append(random.choice(ENDINGS))
    return " ".join(sentences)


def request(random: Random, cast: Cast) -> str:
    """Return a request that the story of a cast answers."""
    verb = random.choice(
        ("Tell me a story", "Tell me a short story", "Write a story", "Write a short story", "Please tell me a story")
    )
    about = random.choice(("", "hero", "topic", "both"))
    topic = ABOUT[cast.plot].format(thing=cast.thing)
    endings = {
        "": "",
        "hero": f" about {cast.hero.first}",
        "topic": f" about {topic}",
        "both": f" about {cast.hero.first} and {topic}",
    }
    return f"{verb}{endings[about]}."
