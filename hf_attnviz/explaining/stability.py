"""Whether a prediction and its ranking stay what they are where nothing was said otherwise: beside padding, in a batch.

Neither should matter, and neither changes a word of the text. Where one does, the explanation is of the way the model
was run, not of the text.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from hf_attnviz import functional
from hf_attnviz.capturing.text import longest, tokenizer_of
from hf_attnviz.errors import NotKeptError
from hf_attnviz.explaining.given import copies, of_positions
from hf_attnviz.explaining.prediction import Prediction, run_seen
from hf_attnviz.explaining.rankings import OWN

PADDING: Final = 3
OF_TRACE: Final = ("attention", "rollout")


def perturbed(
    prediction: Prediction, positions: Sequence[int], methods: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kendall's τ between the ranking and that under each perturbation ``[perturbation, method]``, and by how much the
    probability moves ``[perturbation]``; NaN where the perturbation cannot be made.

    Args:
        positions: the tokens that are ranked.
        methods: those whose scores come of the trace of one pass.
    """
    tau, moved = [], []
    before = {name: _scores(prediction, name) for name in methods}
    for make in PERTURBATIONS.values():
        made = make(prediction, positions)
        after = None if made is None else _run(prediction, *made)
        tau.append([_tau(before[name], after, name, positions) for name in methods])
        moved.append(float("nan") if after is None else after.probability - prediction.probability)
    shape = len(PERTURBATIONS), len(methods)
    return torch.tensor(tau, dtype=torch.float64).view(shape), torch.tensor(moved, dtype=torch.float64)


def _padded(prediction: Prediction, positions: Sequence[int]) -> tuple[dict[str, Any], int] | None:
    """The same inputs beside padding, and by how much the text has moved: on the left where nobody looks ahead, for
    there padding on the right is never seen."""
    given, length = prediction.inputs, len(prediction.ids)
    pads = [
        getattr(one, "pad_token_id", None)
        for one in (tokenizer_of(prediction.processor), getattr(prediction.model, "config", None))
    ]
    pad = next((found for found in pads if isinstance(found, int)), None)
    most = longest(prediction.model, tokenizer_of(prediction.processor))
    accepts = inspect.signature(prediction.model.forward).parameters
    left = prediction.causal
    lacking = "attention_mask" not in accepts or (left and "position_ids" not in accepts)
    if pad is None or lacking or (most is not None and length + PADDING > most):
        return None
    full = given | {"attention_mask": given.get("attention_mask", torch.ones_like(given["input_ids"]))}
    if left:
        places = torch.arange(length, device=given["input_ids"].device)[None]
        full = full | {"position_ids": given.get("position_ids", places)}
    for name in of_positions(full):
        filling = full[name].new_full((1, PADDING, *full[name].shape[2:]), pad if name == "input_ids" else 0)
        full[name] = torch.cat([filling, full[name]] if left else [full[name], filling], dim=1)
    return full, PADDING if left else 0


def _accompanied(prediction: Prediction, positions: Sequence[int]) -> tuple[dict[str, Any], int] | None:
    """The same inputs in a batch with another text: its own candidates in the opposite order."""
    if prediction.alone:
        return None
    given, places = prediction.inputs, list(positions)
    other = prediction.ids.clone()
    other[places] = prediction.ids[places[::-1]]
    return copies(given, 2) | {"input_ids": torch.stack([prediction.ids, other])}, 0


PERTURBATIONS: Final[Mapping[str, Callable[[Prediction, Sequence[int]], tuple[dict[str, Any], int] | None]]] = {
    "padding": _padded,
    "batch": _accompanied,
}


def _run(prediction: Prediction, inputs: Mapping[str, Any], moved: int) -> Prediction:
    """The same prediction, read off perturbed inputs."""
    position = prediction.target.position
    place = None if position is None or prediction.two_sided else position + moved
    outputs, trace, unseen = run_seen(
        prediction.model, prediction.processor, inputs, lambda recording: recording.traces[0]
    )
    probability = float(prediction.target.probability(outputs, place)[0])
    return replace(prediction, trace=trace, unseen=unseen, probability=probability)


def _scores(prediction: Prediction, name: str) -> torch.Tensor | None:
    try:
        return OWN[name](prediction).double().cpu()
    except (NotKeptError, ValueError, LookupError):
        return None


def _tau(before: torch.Tensor | None, after: Prediction | None, name: str, positions: Sequence[int]) -> float:
    later = None if after is None else _scores(after, name)
    if before is None or later is None or before.shape != later.shape:
        return float("nan")
    places = list(positions)
    return float(functional.kendall_tau(torch.stack([before[places], later[places]]))[0, 1])
