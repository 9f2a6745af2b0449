"""What `verify` finds."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        check: `database`, `foreign key`, `owner`, `job`, `snapshot`, `batch`, `blob`, `artifact`,
            `classes`, `serving` or `audit`.
        where: what it is wrong with.
        problem: in a sentence.
        fix: what to do about it.
    """

    check: str
    where: str
    problem: str
    fix: str


@dataclass
class Findings:
    """The result of a look at everything.

    Attributes:
        found: what is wrong; empty where all is well.
        information: what is worth knowing and not wrong.
        checked: how many there were of what was looked at.
    """

    found: list[Finding] = field(default_factory=list)
    information: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
