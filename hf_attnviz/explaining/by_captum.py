"""Captum's explanations of the same scalar: its own classes, called on a function from a model's vectors to the scalar.

Only this file knows Captum. Scores of a position are taken from its vector: a gradient's length (l2), or, where Captum
gives the parts of a sum, their sum.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from hf_attnviz import optional, progress
from hf_attnviz.errors import ArgumentError
from hf_attnviz.explaining.scores import Scores
from hf_attnviz.explaining.subject import Subject
from hf_attnviz.language import Text

_CONVERGED: Final = 0.05  # Sundararajan et al. 2017, section 5: attributions add up to within 5 %, else more steps
_ASTRAY: Final = Text(
    "That error is above 5 %: do not believe the integrated gradients as they stand. Take more steps; where a model "
    "first normalises its vectors (RMSNorm), zero is a singular point, so take a token as baseline.",
    "该误差超过 5%：这样的积分梯度不可采信。请增加步数；"
    "若模型首先对向量做归一化（RMSNorm），零向量是奇点，请改用某个词元作基线。",
)
_BASELINES: Final = {"zero": "零向量", "mask": "掩码词元", "pad": "填充词元", "unk": "未知词元"}
_RUNNING: Final = Text("running the model for its gradients", "正在为求梯度而多次运行模型")

Begins = Callable[[], object]
"""Called before each pass."""


def baseline_word(baseline: str | int) -> str:
    """What integrated gradients begin at, in Chinese."""
    return _BASELINES.get(str(baseline), f"词元 {baseline}")


def saliency(subject: Subject) -> Scores:
    """The length of the gradient at each position's vector."""
    found = _captum().Saliency(subject.forward).attribute(subject.vectors, abs=False)
    return Scores(found[0].norm(dim=-1).detach())


def smoothgrad(subject: Subject) -> Scores:
    """The length of the mean gradient under noise."""
    captum, vectors, settings = _captum(), subject.vectors, subject.settings
    spread = float((vectors.max() - vectors.min()).detach()) * settings.noise
    tunnel = captum.NoiseTunnel(captum.Saliency(_counted(subject, settings.samples)))
    with _seeded(settings.seed, vectors.device):
        found = tunnel.attribute(
            vectors,
            nt_type="smoothgrad",
            nt_samples=settings.samples,
            nt_samples_batch_size=settings.rows,
            stdevs=spread,
            abs=False,
        )
    told = {"samples": settings.samples, "noise": settings.noise, "deviation": spread, "seed": settings.seed}
    return Scores(found[0].norm(dim=-1).detach(), told)


def input_x_gradient(subject: Subject) -> Scores:
    """Each position's vector times the gradient there."""
    return Scores(_captum().InputXGradient(subject.forward).attribute(subject.vectors)[0].sum(-1).detach())


def integrated_gradients(subject: Subject) -> Scores:
    """The scalar's change from the baseline to the input, shared out among the positions."""
    settings, baseline = subject.settings, subject.baseline()
    found, delta = (
        _captum()
        .IntegratedGradients(_counted(subject, settings.steps))
        .attribute(
            subject.vectors,
            baselines=baseline,
            n_steps=settings.steps,
            internal_batch_size=settings.rows,
            return_convergence_delta=True,
        )
    )
    return Scores(found[0].sum(-1).detach(), *_told(subject, baseline, float(delta[0])))


def conductance(subject: Subject, layer: nn.Module, begins: Begins) -> Tensor:
    """How much of the change from the baseline to the input flows through each position of a layer, ``[position]``."""
    settings = subject.settings
    if subject.alone:
        raise ArgumentError(
            Text(
                "conductance runs several texts side by side, and this model reads one at a time, for it has no "
                "padding token: set model.config.pad_token_id, or choose another method",
                "conductance 要把多段文本并排运行，而此模型没有填充词元，一次只能读一段：请设置 "
                "model.config.pad_token_id，或换一种方法",
            )
        )
    found = (
        _captum()
        .LayerConductance(_told_of(subject, begins), layer)
        .attribute(
            subject.vectors,
            baselines=subject.baseline(),
            n_steps=settings.steps,
            internal_batch_size=settings.rows,
        )
    )
    summed: Tensor = found[0].sum(-1).detach()
    return summed


def gradient_x_activation(subject: Subject, layer: nn.Module, begins: Begins) -> Tensor:
    """Each position's hidden state times the gradient there, ``[position]``."""
    found = _captum().LayerGradientXActivation(_told_of(subject, begins), layer).attribute(subject.vectors)
    summed: Tensor = found[0].sum(-1).detach()
    return summed


def activation(subject: Subject, layer: nn.Module, begins: Begins) -> Tensor:
    """The length of each position's hidden state, ``[position]``; it knows nothing of the scalar."""
    found = _captum().LayerActivation(_told_of(subject, begins), layer).attribute(subject.vectors)
    lengths: Tensor = found[0].norm(dim=-1).detach()
    return lengths


LAYER_METHODS: Final[dict[str, Callable[[Subject, nn.Module, Begins], Tensor]]] = {
    "conductance": conductance,
    "gradient_x_activation": gradient_x_activation,
    "activation": activation,
}


def passes(method: str, subject: Subject) -> int:
    """How many passes a method of :data:`LAYER_METHODS` makes for each layer."""
    if method != "conductance":
        return 1
    return -(-subject.settings.steps // (subject.settings.rows - 1))  # each batch begins where the last one ended


def _told_of(subject: Subject, begins: Begins) -> Callable[[Tensor], Tensor]:
    """The subject's forward, which tells that it begins."""

    def forward(vectors: Tensor) -> Tensor:
        begins()
        return subject.forward(vectors)

    return forward


def _captum() -> Any:
    optional.require("captum", "captum")
    return optional.require("captum.attr", "captum")


def _told(subject: Subject, baseline: Tensor, delta: float) -> tuple[dict[str, Any], tuple[Text, ...]]:
    start, end, told = from_baseline(subject, baseline)
    settings, share = subject.settings, abs(delta) / abs(end - start) if end != start else float("inf")
    notes = [
        Text(
            f"Integrated gradients share out the change from {start:.4g} (baseline: {settings.baseline}) to {end:.4g}; "
            f"{abs(delta):.2g} of it is error of the {settings.steps} steps (convergence delta).",
            f"积分梯度所分摊的是从 {start:.4g}（基线：{baseline_word(settings.baseline)}）到 {end:.4g} 的变化；"
            f"其中 {abs(delta):.2g} 是 {settings.steps} 步积分的误差（收敛差）。",
        )
    ]
    if not share <= _CONVERGED:
        notes.append(_ASTRAY)
    return told | {"convergence_delta": delta}, tuple(notes)


def from_baseline(subject: Subject, baseline: Tensor) -> tuple[float, float, dict[str, Any]]:
    """The scalar at the baseline and at the input, and what a result's parameters say of the way between them."""
    with torch.no_grad():
        start, end = (float(subject.forward(at)[0]) for at in (baseline, subject.vectors))
    settings = subject.settings
    return start, end, {"baseline": settings.baseline, "baseline_score": start, "steps": settings.steps}


def _counted(subject: Subject, copies: int) -> Callable[[Tensor], Tensor]:
    """The subject's forward, announced and shown where so many copies take long."""
    total = -(-copies // subject.settings.rows)
    ticks = iter(progress.shown(range(total), total, _RUNNING))
    return _told_of(subject, lambda: next(ticks, None))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of our own inside; those outside go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
