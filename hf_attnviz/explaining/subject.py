"""What is explained: one input of one model and one scalar of its outputs, with the gradients that explain it.

The model runs as it stands, from the vectors that its own embedding gives (or from others in their place); gradients
are taken with respect to these vectors alone, so that no parameter collects any.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hf_attnviz.capturing import scope
from hf_attnviz.capturing.embedding import Change, embedded, embedder
from hf_attnviz.capturing.recording import Recording
from hf_attnviz.capturing.text import tokenizer_of
from hf_attnviz.errors import ArgumentError, NotKeptError, ShapeError
from hf_attnviz.explaining.given import copies, explained, one_example, opened, reads_alone, shortened
from hf_attnviz.explaining.target import Target, TargetLike, is_two_sided, meant
from hf_attnviz.labels import Labels, label_tokens
from hf_attnviz.language import Text
from hf_attnviz.trace import AttentionStack, Trace


@dataclass(frozen=True)
class Settings:
    """How thorough the methods are that run a model many times.

    Attributes:
        seed: of what is random; the global random numbers are left as they are.
        steps: points on the way from baseline to input (integrated gradients, conductance; Sundararajan et al. 2017
            find 20 to 300 enough).
        baseline: where that way begins: ``"zero"`` vectors, or at every position the token ``"mask"``, ``"pad"`` or
            ``"unk"``, or one of this id.
        samples, noise: how many noisy copies SmoothGrad takes the mean of, and their standard deviation as a share of
            the largest less the smallest number in the vectors (Smilkov et al. 2017: 50 copies, 10 to 20 %).
        rows: how many copies run side by side.
    """

    seed: int = 0
    steps: int = 50
    baseline: str | int = "zero"
    samples: int = 50
    noise: float = 0.15
    rows: int = 10

    def __post_init__(self) -> None:
        if min(self.steps, self.samples) < 1 or self.rows < 2 or not self.noise > 0:
            raise ArgumentError(
                Text(
                    f"expected 1 or more steps and samples, noise above 0, 2 or more rows; got {self}",
                    f"steps 与 samples 应为 1 或更多，noise 应大于 0，rows 应为 2 或更多；得到 {self}",
                )
            )


class Subject:
    """One input of one model, and one scalar of its outputs.

    Attributes:
        model, processor: what runs, and the tokenizer or processor that reads for it (or None).
        inputs: what the model is given: one example, padding left out, on the model's device.
        name: which of the inputs is explained: ``"input_ids"`` or ``"pixel_values"``.
        target: the scalar.
        score: what the model gives for it.
        stack: the stack whose keys are looked at; None: found by the number of its keys.
        settings: how thorough to be.

    Raises:
        ArgumentError: no example or several, a model in training mode, inputs that are neither tokens nor a picture.
        ShapeError: a target that is not a scalar.
    """

    def __init__(
        self,
        model: Any,
        inputs: str | Mapping[str, Any],
        *,
        target: TargetLike | Target = None,
        processor: Any = None,
        stack: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.model, self.processor = opened(model, processor)
        self.inputs = one_example(self.model, self.processor, inputs)
        self.name = explained(self.inputs)
        self.stack_name, self.settings = stack, settings if settings is not None else Settings()
        with torch.no_grad(), scope.alone():
            outputs = self.model(**self.inputs)
        ids = self.inputs["input_ids"][0] if self.name == "input_ids" else None
        self.target = (
            target
            if isinstance(target, Target)
            else meant(target, outputs, model=self.model, processor=self.processor, ids=ids)
        )
        with torch.no_grad():
            self.score = float(self.target.score(outputs)[0])

    @property
    def two_sided(self) -> bool:
        """Whether a decoder predicts and an encoder reads."""
        return is_two_sided(self.model)

    @property
    def told(self) -> Text:
        """What is explained, and what the model gives for it."""
        return Text(
            f"Explained is one number: {self.target.told.en}, here {self.score:.4g}.",
            f"所解释的是一个数：{self.target.told.zh}，此处为 {self.score:.4g}。",
        )

    # ---- from vectors to the scalar

    @cached_property
    def alone(self) -> bool:
        """Whether the model reads one text at a time only."""
        return reads_alone(self.model, self.inputs, self.target)

    @cached_property
    def beginnings(self) -> dict[str, nn.Module | None]:
        """The modules that turn the input, and what a decoder reads, into vectors."""
        names = [name for name in (self.name, "decoder_input_ids") if name in self.inputs]
        return {name: embedder(self.model, self.inputs, name) for name in names}

    @cached_property
    def module(self) -> nn.Module:
        """The module that turns what is explained into vectors."""
        found = self.beginnings[self.name]
        if found is None:
            raise ArgumentError(
                Text(
                    f"no module of {type(self.model).__name__} makes a vector for each position of {self.name}, so "
                    "there is nothing to take gradients of; explain the part of the model that does",
                    f"{type(self.model).__name__} 中没有模块为 {self.name} 的每个位置生成向量，因此没有可求梯度的对象；"
                    "请解释模型中能做到的那一部分",
                )
            )
        return found

    @cached_property
    def vectors(self) -> Tensor:
        """The vectors of the input, ``[1, position, width]``, a leaf that requires a gradient."""
        kept: list[Tensor] = []

        def keep(found: Tensor) -> Tensor:
            kept.append(found)
            return found

        with self.changed(keep, 1) as inputs, torch.no_grad():
            self.model(**inputs)
        return kept[0].detach().clone().requires_grad_()

    @contextmanager
    def changed(self, change: Change, rows: int) -> Iterator[dict[str, Any]]:
        """Inside, the model reads the inputs handed out, ``rows`` copies, from the vectors that ``change`` gives."""
        inputs = copies(self.inputs, rows)
        with scope.alone(), embedded(self.module, inputs[self.name], change):
            yield inputs

    def forward(self, vectors: Tensor) -> Tensor:
        """The scalar ``[row]`` for other vectors ``[row, position, width]``; it stays in the graph."""
        if self.alone and len(vectors) > 1:
            return torch.cat([self.forward(row) for row in torch.split(vectors, 1)])
        with torch.enable_grad(), self.changed(lambda _: vectors, len(vectors)) as inputs:
            score = self.target.score(self.model(**inputs))
        if vectors.requires_grad:
            self._connected(score)
        return score

    def led(self, inputs: Mapping[str, Any]) -> tuple[Any, Tensor]:
        """The outputs for other inputs, and the vectors of these, a leaf that the outputs depend on."""
        leaves: list[Tensor] = []

        def lead(vectors: Tensor) -> Tensor:
            leaves.append(vectors.detach().requires_grad_())
            return leaves[-1]

        with torch.enable_grad(), scope.alone(), embedded(self.module, inputs[self.name], lead):
            outputs = self.model(**inputs)
        return outputs, leaves[0]

    def gradient(self, outputs: Any, vectors: Tensor, position: int | None = None) -> Tensor:
        """The gradient of the scalar at the vectors that :meth:`led` gave, of their shape."""
        score = self.target.score(outputs, position)
        self._connected(score)
        return torch.autograd.grad(score.sum(), vectors)[0]

    def _connected(self, score: Tensor) -> None:
        if not score.requires_grad:
            raise ArgumentError(
                Text(
                    f"{self.target.name} has no gradient: nothing leads from it back to the input (detach(), argmax() "
                    "or item() in the function, or no_grad() in the model); give a scalar that can be differentiated",
                    f"{self.target.told.zh}没有梯度：没有路径从它回到输入（函数中有 detach()、argmax() 或 item()，"
                    "或模型中有 no_grad()）；请给出可求导的标量",
                )
            )

    def without(self, kept: Tensor) -> dict[str, Any]:
        """The inputs of a text of which only some positions are left; those that count positions count anew."""
        return shortened(self.inputs, kept)

    def vectors_of(self, ids: Tensor) -> Tensor:
        """The vectors ``[row, position, width]`` of other tokens."""
        with torch.no_grad(), scope.alone():
            found: Tensor = self.module(ids.to(self.vectors.device))
        return found

    def baseline(self) -> Tensor:
        """The vectors ``[1, position, width]`` that stand for no input at all.

        Raises:
            ArgumentError: a token that the tokenizer does not have, or a token where a picture is explained.
        """
        wanted = self.settings.baseline
        if wanted == "zero":
            return torch.zeros_like(self.vectors)
        if self.name != "input_ids":
            raise ArgumentError(
                Text(
                    f"baseline={wanted!r} is a token, and a picture is explained; use baseline='zero'",
                    f"baseline={wanted!r} 是词元，而所解释的是图片；请用 baseline='zero'",
                )
            )
        number = (
            wanted if isinstance(wanted, int) else getattr(tokenizer_of(self.processor), f"{wanted}_token_id", None)
        )
        if number is None:
            raise ArgumentError(
                Text(
                    f"baseline={wanted!r}: expected 'zero', a token id, or 'mask', 'pad' or 'unk' where the tokenizer "
                    "has such a token (pass processor=…)",
                    f"baseline={wanted!r}：应为 'zero'、词元编号，或分词器具有的 'mask'、'pad'、'unk'（请传入 "
                    "processor=…）",
                )
            )
        return self.vectors_of(torch.full_like(self.inputs["input_ids"], int(number)))

    # ---- the attention of the same scalar

    @cached_property
    def trace(self) -> Trace:
        """The attention of the input, with the scalar's gradients."""
        return self._captured[0]

    @cached_property
    def captured_score(self) -> float:
        """The scalar as it came out of the captured run, which differs from :attr:`score` by rounding."""
        return self._captured[1]

    @cached_property
    def _captured(self) -> tuple[Trace, float]:
        recording, leaves, undo = Recording(self.model, self.processor, gradients=True), list[Tensor](), ExitStack()

        def led(vectors: Tensor) -> Tensor:
            leaves.append(vectors.detach().requires_grad_())
            return leaves[-1]

        beginnings = self.beginnings | {self.name: self.module}
        with undo, torch.enable_grad(), recording:
            for name, module in beginnings.items():
                if module is not None:
                    undo.enter_context(embedded(module, self.inputs[name], led))
            score = self.target.score(self.model(**self.inputs)).sum()
            self._connected(score)
            torch.autograd.grad(score, leaves, allow_unused=True)
        return recording.trace, float(score.detach())

    @cached_property
    def stack(self) -> AttentionStack:
        """The stack whose rows look at the input: the only one that looks at itself; of an encoder-decoder the cross-
        attention.

        Raises:
            UnknownStackError: there are several; choose one.
        """
        name = self.stack_name
        if name is None and self.two_sided and {"encoder", "cross"} <= set(self.trace.stacks):
            name = "cross"
        own = [one.name for one in self.trace.stacks.values() if one.maps[0].kind == "self"]
        if name is None and len(own) == 1:
            name = own[0]
        return self.trace.stack(name)

    @cached_property
    def columns(self) -> Tensor:
        """Which keys of the stack are positions of the input: all, or the patches of a picture, without ``[CLS]``."""
        places, wanted = list(range(len(self.stack.keys))), self.positions
        if self.name == "pixel_values":
            places = [n for n, kind in enumerate(self.stack.keys.kinds) if kind == "patch"]
        if len(places) != wanted:
            raise ShapeError(
                Text(
                    f"the keys of stack {self.stack.name!r} are not the {wanted} positions of {self.name}: there are "
                    f"{len(places)} of that kind; methods that use no attention still work",
                    f"堆栈 {self.stack.name!r} 的键不是 {self.name} 的 {wanted} 个位置：那一类有 {len(places)} 个；"
                    "不使用注意力的方法仍然可用",
                )
            )
        return torch.tensor(places)

    @cached_property
    def rows(self) -> Tensor:
        """The rows at which the scalar is read off the last layer: those whose weights have a gradient at all.

        Raises:
            NotKeptError: the scalar does not depend on the last layer's attention.
        """
        last = self.stack.maps[-1].plain()
        slopes = last.gradient
        found = torch.empty(0) if slopes is None else slopes.abs().sum((0, 2)).nonzero().flatten()
        if not len(found):
            raise NotKeptError(
                Text(
                    f"{self.target.name} does not depend on the attention of {last.module}, the last layer of stack "
                    f"{self.stack.name!r}: no row of it is read; choose another target, or methods that use no "
                    "attention",
                    f"{self.target.told.zh}不依赖堆栈 {self.stack.name!r} 最后一层 {last.module} 的注意力："
                    "没有读取它的任何一行；请换一个目标，或用不使用注意力的方法",
                )
            )
        return found

    # ---- labels

    @property
    def positions(self) -> int:
        """How many positions the input has."""
        if self.name == "input_ids":
            return int(self.inputs["input_ids"].shape[1])
        return int(self.vectors.shape[1])

    @cached_property
    def labels(self) -> Labels:
        """What stands at each position of the input."""
        if self.name == "input_ids":
            return label_tokens(self.inputs["input_ids"][0].tolist(), tokenizer_of(self.processor))
        try:
            return self.stack.keys.at(self.columns.tolist())
        except ShapeError:
            return Labels.plain(map(str, range(self.positions)), "patch")
