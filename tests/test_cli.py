"""The command line: what it writes, what it says when something is wrong, and its exit status."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import transformers
from rich.cells import cell_len

import hf_attnviz as av
from hf_attnviz import cli


@pytest.fixture(scope="session")
def no_attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose model has no attention."""
    folder = tmp_path_factory.mktemp("models") / "mamba"
    loaded = av.zoo.load("induction")
    config = transformers.MambaConfig(
        vocab_size=len(loaded.processor), hidden_size=16, num_hidden_layers=1, state_size=4, eos_token_id=None
    )
    transformers.MambaForCausalLM(config).save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["head", "model", "neuron"])
def test_view_writes_one_page(attnviz, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("view", "translator", "我爱吃北京烤鸭", "--view", kind, "-o", "page.html") == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "烤鸭" in page
    assert "duck" in page
    assert "page.html" in capsys.readouterr().out


def test_print_draws_in_the_terminal(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for kind in ("heatmap", "tokens", "bars"):
        assert attnviz("print", "translator", "我爱吃北京烤鸭", "--view", kind, "--width", "72") == 0
        said[kind] = capsys.readouterr().out
        assert max(map(cell_len, said[kind].splitlines())) <= 72
    trace = av.trace_text(av.load_model("translator"), "我爱吃北京烤鸭")
    weight = float(trace.cross.layer(1).weights.double().mean(0)[1, 1])
    line = next(line for line in said["heatmap"].splitlines() if line.startswith("→ love"))
    assert line.split()[2:5] == ["0", f"{weight:.3g}", "█"]
    assert "mean over queries" in said["tokens"]
    assert "entropy" in said["bars"]
    assert attnviz("print", "translator", "我爱", "--view", "tokens", "--query", "0", "--stack", "encoder") == 0
    assert "encoder · layer 1" in capsys.readouterr().out
    assert attnviz("print", "translator", "我爱", "--view", "cake") == 1
    assert "known: heatmap, tokens, bars" in capsys.readouterr().err


def test_view_keeps_the_trace(attnviz) -> None:
    assert attnviz("view", "induction", "sun moon sun", "--save-trace", "t.safetensors", "--layer", "1") == 0
    trace = av.load("t.safetensors")
    assert trace.decoder.layers == (1,)
    assert trace.decoder.queries.texts[:4] == ("<s>", "sun", "moon", "sun")
    assert trace.model == "induction"


def test_report_holds_every_part(attnviz) -> None:
    assert attnviz("--lang", "zh", "report", "translator", "我爱吃北京烤鸭", "-o", "report.html") == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert '<html lang="zh' in page
    for part in ("Head view", "Head statistics", "Head correlation", "Attention rollout", "Evolution"):
        assert part in page


def test_doctor_speaks_json(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("doctor", "translator", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert {f["kind"] for f in found["findings"]} == {"self", "cross"}
    assert {f["grade"] for f in found["findings"]} == {"exact"}


def test_doctor_draws_a_table(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("doctor", "induction") == 0
    said = capsys.readouterr().out
    assert "transformer.h.0.attn" in said
    assert "2 of 2 maps proved exact" in said


def test_doctor_fails_where_there_is_nothing_to_prove(
    attnviz, no_attention: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert attnviz("doctor", str(no_attention), "--text", "sun moon") == 1
    said = capsys.readouterr().out
    assert "a state-space model" in said
    assert "there is nothing to prove: this model has no attention map" in said
    assert "0 of 0 maps proved exact; 1 named as no attention" in said
    assert "refused" not in said
    assert attnviz("doctor", str(no_attention), "--text", "sun moon", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], [one["grade"] for one in found["findings"]]) == (False, ["none"])
    assert "nothing to prove" in found["reason"]


def test_zoo_list_names_models_and_examples(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("zoo", "list") == 0
    said = capsys.readouterr().out
    assert "induction" in said
    assert "    我爱吃北京烤鸭" in said


def test_every_analysis_of_one_trace_has_a_name(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("analyse", "mind_reading", "induction", "sun") == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("rollout", "head_statistics", "head_correlation", "evolution"))
    assert "compare" not in said
    assert set(av.analyses()) <= set(av.__all__)


@pytest.mark.parametrize("name", sorted(av.analyses()))
def test_analyse_prints_and_writes_the_numbers(attnviz, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = "translator" if name.startswith("alignment") else "induction"
    ended = attnviz("analyse", name, model, "sun moon sun", "--max-new-tokens", "4", "-o", "x.json")
    said, complained = capsys.readouterr()
    analysis = av.analyses()[name]
    trace = av.trace_text(
        av.load_model(model),
        "sun moon sun",
        max_new_tokens=4,
        keep=list(analysis.keep),
        generate=False if analysis.plain else None,
    )
    if name in ("image_distance", "word_times"):  # of pictures and of sound
        with pytest.raises(av.errors.AttnvizError) as told:
            analysis(trace)
        assert (ended, complained) == (1, f"attnviz: {told.value}\n")
        return
    wanted, found = analysis(trace), json.loads(Path("x.json").read_text(encoding="utf-8"))
    assert ended == 0
    assert wanted.method in said
    assert [axis["name"] for axis in found["axes"]] == [axis.name for axis in wanted.axes]
    values = torch.tensor(_nan(found["values"]), dtype=torch.float64)
    torch.testing.assert_close(values, wanted.values.double(), atol=1e-12, rtol=0, equal_nan=True)
    assert all(note.en in said for note in wanted.notes)


def _nan(value):
    return [_nan(one) for one in value] if isinstance(value, list) else float("nan" if value is None else value)


def test_the_short_table_names_the_least_and_the_largest(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("analyse", "head_statistics", "induction", "sun moon sun", "--max-new-tokens", "4") == 0
    trace = av.trace_text(av.load_model("induction"), "sun moon sun", max_new_tokens=4)
    values = av.head_statistics(trace).select(statistic="entropy").values
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("entropy"))
    ends = [f"{end.item():.4g}  L{int(place) // 4}H{int(place) % 4}" for end, place in (
        (values.min(), values.argmin()), (values.max(), values.argmax())
    )]  # fmt: skip
    assert [part for part in line.split("   ") if part.strip()][1].strip() == f"{values.mean().item():.4g}"
    assert all(end in line for end in ends)


def test_analyse_takes_arguments_and_writes_tables_and_pictures(attnviz) -> None:
    words = ("analyse", "head_correlation", "translator", "我爱吃北京烤鸭", "--stack", "cross", "--set", "method=js")
    for ending, start in (("csv", b"head,other_head"), ("png", b"\x89PNG"), ("html", b"<!doctype html>")):
        assert attnviz(*words, "-o", f"x.{ending}") == 0
        assert Path(f"x.{ending}").read_bytes().startswith(start)
    rows = Path("x.csv").read_text(encoding="utf-8").splitlines()
    trace = av.trace_text(av.load_model("translator"), "我爱吃北京烤鸭")
    wanted = av.head_correlation(trace, stack="cross", method="js").values
    assert float(rows[2].split(",")[-1]) == pytest.approx(wanted[0, 1].item(), abs=1e-6)


def test_compare_two_texts_around_a_word(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", "induction", "sun moon star", "star moon", "--word", "moon", "--others", "apart")
    assert attnviz(*words, "-o", "x.html") == 0
    said = capsys.readouterr().out
    loaded = av.load_model("induction")
    traces = [av.trace_text(loaded, text, generate=False) for text in ("sun moon star", "star moon")]
    means = av.compare(*traces, by="word", word="moon", others="apart").values.double().nanmean((1, 2))
    line = next(line for line in said.splitlines() if line.strip().startswith("moon")).split()
    assert line == ["moon", *(f"{value:.4g}" for value in means[:, 1].tolist())]
    assert next(line for line in said.splitlines() if line.strip().startswith("sun")).split()[2:] == ["–", "–"]
    assert "What “moon” looks at" in Path("x.html").read_text(encoding="utf-8")


def test_compare_two_models_on_one_text_and_occurrences(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("compare", "induction", "sun moon", "--other-model", "induction") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines() if " js " in line] == [
        ["js", "0", "0", "L0H0", "0", "L0H0"]
    ]
    words = ("compare", "induction", "sun moon sun", "moon sun", "--word", "sun")
    assert attnviz(*words) == 1
    assert "choose with occurrence=…" in capsys.readouterr().err
    assert attnviz(*words, "--occurrence", "1", "--occurrence", "0") == 0
    assert attnviz(*words, "--occurrence", "0", "--direction", "to", "--by", "head") == 0
    assert "change_in_received" in capsys.readouterr().out


def test_trust_says_its_verdicts(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("trust", "induction", "sun moon star sun", "--method", "attention", "-o", "x.html") == 0
    said = capsys.readouterr().out
    found = av.trust(av.load_model("induction"), "sun moon star sun", methods=["attention"])
    assert f"attention: {found.verdicts['attention']}" in said
    assert found.sentences["attention"].en in said
    assert Path("x.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_version(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("--version") == 0
    assert capsys.readouterr().out == f"attnviz {av.__version__}\n"


@pytest.fixture
def long_text(attnviz) -> Path:
    """Three thousand words, one of them a fruit."""
    words = [("sun", "moon", "star", "rain", "snow")[n % 5] for n in range(3_000)]
    words[1_999] = "mango"
    Path("long.txt").write_text(" ".join(words), encoding="utf-8")
    return Path("long.txt")


def test_a_long_text_is_read_from_a_file_and_told_without_maps(
    attnviz, long_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("wordfinder", "--text-file", str(long_text), "--max-new-tokens", "2")
    assert attnviz("report", *words, "-o", "report.html") == 0
    said = capsys.readouterr()
    assert "the maps of 3,002 tokens would take 0.3 GB: statistics are kept instead (--keep maps" in said.err
    assert "report.html" in said.out
    page = Path("report.html").read_text(encoding="utf-8")
    for part in ("Along the text", "Head statistics", "Head correlation", "needs the weights themselves"):
        assert part in page
    assert len(page) < 5_000_000
    assert attnviz("--lang", "zh", "view", *words, "-o", "view.html") == 0
    assert "改为保留统计量" in capsys.readouterr().err
    assert "沿 3,002 个词元" in Path("view.html").read_text(encoding="utf-8")
    assert attnviz("analyse", "received", *words, "-o", "received.csv") == 0
    table = [line.split(",") for line in Path("received.csv").read_text(encoding="utf-8").splitlines()]
    values = {row[2]: float(row[6]) for row in table[1:] if row[:2] == ["0", "2"]}
    assert sorted(values, key=lambda key: values[key])[-2:] in (["0", "2000"], ["2000", "0"])
    for analysis in ("rollout", "head_correlation", "head_statistics"):
        assert attnviz("analyse", analysis, *words, "--no-generate") == 0
        assert "undefined" not in capsys.readouterr().err


def test_what_is_kept_may_be_chosen(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("report", "induction", "sun moon sun", "--keep", "statistics", "-o", "r.html") == 0
    assert "would take" not in capsys.readouterr().err  # it was asked for
    page = Path("r.html").read_text(encoding="utf-8")
    assert "Along the text" in page and "Head view" not in page
    kept = ("--keep", "maps", "--keep", "statistics", "--save-trace", "t.safetensors")
    assert attnviz("view", "induction", "sun moon sun", "--view", "long", *kept) == 0
    trace = av.load("t.safetensors")
    assert trace.decoder.maps[0].has_weights and "statistics" in trace.decoder.maps[0].reduced
    assert attnviz("view", "induction", "sun moon sun", "--keep", "statistics", "--view", "head") == 1
    assert 'capture with keep="maps"' in capsys.readouterr().err


BAD = {
    "no text": (["view", "induction"], "a text, --text-file FILE or --input FILE; got neither"),
    "two texts": (["report", "induction", "sun", "--text-file", "x.txt"], "--input FILE; got both"),
    "no such file": (["analyse", "rollout", "induction", "--text-file", "x.txt"], "cannot read 'x.txt'"),
    "unknown keep": (
        ["report", "induction", "sun", "--keep", "all"],
        "keep='all' is not known; known: maps, statistics",
    ),
    "unknown model": (["view", "no-such-model", "x"], "induction, translator"),
    "unknown view": (["view", "induction", "sun", "--view", "brain"], "head, model, neuron"),
    "unknown stack": (["view", "induction", "sun", "--stack", "cross"], "it has: decoder"),
    "unknown layer": (["view", "induction", "sun", "--layer", "7"], "layers 0 to 1"),
    "unknown language": (["--lang", "fr", "zoo", "list"], "known: en, zh"),
    "empty text": (["view", "induction", "  "], "text is empty"),
    "over-long text": (["view", "induction", "sun " * 500], "reads at most"),
    "missing folder": (["view", "induction", "sun", "-o", "no/such/folder/page.html"], "nothing was changed"),
    "unknown format": (["view", "induction", "sun", "-o", "page.gif"], "formats it has: html"),
    "unknown format of a report": (["report", "no-such-model", "sun", "-o", "page.gif"], "formats it has: html"),
    "unknown format of numbers": (["analyse", "rollout", "no-such-model", "x", "-o", "x.gif"], "pdf, csv, json"),
    "no ending": (["compare", "no-such-model", "x", "y", "-o", "page"], "a file without ending"),
    "a trace is no pickle": (
        ["view", "no-such-model", "x", "--save-trace", "t.pt"],
        "ends in .safetensors, not 't.pt'",
    ),
    "unknown argument": (["analyse", "rollout", "induction", "x", "--set", "no=1"], "takes: stack, residual"),
    "wrong kind": (["analyse", "rollout", "induction", "x", "--set", "residual=much"], "expected a float"),
    "one text": (["compare", "induction", "sun"], "--other-model"),
    "no such word": (["compare", "induction", "sun", "moon", "--word", "moon"], "no word 'moon'; it has: <s>, sun"),
    "three occurrences": (["compare", "induction", "sun", "sun", *["--occurrence", "0"] * 3], "once or twice"),
    "markup in a name": (["view", "[/red][bold]x", "sun"], "[/red][bold]x"),
    "unknown recipe": (["zoo", "train", "nothing", "-o", "new"], "induction, translator"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_words_and_loses_nothing(attnviz, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("attention.html").write_text("what stood here before")
    words, expected = BAD[case]
    assert attnviz(*words) == 1
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    assert Path("attention.html").read_text() == "what stood here before"
    assert [path.name for path in Path().iterdir()] == ["attention.html"]


def test_a_model_without_attention_is_told(attnviz, no_attention: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("view", str(no_attention), "sun moon") == 1
    assert "has no attention map: its positions look at one another by other means" in capsys.readouterr().err


def test_markup_in_a_text_is_text(attnviz) -> None:
    """The words are unknown to the model, yet nothing breaks and nothing runs."""
    assert attnviz("view", "induction", "[/red] </script><script>alert(1)</script> $\\frac{$") == 0
    assert "<script>alert(1)" not in Path("attention.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"allow": (), "port": None}),
        (["--allow", "some/model", "--allow", "./folder"], {"allow": ("some/model", "./folder"), "port": None}),
        (["--port", "7999"], {"allow": (), "port": 7999}),
    ],
)
def test_the_demo_is_started_as_asked(attnviz, monkeypatch: pytest.MonkeyPatch, words, expected) -> None:
    asked = []
    stub = EntryPoint("demo", f"{__name__}:serve", "hf_attnviz.apps")
    monkeypatch.setattr(cli, "entry_points", lambda group: [stub] if group == "hf_attnviz.apps" else [])
    monkeypatch.setitem(globals(), "serve", lambda *args, **options: asked.append((args, options)))
    assert attnviz("demo", *words) == 0
    assert asked == [((), expected)]


def test_a_pair_that_nothing_parts_is_refused(attnviz, capsys: pytest.CaptureFixture[str]) -> None:
    assert attnviz("view", "translator", "我爱", "--pair", "你") == 1
    assert "knows no pairs" in capsys.readouterr().err


def test_a_picture_takes_its_arguments_and_the_width_of_a_column(attnviz, capsys) -> None:
    asked = ("view", "translator", "我爱吃北京烤鸭", "--view", "alignment", "--set", "threshold=0.5")
    assert attnviz(*asked, "-o", "x.svg", "--columns", "1") == 0
    assert 'width="234pt"' in Path("x.svg").read_text(encoding="utf-8")  # 3.25 inches
    assert attnviz("view", "induction", "sun moon sun", "--set", "hide=special", "--set", "renormalise=true") == 0
    assert attnviz("view", "induction", "sun moon sun", "--set", "colour=red") == 1
    assert "no argument 'colour'" in capsys.readouterr().err


def test_what_is_printed_may_be_read_from_a_file(attnviz, capsys) -> None:
    Path("x.txt").write_text("sun moon sun", encoding="utf-8")
    assert attnviz("print", "induction", "--text-file", "x.txt") == 0
    assert "moon" in capsys.readouterr().out
