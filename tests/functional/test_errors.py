"""Every function says what was expected, what came, and what to do."""

import pytest
import torch

from hf_attnviz import functional
from hf_attnviz.errors import ArgumentError, AttnvizError, ShapeError, UnknownNameError
from hf_attnviz.functional import head_similarity, head_statistics, induction_score, rollout, sink_mass

good = torch.full((2, 1, 1, 3, 3), 1 / 3)
takers = {
    "rollout": rollout,
    "head_statistics": head_statistics,
    "head_similarity": lambda attention, **masks: head_similarity(attention, method="js", **masks),
    "sink_mass": sink_mass,
    "induction_score": lambda attention, **masks: induction_score(attention, torch.zeros(1, 3).long(), **masks),
}
every = pytest.mark.parametrize("take", takers.values(), ids=takers)


@every
def test_wrong_axes(take):
    with pytest.raises(ShapeError, match=r"expected attention \[layer, batch, head, query, key\], got 4 axes .*; keep"):
        take(good[0])


@every
def test_not_a_tensor(take):
    with pytest.raises(ArgumentError, match=r"got list; .*torch\.stack"):
        take([good[0]])


@every
def test_integers(take):
    with pytest.raises(ShapeError, match=r"floating-point attention, got torch\.int64; .*\.float\(\)"):
        take(good.long())


@every
def test_empty(take):
    with pytest.raises(ShapeError, match="at least one"):
        take(good[:0])


@every
def test_mask_of_another_shape(take):
    with pytest.raises(ShapeError, match=r"expected valid of shape \(1, 3\), got \(1, 2\)"):
        take(good, valid=torch.ones(1, 2, dtype=torch.bool))


@every
def test_mask_of_integers(take):
    with pytest.raises(ShapeError, match=r"torch\.bool, got torch\.int64; call \.bool\(\)"):
        take(good, valid=torch.ones(1, 3, dtype=torch.int64))


def test_entropy_takes_rows_of_floats():
    with pytest.raises(ShapeError, match="single number"):
        functional.entropy(torch.tensor(1.0))
    with pytest.raises(ShapeError, match="floating"):
        functional.entropy(torch.tensor([1, 0]))


def test_rollout_says_what_it_knows():
    with pytest.raises(UnknownNameError, match="mean, max, min; got 'sum'"):
        rollout(good, head_fusion="sum")
    with pytest.raises(UnknownNameError, match="after, before"):
        rollout(good, normalise="never")
    with pytest.raises(ShapeError, match="2 queries and 3 keys"):
        rollout(good[..., :2, :])
    with pytest.raises(ArgumentError, match="residual"):
        rollout(good, residual=2)
    with pytest.raises(ArgumentError, match="discard between 0 and 1, got 90"):
        rollout(good, discard=90)
    for start in (-1, 2):
        with pytest.raises(ArgumentError, match="start_layer from 0 to 1"):
            rollout(good, start_layer=start)


def test_similarity_lists_its_methods():
    with pytest.raises(UnknownNameError, match="pearson, spearman, cosine, js, js_clark, hellinger, jeffreys"):
        head_similarity(good, method="kl")


def test_positions():
    with pytest.raises(ShapeError, match="integer"):
        head_statistics(good, positions=torch.zeros(3))
    with pytest.raises(ShapeError, match=r"shape \(3,\), got \(2,\)"):
        head_statistics(good, positions=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ArgumentError, match="to 2, got 3"):
        head_statistics(good, positions=torch.tensor([0, 1, 3]))
    with pytest.raises(ArgumentError, match="pass positions"):
        head_statistics(good[..., :2, :], causal=True)


def test_all_errors_are_ours_and_all_names_are_there():
    assert issubclass(ShapeError, AttnvizError) and issubclass(ShapeError, ValueError)
    assert all(callable(getattr(functional, name)) for name in functional.__all__)
    assert list(functional.__all__) == sorted(functional.__all__)
