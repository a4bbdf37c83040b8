"""A reducer of one's own: a class in one file, given to ``keep``; labelled and joined over decoding like any other."""

from dataclasses import dataclass

import torch

import hf_attnviz as av
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing.tile import Tile
from tests.models import ids, tiny


@dataclass(frozen=True)
class Largest:
    """The largest weight of each row, and how many rows gave each key theirs."""

    name: str = "largest"
    needs: frozenset[str] = frozenset({"weights"})

    def update(self, state: tuple[torch.Tensor, torch.Tensor] | None, tile: Tile) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in a tile."""
        if state is None:
            batch, heads, queries, keys = tile.shape
            state = torch.zeros(batch, heads, queries), torch.zeros(batch, heads, keys)
        best = tile.weights.max(-1)
        state[0][tile.batch, :, tile.rows] = best.values
        counted = tile.counted[:, None].expand(best.indices.shape).float()
        state[1][tile.batch, :, tile.keys].scatter_add_(-1, best.indices, counted)
        return state

    def result(self, state: tuple[torch.Tensor, torch.Tensor]) -> Reduced:
        """By name, with axes that say how results join."""
        axes = {"weight": ("batch", "head", "query"), "wins": ("batch", "head", "key")}
        return Reduced(dict(zip(axes, state, strict=True)), axes)


def test_a_reducer_of_ones_own_is_joined_over_decoding() -> None:
    model = tiny("llama")
    with av.capture(model, keep=[Largest(), "statistics"]) as reduced:
        model.generate(ids(2, 9), max_new_tokens=6, do_sample=False)
    with av.capture(model) as whole:
        model.generate(ids(2, 9), max_new_tokens=6, do_sample=False)
    for one, other in zip(reduced.traces, whole.traces, strict=True):
        for kept, full in zip(one.maps, other.maps, strict=True):
            found, best = kept.reduced["largest"], full.weights.max(-1)
            torch.testing.assert_close(found.weight, best.values, atol=2e-6, rtol=0)
            wins = torch.nn.functional.one_hot(best.indices, full.shape[-1]).sum(1).float()
            assert torch.equal(found.wins, wins)
            assert found.weight.shape == kept.statistics.entropy.shape == (kept.heads, len(kept.queries))
