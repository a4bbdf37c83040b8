"""Random stacks of attention as models give them: padded on either side, causal or not, rubbish in padded rows."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

quick = settings(max_examples=25, deadline=None, derandomize=True)
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5}
RUBBISH = ("uniform", "nan", "zero")


@dataclass(frozen=True)
class Stack:
    """`attention` `[layer, batch, head, query, key]` in float64 and what is known about it."""

    attention: torch.Tensor
    valid: torch.Tensor
    valid_queries: torch.Tensor
    positions: torch.Tensor
    causal: bool

    @property
    def array(self) -> np.ndarray:
        return self.attention.numpy()

    def reference(self) -> tuple:
        """valid, valid_queries, positions, causal as the references take them."""
        return self.valid.tolist(), self.valid_queries.tolist(), self.positions.tolist(), self.causal

    def single(self, example: int) -> torch.Tensor:
        """One example without its padding, the batch axis kept."""
        queries, keys = self.valid_queries[example], self.valid[example]
        return self.attention[:, example : example + 1][..., queries, :][..., keys]


def weights(generator, shape, allowed, sharpness, rubbish):
    """Softmax rows over the allowed keys; rows that may see nothing hold rubbish."""
    scores = torch.from_numpy(generator.normal(size=shape)) * sharpness
    rows = torch.softmax(scores.masked_fill(~allowed[:, None], -torch.inf), -1)
    filling = {"uniform": 1 / shape[-1], "nan": torch.nan, "zero": 0.0}[rubbish]
    return torch.where(allowed.any(-1)[:, None, :, None], rows, filling)


def padded(lengths, size, left):
    places = torch.arange(size)
    return torch.stack([places >= size - n if left else places < n for n in lengths])


@st.composite
def stacks(draw, *, max_tokens=7, min_tokens=1, causal=None, rubbish=None, max_layers=3):
    """Square stacks: self-attention of a whole pass."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers, batch, heads = draw(st.integers(1, max_layers)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = draw(st.integers(min_tokens, max_tokens))
    lengths = draw(st.lists(st.integers(min_tokens, size), min_size=batch, max_size=batch))
    valid = padded(lengths, size, draw(st.booleans()))
    is_causal = draw(st.booleans()) if causal is None else causal
    allowed = valid[:, :, None] & valid[:, None, :]
    if is_causal:
        allowed = allowed.tril()
    shape = (layers, batch, heads, size, size)
    attention = weights(
        generator, shape, allowed, draw(st.sampled_from([0.5, 3.0])), rubbish or draw(st.sampled_from(RUBBISH))
    )
    return Stack(attention, valid, valid, torch.arange(size), is_causal)


@st.composite
def crossed(draw):
    """Other stacks: cross-attention (rows stand nowhere), or a cached pass (rows stand on the last keys)."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers, batch, heads = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    queries, keys = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    cached = draw(st.booleans()) and queries <= keys
    valid = padded(draw(st.lists(st.integers(1, keys), min_size=batch, max_size=batch)), keys, draw(st.booleans()))
    if cached:
        positions = torch.arange(keys - queries, keys)
        valid_queries = valid[:, positions]
        allowed = torch.arange(keys) <= positions[:, None]
    else:
        positions = torch.full((queries,), -1)
        valid_queries = padded(draw(st.lists(st.integers(1, queries), min_size=batch, max_size=batch)), queries, False)
        allowed = torch.ones(queries, keys, dtype=torch.bool)
    allowed = allowed & valid_queries[:, :, None] & valid[:, None, :]
    attention = weights(generator, (layers, batch, heads, queries, keys), allowed, 2.0, draw(st.sampled_from(RUBBISH)))
    return Stack(attention, valid, valid_queries, positions, cached)


noting = []  # functions that are told of each comparison: `python -m tests.deviations` prints the largest deviations


def close(got, wanted, tolerance=1e-9):
    """Assert equal within `tolerance`, absolute or of the larger values, NaN and infinity in the same places."""
    for note in noting:
        note(got, wanted)
    got = got.double().numpy() if isinstance(got, torch.Tensor) else np.asarray(got, dtype=float)
    wanted = wanted.double().numpy() if isinstance(wanted, torch.Tensor) else np.asarray(wanted, dtype=float)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
