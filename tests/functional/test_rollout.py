import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.functional import rollout, uniform_attention, uniform_rollout
from tests.functional import reference
from tests.functional.stacks import TOLERANCES, close, quick, stacks

options = st.fixed_dictionaries(
    {
        "residual": st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        "head_fusion": st.sampled_from(["mean", "max", "min"]),
        "normalise": st.sampled_from(["after", "before"]),
        "discard": st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    }
)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(stacks(), options, st.integers(0, 2))
def test_matches_the_reference(dtype, stack, chosen, start):
    start = min(start, len(stack.attention) - 1)
    got = rollout(stack.attention.to(dtype), **chosen, start_layer=start, valid=stack.valid)
    assert got.dtype == dtype
    close(got, reference.rollout(stack.array, **chosen, start_layer=start, valid=stack.valid), TOLERANCES[dtype])


@quick
@given(stacks())
def test_rows_sum_to_one_and_padding_is_nan(stack):
    result = rollout(stack.attention, valid=stack.valid)
    real = stack.valid_queries
    close(result[:, real].nansum(-1), torch.ones(len(result), int(real.sum())))
    block = real[:, :, None] & real[:, None, :]
    assert (result.isnan() == ~block).all()


@quick
@given(stacks(rubbish="zero"), st.randoms(use_true_random=False))
def test_the_order_of_heads_does_not_matter(stack, random):
    order = list(range(stack.attention.shape[2]))
    random.shuffle(order)
    close(rollout(stack.attention[:, :, order], valid=stack.valid), rollout(stack.attention, valid=stack.valid))


@quick
@given(stacks(), options)
def test_padding_changes_nothing(stack, chosen):
    batch = rollout(stack.attention, **chosen, valid=stack.valid)
    for example, real in enumerate(stack.valid):
        close(batch[:, example][:, real][..., real], rollout(stack.single(example), **chosen)[:, 0])


@quick
@given(stacks(causal=True))
def test_causal_maps_stay_causal(stack):
    assert (rollout(stack.attention, valid=stack.valid).nan_to_num().triu(1) == 0).all()


def test_the_later_layer_stands_on_the_left():
    to_first = torch.tensor([[1.0, 0], [1, 0]])
    swap = torch.tensor([[0.0, 1], [1, 0]])
    maps = torch.stack([to_first, swap])[:, None, None]
    close(rollout(maps, residual=0)[1, 0], swap @ to_first)


def test_discarding_spares_entry_zero_and_counts_it_among_the_smallest():
    maps = torch.tensor([[0.1, 0.9], [0.2, 0.8]])[None, None, None]
    # two of four go: 0.1, which is spared, and 0.2
    close(rollout(maps, residual=0, discard=0.5)[0, 0], torch.tensor([[0.1, 0.9], [0.0, 1.0]]), 1e-6)


def test_normalising_before_and_after_differ_when_fused_rows_do_not_sum_to_one():
    maps = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]]])[None, None]
    after, before = [rollout(maps, head_fusion="max", normalise=way)[0, 0, 0] for way in ("after", "before")]
    close(after, torch.tensor([0.95 / 1.35, 0.4 / 1.35]), 1e-6)
    close(before, torch.tensor([0.45 / 1.7 + 0.5, 0.4 / 1.7]), 1e-6)


@pytest.mark.parametrize("normalise", ["after", "before"])
def test_a_row_with_nothing_left_is_its_residual_or_else_undefined(normalise):
    maps = torch.tensor([[0.5, 0.5], [0.1, 0.1]])[None, None, None]
    rolled = rollout(maps, residual=0.3, discard=0.5, normalise=normalise)[0, 0]
    close(rolled, torch.tensor([[0.65, 0.35], [0, 1]]), 1e-6)
    without = rollout(maps, residual=0, discard=0.5, normalise=normalise)[0, 0]
    close(without, torch.tensor([[0.5, 0.5], [torch.nan, torch.nan]]))


@pytest.mark.parametrize("undefined", [torch.nan, torch.inf])
def test_what_is_undefined_spreads_to_the_rows_that_take_of_it_and_no_further(undefined):
    causal = uniform_attention(4, 4, causal=True)
    maps = torch.stack([causal, causal])[:, :, None].clone()
    maps[0, 0, 0, 2, 1] = undefined  # row 2 of the first layer; rows 2 and 3 of the second look at it
    rolled = rollout(maps)
    assert rolled[0, 0].isnan().all(-1).tolist() == [False, False, True, False]
    assert rolled[1, 0].isnan().all(-1).tolist() == [False, False, True, True]
    plain = rollout(torch.stack([causal, causal])[:, :, None])
    close(rolled[1, 0, :2], plain[1, 0, :2])


@pytest.mark.parametrize(("depth", "drift"), [(1, 0.016), (6, 0.30), (12, 0.71), (24, 0.98)])
def test_uniform_causal_attention_drifts_to_the_first_token(depth, drift):
    uniform = uniform_attention(32, 32, causal=True, dtype=torch.float64)
    assert float(rollout(uniform.expand(depth, 1, 1, 32, 32))[-1, 0, -1, 0]) == pytest.approx(drift, abs=0.005)


@quick
@given(stacks())
def test_uniform_attention_is_even_over_allowed_keys(stack):
    uniform = uniform_attention(*stack.attention.shape[-2:], causal=stack.causal, valid=stack.valid)
    for example, query, keys in reference.real_rows(len(stack.valid), *stack.reference()):
        row = torch.zeros(uniform.shape[-1])
        row[keys] = 1 / len(keys)
        close(uniform[example, query], row, 1e-6)
    assert (uniform.isnan().all(-1) == ~stack.valid_queries).all()


@quick
@given(stacks(rubbish="zero"))
def test_bfloat16_is_only_rounded_once(stack):
    coarse = stack.attention.bfloat16()
    assert rollout(coarse, valid=stack.valid).dtype == torch.float32
    close(rollout(coarse, valid=stack.valid), rollout(coarse.double(), valid=stack.valid), 1e-6)


def test_one_token_sees_itself():
    close(rollout(torch.ones(3, 2, 2, 1, 1)), torch.ones(3, 2, 1, 1))


def test_an_example_of_padding_alone_is_nan():
    valid = torch.tensor([[True, True], [False, False]])
    result = rollout(torch.full((2, 2, 1, 2, 2), 0.5), discard=0.3, valid=valid)
    assert result[:, 1].isnan().all() and not result[:, 0].isnan().any()


@quick
@given(st.data())
def test_even_stretches_need_no_matrix(data):
    layers, tokens, residual = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8)), data.draw(st.floats(0, 1))
    ends = [
        [sorted(data.draw(st.tuples(*[st.integers(0, tokens - 1)] * 2))) for _ in range(tokens)] for _ in range(layers)
    ]
    first, last = torch.tensor(ends).unbind(-1)
    groups = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=tokens, max_size=tokens)))
    sources = (groups[:, None] == torch.arange(3)).double()
    even = torch.zeros(layers, 1, 1, tokens, tokens, dtype=torch.float64)
    for layer in range(layers):
        for row in range(tokens):
            start, stop = int(first[layer, row]), int(last[layer, row]) + 1
            even[layer, 0, 0, row, start:stop] = 1 / (stop - start)
    wanted = rollout(even, residual=residual)[:, 0] @ sources
    close(uniform_rollout(first, last, sources, residual=residual), wanted)


def test_a_row_whose_stretch_is_not_known_is_undefined_and_so_is_what_takes_of_it():
    first, last = torch.tensor([[0, -1, 2], [0, 0, 2]]), torch.tensor([[0, -1, 2], [0, 1, 2]])
    found = uniform_rollout(first, last, torch.eye(3))
    assert found.isnan().any(-1).tolist() == [[False, True, False], [False, True, False]]
    assert found[1, 2].tolist() == [0, 0, 1]
    alone = uniform_rollout(first, last, torch.eye(3), residual=1.0)
    assert alone.isnan().any(-1).tolist() == [[False, True, False], [False, True, False]]
