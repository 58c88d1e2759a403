"""Sentences to be spoken: grammars of templates and slots, or any list of lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.errors import DataError

DIGITS = "zero one two three four five six seven eight nine"
LETTERS = "a b c d e f g h i j k l m n o p q r s t u v x y z"  # GRID has no w: its name is three syllables long
NAMES = "anna ben clara david emma felix grace henry julia kevin laura martin nina oscar paula simon thomas vera"
DAYS = "monday tuesday wednesday thursday friday saturday sunday"
NUMBERS = "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty"


@dataclass(frozen=True)
class Grammar:
    """Templates whose {slots} are filled at random."""

    templates: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    respellings: Mapping[str, str] = field(default_factory=dict)  # word -> how to write it so that it is read right

    def draw(self, rng: np.random.Generator) -> str:
        """One sentence."""
        template = self.templates[int(rng.integers(len(self.templates)))]
        return re.sub(r"\{(\w+)\}", lambda m: self._choose(m[1], rng), template) if self.slots else template

    def _choose(self, slot: str, rng: np.random.Generator) -> str:
        options = self.slots[slot]
        return options[int(rng.integers(len(options)))]

    def sample(self, count: int, rng: np.random.Generator) -> list[str]:
        """Up to `count` different sentences; fewer where the grammar has hardly more."""
        drawn: dict[str, None] = {}
        for _ in range(20 * count):
            if len(drawn) == count:
                break
            drawn.setdefault(self.draw(rng))
        return list(drawn)


def from_lines(lines: Iterable[str]) -> Grammar:
    """A grammar that says each of `lines` as it stands.

    Raises:
        DataError: no line holds a word.
    """
    templates = tuple(line.strip() for line in lines if line.strip())
    if not templates:
        raise DataError("The list of sentences is empty; give one sentence a line.")
    return Grammar(templates)


def _slots(**options: str) -> dict[str, tuple[str, ...]]:
    """Options are separated by '|' where they hold spaces, else by spaces."""
    return {
        name: tuple(o.strip() for o in (text.split("|") if "|" in text else text.split()))
        for name, text in options.items()
    }


SENTENCES: dict[str, Grammar] = {
    "grid": Grammar(  # Cooke, Barker, Cunningham and Shao (2006), table I: 64,000 sentences
        ("{command} {colour} {preposition} {letter} {digit} {adverb}",),
        _slots(
            command="bin lay place set",
            colour="blue green red white",
            preposition="at by in with",
            letter=LETTERS,
            digit=DIGITS,
            adverb="again now please soon",
        ),
        {"a": "eigh"},  # the letter, not the article
    ),
    "digits": Grammar(
        tuple(" ".join(["{digit}"] * length) for length in range(2, 8)),
        _slots(digit=DIGITS),
    ),
    "phrases": Grammar(
        (
            "{hello} {name} how {are} you {when}",
            "can you {help} me {find} {thing} please",
            "i would like {count} {food}",
            "where is the {place} from here",
            "the {place} opens at {hour} on {day}",
            "{name} will {meet} us at the {place}",
            "please {turn} the {device} in the {room}",
            "what is the {measure} in {city} {when}",
            "i am {feeling} {when}",
            "my {relative} lives in {city}",
            "we {went} to {city} last {day}",
            "it will be {weather} in {city} on {day}",
            "the train to {city} leaves in {count} minutes",
            "call {name} and say that i am {feeling}",
            "{name} and {name} {play} {game} every {day}",
            "do you want {food} or {food}",
            "put the {object} {where} the {furniture}",
            "there are {count} {animal} {where} the {furniture}",
            "set an alarm for {hour} {dayhalf}",
            "play some {music} in the {room}",
            "add {food} to my shopping list",
            "how much does the {object} cost",
            "i have never been to {city}",
            "{name} forgot the {object} at the {place}",
            "thank you for the {food} {name}",
            "my {relative} has {count} {animal}",
            "who left the {object} {where} the {furniture}",
            "turn {side} at the next {place}",
            "the {colour} {object} belongs to {name}",
            "{name} paid {count} dollars for the {object}",
            "is it {weather} outside",
            "see you {when} at the {place}",
            "wait {count} minutes before you open the {object}",
        ),
        _slots(
            hello="hello|hi|good morning|good evening",
            name=NAMES,
            are="are|were",
            when="today|tonight|tomorrow|this morning|this week|right now",
            help="help|show|tell",
            find="find|buy|carry|repair",
            thing="a taxi|the keys|my phone|some water|a good book|the way",
            count=NUMBERS,
            hour="six|seven|eight|nine|ten|half past two|a quarter to four|noon",
            day=DAYS,
            food="apples|bread|cheese|coffee|fresh fish|soup|green tea|milk|orange juice|pasta|rice|a sandwich|sugar",
            place="airport bakery bank bridge church hospital hotel library market museum park school station theatre",
            meet="meet|call|visit|join",
            turn="turn on|turn off|move|clean",
            device="fan|heater|light|radio|television|camera",
            room="bathroom|bedroom|garage|garden|hall|kitchen|office|living room",
            measure="temperature|time|price of bread|weather",
            city="berlin boston cairo chicago dublin geneva london madrid moscow oslo paris rome sydney tokyo vienna",
            feeling="happy|hungry|late|on my way|ready|sorry|tired|very busy|waiting outside",
            relative="aunt|best friend|brother|father|grandmother|mother|neighbour|sister|uncle",
            went="drove|flew|moved|went",
            weather="cloudy|cold|foggy|rainy|sunny|very warm|windy",
            play="play|teach|watch",
            game="basketball|cards|chess|football|the piano|the violin|video games",
            object="bag|bottle|box|cup|hammer|jacket|key|lamp|letter|map|newspaper|picture|umbrella|watch",
            where="behind|beside|in front of|near|on|under",
            furniture="bed|bench|chair|desk|door|shelf|sofa|table|window",
            animal="birds|cats|chickens|cows|dogs|fish|horses|mice|rabbits|sheep",
            dayhalf="in the morning|in the evening",
            music="jazz|old songs|opera|pop music|quiet music",
            side="left right",
            colour="black blue brown green red white yellow",
        ),
    ),
}
