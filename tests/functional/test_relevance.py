import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_attnviz.errors import ShapeError
from hf_attnviz.functional import attention_gradient, head_importance, relevance, relevance_encoder_decoder
from tests.functional import reference_relevance as reference
from tests.functional.stacks import TOLERANCES, close, quick

sizes = st.tuples(*[st.integers(1, 4)] * 5)
seeds = st.integers(0, 2**31)


def drawn(seed, *shape):
    """Attention and a gradient of both signs."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (2 * scores).softmax(-1), torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(seeds, sizes)
def test_relevance_matches_the_reference(dtype, seed, size):
    layers, batch, heads, tokens, _ = size
    attention, gradient = drawn(seed, layers, batch, heads, tokens, tokens)
    found = relevance(attention.to(dtype), gradient.to(dtype))
    assert found.dtype == dtype
    slow = [reference.relevance(attention[:, b].numpy(), gradient[:, b].numpy()) for b in range(batch)]
    close(found, slow, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(seeds, sizes, st.booleans())
def test_encoder_decoder_matches_the_reference(dtype, seed, size, silent):
    layers, above, heads, source, target = size
    encoder = drawn(seed, layers, heads, source, source)
    decoder = drawn(seed + 1, above, heads, target, target)
    cross = drawn(seed + 2, above, heads, target, source)
    if silent:  # rows that hold nothing beyond the identity
        encoder[1][..., 0, :] = decoder[1][..., 0, :] = -1
    cast = {"encoder": encoder, "decoder": decoder, "cross": cross}
    found = relevance_encoder_decoder(**{name: tuple(t.to(dtype) for t in pair) for name, pair in cast.items()})
    slow = reference.encoder_decoder(*[tuple(t.numpy() for t in pair) for pair in cast.values()])
    for name in cast:
        assert found[name].dtype == dtype
        close(found[name], slow[name], TOLERANCES[dtype])


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float64, 1e-12), (torch.float32, 1e-12), (torch.float32, 1e-5)])
def test_small_gradients_of_a_sure_model_are_normalised_as_large_ones(dtype, scale):
    """R̄ has no scale: where Ā is small, the source's shares within R_cross / Ā are those of the first order."""
    encoder, decoder, cross = drawn(5, 1, 2, 4, 4), drawn(6, 1, 2, 3, 3), drawn(7, 1, 2, 3, 4)
    three = {"encoder": encoder, "decoder": decoder, "cross": cross}
    found = relevance_encoder_decoder(**{n: (a.to(dtype), (g * scale).to(dtype)) for n, (a, g) in three.items()})
    source, target, other = (reference.mean_of_positive(a[0].numpy(), g[0].numpy()) for a, g in three.values())
    for rows in (source, target):  # one layer: R − I is Ā itself
        for i, row in enumerate(rows):
            total = sum(row)
            rows[i] = [value / total + (i == j) for j, value in enumerate(row)]
    turned = [list(column) for column in zip(*target, strict=True)]
    slow = torch.tensor(reference.times(reference.times(turned, other), source), dtype=torch.float64)
    close(found["cross"] / scale, slow, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@quick
@given(seeds, sizes, st.booleans())
def test_head_importance_matches_the_reference(dtype, seed, size, normalise):
    output, gradient = drawn(seed, *size)
    found = head_importance(output.to(dtype), gradient.to(dtype), normalise=normalise)
    assert found.dtype == dtype
    slow = reference.head_importance(output.numpy(), gradient.numpy(), normalise)
    close(found, slow, TOLERANCES[dtype])


@quick
@given(seeds, sizes)
def test_the_product_keeps_its_sign(seed, size):
    attention, gradient = drawn(seed, *size)
    found = attention_gradient(attention, gradient)
    for place in torch.cartesian_prod(*[torch.arange(n) for n in size]).view(-1, 5).tolist():
        assert found[tuple(place)].item() == attention[tuple(place)].item() * gradient[tuple(place)].item()


def test_negative_products_are_cut_before_the_mean_over_heads():
    attention = torch.ones(1, 1, 2, 1, 1)
    gradient = torch.tensor([3.0, -3.0]).view(1, 1, 2, 1, 1)
    assert relevance(attention, gradient).item() == 1 + 3 / 2  # the mean of the products would be 0


@quick
@given(seeds, sizes)
def test_laws_of_relevance(seed, size):
    layers, batch, heads, tokens, _ = size
    attention, gradient = drawn(seed, layers, batch, heads, tokens, tokens)
    found = relevance(attention, gradient)
    assert (found >= torch.eye(tokens)).all()  # it only grows
    close(relevance(attention.flip(2), gradient.flip(2)), found)  # heads have no order
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    moved = relevance(attention[..., order, :][..., order], gradient[..., order, :][..., order])
    close(moved, found[:, order][..., order])
    close(relevance(attention, -gradient.abs()), torch.eye(tokens).expand_as(found))
    wider = [torch.nn.functional.pad(t, (0, 1, 0, 1)) for t in (attention, gradient)]
    close(relevance(*wider)[:, :tokens, :tokens], found)  # padding without weight changes nothing


@quick
@given(seeds, sizes)
def test_without_cross_attention_nothing_crosses(seed, size):
    layers, above, heads, source, target = size
    encoder, decoder = drawn(seed, layers, heads, source, source), drawn(seed, above, heads, target, target)
    nothing = torch.zeros(above, heads, target, source, dtype=torch.float64)
    found = relevance_encoder_decoder(encoder=encoder, decoder=decoder, cross=(nothing, nothing))
    assert not found["cross"].any()
    close(found["decoder"], relevance(*[t[:, None] for t in decoder])[0])


def test_a_cross_attention_worked_by_hand():
    encoder = torch.tensor(
        [[[[0.0, 1.0], [0.0, 1.0]]]]
    )  # R = I + Ā: row 0 takes 1 from token 1, row 1 has 2 of its own
    decoder = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    cross = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    found = relevance_encoder_decoder(
        encoder=(encoder, torch.ones(1, 1, 2, 2)),
        decoder=(decoder, torch.ones(1, 1, 2, 2)),
        cross=(cross, torch.tensor([[[[0.0, 0.0], [0.0, 3.0]]]])),
    )
    # R̄ of the decoder [[2, 0], [1, 1]], of the encoder [[1, 1], [0, 2]]; Ā of cross has 3 at (1, 1)
    close(found["cross"], torch.tensor([[0.0, 6.0], [0.0, 6.0]]))


def test_importance_adds_tokens_up_before_it_takes_the_absolute_value():
    output = torch.tensor([[2.0, -2.0], [1.0, 1.0]]).view(1, 1, 2, 2, 1)
    gradient = torch.ones_like(output)
    assert head_importance(output, gradient).tolist() == [[0.0, 2.0]]
    two = torch.cat([output, -output], dim=1)
    assert head_importance(two, torch.ones_like(two)).tolist() == [[0.0, 2.0]]  # a mean over examples, each positive
    assert head_importance(output, torch.zeros_like(output), normalise=True).isnan().all()


def test_the_sum_over_keys_is_the_sum_over_features():
    """Σ_k A·∇A = Σ_d O·∇O for O = A V, whatever follows."""
    attention, _ = drawn(3, 2, 3, 4, 5, 6)
    generator = torch.Generator().manual_seed(4)
    value, weight = (torch.randn(*shape, generator=generator).double() for shape in ((2, 3, 4, 6, 7), (7, 9)))
    attention.requires_grad_()
    output = attention @ value
    output.retain_grad()
    (output @ weight).tanh().square().sum().backward()
    close(head_importance(attention.detach(), attention.grad), head_importance(output.detach(), output.grad), 1e-12)


def test_errors_name_what_came():
    attention = torch.ones(1, 1, 1, 2, 2)
    with pytest.raises(ShapeError, match=r"shaped like attention, \(1, 1, 1, 2, 2\), got NoneType; capture with grad"):
        relevance(attention, None)
    with pytest.raises(ShapeError, match="floating-point gradient"):
        attention_gradient(attention, attention.long())
    with pytest.raises(ShapeError, match="2 queries and 3 keys"):
        relevance(torch.ones(1, 1, 1, 2, 3), torch.ones(1, 1, 1, 2, 3))
    with pytest.raises(ShapeError, match="layer, batch, head, query, key.*got 2 axes"):
        relevance(torch.ones(2, 2), torch.ones(2, 2))
    three = torch.ones(1, 1, 3, 3)
    with pytest.raises(ShapeError, match="1 layers with 3 queries .* 3 keys .* got 1 layers with 2 and 3"):
        relevance_encoder_decoder(encoder=(three, three), decoder=(three, three), cross=(three[:, :, :2],) * 2)
