"""The sentences of invented facts and of the questions about them, each body in one of two splits.

A template is a lead, a body and a tail. No body of the held-out split occurs in the train split, so no
held-out template does. In a body, ``[a|b]`` stands for either; names in braces are filled in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from longspan.evals.lookup.names import Phrasing, Split, capital

_CHOICE = re.compile(r"\[([^]]*)\]")


@dataclass(frozen=True, slots=True)
class Templates:
    """Everything that a kind of sentence can look like: a product of leads (or none), bodies and tails.

    `plain` bodies stand alone: they begin a line and bring their own ending.
    """

    bodies: tuple[str, ...]
    leads: tuple[str, ...] = ()
    tails: tuple[str, ...] = ("",)
    plain: tuple[str, ...] = ()
    capitals: bool = True

    def draw(self, rng: random.Random, **names: str) -> str:
        """A sentence drawn from all of them, with the names filled in."""
        index = rng.randrange(len(self.bodies) + len(self.plain))
        if index < len(self.bodies):
            lead = rng.choice(self.leads) if rng.random() < 0.5 and self.leads else ""
            tail = rng.choice(self.tails) if rng.random() < 0.5 else self.tails[0]
            template = lead + self.bodies[index] + tail
        else:
            template = self.plain[index - len(self.bodies)]
        sentence = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template).format(**names)
        return capital(sentence) if self.capitals else sentence

    def all(self) -> set[str]:
        """Every template, with the braces in it."""
        whole = [lead + body + tail for lead in ("", *self.leads) for body in self.bodies for tail in self.tails]
        return {one for template in (*whole, *self.plain) for one in _expand(template)}


def _expand(template: str) -> list[str]:
    match = _CHOICE.search(template)
    if match is None:
        return [template]
    before, after = template[: match.start()], template[match.end() :]
    return [one for choice in match[1].split("|") for one in _expand(before + choice + after)]


_GIVEN = "[given|listed|stated|noted|kept|entered|filed|shown|reported|registered|written down|printed]"
_LINK = (
    "[given to|assigned to|attached to|linked to|tied to|stored under|kept by|used by|known for|valid for|in use at|"
    "on the sheet of|seen at|we have for|that came with|reported by|belonging to|meant for|in the file of|chosen for|"
    "agreed for|set for|published for|announced for|confirmed for|checked for|entered under|on the card of|"
    "shown for|noted down for]"
)
_IS = (
    "[is|is|is|was|equals|reads|remains|should be|must be|will be|has always been|turned out to be|happens to be|"
    "is said to be|is given as|is known to be|is exactly|:|=]"
)
_HAS = (
    "[has|had|carries|shows|keeps|uses|received|got|obtained|bears|displays|comes with|works with|was given|"
    "is shown with|is registered under|answers to|is marked with|lists|reports|states|is known to have|can be found by]"
)
_EQUALLED = (
    "[equalled|reached|hit|made|totalled|numbered|measured|weighed|counted|meant|gave|kept|displayed|touched|passed|"
    "exceeded|neared|matched|followed|joined|spelled|read|said|showed|bore|went|turned|grew|fell|seems|appears|looks|"
    "sounds|stays|resembles|represents|constitutes|forms|comprises|tops|beats|yields|produces|returns|prints|emits|"
    "adopts|assumes|attained|begins|marks|scored|signifies|denotes|indicates|includes|overtook|outgrew|shrank|rang|"
    "claimed|cites|tells|names|calls|hides|reveals|swaps|loads|jumps|climbs|drops|rose|sank|shifts|moves|ended|came|"
    "overcame|outdid|underwent|beholds|took|shook|flew|drew|broke|spoke|chose|wrote|drove|gained|lost|won|met]"
)
_TURNED = (
    "[turned into|went to|rose to|fell to|grew to|sank to|was raised to|was lowered to|was reset to|was replaced by|"
    "gave way to|jumped to|has turned into|went over to|is no longer that but|climbed to|dropped to|slid to|swung to|"
    "flipped to|drifted to|settled at|landed on|came out as|shifted to|converted to|evolved into|is henceforth|"
    "finished as|opened as|closed at|proved to be|ended up as|changed into|developed into|hence is|came to be|"
    "resulted in|amounted to|got replaced with|was overwritten with|gets exchanged for|transformed into|"
    "started over as|was swapped for|was reassigned to|was redefined as|emerged as|arrived at|continued as|ran up to]"
)
_SWAPPED = (
    "[took|adopted|went over to|moved on to|now uses|now shows|returned to|hopped to|jumped to|upgraded to|migrated to|"
    "converted to|was assigned|was handed|was granted|picked|picked up|selected|obtained|embraced|acquired|swapped to|"
    "turned to|resorted to|was transferred to|settled on|decided for|opted for|proceeded to|gained|reverted to|"
    "inherits|borrowed|earned|claims|registered|applied|fetched|accepted|flipped to|drew|won|bought|was put on|"
    "shifted to]"
)
_NEWEST = (
    "[newest|most recent|actual|present|revised|next|second|freshest|final|replacement|adjusted|modified|renewed|other|"
    "up-to-date|fixed|substitute|ongoing|valid|official|real|true|modern|amply checked|proper|right|refreshed|recent|"
    "effective|definitive|altered|last|subsequent|additional|different|active]"
)
_TELL = "[give|state|name|find|show|look up|tell me|say|write down|let me know|give me|show me]"
_LEADS = (
    "note that ", "remember that ", "it is known that ", "please note: ", "remember: ", "we know that ",
    "by the way, ", "as everyone knows, ", "in fact, ", "also, ", "the log says that ", "according to the list, ",
    "as far as we know, ", "the report adds that ", "at the moment, ", "for the record, ", "let us add that ",
    "he told us that ", "in the end, ", "to sum up, ", "they found that ", "and then: ", "(new) ", "fact: ",
)  # fmt: skip
_TAILS = (
    ".", ";", ", they say.", ", as before.", " at present.", " (see above).", "!", ", which is correct.", " for now.",
    ", that is all.", ", it seems.", " in all lists.", " - checked", ", and nothing else.",
)  # fmt: skip
_QUESTION_LEADS = (
    "question: ", "according to the text, ", "please answer: ", "from the text above: ", "now, ", "tell us: ",
    "in short: ", "next question: ", "a simple one: ", "please: ", "so ",
)  # fmt: skip
_NEW_LEADS = ("it turned out that ", "be aware that ", "today we learned that ", "one more thing: ")
_NEW_TAILS = (".", ", as we heard.")
_NEW_QUESTION_LEADS = ("tell me: ",)

FACT: dict[Phrasing, Templates] = {
    "plain": Templates(bodies=("the {a} of {e} is {v}",), tails=(".",)),
    "train": Templates(
        bodies=(
            "the {a} of {e} is {v}",
            f"the {{a}} of {{e}} {_IS} {{v}}",
            f"the {{a}} {_LINK} {{e}} {_IS} {{v}}",
            f"the {{a}} {_LINK} {{e}} is {{v}}",
            f"{{e}} {_HAS} the {{a}} {{v}}",
            "{e} has the {a} {v}",
            f"[for|as for|regarding|with|in the case of|on the side of] {{e}}, [the|its] {{a}} {_IS} {{v}}",
            f"{{e}}'s {{a}} {_IS} {{v}}",
            "the {a} for {e} is [set to |fixed at |]{v}",
            f"{{e}} is {_GIVEN} with the {{a}} {{v}}",
            "the {a} [that belongs to|which belongs to|that was given to] {e} is {v}",
            f"the {{a}} of {{e}} was {_GIVEN} as {{v}}",
            "the {a} [which|that] {e} [has|uses|shows] is {v}",
            f"{{e}} {_SWAPPED} the {{a}} {{v}}",
            f"the {_NEWEST} {{a}} of {{e}} is {{v}}",
            f"the {{a}} of {{e}} {_EQUALLED} {{v}}",
            f"[for|with|about] {{e}} the {{a}} {_EQUALLED} {{v}}",
        ),
        leads=_LEADS,
        tails=_TAILS,
        plain=(
            "{e}: {a} {v}", "{e}, {a}: {v}.", "{a} of {e}: {v}", "{e} | {a} | {v}", "{a} ({e}) = {v}",
            "- {e} - {a} - {v}",
        ),
    ),
    "held_out": Templates(
        bodies=(
            "the {a} recorded for {e} is {v}",
            "the {a} of {e} stands at {v}",
            "{e} was allotted the {a} {v}",
            "when it comes to {e}, the {a} is {v}",
            "the {a} held by {e} is {v}",
            "{e} still has the {a} {v}",
            "on file for {e} is the {a} {v}",
        ),
        leads=_NEW_LEADS,
        tails=_NEW_TAILS,
        plain=("{a} for {e}: {v}.",),
    ),
}  # fmt: skip

#: several facts about one entity in one sentence; {pairs} is "the a1 v1, the a2 v2 and the a3 v3"
SEVERAL: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            f"{{e}} {_HAS} {{pairs}}",
            "[for|on|about|under] {e} we [have|find|note|list] {pairs}",
            f"{{e}} is {_GIVEN} with {{pairs}}",
        ),
        leads=_LEADS,
        tails=_TAILS,
        plain=("{e}: {pairs}",),
    ),
    "held_out": Templates(
        bodies=("{e} was seen with {pairs}", "on {e} the list gives {pairs}"), leads=_NEW_LEADS, tails=(".",)
    ),
}

#: a new value for a fact that was stated before
UPDATE: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "the {a} of {e} is now {v}",
            "{e} [now has|has now got|from now on has] the {a} {v}",
            "{e}'s {a} has [changed|been changed|moved|been updated|been set] to {v}",
            "from [now|today|tomorrow] on, the {a} of {e} is {v}",
            "the [new|current|corrected|changed] {a} of {e} is {v}",
            "the {a} of {e} was [changed|moved|updated|corrected] to {v}",
            "{e} has [moved|changed] to the {a} {v}",
            f"the {{a}} of {{e}} {_TURNED} {{v}}",
            f"the {{a}} of {{e}} {_EQUALLED} {{v}}",
            f"the {{a}} of {{e}} [now|then|later|soon|finally] {_EQUALLED} {{v}}",
            f"{{e}} {_SWAPPED} the [other |new ||]{{a}} {{v}}",
            f"{{e}} {_SWAPPED} the {{a}} {{v}}",
            f"the {_NEWEST} {{a}} of {{e}} [is|is|reads|was|will be] {{v}}",
            "[later|afterwards|meanwhile|since then|since yesterday|a day later], the {a} of {e} [is|was|reads] {v}",
            "[they|we|someone] [changed|moved|set|altered|reset] the {a} of {e} to {v}",
            "for {e}, the {a} [is now|was changed to|has moved to|went over to] {v}",
            "{e}'s {a} [is now|was replaced by|went up to|went down to] {v}",
        ),
        leads=(
            "update: ",
            "correction: ",
            "news: ",
            "change: ",
            "revised: ",
            "new today: ",
            "edited: ",
            "replaced: ",
            "second version: ",
            "modified: ",
            "adjusted: ",
            "breaking: ",
            "fixed: ",
            *_LEADS,
        ),
        tails=_TAILS,
        plain=("new {a} of {e}: {v}", "{a} of {e} -> {v}", "{e}: {a} now {v}"),
    ),
    "held_out": Templates(
        bodies=("the {a} of {e} became {v}", "{e} switched to the {a} {v}", "the latest {a} of {e} is {v}"),
        leads=("amended: ", *_NEW_LEADS),
        tails=_NEW_TAILS,
    ),
}

QUESTION: dict[Phrasing, Templates] = {
    "plain": Templates(bodies=("what is the {a} of {e}?",)),
    "train": Templates(
        bodies=(
            "what is the {a} of {e}?",
            "[what|which] {a} [does {e} have|has {e}|did {e} get|can we find for {e}|does {e} use]?",
            f"{_TELL} the {{a}} of {{e}}.",
            "what is {e}'s {a}?",
            "[for|as for|about|regarding] {e}, [what is the|what is its|which is the] {a}?",
            f"what is the {{a}} [for|that belongs to|{_LINK[1:-1]}] {{e}}?",
            f"{_TELL} the {{a}} {_LINK} {{e}}.",
            "I [need|want|look for|ask for|was asked for] [the {a} of {e}|{e}'s {a}].",
            "[can you tell me|do you know|who knows|what about] [the {a} of {e}|{e}'s {a}]?",
            f"[what|which] {{a}} [was|is] [{_GIVEN[1:-1]}] [for|with|under] {{e}}?",
            "say what the {a} of {e} is.",
            f"[what|which] {{a}} [is|was] {_LINK} {{e}}?",
        ),
        leads=_QUESTION_LEADS,
        plain=("{e}: {a}?", "{a} of {e}?", "{e}, {a}?"),
    ),
    "held_out": Templates(
        bodies=(
            "which {a} was recorded for {e}?",
            "please report the {a} of {e}.",
            "I would like to know {e}'s {a}.",
            "how does the text give the {a} of {e}?",
            "what {a} goes with {e}?",
        ),
        leads=_NEW_QUESTION_LEADS,
    ),
}

#: {r} is the role of a person for {e}, {a} an attribute of that person
TWO_HOP: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "what is the {a} of the {r} of {e}?",
            "[what|which] {a} [does the {r} of {e} have|has the {r} of {e}|did the {r} of {e} get]?",
            f"{_TELL} the {{a}} of {{e}}'s {{r}}.",
            "what is the {a} of {e}'s {r}?",
            "[for|as for|about|regarding] the {r} of {e}, what is the {a}?",
            f"{_TELL} the {{a}} of the {{r}} of {{e}}.",
            f"[what|which] {{a}} [is|was] {_LINK} [the {{r}} of {{e}}|{{e}}'s {{r}}]?",
            "I [need|want|look for|ask for] the {a} of the {r} of {e}.",
        ),
        leads=_QUESTION_LEADS,
    ),
    "held_out": Templates(
        bodies=("which {a} goes with the {r} of {e}?", "please report the {a} of the {r} of {e}."),
        leads=_NEW_QUESTION_LEADS,
    ),
}

#: {x} is a variable, {v} a number or another variable
ASSIGNMENT: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "{x} = {v}", "let {x} be {v}.", "[we set|set|change] {x} to {v}.", "{x} is {v}.", "now {x} gets {v}.",
            "{x} := {v};", "{x} [becomes|holds|equals|means] {v}.", "[assign|give] {x} the value {v}.",
            "{x} has the value {v}.", "{x} is [the same as|equal to] {v}.",
        ),
        capitals=False,
    ),
    "held_out": Templates(bodies=("put {x} to {v}.", "{x} takes {v}."), capitals=False),
}  # fmt: skip
VARIABLE: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "what is the value of {x}?", f"{_TELL} the value of {{x}}.", "what is {x}?", "{x} = ?", "{x}?",
            "[what|which value] does {x} [hold|have|mean|equal]?", f"{_TELL} {{x}}.", "I [need|want|ask for] {x}.",
        ),
        leads=_QUESTION_LEADS,
        capitals=False,
    ),
    "held_out": Templates(
        bodies=("which value has {x}?", "please report the value of {x}."),
        leads=_NEW_QUESTION_LEADS,
        capitals=False,
    ),
}  # fmt: skip

#: {c} is one of the things that {e} has several of
ITEM: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            f"[a|one|some|the next|a further|the first] {{c}} of {{e}} {_IS} {{v}}",
            f"{{e}} {_HAS} the {{c}} {{v}}",
            f"[a|one|some|the next] {{c}} {_LINK} {{e}} is {{v}}",
            "[among|one of|to] the {c}s of {e} is {v}",
            "{e} counts {v} as a {c}",
            "[for|as for|with] {e}, a {c} is {v}",
        ),
        leads=_LEADS,
        tails=_TAILS,
        plain=("{e}, {c}: {v}", "{c} of {e}: {v}"),
    ),
    "held_out": Templates(
        bodies=("another {c} of {e} is {v}", "a {c} recorded for {e} is {v}"), leads=_NEW_LEADS, tails=_NEW_TAILS
    ),
}
LIST: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "list [all|all the|the|every one of the] {c}s of {e}.",
            "which {c}s [does {e} have|has {e}|can we find for {e}|are there for {e}]?",
            "[what|which] are [the|all] {c}s of {e}?",
            f"{_TELL} [every {{c}} of|all {{c}}s of|the {{c}}s of|each {{c}} of] {{e}}.",
            f"which {{c}}s [are|were] {_LINK} {{e}}?",
            "I [need|want|ask for] [all|the] {c}s of {e}.",
        ),
        leads=_QUESTION_LEADS,
    ),
    "held_out": Templates(
        bodies=("please report every {c} of {e}.", "which {c}s were recorded for {e}?"),
        leads=_NEW_QUESTION_LEADS,
    ),
}

#: {w} is a marked word
MARK: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "[marked|new|next|our] word: {w}.", "the word {w} is marked [here|now|again|today].", "[mark|word]: {w}",
            "** {w} **", "[here|now|again] we mark {w}.", "a mark for {w}.", "[we|they|you] mark {w}.",
        )
    ),
    "held_out": Templates(bodies=("this line marks {w}.", "marked here: {w}.")),
}  # fmt: skip
COUNT: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "how [often|many times] [is|was] [{w}|the word {w}] marked?",
            "count [the marks of|all marks of|the marks for|how often we mark] {w}.",
            "how many marks [does {w} have|has {w}|did {w} get|can we find for {w}]?",
            f"{_TELL} how [often|many times] [{{w}}|the word {{w}}] [is|was] marked.",
            "what is the number of marks of {w}?",
        ),
        leads=_QUESTION_LEADS,
    ),
    "held_out": Templates(
        bodies=("how many marks of {w} are there?", "please report how often {w} is marked."),
        leads=_NEW_QUESTION_LEADS,
    ),
}

#: {q} is a sentence to be repeated word for word
QUOTE: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            '[the note|the letter|the plate|the label|a poster|the text] [of|from|at] {e} [reads|states|goes]: "{q}"',
            '{e} [said|told us|explained|shouted|answered]: "{q}"',
            '[on|at|for] {e} [stands|we read|is written]: "{q}"',
            '[note|words|text|message] of {e}: "{q}"',
            'in the words of {e}: "{q}"',
            '{e}: "{q}"',
        )
    ),
    "held_out": Templates(bodies=('the sign of {e} says: "{q}"', '{e} wrote: "{q}"')),
}
COPY: dict[Split, Templates] = {
    "train": Templates(
        bodies=(
            "[quote|repeat|copy|give|write out|state] the [words|note|text|sentence|line] [of|from] {e}.",
            "what [exactly did|did] {e} [say|tell us|state]?",
            "what [does the note|do the words|does the text] of {e} [read|say]?",
            "[quote|repeat|copy] [what stands on|what we read at|the note of] {e}.",
            f"{_TELL} the [exact|full|whole] [words|text|note] of {{e}}.",
        ),
        leads=_QUESTION_LEADS,
    ),
    "held_out": Templates(
        bodies=("please report the exact words of {e}.", "what is the wording for {e}?"),
        leads=_NEW_QUESTION_LEADS,
    ),
}

KINDS: dict[str, Mapping[Split, Templates]] = {
    "fact": {split: FACT[split] for split in get_args(Split)},
    "several": SEVERAL,
    "update": UPDATE,
    "question": {split: QUESTION[split] for split in get_args(Split)},
    "two_hop": TWO_HOP,
    "assignment": ASSIGNMENT,
    "variable": VARIABLE,
    "item": ITEM,
    "list": LIST,
    "mark": MARK,
    "count": COUNT,
    "quote": QUOTE,
    "copy": COPY,
}
