"""Nothing is said in English only, read from the code: errors, warnings, help, notes, and the scripts of pages."""

import ast
import re
from pathlib import Path

import pytest
import typer

from hf_attnviz import cli, cli_words, errors
from hf_attnviz.language import speaking
from tests.both_languages import CHINESE, House, half_said, in_one_language

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "hf_attnviz").rglob("*.py"), *(ROOT / "apps" / "hf_attnviz_demo").rglob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
OURS = [name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.AttnvizError)]
HOUSE = House.of(TREES.values(), OURS)
SCRIPTS = sorted((ROOT / "hf_attnviz" / "views" / "templates").glob("*.js"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_everything_in_both_languages(path: Path) -> None:
    wrong = [f"{path.relative_to(ROOT)}:{line}: {what}" for line, what in in_one_language(TREES[path], HOUSE)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        'raise ArgumentError("expected one text")',
        'raise ArgumentError(f"expected {one}")',
        'raise av.errors.ShapeError("expected " + name)',
        'raise ArgumentError(Text("a", "甲"), "b")',
        'problem = CaptureError("it is compiled")',
        'raise NotReachedError("not yet")',  # a class of our own further down the house
        'raise kind("a sentence that is no text")',
        'raise ValueError(f"expected one {thing}, got two")',
        'raise ArgumentError(Text("a", "甲") if one else "b")',
        'warnings.warn("it is slow", SlowerWarning)',
        'warnings.warn(f"{module} is slow")',
        'Text("rows sum to one", "rows sum to one")',
        'Text("rows sum to one", "")',
        'Text(f"{n} rows", f"{n} rows each")',
        'Text("mean", "Mean")',
        'Text("每行之和为一", "rows sum to one")',
        'Text("rows sum to one")',
        'typer.Option(help="the text to read")',
        'typer.Option(help=_said("the text", "the text"))',
        'app.command(help="Draw the attention of MODEL.")',
    ],
)
def test_what_is_said_in_english_only_is_found(code: str) -> None:
    assert list(in_one_language(ast.parse(code), HOUSE)), code


@pytest.mark.parametrize(
    "code",
    [
        'raise ArgumentError(Text(f"expected {one}", f"应为 {one}"))',
        'raise ArgumentError(Text("a", "甲") if one else Text("b", "乙"))',
        'why = Text("a", "甲")\nraise CaptureError(told(why))',
        "raise CaptureError(sentences.not_one(3))",
        "raise AttributeError(name)",
        "raise",
        'warnings.warn(str(Text("it is slow", "它很慢")), SlowerWarning)',
        'Text("SmoothGrad", "SmoothGrad")',
        "Text(name, name)",
        'Text("; ", "；")',
        'Text(f"#{number}", f"#{number}")',
        'typer.Option(help="cpu, cuda")',
        'typer.Option(help=_said("the text to read", "要读的文本"))',
    ],
)
def test_what_is_said_in_both_is_not_blamed(code: str) -> None:
    assert not list(in_one_language(ast.parse(code), HOUSE.and_of(ast.parse(code)))), code


def test_every_error_of_the_house_is_looked_at() -> None:
    """The scan sees what is raised: far more than a few, in every room."""
    calls = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    raised = [node for node in calls if getattr(node.func, "id", getattr(node.func, "attr", "")) in HOUSE.errors]
    assert len(raised) > 400
    assert {"NotReachedError", "ArgumentError", "TraceFileError"} <= HOUSE.errors


# ---- the command line


def commands(command, name="attnviz"):
    yield name, command
    for key, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {key}")


def told_in_english(text: str | None) -> bool:
    """Whether help has English words in it that are no names: ``cpu, cuda`` and ``JSON`` are."""
    return bool(text) and not CHINESE.search(text) and not re.fullmatch(r"\w+(, \w+)*", text)


def test_all_help_is_chinese_in_chinese() -> None:
    for name, command in commands(cli_words.in_chinese(typer.main.get_command(cli.app))):
        texts = [command.help, command.short_help, *(getattr(one, "help", None) for one in command.params)]
        assert command.help, name
        assert not [text for text in texts if told_in_english(text) and text != "Show this message and exit."], name
    assert told_in_english("the text to read") and not told_in_english("cpu, cuda") and not told_in_english("同上 x")


VERBS = [name.split()[1:] for name, _ in commands(typer.main.get_command(cli.app))]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_the_whole_help_page_is_chinese(
    attnviz, capsys: pytest.CaptureFixture[str], verb: list[str], behind: bool
) -> None:
    words = [*verb, "--help", "--lang", "zh"] if behind else ["--lang=zh", *verb, "--help"]
    assert attnviz(*words) == 0
    said = capsys.readouterr().out
    assert "用法：" in said and "选项：" in said and "显示本说明。" in said
    for english in ("Usage", "Options", "Arguments", "Commands", "Show this", "default", "required", "COMMAND"):
        assert english not in said, english
    assert max(map(len, said.splitlines())) <= 80
    assert attnviz(*verb, "--help") == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["view"], "错误：缺少参数 'MODEL'。"),
        (["nope"], "错误：没有命令 'nope'。"),
        (["zo"], "是否指 'zoo'？"),
        (["view", "translator", "x", "--nope"], "错误：没有选项 --nope。"),
        (["view", "translator", "x", "--max-new-tokens", "0"], "错误：'--max-new-tokens' 的值无效：应不小于 1"),
        (["view", "translator", "x", "--max-new-tokens", "q"], "错误：'--max-new-tokens' 的值无效：应为整数"),
        (["view", "translator", "a", "b"], "错误：多余的参数：b"),
        (["zoo", "train", "x", "--output"], "错误：选项 '--output' 需要一个值。"),
    ],
)
def test_wrong_words_are_refused_in_chinese(attnviz, capsys, words: list[str], said: str) -> None:
    assert attnviz(*words, "--lang", "zh") == 2
    found = capsys.readouterr().err
    assert said in found.replace("'--nope'", "--nope")
    assert ("用法：" in found) == ("说明见：" in found) == ("Usage" not in found and words[-1] != "--output")
    assert attnviz(*words) == 2
    assert "Error: " in capsys.readouterr().err


def test_the_locale_decides_and_lang_overrules(attnviz, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert attnviz("analyse", "nope", "translator", "x") == 1
    assert "未知分析 'nope'" in capsys.readouterr().err
    assert attnviz("--lang", "en", "analyse", "nope", "translator", "x") == 1
    assert "unknown analysis 'nope'" in capsys.readouterr().err


def test_a_word_behind_two_dashes_is_a_word() -> None:
    assert cli_words.asked_language(["view", "--lang", "zh", "m", "--", "--lang"]) == (
        "zh",
        ["view", "m", "--", "--lang"],
    )
    assert cli_words.asked_language(["--lang=zh", "a"]) == ("zh", ["a"])
    assert cli_words.asked_language(["a", "--lang"]) == (None, ["a", "--lang"])  # click says what is missing


# ---- the scripts of pages


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_everything_in_both_languages(path: Path) -> None:
    wrong = [f"{path.name}:{line}: {what}" for line, what in half_said(path.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        'attnviz.say({en: "Layer"})',
        'attnviz.say({en: "Layer", zh: "Layer two"})',
        'const a = {b: {en: "Layer", nothing: 1}, zh: "层"};',
        'element.textContent = "Layer";',
        "element.textContent = `Layer ${n}`;",
        'element.title = chosen ? "all heads" : {en: "a", zh: "甲"};',
        'element.setAttribute("aria-label", "Zoom in");',
        'attnviz.make("span", {textContent: "Layer"})',
        'attnviz.make("span", {"aria-label": `${n} heads`})',
        'context.fillText("Layer", 0, 0);',
        'box.append("Layer");',
        'throw new Error("the browser is too old");',
    ],
)
def test_english_in_a_script_is_found(code: str) -> None:
    assert list(half_said(code)), code


@pytest.mark.parametrize(
    "code",
    [
        '"use strict";',
        'attnviz.say({en: "Layer", zh: "层"})',
        "attnviz.say({en: `Layer ${n}`, zh: `第 ${n} 层`})",
        'const WORDS = {"Heads": "头", "Layers": "层"};',
        'document.querySelector("#weights tbody td").textContent = attnviz.say(one);',
        "element.style.height = `${n}px`;",
        'element.className = "quiet beaten";',
        'element.textContent = "–";',
        '// it says: element.textContent = "Layer"',
        'if (event.key === "Enter") element.title = attnviz.say(words);',
    ],
)
def test_a_script_in_both_is_not_blamed(code: str) -> None:
    assert not list(half_said(code)), code


def test_words_of_templates_stand_in_both() -> None:
    """HTML has no words of its own but those that both languages are given for."""
    for path in sorted((ROOT / "hf_attnviz" / "views" / "templates").glob("*.html")):
        said = r"\{[{%#].*?[}%#]\}|<(style|script)\b.*?</\1>|<!--.*?-->|&\w+;"
        source = re.sub(said, "", path.read_text(encoding="utf-8"), flags=re.S)
        shown = re.sub(r'<span lang="en">[^<]*</span>\s*<span lang="zh">[^<]*</span>', "", source)
        assert not re.findall(r'\b(?:aria-label|title|alt|placeholder)="[^"]*[A-Za-z]{2,}', shown), path.name
        assert not re.search(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>", "", shown)), path.name
        for english in re.findall(r"\bdata-label-en=", source):
            assert source.count(english) == source.count("data-label-zh="), path.name


def test_speaking_is_not_left_on() -> None:
    with speaking("zh"):
        assert str(cli.Text("a", "甲")) == "甲"
    assert str(cli.Text("a", "甲")) == "a"
