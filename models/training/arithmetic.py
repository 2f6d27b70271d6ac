"""Sums, differences, products, comparisons and counting."""

from random import Random

LIMIT = 100
HELD_OUT_ONE_IN = 12  # one pair of numbers in so many is never trained on

Sum = tuple[int, str, int]


def held_out(left: int, right: int) -> bool:
    """Say whether a pair of two-digit numbers is kept for evaluation."""
    return min(left, right) >= 10 and (left * 7 + right * 13) % HELD_OUT_ONE_IN == 0


def draw_sum(random: Random, held: bool = False) -> Sum:
    """Draw a sum or difference within 0..100, or a product of the small times tables."""
    while True:
        kind = random.choice("+++---*")
        if kind == "*":
            left, right = random.randint(0, 12), random.randint(0, 10)
        elif random.random() < 0.3:
            left, right = random.randint(0, 10), random.randint(0, 10)
        else:
            left, right = random.randint(0, LIMIT), random.randint(0, LIMIT)
        fits = kind == "*" or (left + right <= LIMIT if kind == "+" else left >= right)
        if fits and (kind != "*" and held_out(left, right)) == held:
            return left, kind, right


def result(left: int, kind: str, right: int) -> int:
    """Compute a sum."""
    return {"+": left + right, "-": left - right, "*": left * right}[kind]


def equation(drawn: Sum) -> str:
    """Return a sum with its result."""
    left, kind, right = drawn
    return f"{left} {kind} {right} = {result(*drawn)}"


def sum_lines(random: Random) -> str:
    """Return several sums, one a line."""
    return "\n".join(equation(draw_sum(random)) for _ in range(random.randint(1, 10)))


def times_table(random: Random) -> str:
    """Return one row of the times tables."""
    factor = random.randint(1, 12)
    return "\n".join(f"{factor} * {other} = {factor * other}" for other in range(1, 11))


def counting(random: Random) -> str:
    """Return a run of numbers, up or down, in steps."""
    step = random.choice((1, 1, 1, 2, 5, 10))
    start = random.randint(0, 60)
    numbers = list(range(start, min(LIMIT, start + step * random.randint(5, 25)) + 1, step))
    if random.random() < 0.25:
        numbers.reverse()
    return random.choice((", ", " ", "\n")).join(map(str, numbers))


def ask_sum(random: Random, drawn: Sum | None = None) -> tuple[str, str]:
    """Return a question about a sum and its answer."""
    drawn = drawn or draw_sum(random)
    left, kind, right = drawn
    word = {"+": "plus", "-": "minus", "*": "times"}[kind]
    asked = random.choice(
        (
            f"What is {left} {word} {right}?",
            f"What is {left} {kind} {right}?",
            f"{left} {kind} {right} = ?",
            f"How much is {left} {word} {right}?",
        )
    )
    return asked, equation(drawn) + "."


def word_problem(random: Random, name: str, thing: str) -> tuple[str, str]:
    """Return a small word problem and its answer."""
    left, right = random.randint(2, 20), random.randint(1, 20)
    if held_out(left, right):
        right = 9  # below ten, where nothing is kept back
    if random.random() < 0.5 or right > left:
        asked = f"{name} has {left} {thing} and gets {right} more. How many {thing} does {name} have now?"
        return asked, f"{left} + {right} = {left + right}. {name} has {left + right} {thing}."
    asked = f"{name} has {left} {thing} and gives away {right}. How many {thing} does {name} have left?"
    return asked, f"{left} - {right} = {left - right}. {name} has {left - right} {thing} left."


def ask_compare(random: Random) -> tuple[str, str]:
    """Return a comparison of two numbers and its answer."""
    left, right = random.sample(range(LIMIT + 1), 2)
    word, most = random.choice((("bigger", max), ("larger", max), ("smaller", min)))
    chosen = most(left, right)
    other = left + right - chosen
    return f"Which number is {word}, {left} or {right}?", f"{chosen} is {word} than {other}."


def ask_number(random: Random) -> tuple[str, str]:
    """Return a question about one number and its answer."""
    number = random.randint(1, LIMIT - 1)
    return random.choice(
        (
            (f"What number comes after {number}?", f"The number after {number} is {number + 1}."),
            (f"What number comes before {number}?", f"The number before {number} is {number - 1}."),
            (f"Is {number} even or odd?", f"{number} is {'odd' if number % 2 else 'even'}."),
            (f"Is {number} odd or even?", f"{number} is {'odd' if number % 2 else 'even'}."),
        )
    )


def ask_count(random: Random) -> tuple[str, str]:
    """Return a request to count and the answer."""
    start = random.choice((1, 1, 1, random.randint(0, 40)))
    end = start + random.randint(2, 20)
    if random.random() < 0.25:
        return f"Count down from {end} to {start}.", ", ".join(map(str, range(end, start - 1, -1))) + "."
    asked = f"Count to {end}." if start == 1 and random.random() < 0.5 else f"Count from {start} to {end}."
    return asked, ", ".join(map(str, range(start, end + 1))) + "."
