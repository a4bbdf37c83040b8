"""Messages in two languages: which is chosen, what an error says when it is asked, and what travels with it."""

import copy
import os
import pickle
import subprocess
import sys
import traceback

import pytest
import torch

import hf_attnviz as av
from hf_attnviz import errors
from hf_attnviz.language import Text, language, speaking, told
from hf_attnviz.storage import described_text, restored_text
from hf_attnviz.trace_file import load

OURS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.AttnvizError)]
SAID = Text("no layer 7; it has: 0, 1", "没有第 7 层；它有：0, 1")


@pytest.mark.parametrize("kind", OURS)
def test_an_error_says_it_in_the_language_chosen_when_it_is_asked(kind: type[errors.AttnvizError]) -> None:
    error = kind(SAID)
    assert str(error) == SAID.en
    with speaking("zh"):
        assert str(error) == f"{error}" == SAID.zh
        assert repr(error) == f"{kind.__name__}({SAID.zh!r})"
        assert SAID.zh in "".join(traceback.format_exception(error))
    av.set_language("zh")
    assert str(error) == SAID.zh
    av.set_language("en")
    assert str(error) == SAID.en
    assert error.args == (SAID,)


@pytest.mark.parametrize("kind", OURS)
def test_an_error_travels_with_both_languages(kind: type[errors.AttnvizError]) -> None:
    carried = pickle.loads(pickle.dumps(kind(SAID)))  # noqa: S301 - our own bytes
    for twin in (carried, copy.deepcopy(kind(SAID)), copy.copy(kind(SAID))):
        assert type(twin) is kind
        assert (twin.args, str(twin)) == ((SAID,), SAID.en)
        with speaking("zh"):
            assert str(twin) == SAID.zh


def test_errors_stay_what_others_catch() -> None:
    """Classes of Python's own that some of ours are, too, have a way of their own to say themselves."""
    assert {base for one in OURS for base in one.__mro__} >= {
        ValueError,
        LookupError,
        OSError,
        ImportError,
        MemoryError,
    }
    saved, package = errors.SaveError(SAID), errors.MissingPackageError(SAID)
    assert isinstance(saved, OSError) and (saved.errno, saved.strerror) == (None, None)
    assert isinstance(package, ImportError) and str(package.msg) == SAID.en
    with speaking("zh"):
        assert [str(saved), str(package), str(package.msg)] == [SAID.zh] * 3
    assert str(errors.ArgumentError("plain", "words")) == "('plain', 'words')"  # type: ignore[call-arg, arg-type]


def test_a_reason_inside_another_message_is_in_its_language() -> None:
    why = told(errors.ProofError(SAID))
    assert why == SAID
    assert told(KeyError("a")) == Text("'a'", "'a'")
    with speaking("zh"):
        assert told(errors.ProofError(SAID)) == SAID
        assert told(errors.ProofError(Text(f"it: {why.en}", f"它：{why.zh}"))).en == f"it: {SAID.en}"


def test_a_real_error_of_each_floor() -> None:
    with speaking("zh"):
        with pytest.raises(errors.UnknownNameError, match=r"未知语言 'fr'；可用：en, zh"):
            av.set_language("fr")
        with pytest.raises(errors.TraceFileError, match="那里没有文件"):
            load("nowhere.safetensors")
        with pytest.raises(errors.UnknownNameError, match=r"没有内置模型 'x'"):
            av.zoo.load("x")
        with pytest.raises(AttributeError, match="hf_attnviz 没有 'haed_view'"):
            av.haed_view  # noqa: B018 - the look-up is the test
        with (
            pytest.raises(errors.NothingCapturedError, match="其中却没有看到注意力"),
            av.capture(torch.nn.Flatten()) as one,
        ):
            one.model(torch.ones(1, 2))


def test_a_file_keeps_a_sentence_in_both_languages() -> None:
    assert restored_text(described_text("why", SAID), "why") == SAID
    assert restored_text(described_text("why", ""), "why") == ""
    assert restored_text({"why": "it ran twice"}, "why") == "it ran twice"  # an older file
    assert restored_text({}, "why") == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LC_ALL": "C"}, "en"),
        ({"LANG": "POSIX"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "de_DE.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
    ],
)
def test_the_locale_is_the_default(environment: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    code = "import hf_attnviz as av; print(av.language.language(), av.errors.ShapeError(av.language.Text('e', 'z')))"
    said = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [expected, expected[0]]


def test_a_choice_wins_over_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert language() == "zh"
    av.set_language("en")
    assert language() == "en"
    with speaking("zh"):
        assert language() == "zh"
    assert language() == "en"
