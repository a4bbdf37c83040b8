"""The little language of the translator: Chinese sentences, their English, and which piece comes from which.

A sentence is a subject, a verb and an object, with a time and a place where the verb takes them. Chinese says time
and place before the verb, English after the object; Chinese marks tense with a particle, English on the verb. So words
move, two pieces become one (爱 吃 → love) and one becomes two (每天 → every day).

Every constituent carries its own links. A sure link joins two words that mean the same; a possible link joins a word to
the particle, article or second verb that it swallowed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple


class Link(NamedTuple):
    source: int
    target: int


@dataclass(frozen=True)
class Pair:
    """Source pieces, target pieces, and the links between them; `sure` is a subset of `links`."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    sure: frozenset[Link]
    links: frozenset[Link]


class Noun(NamedTuple):
    source: str
    target: str


class Verb(NamedTuple):
    source: str
    base: str
    third: str
    past: str
    takes: str


FOODS = (
    Noun("烤鸭", "duck"),
    Noun("饺子", "dumplings"),
    Noun("面条", "noodles"),
    Noun("米饭", "rice"),
    Noun("鱼", "fish"),
    Noun("火锅", "hotpot"),
    Noun("苹果", "apples"),
)
DRINKS = (Noun("茶", "tea"), Noun("咖啡", "coffee"), Noun("水", "water"), Noun("牛奶", "milk"))
THINGS = (Noun("书", "books"), Noun("信", "letters"), Noun("报纸", "newspapers"), Noun("诗", "poems"))
NOUNS = {"food": FOODS, "drink": DRINKS, "thing": THINGS}
PEOPLE = (Noun("老师", "teacher"), Noun("学生", "student"), Noun("医生", "doctor"), Noun("朋友", "friend"))
NAMES = (Noun("小明", "Xiaoming"), Noun("李华", "Lihua"))
CITIES = (Noun("北京", "Peking"), Noun("上海", "Shanghai"), Noun("四川", "Sichuan"), Noun("广州", "Canton"))
SPOTS = (Noun("学校", "school"), Noun("家", "home"))
ADJECTIVES = {
    "food": (Noun("好", "good"), Noun("热", "hot")),
    "drink": (Noun("好", "good"), Noun("热", "hot")),
    "thing": (Noun("好", "good"), Noun("新", "new")),
}
# piece, as a subject, as an object, as an owner, takes the third person
PRONOUNS = (
    ("我", "I", "me", "my", False),
    ("你", "you", "you", "your", False),
    ("他", "he", "him", "his", True),
    ("她", "she", "her", "her", True),
    ("我们", "we", "us", "our", False),
    ("他们", "they", "them", "their", False),
)
ACTIONS = (
    Verb("吃", "eat", "eats", "ate", "food"),
    Verb("喝", "drink", "drinks", "drank", "drink"),
    Verb("读", "read", "reads", "read", "thing"),
    Verb("写", "write", "writes", "wrote", "thing"),
    Verb("买", "buy", "buys", "bought", "any"),
    Verb("卖", "sell", "sells", "sold", "any"),
)
FEELINGS = (
    Verb("爱", "love", "loves", "loved", "any"),
    Verb("喜欢", "like", "likes", "liked", "any"),
)
MEETINGS = (Verb("认识", "know", "knows", "knew", "person"), Verb("看见", "see", "sees", "saw", "person"))
PARTICLES = ("的", "和", "在", "了", "不", "没", "会", "昨天", "今天", "明天", "每天", "早上", "晚上")
FUNCTION_WORDS = (
    *("the", "'s", "and", "in", "at", "do", "does", "did", "not", "will"),
    *("yesterday", "today", "tomorrow", "every", "day", "this", "morning", "evening"),
)


@dataclass(frozen=True)
class Phrase:
    """Source pieces; target pieces, each with the indices of its sure and of its possible source pieces."""

    source: tuple[str, ...]
    target: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def word(noun: Noun) -> Phrase:
    return Phrase((noun.source,), ((noun.target, (0,), ()),))


def joined(phrases: Sequence[Phrase], order: Sequence[int]) -> Phrase:
    """The phrases in the source's order, their translations in `order`."""
    starts = [sum(len(phrase.source) for phrase in phrases[:place]) for place in range(len(phrases))]
    source = tuple(piece for phrase in phrases for piece in phrase.source)
    target = tuple(
        (piece, tuple(starts[place] + at for at in sure), tuple(starts[place] + at for at in possible))
        for place in order
        for piece, sure, possible in phrases[place].target
    )
    return Phrase(source, target)


def chance(random: Random, share: float) -> bool:
    return random.random() < share


def person(random: Random, *, role: int) -> tuple[Phrase, bool]:
    """Someone, as subject (role 1) or object (role 2), and whether the verb takes the third person."""
    kind = random.choice(("pronoun", "pronoun", "name", "title", "owned"))
    if kind == "pronoun":
        entry = random.choice(PRONOUNS)
        return word(Noun(entry[0], str(entry[role]))), entry[4]
    if kind == "name":
        return word(random.choice(NAMES)), True
    noun = random.choice(PEOPLE)
    if kind == "title":
        return titled(noun), True
    return joined((owner(random), word(noun)), (0, 1)), True


def titled(noun: Noun) -> Phrase:
    return Phrase((noun.source,), (("the", (), (0,)), (noun.target, (0,), ())))


def owner(random: Random) -> Phrase:
    """我的 → my, 老师的 → the teacher's."""
    if chance(random, 0.6):
        piece, _, _, possessive, _ = random.choice(PRONOUNS)
        return Phrase((piece, "的"), ((possessive, (0,), (1,)),))
    particle = Phrase(("的",), (("'s", (0,), ()),))
    holder = word(random.choice(NAMES)) if chance(random, 0.3) else titled(random.choice(PEOPLE))
    return joined((holder, particle), (0, 1))


def goods(random: Random, kind: str) -> Phrase:
    """Something of a kind, perhaps from a city, somebody's, or good; or two such things."""
    noun = word(random.choice(NOUNS[kind]))
    draw = random.random()
    if kind == "food" and draw < 0.35:
        noun = joined((word(random.choice(CITIES)), noun), (0, 1))
    elif draw < 0.5:
        noun = joined((word(random.choice(ADJECTIVES[kind])), noun), (0, 1))
    elif draw < 0.7:
        noun = joined((owner(random), noun), (0, 1))
    elif draw < 0.85:
        other = word(random.choice(NOUNS[kind]))
        noun = joined((noun, word(Noun("和", "and")), other), (0, 1, 2))
    return noun


def kind_for(random: Random, verb: Verb) -> str:
    return random.choice(tuple(NOUNS)) if verb.takes == "any" else verb.takes


def place(random: Random) -> Phrase:
    at_a_spot = chance(random, 0.4)
    noun = random.choice(SPOTS if at_a_spot else CITIES)
    return located(noun, "at" if at_a_spot else "in")


def located(noun: Noun, preposition: str) -> Phrase:
    """在北京 → in Peking. The noun decides between in and at, so it is a possible source of either."""
    return Phrase(("在", noun.source), ((preposition, (0,), (1,)), (noun.target, (1,), ())))


def when(random: Random, day: str) -> Phrase:
    """昨天 → yesterday, 每天 → every day, 每天早上 → every morning."""
    alone = {"昨天": ("yesterday",), "今天": ("today",), "明天": ("tomorrow",), "每天": ("every", "day")}
    if chance(random, 0.6):
        return Phrase((day,), tuple((piece, (0,), ()) for piece in alone[day]))
    part = random.choice((Noun("早上", "morning"), Noun("晚上", "evening")))
    first = "this" if day == "今天" else alone[day][0]
    return joined((word(Noun(day, first)), word(part)), (0, 1))


def action(verb: Verb, tense: str, *, third: bool, negative: bool) -> Phrase:
    if tense == "future":
        will = Phrase(("不", "会"), (("will", (1,), ()), ("not", (0,), ())))
        return joined((will if negative else word(Noun("会", "will")), word(Noun(verb.source, verb.base))), (0, 1))
    if negative:
        piece, helper = ("没", "did") if tense == "past" else ("不", "does" if third else "do")
        refusal = Phrase((piece,), ((helper, (), (0,)), ("not", (0,), ())))
        return joined((refusal, word(Noun(verb.source, verb.base))), (0, 1))
    if tense == "past":
        return Phrase((verb.source, "了"), ((verb.past, (0,), (1,)),))
    return word(Noun(verb.source, verb.third if third else verb.base))


def doing(random: Random) -> Phrase:
    """我昨天在北京吃了烤鸭 → I ate duck in Peking yesterday."""
    subject, third = person(random, role=1)
    verb = random.choice(ACTIONS)
    days = {"past": ("昨天", "今天"), "future": ("明天",), "present": ("每天",)}
    tense = random.choice(tuple(days))
    time = when(random, random.choice(days[tense])) if chance(random, 0.65) else Phrase((), ())
    spot = place(random) if chance(random, 0.5) else Phrase((), ())
    done = action(verb, tense, third=third, negative=chance(random, 0.2))
    thing = goods(random, kind_for(random, verb))
    if chance(random, 0.3):
        return joined((time, subject, spot, done, thing), (1, 3, 4, 2, 0))
    return joined((subject, time, spot, done, thing), (0, 3, 4, 2, 1))


def feeling(random: Random) -> Phrase:
    """我爱吃北京烤鸭 → I love Peking duck; 他不喜欢老师 → he does not like the teacher."""
    subject, third = person(random, role=1)
    verb = random.choice(FEELINGS)
    done = action(verb, "present", third=third, negative=chance(random, 0.2))
    if chance(random, 0.3):
        return joined((subject, done, person(random, role=2)[0]), (0, 1, 2))
    enjoyed = random.choice(ACTIONS[:3])
    *before, (loves, sure, _) = done.target
    at = len(done.source)
    both = Phrase((*done.source, enjoyed.source), (*before, (loves, sure, (at,))))
    return joined((subject, both, goods(random, enjoyed.takes)), (0, 1, 2))


def meeting(random: Random) -> Phrase:
    subject, third = person(random, role=1)
    verb = random.choice(MEETINGS)
    tense = random.choice(("past", "present")) if verb.base == "see" else "present"
    done = action(verb, tense, third=third, negative=chance(random, 0.2))
    return joined((subject, done, person(random, role=2)[0]), (0, 1, 2))


def finished(phrase: Phrase) -> Pair:
    sure = {Link(at, place) for place, (_, marked, _) in enumerate(phrase.target) for at in marked}
    possible = {Link(at, place) for place, (_, _, marked) in enumerate(phrase.target) for at in marked}
    target = tuple(piece for piece, _, _ in phrase.target)
    return Pair(phrase.source, target, frozenset(sure), frozenset(sure | possible))


def sentence(random: Random) -> Pair:
    kind = random.choices((doing, feeling, meeting), weights=(5, 3, 1))[0]
    return finished(kind(random))


def sentences(seed: int) -> Iterator[Pair]:
    """Endless sentences; the same seed gives the same ones."""
    random = Random(seed)
    while True:
        yield sentence(random)


def vocabulary() -> tuple[str, ...]:
    """Every piece of both languages, Chinese first."""
    nouns = (
        *FOODS,
        *DRINKS,
        *THINGS,
        *PEOPLE,
        *NAMES,
        *CITIES,
        *SPOTS,
        *(a for row in ADJECTIVES.values() for a in row),
    )
    verbs = (*ACTIONS, *FEELINGS, *MEETINGS)
    chinese = [noun.source for noun in nouns] + [verb.source for verb in verbs] + [entry[0] for entry in PRONOUNS]
    english = [noun.target for noun in nouns] + [form for verb in verbs for form in (verb.base, verb.third, verb.past)]
    english += [form for entry in PRONOUNS for form in entry[1:4]]
    return tuple(dict.fromkeys((*chinese, *PARTICLES, *english, *FUNCTION_WORDS)))


def aligned(*chunks: tuple[str, str], order: Sequence[int]) -> Pair:
    """A sentence by hand: source pieces and target pieces of each chunk, `word:sure|possible` counted in the chunk."""

    def phrase(source: str, target: str) -> Phrase:
        rows = [re.fullmatch(r"(.+):(\d*)\|(\d*)", piece) for piece in target.split()]
        words = ((row[1], tuple(map(int, row[2])), tuple(map(int, row[3]))) for row in rows if row)
        return Phrase(tuple(source.split()), tuple(words))

    return finished(joined([phrase(*chunk) for chunk in chunks], order))


EXAMPLES = {
    "我爱吃北京烤鸭": aligned(
        ("我", "I:0|"), ("爱 吃", "love:0|1"), ("北京 烤鸭", "Peking:0| duck:1|"), order=(0, 1, 2)
    ),
    "我昨天在北京吃了烤鸭": aligned(
        ("我", "I:0|"),
        ("昨天", "yesterday:0|"),
        ("在 北京", "in:0|1 Peking:1|"),
        ("吃 了", "ate:0|1"),
        ("烤鸭", "duck:0|"),
        order=(0, 3, 4, 2, 1),
    ),
    "老师的朋友每天早上在学校喝茶": aligned(
        ("老师 的 朋友", "the:|0 teacher:0| 's:1| friend:2|"),
        ("每天 早上", "every:0| morning:1|"),
        ("在 学校", "at:0|1 school:1|"),
        ("喝 茶", "drinks:0| tea:1|"),
        order=(0, 3, 2, 1),
    ),
    "明天她在家会写信": aligned(
        ("明天", "tomorrow:0|"),
        ("她", "she:0|"),
        ("在 家", "at:0|1 home:1|"),
        ("会 写 信", "will:0| write:1| letters:2|"),
        order=(1, 3, 2, 0),
    ),
    "小明不喜欢读报纸和诗": aligned(
        ("小明", "Xiaoming:0|"),
        ("不", "does:|0 not:0|"),
        ("喜欢 读", "like:0|1"),
        ("报纸 和 诗", "newspapers:0| and:1| poems:2|"),
        order=(0, 1, 2, 3),
    ),
}
