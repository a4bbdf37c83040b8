"""What looks for sentences in one language only: in Python's code by its syntax, in pages' scripts by their tokens."""

import ast
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

CHINESE = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]")
SENTENCE = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,}")


# ---- Python


@dataclass
class House:
    """What is known of all files: the classes of errors, the functions that give a Text, the names that hold one."""

    errors: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=lambda: {"Text", "told"})
    names: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, trees: Iterable[ast.AST], errors: Iterable[str]) -> "House":
        house = cls(set(errors))
        nodes = [node for tree in trees for node in ast.walk(tree)]
        for _ in range(3):  # an error of an error of ours
            for node in nodes:
                if isinstance(node, ast.ClassDef) and any(_last(base) in house.errors for base in node.bases):
                    house.errors.add(node.name)
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and node.returns is not None and _is_text_type(node.returns):
                house.functions.add(node.name)
                house.names |= {node.name} if any(_last(one) == "property" for one in node.decorator_list) else set()
            elif isinstance(node, ast.AnnAssign) and _is_text_type(node.annotation):
                house.names.add(_last(node.target))
            elif isinstance(node, ast.arg) and node.annotation is not None and _is_text_type(node.annotation):
                house.names.add(node.arg)
        for node in nodes:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and house.is_text(node.value):
                house.names |= {_last(one) for one in (node.targets if isinstance(node, ast.Assign) else [node.target])}
        return house

    def and_of(self, tree: ast.AST) -> "House":
        """The same, and what one more file knows."""
        other = House.of([tree], self.errors)
        return House(other.errors, self.functions | other.functions, self.names | other.names)

    def is_text(self, node: ast.expr) -> bool:
        """Whether an expression is a sentence in both languages, as far as one can see."""
        if isinstance(node, ast.IfExp):
            return self.is_text(node.body) and self.is_text(node.orelse)
        if isinstance(node, ast.Call):
            return _last(node.func) in self.functions
        return isinstance(node, ast.Name | ast.Attribute) and _last(node) in self.names


def in_one_language(tree: ast.AST, house: House) -> Iterator[tuple[int, str]]:
    """Where a file says something to people in one language only: the line, and what is wrong."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last(node.func) in house.errors:
            if not (len(node.args) == 1 and house.is_text(node.args[0])):
                yield node.lineno, f"{_last(node.func)} wants one Text"
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            if any(SENTENCE.search(_words(argument)) for argument in node.exc.args if not house.is_text(argument)):
                yield node.lineno, "an error with a sentence that is no Text"
        elif isinstance(node, ast.Call) and _last(node.func) == "warn":
            first = node.args[0]
            if not (isinstance(first, ast.Call) and _last(first.func) == "str" and house.is_text(first.args[0])):
                yield node.lineno, "a warning wants str(Text(…))"
        elif isinstance(node, ast.Call) and _last(node.func) in ("Text", "said", "_said"):
            yield from ((node.lineno, wrong) for wrong in _half(node))
        elif isinstance(node, ast.keyword) and node.arg == "help" and SENTENCE.search(_plain(node.value)):
            yield node.value.lineno, "help that is said in English only"


def _half(call: ast.Call) -> Iterator[str]:
    """What a Text lacks."""
    if any(isinstance(one, ast.Starred) for one in call.args) or call.keywords:
        return
    if len(call.args) != 2:
        yield "a Text wants English and Chinese"
        return
    english, chinese = call.args
    words, own = _words(english), ast.dump(english) == ast.dump(chinese)
    if CHINESE.search(words):
        yield "Chinese where English stands first"
    says = SENTENCE.search(words) or (not own and re.search(r"[A-Za-z]{2,}", words))
    if says and not CHINESE.search(_words(chinese)):
        yield f"no Chinese: {words[:60]!r}"


def _words(node: ast.expr) -> str:
    """The letters that stand in an expression itself, what is filled in left out."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "…".join(_words(part) for part in node.values if isinstance(part, ast.Constant))
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_words(node.body)}…{_words(node.orelse)}"
    return ""


def _plain(node: ast.expr) -> str:
    return _words(node) if isinstance(node, ast.Constant | ast.JoinedStr) else ""


def _last(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_text_type(node: ast.expr) -> bool:
    """``Text``, or ``Text | None``; a ``Text | str`` may be anything."""
    if isinstance(node, ast.BinOp):
        return _is_text_type(node.left) and isinstance(node.right, ast.Constant) and node.right.value is None
    return _last(node) == "Text"


# ---- scripts of pages

_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<space>\s+)"
    r'|(?P<text>"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*')"
    r"|(?P<name>[A-Za-z_$][\w$]*)|(?P<number>\d[\w.]*)|(?P<mark>===|!==|==|!=|=>|<=|>=|&&|\|\||\?\?|[-+*]=|.)",
    re.DOTALL,
)
_PATTERN = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n\[])+/[a-z]*")
_BEFORE_A_PATTERN = {"", "(", ",", "=", ":", "[", "!", "&&", "||", "?", "{", "}", ";", "=>", "return", "===", "??"}
_COMPARED = {"===", "!==", "==", "!=", "case", "in"}
SHOWN_AS = {"textContent", "innerText", "title", "placeholder", "alt", "label", "ariaLabel"}
SHOWN_AS |= {"aria-label", "aria-valuetext", "aria-description", "aria-roledescription"}
SHOWN_BY = {"say", "fillText", "append", "prepend"}  # functions whose own arguments people read
ELEMENTS = {"title", "text", "path", "line", "circle", "rect", "g", "polyline", "polygon", "svg", "span"}  # d3 appends
CHOOSERS = {"querySelector", "querySelectorAll", "closest", "matches", "select", "selectAll"}  # these read selectors


@dataclass(frozen=True)
class Token:
    """A token of JavaScript, and its line (while it is read: its place)."""

    kind: str
    text: str
    line: int


def tokens_of(source: str) -> list[Token]:
    """The tokens of a script, without comments and spaces."""
    found: list[Token] = []
    _read(source, 0, found, nested=False)
    ends = [place for place, letter in enumerate(source) if letter == "\n"]
    return [Token(one.kind, one.text, bisect_left(ends, one.line) + 1) for one in found]


def _read(source: str, at: int, found: list[Token], *, nested: bool) -> int:
    """Read tokens from a place on, inside ``${…}`` up to its end; gives the place behind."""
    depth = 0
    while at < len(source):
        line, before = at, found[-1].text if found else ""
        if source[at] == "`":
            at = _template(source, at + 1, found)
            continue
        pattern = _PATTERN.match(source, at) if source[at] == "/" and before in _BEFORE_A_PATTERN else None
        one = _TOKEN.match(source, at)
        assert one is not None
        if pattern is not None and one.lastgroup != "comment":
            found.append(Token("pattern", pattern[0], line))
            at = pattern.end()
            continue
        if nested and one[0] == "}" and depth == 0:
            return one.end()
        depth += (one[0] == "{") - (one[0] == "}")
        if one.lastgroup not in ("comment", "space"):
            found.append(Token(str(one.lastgroup), one[0], line))
        at = one.end()
    return at


def _template(source: str, at: int, found: list[Token]) -> int:
    """A template literal as its stretches and what is filled in, joined by ``+``."""
    begin, letters = at, ""
    while source[at] != "`":
        if source.startswith("${", at):
            line = begin
            found += [Token("text", f"`{letters}`", line), Token("mark", "+", line), Token("mark", "(", line)]
            at = _read(source, at + 2, found, nested=True)
            found += [Token("mark", ")", line), Token("mark", "+", line)]
            begin, letters = at, ""
        else:
            step = 2 if source[at] == "\\" else 1
            letters, at = letters + source[at : at + step], at + step
    found.append(Token("text", f"`{letters}`", begin))
    return at + 1


def half_said(source: str) -> Iterator[tuple[int, str]]:
    """Where a script has English without Chinese: the line, and the words."""
    tokens = tokens_of(source)
    yield from _pairs(tokens)
    for n, token in enumerate(tokens):
        if token.kind != "text" or _of_pair(tokens, n) or _function(tokens, n) in CHOOSERS:
            continue
        sentence = re.search(r"(?:[A-Za-z]{2,} ){2,}[A-Za-z]{2,}", token.text)
        if sentence or (re.search(r"[A-Za-z]{2,}", token.text) and _is_shown(tokens, n)):
            yield token.line, token.text[:60]


def _function(tokens: list[Token], n: int) -> str:
    """The function that a text is given to by itself."""
    return tokens[n - 2].text if n > 1 and tokens[n - 1].text == "(" else ""


def _pairs(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    """Each ``en:`` has a ``zh:`` in the same braces, of which a text has Chinese in it, unless both are one."""
    for n, token in enumerate(tokens[:-2]):
        if token.text != "en" or tokens[n + 1].text != ":" or tokens[n - 1].text not in ("{", ","):
            continue
        english, place = _value(tokens, n + 2)
        if tokens[place].text != "," or tokens[place + 1].text != "zh":
            yield token.line, f"{english[:50]} without zh"
            continue
        chinese, _ = _value(tokens, place + 3)
        if re.search(r"[A-Za-z]{2,}", english) and english != chinese and not CHINESE.search(chinese):
            yield token.line, f"{english[:50]} without Chinese"


def _value(tokens: list[Token], n: int) -> tuple[str, int]:
    """The letters of the value that begins at a token, and the place behind it."""
    depth, letters = 0, []
    while n < len(tokens) - 1 and not (depth == 0 and tokens[n].text in (",", "}")):
        depth += (tokens[n].text in ("{", "[", "(")) - (tokens[n].text in ("}", "]", ")"))
        letters += [tokens[n].text[1:-1]] if tokens[n].kind == "text" and tokens[n].text not in ('"en"', '"zh"') else []
        n += 1
    return "".join(letters), n


def _of_pair(tokens: list[Token], n: int) -> bool:
    """Whether a text stands in ``{en: …, zh: …}``, or is a key whose value is Chinese, or that value."""
    key = n + 3 < len(tokens) and tokens[n - 1].text in ("{", ",") and tokens[n + 1].text == ":"
    after = tokens[n + 2 : n + 4]
    if key and (CHINESE.search(after[0].text) or [one.text for one in after] == ["{", "en"]):
        return True
    if CHINESE.search(tokens[n].text) or tokens[n].text in ('"en"', '"zh"'):
        return True
    depth = 0
    for m in range(n - 1, 0, -1):
        depth += (tokens[m].text in ("}", "]", ")")) - (tokens[m].text in ("{", "[", "("))
        if depth <= 0 and tokens[m].text in ("en", "zh") and tokens[m + 1].text == ":":
            return True
        if tokens[m].text in (";", "=>") or (depth < 0 and tokens[m].text == "{"):
            return False
    return False


def _is_shown(tokens: list[Token], n: int) -> bool:
    """Whether a text, alone or behind a ``?``, a ``:`` or a ``+``, goes where people read."""
    if n and tokens[n - 1].text in _COMPARED:
        return False
    depth, comma = 0, False
    for m in range(n - 1, 0, -1):
        text, name = tokens[m].text, tokens[m - 1].text.strip("\"'`")
        depth += (text in ("}", "]", ")")) - (text in ("{", "[", "("))
        if depth > 0 or (text == "(" and depth == 0):
            continue
        if depth < 0:  # what the text stands in, itself: the arguments of a function, a list, an object, a block
            if text == "(" and tokens[m - 1].kind != "name":  # brackets round a part of a sum or a choice
                depth = 0
                continue
            attribute = tokens[m + 1].text.strip("\"'`")
            if text == "(" and name in ("append", "prepend") and tokens[n].text.strip("\"'`") in ELEMENTS:
                return False
            return text == "(" and (name in SHOWN_BY or (name == "setAttribute" and comma and attribute in SHOWN_AS))
        comma = comma or text == ","
        if text in ("=", "+=") and not comma:
            return name in SHOWN_AS
        if text == ":" and not comma and name in SHOWN_AS:
            return True
        if text in (";", "=>", "return"):
            return False
    return False
