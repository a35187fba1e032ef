"""The thirteen tasks of RULER, with the parameters of its own configuration."""

from __future__ import annotations

from longspan.evals.ruler.coded import FrequentWords
from longspan.evals.ruler.made import Task
from longspan.evals.ruler.needles import Needles
from longspan.evals.ruler.questions import HOTPOT, SQUAD
from longspan.evals.ruler.variables import VariableTracking
from longspan.evals.ruler.words import CommonWords

GENERATED: dict[str, Task] = {
    "niah_single_1": Needles("noise"),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", value="uuids"),
    "niah_multikey_1": Needles("essay", keys=4),
    "niah_multikey_2": Needles("needle"),
    "niah_multikey_3": Needles("needle", key="uuids", value="uuids"),
    "niah_multivalue": Needles("essay", values=4),
    "niah_multiquery": Needles("essay", asked=4),
    "vt": VariableTracking(),
    "cwe": CommonWords(),
    "fwe": FrequentWords(),
}
FROM_FILES = {"qa_1": SQUAD, "qa_2": HOTPOT}
"""Tasks over questions that the user gives, by the form of their file."""
NAMES = (*GENERATED, *FROM_FILES)
