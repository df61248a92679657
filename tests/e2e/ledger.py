"""A small repository whose tests fail for three reasons, and the diff that repairs it."""

MONEY = '''\
"""Amounts in cents."""


def parse(text: str) -> int:
    """`12.34` as 1234. Raises: ValueError for anything else."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    whole, _, cents = digits.partition(".")
    return sign * int(whole) * 100 + int(cents.ljust(2, "0") or 0)


def share(cents: int, among: int) -> list[int]:
    """Parts that add up to `cents`; the first ones get what does not divide."""
    each = cents // among
    return [each] * among
'''

# Written on another system: its line ends are \r\n, and it has tabs and an odd letter.
REPORT = (
    '"""The report, one line for each entry."""\r\n'
    "\r\n"
    "from ledger.money import parse\r\n"
    "\r\n"
    'EURO = "€"\r\n'
    "\r\n"
    "\r\n"
    "def total(lines: list[str]) -> int:\r\n"
    "\tamount = 0\r\n"
    "\tfor line in lines[1:]:\r\n"
    '\t\tamount += parse(line.split(";")[1])\r\n'
    "\treturn amount\r\n"
)

TESTS = """\
import unittest

from ledger.money import parse, share
from ledger.report import total


class LedgerTest(unittest.TestCase):
    def test_amounts_are_read(self):
        self.assertEqual([parse(t) for t in ("12.34", "7", "0.5")], [1234, 700, 50])

    def test_negative_amounts_keep_their_cents(self):
        self.assertEqual(parse("-3.25"), -325)

    def test_shares_add_up(self):
        self.assertEqual(share(100, 3), [34, 33, 33])

    def test_every_line_counts(self):
        self.assertEqual(total(["tea;1.20", "cake;3.00"]), 420)
"""

FILES: dict[str, bytes] = {
    "ledger/__init__.py": b"",
    "ledger/money.py": MONEY.encode(),
    "ledger/report.py": REPORT.encode(),
    "tests/__init__.py": b"",
    "tests/test_ledger.py": TESTS.encode(),
    "AGENTS.md": b"Run the tests with `python3 -m unittest -q`. Never change a test.\n",
}

EXPECTED_DIFF = """\
--- ledger/money.py
+++ ledger/money.py
@@ -5,10 +5,10 @@
     \"""`12.34` as 1234. Raises: ValueError for anything else.\"""
     sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
     whole, _, cents = digits.partition(".")
-    return sign * int(whole) * 100 + int(cents.ljust(2, "0") or 0)
+    return sign * (int(whole) * 100 + int(cents.ljust(2, "0") or 0))
 
 
 def share(cents: int, among: int) -> list[int]:
     \"""Parts that add up to `cents`; the first ones get what does not divide.\"""
-    each = cents // among
-    return [each] * among
+    each, rest = divmod(cents, among)
+    return [each + (place < rest) for place in range(among)]
--- ledger/report.py
+++ ledger/report.py
@@ -7,6 +7,6 @@
 
 def total(lines: list[str]) -> int:
 \tamount = 0
-\tfor line in lines[1:]:
+\tfor line in lines:
 \t\tamount += parse(line.split(";")[1])
 \treturn amount
"""
