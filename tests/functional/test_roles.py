import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ArgumentError, ShapeError, UnknownNameError
from hf_attnviz.functional import (
    head_roles,
    head_statistics,
    induction_score,
    role_verdicts,
    roles_by_example,
    uniform_like,
)
from hf_attnviz.functional.roles import THRESHOLDS
from tests.functional import reference_structure as reference
from tests.functional.stacks import TOLERANCES, close, crossed, quick, stacks

seeds = st.integers(0, 2**32 - 1)
periods = st.sampled_from([None, 1, 3])


def told(stack, seed, period=None):
    """Tokens of three kinds and delimiters at random, with the masks of a stack."""
    generator = np.random.default_rng(seed)
    return {
        "tokens": torch.from_numpy(generator.integers(0, 3, size=tuple(stack.valid.shape))),
        "delimiters": torch.from_numpy(generator.random(tuple(stack.valid.shape)) < 0.4),
        "period": period,
        "valid": stack.valid,
        "valid_queries": stack.valid_queries,
        "positions": stack.positions,
        "causal": stack.causal,
    }


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(st.one_of(stacks(max_tokens=8), crossed()), seeds, periods)
def test_matches_the_reference(dtype, stack, seed, period):
    options = told(stack, seed, period)
    got = head_roles(stack.attention.to(dtype), **options)
    lists = [options[name].tolist() for name in ("tokens", "delimiters")]
    wanted = reference.head_roles(stack.array, *lists, *stack.reference(), period)
    assert tuple(got) == tuple(THRESHOLDS) and set(got) == set(wanted)
    for name, values in got.items():
        assert values.dtype == dtype
        close(values, wanted[name], TOLERANCES[dtype])


@quick
@given(st.one_of(stacks(max_tokens=8), crossed()), seeds)
def test_uniform_attention_scores_exactly_its_own_baseline(stack, seed):
    uniform = uniform_like(stack.attention, valid=stack.valid)
    baseline = head_roles(uniform_like(uniform, valid=stack.valid), **told(stack, seed))
    for name, values in head_roles(uniform, **told(stack, seed)).items():
        close(values, baseline[name], 0)


@quick
@given(stacks(max_tokens=8), seeds, st.randoms(use_true_random=False))
def test_permuting_heads_permutes_the_scores(stack, seed, random):
    order = list(range(stack.attention.shape[2]))
    random.shuffle(order)
    permuted = head_roles(stack.attention[:, :, order], **told(stack, seed))
    for name, values in head_roles(stack.attention, **told(stack, seed)).items():
        close(permuted[name], values[:, order])


@quick
@given(stacks(max_tokens=8), seeds)
def test_padding_changes_nothing(stack, seed):
    """Sums and counts of an example in a padded batch are those of the example alone."""
    options = told(stack, seed)
    batch = roles_by_example(stack.attention, **options)
    for example, real in enumerate(stack.valid):
        alone = roles_by_example(
            stack.single(example),
            tokens=options["tokens"][example : example + 1, real],
            delimiters=options["delimiters"][example : example + 1, real],
            causal=stack.causal,
        )
        for name, tally in alone.items():
            counts = batch[name].counts.expand(batch[name].totals.shape)[example]
            close(batch[name].totals[example], tally.totals[0])
            close(counts, tally.counts.expand(tally.totals.shape)[0], 0)


@quick
@given(stacks(max_tokens=8, rubbish="zero"), seeds)
def test_scores_are_shares(stack, seed):
    for values in head_roles(stack.attention, **told(stack, seed)).values():
        assert ((values.isnan()) | ((values >= -1e-12) & (values <= 1 + 1e-12))).all()


@quick
@given(stacks(), seeds)
def test_one_number_has_one_definition(stack, seed):
    options = told(stack, seed)
    roles = head_roles(stack.attention, **options)
    masks = {name: options[name] for name in ("valid", "valid_queries", "positions", "causal")}
    statistics = head_statistics(stack.attention, **masks)
    close(roles["previous_token"], statistics["previous_token"], 0)
    close(roles["broad"], statistics["normalised_entropy"], 0)
    scores = induction_score(stack.attention, options["tokens"], valid=stack.valid)
    close(roles["induction"], scores.transpose(1, 2).flatten(2).nanmean(-1))
    share = induction_score(stack.attention, options["tokens"], definition="mul", valid=stack.valid)
    if stack.causal:  # otherwise weight ahead of the query is part of the whole, too
        close(roles["induction_mul"], share.nanmean(1))


def test_rows_that_are_left_out_by_name_do_not_count():
    attention = torch.rand(1, 1, 2, 6, 6, dtype=torch.float64).softmax(-1)
    tokens, rows = torch.tensor([[1, 2, 1, 2, 1, 2]]), torch.tensor([[True, True, True, False, True, False]])
    got = head_roles(attention, tokens=tokens, delimiters=tokens == 2, valid_queries=rows)
    wanted = reference.head_roles(
        attention.numpy(), tokens.tolist(), (tokens == 2).tolist(), [[True] * 6], rows.tolist(), list(range(6)), False
    )
    for name, values in got.items():
        close(values, wanted[name])


def planted():
    """Six heads over `a b , a b , a b`, each with one role, and one without preferences; causal."""
    heads = torch.zeros(7, 8, 8, dtype=torch.float64)
    rows = range(8)
    targets = {
        0: [max(i - 1, 0) for i in rows],  # previous
        1: [0 for _ in rows],  # first
        2: [0, 1, 2, 2, 2, 5, 5, 5],  # the last delimiter
        3: [0, 1, 2, 0, 1, 2, 3, 4],  # the copy three before
        4: [0, 1, 2, 1, 2, 3, 4, 5],  # what came after the nearest copy
        5: [0, 1, 2, 1, 2, 3, 1, 2],  # what came after the first copy
    }
    for head, keys in targets.items():
        heads[head, list(rows), keys] = 1
    heads[6] = torch.ones(8, 8, dtype=torch.float64).tril() / torch.arange(1, 9)[:, None]
    tokens = torch.tensor([[1, 2, 3, 1, 2, 3, 1, 2]])
    return heads[None, None], {"tokens": tokens, "delimiters": tokens == 3, "causal": True}


def test_planted_roles_are_found_and_no_others():
    attention, options = planted()
    scores = head_roles(attention, **options)
    baseline = head_roles(uniform_like(attention), **options)
    # so short a text has chances: what came after a copy is a delimiter in two of eight rows, the nearest copy in three
    # of five the only one
    strict = {"delimiter": 0.6, "induction_stripe": 0.7, "induction_mul": 0.5}
    verdicts = role_verdicts(scores, baseline, thresholds=strict)
    holders = {name: [n for n, passes in enumerate(values[0]) if passes == 1] for name, values in verdicts.items()}
    assert holders == {
        "positional": [0],
        "previous_token": [0],
        "next_token": [],
        "delimiter": [2],
        "first_token_sink": [1],
        "duplicate_token": [3],
        "induction": [4, 5],
        "induction_stripe": [4],
        "induction_mul": [4, 5],
        "broad": [6],
    }
    assert verdicts["next_token"].isnan().all()


def test_the_same_head_by_three_definitions_of_induction():
    attention, options = planted()
    scores = {name: values[0].tolist() for name, values in head_roles(attention, **options).items()}
    assert scores["induction"][4] == scores["induction"][5] == 1
    assert scores["induction_stripe"][4] == 1
    assert scores["induction_stripe"][5] == pytest.approx(3 / 5)  # rows 6 and 7 have a nearer copy
    assert scores["induction_mul"][4] == pytest.approx(5 / 8)
    period = head_roles(attention, **options, period=6)["induction_stripe"][0]
    assert period[4] == 0 and period[5] == 1


def test_what_uniform_attention_gets_by_hand():
    attention, options = planted()
    baseline = {name: float(values[0, 0]) for name, values in head_roles(uniform_like(attention), **options).items()}
    union = [{int(key) for head in range(7) for key in attention[0, 0, head, i].nonzero()} for i in range(8)]
    assert all(len(seen) == i + 1 for i, seen in enumerate(union))
    assert baseline["previous_token"] == pytest.approx(sum(1 / n for n in range(2, 9)) / 7)
    assert baseline["delimiter"] == pytest.approx(sum([1 / 3, 1 / 4, 1 / 5, 2 / 6, 2 / 7, 2 / 8]) / 6)
    assert baseline["duplicate_token"] == pytest.approx(sum([1 / 4, 1 / 5, 1 / 6, 2 / 7, 2 / 8]) / 5)
    assert baseline["broad"] == pytest.approx(1)


def test_attention_both_ways_has_a_next_token():
    next_token = torch.eye(5).roll(1, 1)[None, None, None]
    scores = head_roles(next_token)
    assert scores["next_token"] == 1 and scores["positional"] == 1 and scores["previous_token"] == 0
    assert scores["induction"].isnan() and scores["delimiter"].isnan()


def test_equal_weights_divide_a_row():
    halves = torch.zeros(1, 1, 1, 3, 3)
    halves[..., 1, 0] = halves[..., 1, 2] = 0.5
    halves[..., 0, 0] = halves[..., 2, 2] = 1
    close(head_roles(halves)["positional"], [[0.25]], 1e-7)  # half of row 1; rows 0 and 2 look at themselves


def test_few_keys_make_no_role():
    """Two tokens: uniform attention gives the previous one half, which is its threshold."""
    attention = torch.tensor([[1.0, 0.0], [0.5, 0.5]])[None, None, None]
    scores = head_roles(attention, causal=True)
    assert scores["previous_token"] == 0.5
    assert role_verdicts(scores, head_roles(uniform_like(attention), causal=True))["previous_token"] == 0


def test_thresholds_are_arguments():
    attention, options = planted()
    scores = head_roles(attention, **options)
    baseline = head_roles(uniform_like(attention), **options)
    for threshold, passes in ((0.5, 1), (0.7, 0)):
        verdicts = role_verdicts(scores, baseline, thresholds={"induction_stripe": threshold})
        assert verdicts["induction_stripe"][0, 5] == passes
    with pytest.raises(UnknownNameError, match="positional, previous_token.*'copying'"):
        role_verdicts(scores, baseline, thresholds={"copying": 0.5})
    with pytest.raises(ArgumentError, match="threshold of broad between 0 and 1"):
        role_verdicts(scores, baseline, thresholds={"broad": 90})


def test_a_row_that_holds_nan_is_no_score():
    attention, options = planted()
    attention[0, 0, 0, 5] = torch.nan
    scores = head_roles(attention, **options)
    assert all(scores[name][0, 0].isnan() for name in THRESHOLDS)
    assert not scores["previous_token"][0, 1].isnan()


def test_wrong_tokens_and_delimiters_are_refused():
    attention = torch.full((1, 1, 1, 3, 3), 1 / 3)
    with pytest.raises(ShapeError, match="tokens of shape"):
        head_roles(attention, tokens=torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ShapeError, match="delimiters"):
        head_roles(attention, delimiters=torch.zeros(1, 3))
