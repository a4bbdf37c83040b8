"""A call on an accelerator, where it stands on the CPU: nothing mixes the two, and little is waited for."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.capturing.proof import prove_rows
from hf_attnviz.reduced import Reduced
from hf_attnviz.reducing import passes
from hf_attnviz.reducing.carried import Carriage
from hf_attnviz.reducing.keeping import over_tiles
from hf_attnviz.reducing.rows import Rows
from hf_attnviz.reducing.statistics import Statistics
from hf_attnviz.reducing.topk import TopK
from tests.models import ids, tiny
from tests.reducing.away import Away, TwoDevices, _away
from tests.reducing.gpu_cases import CASES, made

KEPT = {"statistics": Statistics(), "topk": TopK(2), "rows": Rows([3])}


def _proved_case(name: str):
    ran, places, _ = made(CASES[name])
    value = ran.key.float().repeat_interleave(ran.group, 1)
    scores = ran.scale * ran.query.float() @ value.mT
    scores = scores if ran.mask is None else scores + ran.mask.float()
    if ran.causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
    output = scores.softmax(-1).nan_to_num(0) @ value
    return replace(ran, output=output.transpose(1, 2)), places


def _there(ran):
    tensors = {name: _away(value) for name, value in vars(ran).items() if isinstance(value, torch.Tensor)}
    return replace(ran, **tensors)


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.shape[-1] < 100])
def test_nothing_mixes_devices(name: str, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know our device
    ran, places = _proved_case(name)
    with passes.pure(), torch._C.DisableTorchFunction():
        here = over_tiles([KEPT[keep]], ran, places, {}, Carriage())[keep]
        error = prove_rows(ran, places).error
        with TwoDevices() as two:
            proved = prove_rows(_there(ran), places)
            kept = over_tiles([KEPT[keep]], _there(ran), places, {}, Carriage())[keep]
    assert isinstance(proved.error, Away)
    torch.testing.assert_close(proved.error.behind, error, atol=1e-5, rtol=0)
    values = kept.values if isinstance(kept, Reduced) else {"weights": kept.weights}
    for name_of, value in values.items():
        assert isinstance(value, Away), "what is kept stays where the model runs"
        expected = getattr(here, name_of)
        if not expected.is_floating_point():
            continue  # of equal weights any key may come
        torch.testing.assert_close(value.behind, expected, atol=1e-5, rtol=0, equal_nan=True)
    assert ran.mask is not None or len(two.waits) <= 5, two.waits


@pytest.fixture
def nowhere() -> Iterator[None]:
    """New tensors land, unless they are told where, on a device that has no numbers."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("keep", ["maps", "statistics", "topk", av.Rows([0, -1])], ids=str)
def test_the_default_device_is_the_users_own(keep, masked: bool, request: pytest.FixtureRequest) -> None:
    model, given = tiny("llama"), {"input_ids": ids(2, 9)}
    if masked:
        given["attention_mask"] = torch.ones(2, 9).long()
        given["attention_mask"][0, :3] = 0
    request.getfixturevalue("nowhere")
    with av.capture(model, keep=keep) as recording:
        model(**given)
    assert [len(trace.maps) for trace in recording.traces] == [2, 2]
    assert {one.device for call in recording.calls for one in _tensors(call.kept)} == {torch.device("cpu")}


def _tensors(kept) -> list[torch.Tensor]:
    found = [vars(one).get("values") or vars(one) for one in kept.values()]
    return [value for one in found for value in one.values() if isinstance(value, torch.Tensor)]


def test_what_mixes_devices_is_caught() -> None:
    away = Away(torch.ones(2))
    with TwoDevices() as two:
        assert isinstance(away + 1, Away) and not isinstance(away.to("cpu"), Away)
        with pytest.raises(RuntimeError, match="mixes devices"):
            away + torch.ones(2)
        assert float(away.sum()) == 2
    assert len(two.waits) == 2, two.waits
