"""Strings that look like a column's own without repeating one: for identifiers and for protected categories.

A pattern is a sequence of character sets learned from strings of one shape (same classes of characters in the same
places). A place shows a literal character only when enough different strings share it, so that no single string can be
read off the model; digits are always free, as they are what counts on. Strings are numbered: different numbers below
`capacity` give different strings of the same lengths, larger ones longer strings.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Self

__all__ = ["StringPattern"]

_MAX_SHAPES = 32
_MAX_LENGTH = 64
# The step through the numbered strings: any large prime spreads neighbours apart and visits each once.
_STRIDE = 2**61 - 1


@dataclass(frozen=True)
class StringPattern:
    """Character sets by place, for each of the commonest shapes.

    Attributes:
        shapes: For each shape, the characters that each place may show.
    """

    shapes: tuple[tuple[str, ...], ...]

    @classmethod
    def fit(cls, strings: Iterable[str], *, shared_by: int) -> Self:
        """Learns the shapes.

        Args:
            strings: Distinct strings.
            shared_by: A place shows a literal, or a partial set of characters, only if this many strings share a shape.
        """
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for string in strings:
            groups["".join(map(_class_of, string[:_MAX_LENGTH]))].append(string)
        sizes = Counter({shape: len(members) for shape, members in groups.items()})
        common = [shape for shape, size in sizes.most_common(_MAX_SHAPES) if size >= shared_by]
        if not common:
            common = [shape for shape, _ in sizes.most_common(1)]
        return cls(tuple(_places(shape, groups[shape], shared_by) for shape in common))

    @property
    def capacity(self) -> int:
        """How many different strings the pattern can give."""
        return sum(_capacity(shape) for shape in self.shapes)

    def string(self, number: int) -> str:
        """The string of a number: different for every number, longer from `capacity` on."""
        round_, number = divmod(number, self.capacity)
        if round_:
            return f"{self.string(number)}-{round_}"
        for shape in self.shapes:
            capacity = _capacity(shape)
            if number < capacity:
                return _spell(shape, number * _STRIDE % capacity if math.gcd(_STRIDE, capacity) == 1 else number)
            number -= capacity
        raise AssertionError("a number below the capacity belongs to one of the shapes")

    def state(self) -> list[list[str]]:
        """Plain JSON values; `from_state` is the inverse."""
        return [list(shape) for shape in self.shapes]

    @classmethod
    def from_state(cls, state: Sequence[Sequence[str]]) -> Self:
        """The inverse of `state`."""
        return cls(tuple(tuple(shape) for shape in state))


def _class_of(character: str) -> str:
    if character in digits:
        return "9"
    if character in ascii_lowercase:
        return "a"
    if character in ascii_uppercase:
        return "A"
    return character if character.isascii() else "?"


_CLASSES = {"9": digits, "a": ascii_lowercase, "A": ascii_uppercase, "?": ascii_lowercase}


def _places(shape: str, members: Sequence[str], shared_by: int) -> tuple[str, ...]:
    places = []
    for place, kind in enumerate(shape):
        seen = Counter(member[place] for member in members)
        if kind not in _CLASSES:
            places.append(kind)
        elif kind != "9" and all(count >= shared_by for count in seen.values()):
            places.append("".join(sorted(seen)))
        else:
            places.append(_CLASSES[kind])
    return tuple(places)


def _capacity(shape: Sequence[str]) -> int:
    return math.prod(len(place) for place in shape)


def _spell(shape: Sequence[str], number: int) -> str:
    characters = []
    for place in reversed(shape):
        number, index = divmod(number, len(place))
        characters.append(place[index])
    return "".join(reversed(characters))
