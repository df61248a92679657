"""The small programs that the scripted demo writes: chosen by words of the task, sized by its first number."""

import re
from dataclasses import dataclass

FOLDER = "demo"


@dataclass(frozen=True, slots=True)
class Program:
    """A program, what its test asserts, and one honest improvement to make with file_edit.

    `$count` in `about` and `source` is the task's first number, or `count` when it names none.
    """

    words: str
    """A regular expression: the task asks for this program."""
    slug: str
    """The function's name, and the file's without suffix; the test is `test_<slug>.py` beside it."""
    about: str
    """What it does, to follow "a small program that"."""
    count: int
    source: str
    checks: tuple[str, ...]
    """Expressions that must be true."""
    old: str
    new: str
    change: str
    """What replacing `old` by `new` brings, to follow "so that"."""

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.slug}.py"

    @property
    def test_path(self) -> str:
        return f"{FOLDER}/test_{self.slug}.py"

    @property
    def run_command(self) -> str:
        return f"python3 -B {self.path}"

    @property
    def test_command(self) -> str:
        return f"python3 -B -m unittest discover -s {FOLDER} -p test_{self.slug}.py -v"

    @property
    def test(self) -> str:
        """The text of the test file."""
        checks = "".join(f"        self.assertTrue({check})\n" for check in self.checks)
        return (
            f"import unittest\n\nfrom {self.slug} import {self.slug}\n\n\n"
            f"class {self.slug.title()}Test(unittest.TestCase):\n    def test_{self.slug}(self) -> None:\n{checks}\n\n"
            'if __name__ == "__main__":\n    unittest.main()\n'
        )


def choose(task: str) -> tuple[Program, int]:
    """The program that fits a task best, and the number to run it with."""
    program = next(program for program in PROGRAMS if re.search(program.words, task, re.IGNORECASE))
    number = re.search(r"\b[1-9]\d{0,2}\b", task)
    return program, int(number[0]) if number else program.count


PRIMES = Program(
    words=r"\bprimes?\b",
    slug="primes",
    about="prints the first $count prime numbers",
    count=10,
    source='''"""The first prime numbers."""


def primes(count: int) -> list[int]:
    """The first `count` primes, smallest first."""
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


if __name__ == "__main__":
    print(*primes($count))
''',
    checks=("primes(5) == [2, 3, 5, 7, 11]", "primes(0) == []"),
    old="for prime in found)",
    new="for prime in found if prime * prime <= candidate)",
    change="only divisors up to the square root are tried",
)

FIZZBUZZ = Program(
    words=r"fizz ?buzz",
    slug="fizzbuzz",
    about="plays FizzBuzz from 1 to $count",
    count=15,
    source='''"""FizzBuzz."""


def fizzbuzz(number: int) -> str:
    """`Fizz` for multiples of 3, `Buzz` for multiples of 5, both for both, else the number."""
    return "Fizz" * (number % 3 == 0) + "Buzz" * (number % 5 == 0) or str(number)


if __name__ == "__main__":
    for number in range(1, $count + 1):
        print(fizzbuzz(number))
''',
    checks=('fizzbuzz(15) == "FizzBuzz"', 'fizzbuzz(9) == "Fizz"', 'fizzbuzz(7) == "7"'),
    old="print(fizzbuzz(number))",
    new='print(number, fizzbuzz(number), sep="\\t")',
    change="every line shows the number it stands for",
)

FIBONACCI = Program(
    words=r"fibonacci",
    slug="fibonacci",
    about="prints the first $count Fibonacci numbers",
    count=12,
    source='''"""Fibonacci numbers."""


def fibonacci(count: int) -> list[int]:
    """The first `count` Fibonacci numbers, from 0."""
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers


if __name__ == "__main__":
    print(*fibonacci($count))
''',
    checks=("fibonacci(7) == [0, 1, 1, 2, 3, 5, 8]", "fibonacci(1) == [0]"),
    old="    return numbers\n",
    new="    return numbers[:count]\n",
    change="asking for fewer than two numbers gives no more than that",
)

WORDCOUNT = Program(
    words=r"word ?count|count(ing|s)?\b.*\bwords?|words?\b.*\bfrequenc",
    slug="wordcount",
    about="counts the words of a text and shows the $count most frequent",
    count=5,
    source='''"""How often each word occurs."""

import re
from collections import Counter

TEXT = "The quick brown fox jumps over the lazy dog. The dog sleeps; the fox does not."


def wordcount(text: str) -> Counter[str]:
    """Every word of `text`, in lower case, with its number."""
    return Counter(re.findall(r"\\w+", text.lower()))


if __name__ == "__main__":
    for word, number in wordcount(TEXT).most_common($count):
        print(number, word)
''',
    checks=('wordcount("a B b")["b"] == 2', 'wordcount("") == {}', """wordcount("don't")["don't"] == 1"""),
    old='r"\\w+"',
    new="""r"\\w+(?:'\\w+)*\"""",
    change="an apostrophe stays within its word",
)

TODO = Program(
    words=r"\bto-?do\b|\btask list\b|\bchecklist\b",
    slug="todo",
    about="keeps a todo list and shows what is open",
    count=3,
    source='''"""A todo list."""


def todo(items: dict[str, bool]) -> list[str]:
    """One line per item, `[x]` for what is done."""
    return [f"[{'x' if done else ' '}] {title}" for title, done in items.items()]


if __name__ == "__main__":
    print(*todo({"write the program": True, "run the program": True, "go for a walk": False}), sep="\\n")
''',
    checks=('todo({"a": True}) == ["[x] a"]', 'todo({"a": True, "b": False})[0] == "[ ] b"', "todo({}) == []"),
    old="in items.items()]",
    new="in sorted(items.items(), key=lambda item: item[1])]",
    change="open items come first",
)

ANSWER = Program(
    words="",
    slug="answer",
    about="describes the text of the task",
    count=5,
    source='''"""What the text of the task looks like."""

from pathlib import Path


def answer(text: str) -> dict[str, int | str]:
    """Number of words, number of different words, and the longest one."""
    words = text.split()
    return {"words": len(words), "different": len(set(words)), "longest": max(words, key=len, default="")}


if __name__ == "__main__":
    for key, value in answer(Path(__file__).with_name("task.txt").read_text(encoding="utf-8")).items():
        print(f"{key}: {value}")
''',
    checks=(
        'answer("to be or not to be")["words"] == 6',
        'answer("Be be")["different"] == 1',
        'answer("")["words"] == 0',
    ),
    old="set(words)",
    new="{word.lower() for word in words}",
    change="capital letters make no difference",
)

PROGRAMS = (PRIMES, FIZZBUZZ, FIBONACCI, WORDCOUNT, TODO, ANSWER)
