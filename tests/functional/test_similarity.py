import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError
from hf_attnviz.functional import head_similarity, jensen_shannon, uniform_attention
from hf_attnviz.language import set_language
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks

CORRELATIONS = ("pearson", "spearman", "cosine")
DIVERGENCES = ("js", "js_clark", "hellinger", "jeffreys")


def similarity(stack, attention=None, **options):
    return head_similarity(
        stack.attention if attention is None else attention,
        valid=stack.valid,
        valid_queries=stack.valid_queries,
        positions=stack.positions,
        causal=stack.causal,
        **options,
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("method", CORRELATIONS + DIVERGENCES)
@quick
@given(st.one_of(stacks(max_tokens=5, max_layers=2), crossed()), st.booleans(), st.booleans())
def test_matches_the_reference(method, dtype, stack, allowed_only, centred):
    options = {"method": method, "allowed_only": allowed_only, "centred": centred and method in CORRELATIONS}
    got = similarity(stack, stack.attention.to(dtype), **options)
    assert got.dtype == dtype
    wanted = reference.head_similarity(
        stack.array, method, *stack.reference(), options["allowed_only"], options["centred"]
    )
    close(got, wanted, TOLERANCES[dtype])


@pytest.mark.parametrize("method", CORRELATIONS + DIVERGENCES)
@quick
@given(stacks(rubbish="nan"))
def test_symmetric_with_the_diagonal_of_its_kind(method, stack):
    got = similarity(stack, method=method)
    close(got, got.T, 0)
    diagonal = got.diagonal()
    wanted = 1.0 if method in CORRELATIONS else 0.0
    assert (diagonal[~diagonal.isnan()] == wanted).all()
    if method in DIVERGENCES:
        assert not diagonal.isnan().any()


@quick
@given(stacks())
def test_bounds(stack):
    for method, bound in (("js", math.log(2)), ("hellinger", 1.0)):
        got = similarity(stack, method=method)
        assert (got >= 0).all() and (got <= bound + 1e-12).all()
    for method in CORRELATIONS:
        assert (similarity(stack, method=method).nan_to_num().abs() <= 1).all()


@pytest.mark.parametrize("method", CORRELATIONS + DIVERGENCES)
@quick
@given(stacks(min_tokens=3), st.randoms(use_true_random=False))
def test_permuting_heads_permutes_both_axes(method, stack, random):
    layers, _, heads = stack.attention.shape[:3]
    order = list(range(heads))
    random.shuffle(order)
    everywhere = [layer * heads + head for layer in range(layers) for head in order]
    permuted = similarity(stack, stack.attention[:, :, order], method=method)
    close(permuted, similarity(stack, method=method)[everywhere][:, everywhere])


@pytest.mark.parametrize("method", CORRELATIONS + DIVERGENCES)
@quick
@given(stacks(min_tokens=3))
def test_padding_changes_nothing(method, stack):
    longest = int(stack.valid.sum(-1).argmax())
    alone = head_similarity(
        stack.attention[:, longest : longest + 1],
        method=method,
        valid=stack.valid[longest : longest + 1],
        causal=stack.causal,
    )
    close(alone, head_similarity(stack.single(longest), method=method, causal=stack.causal))


@quick
@given(stacks(min_tokens=4, causal=False))
def test_scipy_agrees(stack):
    alone = stack.single(0)
    flat = alone[:, 0].flatten(0, 1).flatten(1).numpy()
    got = {method: head_similarity(alone, method=method) for method in ("pearson", "spearman", "js")}
    for a, b in np.ndindex(len(flat), len(flat)):
        if a == b:
            continue
        assert got["pearson"][a, b] == pytest.approx(scipy.stats.pearsonr(flat[a], flat[b]).statistic, abs=1e-9)
        assert got["spearman"][a, b] == pytest.approx(scipy.stats.spearmanr(flat[a], flat[b]).statistic, abs=1e-9)
        rows = [flat[head].reshape(alone.shape[-2:]) for head in (a, b)]
        distance = scipy.spatial.distance.jensenshannon(*rows, axis=1)
        assert got["js"][a, b] == pytest.approx((distance**2).mean(), abs=1e-9)


def test_ties_share_their_average_rank():
    rows = torch.tensor([[0.25, 0.25, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    got = head_similarity(rows[None, None, :, None], method="spearman")[0, 1]
    assert float(got) == pytest.approx(scipy.stats.spearmanr(*rows.numpy()).statistic, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_constant_head_has_no_correlation(causal, method, dtype):
    uniform = uniform_attention(9, 9, causal=causal, dtype=torch.float64)
    other = torch.softmax(torch.randn(1, 9, 9, dtype=torch.float64) + uniform.log(), -1)
    attention = torch.stack([uniform, other], 1)[None].to(dtype)
    got = head_similarity(attention, method=method, causal=causal, centred=causal)
    assert got[0].isnan().all() and got[:, 0].isnan().all()
    assert got[1, 1] == 1


def test_structural_zeros_inflate_correlation_and_row_length_too():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 1, 8, 32, 32, generator=generator)
    attention = scores.masked_fill(torch.ones(32, 32).triu(1).bool(), -torch.inf).softmax(-1)

    def mean_of_pairs(**options):
        table = head_similarity(attention, method="pearson", causal=True, **options)
        return float(table[~torch.eye(8, dtype=torch.bool)].mean())

    with_zeros, allowed, centred = mean_of_pairs(allowed_only=False), mean_of_pairs(), mean_of_pairs(centred=True)
    assert with_zeros > allowed > centred
    assert with_zeros == pytest.approx(0.51, abs=0.1) and allowed == pytest.approx(0.37, abs=0.1)
    assert abs(centred) < 0.1


def test_jeffreys_is_infinite_where_one_head_looks_at_what_another_ignores():
    heads = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.4, 0.6]])[None, None, :, None]
    got = head_similarity(heads, method="jeffreys")
    assert got[0, 1] == got[2, 0] == math.inf and got[1, 2] < 1 and got[0, 0] == 0


def test_nan_in_one_head_stays_there():
    attention = torch.rand(1, 1, 3, 4, 4).softmax(-1)
    attention[0, 0, 1, 2, 3] = torch.nan
    for method in CORRELATIONS + DIVERGENCES:
        got = head_similarity(attention, method=method)
        assert got[1].isnan().all() and got[:, 1].isnan().all()
        assert not got[[0, 0, 2, 2], [0, 2, 0, 2]].isnan().any()


def test_no_valid_row_is_nan():
    valid = torch.zeros(1, 2, dtype=torch.bool)
    for method in CORRELATIONS + DIVERGENCES:
        assert head_similarity(torch.full((1, 1, 2, 2, 2), 0.5), method=method, valid=valid).isnan().all()


@pytest.mark.parametrize("method", ["js", "hellinger", "pearson", "cosine"])
@quick
@given(stacks(rubbish="zero", min_tokens=3, max_layers=2))
def test_bfloat16_is_only_rounded_once(method, stack):
    coarse = stack.attention.bfloat16()
    got, exact = similarity(stack, coarse, method=method), similarity(stack, coarse.double(), method=method)
    assert got.dtype == torch.float32
    both = ~(got.isnan() | exact.isnan())
    close(got[both], exact[both], 2e-5)


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_jensen_shannon_matches_scipy_and_its_bounds(seed, keys):
    p, q = np.random.default_rng(seed).dirichlet(np.ones(keys), size=2)
    got = float(jensen_shannon(torch.from_numpy(p), torch.from_numpy(q)))
    assert got == pytest.approx(scipy.spatial.distance.jensenshannon(p, q) ** 2, abs=1e-12)
    assert 0 <= got <= math.log(2)


def test_more_heads_than_are_compared_at_once():
    attention = torch.rand(3, 1, 12, 3, 3, dtype=torch.float64).softmax(-1)
    got = head_similarity(attention, method="js")
    flat = attention[:, 0].flatten(0, 1)
    for a, b in ((0, 1), (0, 17), (5, 35), (34, 35)):
        assert float(got[a, b]) == pytest.approx(float(jensen_shannon(flat[a], flat[b]).mean()), abs=1e-12)


def test_divergences_are_not_centred():
    with pytest.raises(ArgumentError, match="centre"):
        head_similarity(torch.ones(1, 1, 1, 1, 1), method="js", centred=True)


@pytest.mark.parametrize("method", [*CORRELATIONS, "js", "hellinger", "jeffreys"])
def test_a_long_text_in_float32_is_as_good_as_in_float64(method):
    """Sharp heads, so that many small terms meet a few large ones; two of them nearly alike. ("js_clark" is "js", not
    divided by the 900 rows.)"""
    scores = 3 * torch.randn(1, 1, 3, 900, 900, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores[:, :, 2] = scores[:, :, 1] + 1e-3 * scores[:, :, 0]
    maps = scores.softmax(-1)
    close(head_similarity(maps.float(), method=method), head_similarity(maps, method=method), 2e-5)


def test_the_cost_of_many_heads_is_told(monkeypatch, capsys):
    """What is long is made short here: a step for each head that has others after it."""
    set_language("en")
    monkeypatch.setattr("hf_attnviz.progress.LONG", 1e-9)
    head_similarity(torch.full((1, 1, 3, 4, 4), 0.25), method="js")
    assert "Jensen–Shannon divergence of heads: 2 steps, about" in capsys.readouterr().err
