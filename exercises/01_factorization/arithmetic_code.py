"""# A likelihood is a file size: the code word of an image

An arithmetic coder keeps an interval, at first $[0, 1)$. For each value it cuts the interval into
one part per level, in the order of the levels and in proportion to their probabilities, and goes
into the part of the true level. At the end the width is $p(x)$, and it remains to name the interval
by as few bits as possible. With

$$
L = \\lceil -\\log_2 p(x) \\rceil + 1
$$

bits a binary fraction $0.b_1 b_2 \\dots b_L$ can be found such that it and everything that begins
with the same bits lies inside. Take the **smallest fraction of $L$ bits that is not below the
interval's lower end**, and return its bits $b_1, \\dots, b_L$.

Both sides of a coder must agree to the last bit, so the probabilities come as whole numbers:
`counts` is int64 `[D, K]`, every entry at least 1, and value $i$ has level $k$ with probability
`counts[i, k] / counts[i].sum()`. The sums differ from row to row. `symbols` is int64 `[D]`. Return
int64 `[L]`, zeros and ones, the leading bit first.

A message of a few pixels fits into float64. One of a whole image does not: its interval is narrower
than $2^{-53}$. Python's own `int` has no largest number, and `fractions.Fraction` is exact.

*By hand*: the all-white 2×2 image of the chapter has `counts` (1, 1), (1, 3), (1, 3), (1, 3) and
`symbols` 1, 1, 1, 1. Its interval is $[101/128, 1)$, so $L = \\lceil 2.25 \\rceil + 1 = 4$, and the
code word is 1101, since $13/16 = 104/128$ is the first sixteenth that is not below.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor


def code_word(counts: Tensor, symbols: Tensor) -> Tensor:
    """counts int64[D,K], symbols int64[D] -> the bits of the code word, int64[L]."""
    ### BEGIN SOLUTION
    low, width = Fraction(0), Fraction(1)
    for row, level in zip(counts.tolist(), symbols.tolist(), strict=True):
        low += width * Fraction(sum(row[:level]), sum(row))
        width *= Fraction(row[level], sum(row))
    length = 1
    while width < Fraction(2, 2**length):  # until a bit string's own width is at most half of it
        length += 1
    number = math.ceil(low * 2**length)
    bits = [number >> (length - 1 - i) & 1 for i in range(length)]
    return torch.tensor(bits, dtype=torch.int64)
    ### END SOLUTION


### BEGIN HIDDEN TESTS
from collections.abc import Iterator

from ddpm_lite.grading.spec import Check, Exercise, Mutant, Random, Step, call


def message(rng: Random, size: int, levels: int, high: int) -> Step:
    counts = rng.integers(1, high, size, levels)
    return call(counts, rng.integers(0, levels, size))


def short(rng: Random) -> Iterator[Step]:
    """A few pixels, and levels that are not the last: float64 would do."""
    for levels in (2, 3, 5):
        yield message(rng, rng.whole(4, 8), levels, 30)
    counts = torch.tensor([[1, 1], [1, 3], [1, 3], [1, 3]])
    yield call(counts, torch.ones(4, dtype=torch.int64))
    counts, symbols = rng.integers(1, 30, 5, 2), rng.integers(0, 2, 5)
    counts[0], symbols[0] = 9, 0  # the lower half: the first bit is 0
    yield call(counts, symbols)


def powers(rng: Random) -> Iterator[Step]:
    """Probabilities that are powers of two, and one that is 1: where rounding up does nothing."""
    for _ in range(2):
        size = rng.whole(3, 6)
        yield call(torch.tensor([[2, 1, 1]] * size), rng.integers(0, 3, size))
    yield message(rng, 1, 1, 9)


def long(rng: Random) -> Iterator[Step]:
    """More bits than a float64 has."""
    for size, levels in ((rng.whole(60, 70), 4), (rng.whole(40, 50), 6)):
        yield message(rng, size, levels, 1000)


EXERCISE = Exercise(
    difficulty=3,
    minutes=40,
    checks=[
        Check("code words of a few pixels", short, points=2, hint="interval"),
        Check("probabilities that are powers of two", powers, points=1, hint="length"),
        Check("a message longer than float64 can hold", long, points=2, hint="exact"),
    ],
    hints={
        "symbol_bits": "each value's bits were rounded up: the one rounding is at the end, for "
        "the whole "
        "message; that is what an arithmetic coder gains over a Huffman code",
        "short": "one bit too few: a bit string as wide as the interval need not lie inside it",
        "down": "the fraction was rounded down: it lies below the interval",
        "shifted": "the cut includes the level itself: the lower end is the sum of the levels "
        "before it",
        "order": "the interval was narrowed before its lower end was moved: move by the old width",
        "scale": "the rows of counts have different sums: divide each by its own",
        "reverse": "the bits are in reverse: the leading bit comes first",
        "zeros": "the code word has L bits, zeros at its beginning included: a number written "
        "without them (as bin does) is too short",
        "restart": "the lower end moves by a part of the present interval, not of [0, 1)",
        "exact": "float64 holds 53 bits and this message needs more: keep the interval in whole "
        "numbers",
        "length": "the length is the number of bits of 1/p, rounded up, and one more; 1/p may "
        "be a power of 2",
        "interval": "compare low and width with the example worked by hand, value after value",
    },
    mutants=[
        Mutant(
            "symbol_bits",
            "    number = ",
            "    length = 1 + sum(\n"
            "        ((sum(r) + r[k] - 1) // r[k] - 1).bit_length()\n"
            "        for r, k in zip(counts.tolist(), symbols.tolist())\n"
            "    )\n"
            "    number = ",
        ),
        Mutant("length", "width < Fraction", "width <= Fraction"),
        Mutant("short", "Fraction(2, 2**length)", "Fraction(1, 2**length)"),
        Mutant("down", "math.ceil", "math.floor"),
        Mutant("shifted", "row[:level]", "row[: level + 1]"),
        Mutant(
            "order",
            "low += width * Fraction(sum(row[:level]), sum(row))\n"
            "        width *= Fraction(row[level], sum(row))",
            "width *= Fraction(row[level], sum(row))\n"
            "        low += width * Fraction(sum(row[:level]), sum(row))",
        ),
        Mutant(
            "scale",
            "Fraction(row[level], sum(row))",
            "Fraction(row[level], sum(counts[0].tolist()))",
        ),
        Mutant("reverse", "(length - 1 - i)", "i"),
        Mutant(
            "zeros",
            "[number >> (length - 1 - i) & 1 for i in range(length)]",
            "[int(bit) for bit in bin(number)[2:]]",
        ),
        Mutant("restart", "low += width * ", "low += "),
        Mutant("exact", "low, width = Fraction(0), Fraction(1)", "low, width = 0.0, 1.0"),
    ],
    rights=[
        """
import torch

def code_word(counts, symbols):
    low, width, total = 0, 1, 1  # the interval is [low, low + width) / total
    for row, level in zip(counts.tolist(), symbols.tolist()):
        low = low * sum(row) + width * sum(row[:level])
        width, total = width * row[level], total * sum(row)
    length = (-(-total // width) - 1).bit_length() + 1
    number = (low * 2**length + total - 1) // total
    return torch.tensor([int(bit) for bit in f"{number:0{length}b}"])
""",
        """
import math
from fractions import Fraction

import torch

def code_word(counts, symbols):
    low, high = Fraction(0), Fraction(1)
    for row, level in zip(counts, symbols):
        edges = [0, *row.cumsum(0).tolist()]
        span = (high - low) / edges[-1]
        low, high = low + span * edges[level], low + span * edges[level + 1]
    bits = math.ceil(-sum(math.log2(c[k] / c.sum()) for c, k in zip(counts, symbols))) + 1
    point, word = math.ceil(low * 2**bits), []
    for _ in range(bits):
        point, bit = divmod(point, 2)
        word.insert(0, bit)
    return torch.tensor(word)
""",
    ],
    answer="code_word",
)
### END HIDDEN TESTS
