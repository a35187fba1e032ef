"""The names of invented facts: entities, people, attributes and values, each name in one of two splits."""

from __future__ import annotations

import random
import re
import zlib
from typing import Literal, get_args

from longspan.errors import UsageError

Split = Literal["train", "held_out"]
Phrasing = Literal["train", "held_out", "plain"]
"""`plain` is one sentence and one question, the first that are learned."""

_HELD_OUT_PERCENT = 10
_NUMBERED_SHARE, _PERSON_SHARE = 0.2, 0.15


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    """amber ancient azure bitter brave bright bronze calm clever copper coral crimson crooked curious
    distant dusty eager early faint fierce frozen gentle gilded golden grand green grey hidden hollow
    humble idle iron ivory jolly keen lively lonely lucky mellow misty narrow noble northern olive
    pale patient plain proud purple quiet rapid rusty scarlet secret silent silver simple slender
    southern steady stony sunny swift tiny velvet violet wild wooden"""
)
NOUNS = _words(
    """anchor antenna archive badger barn basin beacon bell bison bridge cabin camel candle canyon
    castle cellar chapel cliff clock compass cottage crane crater dragon drum eagle engine falcon
    ferry forest fountain fox furnace garden gate glacier hammer harbour hawk heron hotel island
    kettle kitchen ladder lantern library lighthouse locker lynx maple market meadow mill mirror
    monastery mountain museum needle observatory orchard otter owl palace parrot pier pigeon pilot
    pine pond quarry rabbit raven reactor river rocket sailor salmon satellite school server shelter
    sparrow station stork submarine table telescope temple theatre tiger tower tractor tunnel turbine
    valley vault village wagon walrus warehouse whale windmill wolf workshop"""
)
FIRST_NAMES = _words(
    """Alice Anton Bella Bruno Clara Conrad Daniel Dora Elena Emil Felix Flora Greta Gustav Helen Hugo
    Irene Ivan Jonas Julia Karin Klaus Laura Leon Maria Martin Nina Nora Olivia Oscar Paula Peter
    Quentin Robert Rosa Simon Sofia Tessa Ulrich Vera Walter Yusuf"""
)
LAST_NAMES = _words(
    """Abbot Barker Becker Carver Cooper Dalton Draper Ellis Fisher Fletcher Garner Gibson Harper Hayes
    Ingram Jensen Keller Lambert Larsen Mason Meyer Norton Osborn Palmer Parker Quinn Reed Ritter
    Sawyer Shaw Tanner Turner Unger Vogel Walker Weaver Winter York Young Zimmer"""
)
CALL_SIGNS = _words(
    """alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa
    quebec romeo sierra tango uniform victor whiskey xray yankee zulu"""
)

#: numeric attribute -> the fewest and the most digits of its values
NUMERIC_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "access code": (4, 6),
    "account number": (5, 7),
    "age": (2, 3),
    "batch number": (4, 6),
    "budget": (4, 6),
    "capacity": (2, 5),
    "depth": (2, 4),
    "extension": (3, 4),
    "height": (2, 4),
    "invoice number": (5, 6),
    "length": (2, 4),
    "licence number": (5, 7),
    "locker number": (2, 4),
    "magic number": (4, 6),
    "order number": (4, 6),
    "passcode": (4, 6),
    "phone number": (6, 7),
    "population": (3, 6),
    "price": (2, 5),
    "registration number": (4, 6),
    "room number": (2, 4),
    "serial number": (5, 7),
    "weight": (2, 5),
}

CITIES = _words(
    "Athens Berlin Cairo Delhi Dublin Geneva Hanoi Havana Lima Lisbon London Madrid Nairobi Oslo Paris Rome Tokyo"
)
FRUITS = _words("apple banana cherry fig grape lemon lime mango melon orange papaya peach pear plum quince")
COLOURS = _words("black blue brown cyan green indigo magenta orange pink red teal turquoise white yellow")
PASSWORDS = _words(
    "acorn bramble cactus dagger ember feather goblet helmet icicle jigsaw kernel lagoon nectar orbit pebble ribbon"
)

#: word-valued attribute -> its values
WORD_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "home city": CITIES,
    "favourite fruit": FRUITS,
    "colour": COLOURS,
    "material": _words("brass clay concrete cotton glass granite leather linen marble oak paper rubber steel wool"),
    "password": PASSWORDS,
    "opening day": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "birth month": _words("January February March April May June July August September October November December"),
}

#: attributes whose values are people
ROLES = ("captain", "owner", "keeper", "architect", "sponsor")

THING_ATTRIBUTES: tuple[str, ...] = (*NUMERIC_ATTRIBUTES, *WORD_ATTRIBUTES)
ATTRIBUTES: tuple[str, ...] = (*THING_ATTRIBUTES, *ROLES)

#: what an entity can have several of -> its values; the plural ends in s
COLLECTIONS: dict[str, tuple[str, ...]] = {
    "visitor": FIRST_NAMES,
    "member": FIRST_NAMES,
    "stop": CITIES,
    "partner": CITIES,
    "crop": FRUITS,
    "flavour": FRUITS,
    "marking": COLOURS,
    "keyword": PASSWORDS,
}


def check_split(split: str) -> None:
    if split not in get_args(Split):
        raise UsageError(f"split {split!r} is not one of {', '.join(get_args(Split))}")


def check_phrasing(phrasing: str) -> None:
    if phrasing not in get_args(Phrasing):
        raise UsageError(f"phrasing {phrasing!r} is not one of {', '.join(get_args(Phrasing))}")


def split_of(name: str) -> Split:
    """The split that a name belongs to, by a hash that no seed or platform changes."""
    return "held_out" if zlib.crc32(name.encode()) % 100 < _HELD_OUT_PERCENT else "train"


def thing(rng: random.Random, split: Split) -> str:
    """ "the amber anchor", "the mill anchor" or "the amber anchor 12"."""
    while True:
        first = rng.choice(ADJECTIVES if rng.random() < 0.7 else NOUNS)
        name = f"the {first} {rng.choice(NOUNS)}"
        if rng.random() < _NUMBERED_SHARE:
            name += f" {rng.randint(2, 29)}"
        if split_of(name) == split:
            return name


def person(rng: random.Random, split: Split) -> str:
    """First and last name."""
    while True:
        name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
        if split_of(name) == split:
            return name


def variable(rng: random.Random, split: Split) -> str:
    """A call sign and a number, such as "bravo17"."""
    while True:
        name = f"{rng.choice(CALL_SIGNS)}{rng.randint(1, 99)}"
        if split_of(name) == split:
            return name


def entity(rng: random.Random, split: Split) -> str:
    """A thing, or sometimes a person."""
    return person(rng, split) if rng.random() < _PERSON_SHARE else thing(rng, split)


def near(rng: random.Random, name: str, split: Split) -> str:
    """An entity that differs from `name` in one of its words, or in its number, only."""
    for _ in range(200):
        if (match := re.fullmatch(r"the (\w+) (\w+)( \d+)?", name)) is not None:
            first, noun, number = match[1], match[2], match[3] or ""
            changed = rng.choice(("first", "noun", "number") if number else ("first", "noun"))
            if changed == "first":
                other = f"the {rng.choice(ADJECTIVES)} {noun}{number}"
            elif changed == "noun":
                other = f"the {first} {rng.choice(NOUNS)}{number}"
            else:
                other = f"the {first} {noun} {rng.randint(2, 29)}"
        else:
            first, last = name.split(" ")
            other = f"{first} {rng.choice(LAST_NAMES)}" if rng.random() < 0.5 else f"{rng.choice(FIRST_NAMES)} {last}"
        if other != name and split_of(other) == split:
            return other
    return entity(rng, split)


def value(rng: random.Random, attribute: str, taken: set[str], split: Split) -> str:
    """A value that is not in `taken` while there is one, and is then put there."""
    drawn = ""
    for _ in range(50):
        if attribute in WORD_ATTRIBUTES:
            drawn = rng.choice(WORD_ATTRIBUTES[attribute])
        elif attribute in NUMERIC_ATTRIBUTES:
            digits = rng.randint(*NUMERIC_ATTRIBUTES[attribute])
            drawn = str(rng.randint(10 ** (digits - 1), 10**digits - 1))
        else:
            drawn = person(rng, split)
        if drawn not in taken:
            break
    taken.add(drawn)
    return drawn


def capital(name: str) -> str:
    """The name as a sentence begins with it."""
    return name[0].upper() + name[1:]
