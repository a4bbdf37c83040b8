"""Two traces compared: the right numbers under the right labels, the laws, and what is refused."""

import itertools
import math

import pytest
import torch

import hf_attnviz as av
from tests.functional import reference_compare as reference
from tests.models import ids, tiny
from tests.views.builders import rows, translation

FRUIT = ["[CLS]", "i", "ate", "an", "app", "le", "an", "hour", "ago", "[SEP]"]
FIRM = ["[CLS]", "app", "le", "sold", "an", "hour", "[SEP]"]


def labels(texts: list[str]) -> av.Labels:
    """Each text a word, "app" and "le" one together, brackets special."""
    words, number = [], 0
    for text in texts:
        number += text != "le"
        words.append(None if text.startswith("[") else number)
    kinds = ["special" if text.startswith("[") else "text" for text in texts]
    return av.Labels.of(texts, [None] * len(texts), words, kinds)


def trace(
    texts: list[str] | av.Labels, *, seed: int = 0, heads: int = 3, layers: int = 2, causal: bool = False
) -> av.Trace:
    ends = texts if isinstance(texts, av.Labels) else labels(texts)
    size = len(ends)
    return av.Trace(
        tuple(
            av.AttentionMap(
                rows(heads, size, size, seed + layer, causal=causal).double(), ends, ends, "encoder", layer,
                positions=tuple(range(size)),
            )
            for layer in range(layers)
        ),
        model="made by hand",
    )  # fmt: skip


def at(result: av.Result, statistic: str, layer: int, head: int, label: str | None = None) -> float:
    values = result.values[result.axis("statistic").labels.index(statistic), layer, head]
    return float(values if label is None else values[result.axes[-1].labels.index(label)])


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0, equal_nan=True)


def test_one_text_head_by_head() -> None:
    first, second = trace(FRUIT), trace(FRUIT, seed=7)
    result = av.compare(first, second)
    assert [axis.name for axis in result.axes] == ["statistic", "layer", "head"]
    before, after = av.head_statistics(first), av.head_statistics(second)
    for layer, head in itertools.product(range(2), range(3)):
        sides = [[one.encoder.head(layer, head).tolist()] for one in (first, second)]
        size = len(FRUIT)
        js, pearson = reference.maps(*sides, [[True] * size], [[True] * size], list(range(size)), False)
        assert at(result, "js", layer, head) == pytest.approx(js, abs=1e-9)
        assert at(result, "pearson", layer, head) == pytest.approx(pearson, abs=1e-9)
        for name in before.axis("statistic").labels:
            wanted = at(after, name, layer, head) - at(before, name, layer, head)
            assert at(result, f"change_in_{name}", layer, head) == pytest.approx(wanted, abs=1e-12), name


def test_a_causal_text_counts_what_the_mask_allows() -> None:
    first, second = (trace(FRUIT, seed=seed, causal=True) for seed in (0, 7))
    result = av.compare(first, second)
    sides = [[one.encoder.head(1, 2).tolist()] for one in (first, second)]
    js, pearson = reference.maps(*sides, [[True] * 10], [[True] * 10], list(range(10)), True)
    assert (at(result, "js", 1, 2), at(result, "pearson", 1, 2)) == pytest.approx((js, pearson), abs=1e-9)
    assert math.isnan(at(result, "change_in_next_token", 0, 0))
    assert any("next_token is impossible" in note.en for note in result.notes)


CASES = {
    "heads": {},
    "heads without special": {"without_special": True},
    "averaged": {"average": True},
    "a word by head": {"word": "apple"},
    "a word by word": {"word": "apple", "by": "word"},
    "who looks at it": {"word": "apple", "by": "word", "direction": "to"},
    "received": {"word": "apple", "direction": "to", "without_special": True},
    "maps by word": {"by": "word"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_trace_compared_with_itself_has_no_difference(case: str) -> None:
    one = trace(FRUIT)
    result = av.compare(one, one, **CASES[case])
    for name in result.axis("statistic").labels:
        values = result.select(statistic=name).values
        if name == "pearson":
            same(values, torch.ones_like(values))
        elif name not in ("first", "second"):
            assert not values.any(), name


@pytest.mark.parametrize("case", CASES)
def test_the_other_way_round_changes_the_sign_only(case: str) -> None:
    texts = (FRUIT, FRUIT) if case == "maps by word" else (FRUIT, FIRM)
    first, second = trace(texts[0]), trace(texts[1], seed=7)
    there, back = (av.compare(*pair, **CASES[case]) for pair in ((first, second), (second, first)))
    last = there.axes[-1].labels
    order = (
        list(range(len(last)))
        if first.encoder.keys == second.encoder.keys
        else [back.axes[-1].labels.index(label) for label in last]
    )
    for name in there.axis("statistic").labels:
        one, other = (result.select(statistic=name).values for result in (there, back))
        turned = {"first": "second", "second": "first"}.get(name)
        if turned:
            same(one, back.select(statistic=turned).values[..., order])
        else:
            same(one, other[..., order] * (-1 if name.startswith("change") else 1))


@pytest.mark.parametrize("case", [case for case in CASES if case != "averaged"])
def test_permuting_heads_permutes(case: str) -> None:
    texts = (FRUIT, FRUIT) if case == "maps by word" else (FRUIT, FIRM)

    def turned(one: av.Trace) -> av.Trace:
        ends = one.encoder.keys
        return av.Trace(
            tuple(
                av.AttentionMap(m.weights[[2, 0, 1]], ends, ends, "encoder", m.layer, positions=m.positions)
                for m in one.maps
            )
        )

    first, second = trace(texts[0]), trace(texts[1], seed=7)
    result = av.compare(first, second, **CASES[case])
    same(av.compare(turned(first), turned(second), **CASES[case]).values, result.values[:, :, [2, 0, 1]])


def test_what_a_word_looks_at_in_two_texts() -> None:
    first, second = trace(FRUIT), trace(FIRM, seed=7)
    result = av.compare(first, second, by="word", word="apple")
    assert result.axis("key").labels == ("[CLS]", "an", "apple", "hour", "[SEP]", "(others)")
    places = ([[0], [3], [4, 5], [7], [9], [1, 2, 6, 8]], [[0], [4], [1, 2], [5], [6], [3]])
    queries = ([4, 5], [1, 2])
    for layer, head in itertools.product(range(2), range(3)):
        wanted = []
        for one, groups, pieces in zip((first, second), places, queries, strict=True):
            matrix = one.encoder.head(layer, head).tolist()
            wanted.append([sum(matrix[i][j] for i in pieces for j in group) / 2 for group in groups])
        assert result.values[0, layer, head].tolist() == pytest.approx(wanted[0], abs=1e-12)
        assert result.values[1, layer, head].tolist() == pytest.approx(wanted[1], abs=1e-12)
        change = [after - before for before, after in zip(*wanted, strict=True)]
        assert result.values[2, layer, head].tolist() == pytest.approx(change, abs=1e-12)
        js = reference.divergence(*wanted)
        assert at(av.compare(first, second, word="apple"), "js", layer, head) == pytest.approx(js, abs=1e-9)
    assert any("in the first i, ate, an (2), ago; in the second sold" in note.en for note in result.notes)
    assert any("2 and 2 pieces" in note.en for note in result.notes)


def test_what_uniform_attention_would_give_counts_the_pieces_a_row_may_see() -> None:
    """The word's last piece stands on place 5 and 2: causal rows see 6 and 3 pieces, others all 10 and 7."""
    for causal, seen in ((True, (6, 3)), (False, (10, 7))):
        result = av.compare(
            trace(FRUIT, causal=causal), trace(FIRM, seed=7, causal=causal), by="word", word="apple"
        )  # fmt: skip
        said = f"each token {1 / seen[0]:.3f} in the first text and {1 / seen[1]:.3f} in the second"
        assert any(said in note.en for note in result.notes)


def test_words_that_only_one_text_has_may_stand_apart() -> None:
    first, second = trace(FRUIT), trace(FIRM, seed=7)
    result = av.compare(first, second, by="word", word="apple", others="apart")
    assert result.axis("key").labels == ("[CLS]", "an", "apple", "hour", "[SEP]", "i", "ate", "an (2)", "ago", "sold")
    row = first.encoder.head(1, 2)[4:6].mean(0)
    assert at(result, "first", 1, 2, "an (2)") == pytest.approx(row[6].item(), abs=1e-12)
    assert result.values[1:, ..., 5:9].isnan().all()
    assert result.values[[0, 2], ..., 9].isnan().all()
    pooled = av.compare(first, second, by="word", word="apple")
    same(result.values[..., :5], pooled.values[..., :5])
    same(result.values[0, ..., 5:9].sum(-1), pooled.values[0, ..., 5])
    assert any("undefined in the other" in note.en for note in result.notes)
    with pytest.raises(av.errors.ArgumentError, match='by="word" and word='):
        av.compare(first, second, word="apple", others="apart")


def test_who_looks_at_a_word() -> None:
    first, second = trace(FRUIT), trace(FIRM, seed=7)
    result = av.compare(first, second, by="word", word="apple", direction="to")
    assert result.axis("query").labels == ("[CLS]", "an", "apple", "hour", "[SEP]", "(others)")
    matrix = first.encoder.head(1, 2).tolist()
    to = [sum(row[j] for j in (4, 5)) for row in matrix]
    wanted = [to[0], to[3], (to[4] + to[5]) / 2, to[7], to[9], (to[1] + to[2] + to[6] + to[8]) / 4]
    assert result.values[0, 1, 2].tolist() == pytest.approx(wanted, abs=1e-12)
    received = av.compare(first, second, word="apple", direction="to")
    matrix = second.encoder.head(1, 2).tolist()
    after = sum(row[1] + row[2] for n, row in enumerate(matrix) if n not in (1, 2)) / 5
    before = sum(value for n, value in enumerate(to) if n not in (4, 5)) / 8
    assert at(received, "change_in_received", 1, 2) == pytest.approx(after - before, abs=1e-12)


def test_the_row_of_a_word_in_numbers() -> None:
    first, second = trace(FRUIT, causal=True), trace(FIRM, seed=7, causal=True)
    result = av.compare(first, second, word="apple")
    numbers = []
    for one, pieces, own, choices in ((first, (4, 5), 4, 5), (second, (1, 2), 1, 2)):
        matrix = one.encoder.head(0, 1).tolist()
        pooled = reference.pool(matrix, one.encoder.keys.words, one.encoder.keys.words)[own]
        assert pooled[own] == pytest.approx(sum(matrix[i][j] for i in pieces for j in pieces) / 2)
        numbers.append(reference.row(pooled, own, [n in (0, len(pooled) - 1) for n in range(len(pooled))], choices))
    for name in numbers[0]:
        assert at(result, f"change_in_{name}", 0, 1) == pytest.approx(numbers[1][name] - numbers[0][name], abs=1e-9)


def test_without_special_tokens_rows_sum_to_one_again_and_say_what_was_left_out() -> None:
    first, second = trace(FRUIT), trace(FIRM, seed=7)
    result = av.compare(first, second, by="word", word="apple", without_special=True)
    assert result.axis("key").labels == ("an", "apple", "hour", "(others)")
    same(result.values[:2].sum(-1), torch.ones(2, 2, 3, dtype=torch.float64))
    row = first.encoder.head(1, 0)[4:6].tolist()
    kept = [reference.renormalise(one, [n in (0, 9) for n in range(10)])[0] for one in row]
    assert at(result, "first", 1, 0, "an") == pytest.approx((kept[0][3] + kept[1][3]) / 2, abs=1e-12)
    shares = [one.encoder.stacked()[:, :, 1:-1][..., [0, -1]].sum(-1).mean().item() for one in (first, second)]
    assert any(f"{shares[0]:.0%} of all weight in the first text and {shares[1]:.0%}" in n.en for n in result.notes)
    assert "change_in_special_tokens" not in av.compare(
        first, second, word="apple", without_special=True
    ).axis("statistic").labels  # fmt: skip


def test_maps_word_by_word_whatever_the_pieces() -> None:
    """One text in two vocabularies: apple is two pieces in the one and one in the other."""
    kinds = ["special", "text", "text", "special"]
    whole = av.Labels.of(["[CLS]", "apple", "an", "[SEP]"], [None] * 4, [None, 0, 1, None], kinds)
    first, second = trace(["[CLS]", "app", "le", "an", "[SEP]"]), trace(whole, seed=7)
    result = av.compare(first, second, by="word")
    assert result.axis("query").labels == ("[CLS]", "apple", "an", "[SEP]")
    matrix = first.encoder.head(0, 0)
    wanted = matrix[1:3, 1:3].sum(-1).mean().item()
    assert result.values[0, 0, 0, 1, 1].item() == pytest.approx(wanted, abs=1e-12)
    same(result.values[1], second.encoder.stacked())
    assert "js" not in av.compare(first, second).axis("statistic").labels
    assert any("no cells in common" in note.en for note in av.compare(first, second).notes)


def han(text: str) -> av.Labels:
    return av.Labels.plain(text)


def test_a_chinese_word_may_span_several_characters() -> None:
    first, second = trace(han("我吃苹果")), trace(han("苹果发布手机"), seed=7)
    result = av.compare(first, second, by="word", word="苹果")
    assert result.axis("key").labels == ("苹果", "(others)")
    matrix = second.encoder.head(1, 1)
    assert at(result, "second", 1, 1, "苹果") == pytest.approx(matrix[:2, :2].sum(-1).mean().item(), abs=1e-12)


def test_a_character_split_over_pieces_is_one_word() -> None:
    split = av.Labels.of(
        ["我", "吃⟨1/3⟩", "吃⟨2/3⟩", "吃⟨3/3⟩", "了"], [None] * 5, [0, 1, 1, 1, 2], ["text"] * 5
    )  # fmt: skip
    result = av.compare(trace(split), trace(han("吃了")), by="word", word="吃")
    assert result.axis("key").labels == ("吃", "了", "(others)")


def test_a_word_that_stands_several_times_is_asked_for() -> None:
    first, second = trace(FRUIT), trace(FIRM, seed=7)
    with pytest.raises(av.errors.UnknownNameError, match=r"first text has 'an' 2 times.*0: i ate »an« apple an, 1:"):
        av.compare(first, second, by="word", word="an")
    with pytest.raises(av.errors.UnknownNameError, match=r"second text has 'an' 1 time, no occurrence 1"):
        av.compare(first, second, by="word", word="an", occurrence=1)
    result = av.compare(first, second, by="word", word="an", occurrence=(1, None))
    matrix = first.encoder.head(0, 0)
    assert at(result, "first", 0, 0, "an") == pytest.approx(matrix[6, 6].item(), abs=1e-12)
    assert at(result, "first", 0, 0, "apple") == pytest.approx(matrix[6, 4:6].sum().item(), abs=1e-12)
    assert any("in the first i, ate, an, ago;" in note.en for note in result.notes)


def test_case_counts_unless_nothing_else_is_there() -> None:
    first, second = trace(["Apple", "apple", "x"]), trace(["Apple", "y"])
    result = av.compare(first, second, by="word", word="apple")
    assert at(result, "first", 0, 0, "apple") == pytest.approx(first.encoder.head(0, 0)[1, 1].item(), abs=1e-12)


def test_a_word_of_a_source_and_of_a_translation() -> None:
    one = translation()
    result = av.compare(one, one, stack="cross", by="word", word="dog")
    assert result.axis("key").labels == ("Der", "Hund", "bellt", "</s>")
    same(result.values[0], one.cross.stacked()[:, :, 2])
    result = av.compare(one, one, stack="cross", by="word", word="Hund", direction="to")
    assert result.axis("query").labels == ("<s>", "The", "dog")
    same(result.values[1], one.cross.stacked()[..., 1])
    assert "change_in_own_word" not in av.compare(one, one, stack="cross", word="dog").axis("statistic").labels
    with pytest.raises(av.errors.UnknownNameError, match="its rows.* has no word 'Hund'; it has: <s>, The, dog"):
        av.compare(one, one, stack="cross", word="Hund")
    with pytest.raises(av.errors.UnknownStackError, match="encoder, decoder, cross"):
        av.compare(one, one)


def test_two_generations_and_two_checkpoints() -> None:
    """Real captures, one text under two seeds; and rows that were not kept."""
    traces = []
    for seed in (0, 1):
        model = tiny("llama", seed=seed)
        with av.capture(model) as recording:
            model.generate(ids(1, 5), max_new_tokens=4, do_sample=False)
        traces.append(recording.trace)
    result = av.compare(*traces, by="word", word=traces[0].decoder.keys.texts[2])
    torch.testing.assert_close(result.values[0].sum(-1), torch.ones(2, 4), atol=2e-5, rtol=0)
    with av.capture(model, queries=[-1]) as recording:
        model.generate(ids(1, 5), max_new_tokens=4, do_sample=False)
    word = recording.trace.decoder.keys.texts[0]
    with pytest.raises(av.errors.NotKeptError, match=r"no row of .* was kept of the first text: capture with keep="):
        av.compare(recording.trace, recording.trace, word=word, occurrence=0)
    plain = []
    for seed in (0, 1):
        model = tiny("bert", seed=seed)
        with av.capture(model) as recording, torch.no_grad():
            model(ids(1, 6))
        plain.append(recording.trace)
    assert av.compare(*plain).select(statistic="js").values.min() > 0


def test_heads_without_a_counterpart_are_refused_and_averages_are_not() -> None:
    first, second = trace(FRUIT), trace(FIRM, heads=4, layers=3)
    with pytest.raises(
        av.errors.ShapeError, match=r"2 layers \(0 to 1\) of 3 heads, the second 3 layers .* of 4 heads"
    ):
        av.compare(first, second, word="apple")
    result = av.compare(first, second, by="word", word="apple", average=True)
    assert result.axis("head").labels == ("mean",)
    mean = second.encoder.stacked().mean((0, 1))
    assert at(result, "second", 0, 0, "[CLS]") == pytest.approx(mean[1:3, 0].mean().item(), abs=1e-12)


def test_what_cannot_be_compared_is_told() -> None:
    first, second = trace(FRUIT), trace(FIRM)
    with pytest.raises(av.errors.ArgumentError, match=r"same words .* with word=…: \[CLS\], an, apple, hour, \[SEP\]"):
        av.compare(first, second, by="word")
    with pytest.raises(av.errors.UnknownNameError, match="no word 'pear'; it has: .CLS., i, ate, an, apple"):
        av.compare(first, second, word="pear")
    with pytest.raises(av.errors.ArgumentError, match="expected two traces, got list for the second text"):
        av.compare(first, [second])  # type: ignore[arg-type]
    with pytest.raises(av.errors.UnknownNameError, match="by to be one of head, word"):
        av.compare(first, second, by="layer")
    with pytest.raises(av.errors.ArgumentError, match="word=…"):
        av.compare(first, second, occurrence=1)
    only = trace(["[CLS]", "[SEP]"])
    with pytest.raises(av.errors.ArgumentError, match="special tokens only"):
        av.compare(only, only, without_special=True)


def test_undefined_has_a_reason() -> None:
    flat = torch.full((1, 2, 2), 0.5)
    ends = han("ab")
    one = av.Trace((av.AttentionMap(flat, ends, ends, "encoder", 0, positions=(0, 1)),))
    result = av.compare(one, one)
    assert math.isnan(at(result, "pearson", 0, 0))
    assert any("Pearson's r is undefined" in note.en for note in result.notes)
