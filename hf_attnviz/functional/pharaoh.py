"""Links between two texts as lines of text: ``0-0 1-2`` in the format of the Pharaoh decoder (Koehn 2004).

A link is (place in the source, place in the target), both from 0. Files of links drawn by people write ``1p2`` for a
link that is merely possible (as in the sets of Och & Ney 2003); ``1-2`` is then a sure one.
"""

import re
from collections.abc import Iterable

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

Link = tuple[int, int]
_LINK = re.compile(r"([0-9]{1,9})([-p])([0-9]{1,9})")


def to_pharaoh(links: Iterable[Link]) -> str:
    """One line, sorted, each link once, without a line's end; "" for no links.

    >>> to_pharaoh({(1, 2), (0, 0)})
    '0-0 1-2'
    """
    found = sorted(set(links))
    for link in found:
        if len(link) != 2 or min(link) < 0:
            raise ArgumentError(
                Text(
                    f"expected links of two places from 0 on, got {link}; give (source, target)",
                    f"链接应为从 0 数起的两个位置，得到 {link}；请给出 (source, target)",
                )
            )
    return " ".join(f"{source}-{target}" for source, target in found)


def from_pharaoh(line: str) -> tuple[frozenset[Link], frozenset[Link]]:
    """The sure and the possible links of one line; the sure ones are among the possible ones.

    >>> sure, possible = from_pharaoh("0-0 1p2")
    >>> sorted(sure), sorted(possible)
    ([(0, 0)], [(0, 0), (1, 2)])
    """
    sure: set[Link] = set()
    possible: set[Link] = set()
    for word in line.split():
        match = _LINK.fullmatch(word)
        if match is None:
            raise ArgumentError(
                Text(
                    f"expected links such as 0-0 or 1p2, got {word[:40]!r}; places are counted from 0",
                    f"链接应形如 0-0 或 1p2，得到 {word[:40]!r}；位置从 0 数起",
                )
            )
        link = int(match[1]), int(match[3])
        possible.add(link)
        if match[2] == "-":
            sure.add(link)
    return frozenset(sure), frozenset(possible)
