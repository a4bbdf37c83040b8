"""What is read off the operators below scaled_dot_product_attention, each with results in the shapes that it gives.

The one of the CPU runs for real. Those of CUDA cannot run here: their results are made up, after torch's own
registrations of shapes, which are held against what is made up.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import hf_attnviz as av
from hf_attnviz.capturing import kernels
from tests.models import ids, tiny

B, H, KV, Q, K, D = 2, 4, 2, 5, 5, 20
FLASH, EFFICIENT, CUDNN = (f"aten::_scaled_dot_product_{n}_attention" for n in ("flash", "efficient", "cudnn"))


def vectors(size: int = D, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((B, H, Q, size), (B, KV, K, size), (B, KV, K, size))
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return q, k, v


def read(name: str, given: dict[str, Any], result: tuple[Any, ...]) -> Any:
    return kernels._ran(given, result, kernels._KERNELS[name], kernels._NEVER.get(name))


@pytest.mark.parametrize("causal", [True, False])
def test_the_kernel_of_the_cpu(causal: bool) -> None:
    query, key, value = vectors()
    with kernels.watched() as seen:
        output = F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=0.3, enable_gqa=True)
    ran = seen()
    assert ran is not None and ran.causal is causal and ran.scale == 0.3 and ran.mask is None and ran.group == 2
    assert torch.equal(ran.output, output.transpose(1, 2))
    scores = 0.3 * query.double() @ key.double().repeat_interleave(2, 1).mT
    if causal:
        scores = scores.masked_fill(torch.ones(Q, K).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(ran.lse.double(), scores.logsumexp(-1), atol=1e-5, rtol=0)


def test_flash_is_given_vectors_filled_up_and_the_true_scale() -> None:
    query, key, value = (F.pad(one, (0, 4)) for one in vectors())
    lse = torch.randn(B, H, Q)
    given = {"query": query, "key": key, "value": value, "is_causal": True, "scale": D**-0.5}
    result = (query.clone(), lse, None, None, Q, K, torch.empty(2), torch.empty(()), torch.empty(0))
    _shaped_as("flash", (query, key, value, 0.0, True, False), result)
    ran = read(FLASH, given, result)
    assert ran.scale == D**-0.5 and ran.causal and ran.mask is None
    assert torch.equal(ran.lse, lse) and ran.shape == (B, H, Q, K)


@pytest.mark.parametrize("due", [True, False], ids=["gradient", "no gradient"])
def test_efficient_fills_its_rows_up(due: bool) -> None:
    query, _, _ = vectors()
    key, value = query.clone(), query.clone()
    bias = torch.zeros(1, 1, 1, K).expand(B, H, Q, K)
    lse = torch.full((B, H, 32 if due else 0), torch.inf)
    lse[:, :, :Q] = 1.0
    result = (query.clone(), lse, torch.empty(()), torch.empty(()))
    _shaped_as("efficient", (query, key, value, bias, due), result)
    given = {"query": query, "key": key, "value": value, "attn_bias": bias, "compute_log_sumexp": due}
    ran = read(EFFICIENT, given, result)
    assert (ran.scale == D**-0.5 and ran.mask is bias) or torch.equal(ran.mask, bias)
    assert (ran.lse is None) is not due
    assert not due or (ran.lse.shape == (B, H, Q) and bool((ran.lse == 1).all()))


@pytest.mark.parametrize("lse", ["one more axis", "as before 2.7", "none"])
def test_cudnn_says_never_in_numbers_of_float16(lse: str) -> None:
    query, key, value = vectors(16, torch.bfloat16)
    seen = torch.ones(Q, K).tril().bool()
    mask = torch.where(seen, 0.0, -65504.0).bfloat16()
    kept = {"one more axis": torch.ones(B, H, Q, 1), "as before 2.7": torch.ones(B, H, Q), "none": None}[lse]
    result = (query.clone(), kept, None, None, Q, K, torch.empty(()), torch.empty(()), None)
    if lse == "one more axis":
        _shaped_as("cudnn", (query, key, value, mask, True), result)
    given = {"query": query, "key": key, "value": value, "attn_bias": mask, "compute_log_sumexp": kept is not None}
    ran = read(CUDNN, given, result)
    assert ran.mask.shape == (1, 1, Q, K)
    assert torch.equal(ran.mask[0, 0], torch.where(seen, 0.0, -torch.inf).bfloat16())
    assert ran.lse is None if kept is None else ran.lse.shape == (B, H, Q)


def _shaped_as(kernel: str, given: tuple[Any, ...], made_up: tuple[Any, ...]) -> None:
    """What torch itself says of the shapes of a kernel's output and log-sum-exp: what was made up has the same."""
    away = [one.to("meta") if isinstance(one, torch.Tensor) else one for one in given]
    told = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention").default(*away)
    for one, other in zip(told[:2], made_up[:2], strict=True):
        assert one.shape == other.shape


def test_a_kernel_that_is_given_padding_is_proved_by_what_the_model_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flash on CUDA: heads of 12 numbers are filled up to 16 above the operator, and its output is cut."""
    whole = F.scaled_dot_product_attention

    def padding(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        size = query.shape[-1]
        query, key, value = (F.pad(one, (0, -size % 8)) for one in (query, key, value))
        scale = size**-0.5 if scale is None else scale
        return whole(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[..., :size]

    model, given = tiny("gpt2", n_embd=48), ids(2, 9)
    with av.capture(model, keep="statistics") as plain:
        model(given)
    monkeypatch.setattr(F, "scaled_dot_product_attention", padding)
    with av.capture(model, keep="statistics") as recording:
        model(given)
    assert recording.calls and "log-sum-exp" in recording.calls[0].way
    for one, other in zip(recording.calls, plain.calls, strict=True):
        for name in one.statistics:
            torch.testing.assert_close(one.statistics[name], other.statistics[name], atol=1e-5, rtol=0)
