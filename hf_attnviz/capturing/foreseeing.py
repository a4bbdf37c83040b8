"""Which calls of attention are to come, once the first one of a stack is known.

The other layers of a stack are like the first one; what the other side of an encoder-decoder, the text beside a
picture, and the steps of ``generate()`` will be like follows from what is read.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from hf_attnviz.capturing import memory
from hf_attnviz.capturing.address import Address, named_arguments
from hf_attnviz.capturing.decoding import STRIDE
from hf_attnviz.capturing.families import ATTENTION_CLASS, CROSS_NAMES, TOWERS
from hf_attnviz.capturing.generated import Planned
from hf_attnviz.capturing.runs import Pass
from hf_attnviz.capturing.scope import Session
from hf_attnviz.language import Text, counted
from hf_attnviz.reducing.outline import Outline

_ALONE: Final = {"this call": "这次调用"}  # where nothing is foreseen
_NEW_TOKENS: Final = 20  # what generate() makes where nothing says how many
_READ: Final = ("decoder_input_ids", "decoder_inputs_embeds", "labels")


@dataclass(frozen=True)
class Calls:
    """Calls of one stack (or ``"cross"``): so many layers in each of the outlines, one a pass."""

    group: str
    layers: int
    outlines: Sequence[Outline]

    def total(self, need: Callable[[Outline], int]) -> int:
        """Bytes that they will take, when each takes so much."""
        return self.layers * sum(map(need, self.outlines))

    @property
    def words(self) -> Text:
        """Which weights these are, and the bytes of all of them."""
        first, last = self.outlines[0], self.outlines[-1]
        steps, heads, whole = len(self.outlines), first.heads // first.batch, self.total(lambda outline: outline.whole)
        queries, keys = _span(first.queries, last.queries), _span(first.keys, last.keys)
        sizes = [
            *([Text(f"{steps:,} steps", f"{steps:,} 步")] if steps > 1 else []),
            Text(counted(self.layers, "layer"), f"{self.layers:,} 层"),
            *([Text(counted(first.batch, "sequence"), f"{first.batch:,} 条序列")] if first.batch > 1 else []),
            Text(counted(heads, "head"), f"{heads:,} 个头"),
            Text(f"{queries.en} queries", f"{queries.zh} 个查询"),
            Text(f"{keys.en} keys", f"{keys.zh} 个键"),
            Text(counted(first.itemsize, "byte"), f"{first.itemsize:,} 字节"),
        ]
        return Text(
            f"{self.group}: {' × '.join(one.en for one in sizes)} = {memory.told(whole)}",
            f"{_ALONE.get(self.group, self.group)}：{' × '.join(one.zh for one in sizes)} = {memory.told(whole)}",
        )


def _span(first: int, last: int) -> Text:
    one = f"{first:,}"
    return Text(one, one) if first == last else Text(f"{one} to {last:,}", f"{one} 到 {last:,}")


def layers_of(
    model: nn.Module,
    addresses: Mapping[int, Address],
    wants: Callable[[nn.Module], bool],
    chosen: Collection[int] | None,
    *,
    shared: bool,
) -> Mapping[str, int]:
    """How many modules attend in each stack, and across, among those that are wanted.

    Args:
        chosen: the layers that are kept.
        shared: whether one and the same module serves many blocks.
    """
    found: dict[str, int] = {}
    for module in model.modules():
        inside = any(ATTENTION_CLASS.search(type(part).__name__) for part in list(module.modules())[1:])
        if module is model or inside or not ATTENTION_CLASS.search(type(module).__name__) or not wants(module):
            continue
        address = addresses[id(module)]
        name = f"{address.module}.{type(module).__name__}".lower()
        group = "cross" if any(hint in name for hint in CROSS_NAMES) else address.stack
        found[group] = found.get(group, 0) + 1
    if not shared:
        return found
    return dict.fromkeys(found, len(chosen) if chosen is not None else int(_config(model, "num_hidden_layers")))


def foreseen(
    session: Session, one: Pass, layers: Mapping[str, int], known: Mapping[str, Outline], group: str
) -> tuple[list[Calls], list[Calls]]:
    """The calls of this pass that can be told, and those of later passes of ``generate()``.

    Args:
        session, one: the run, and its pass.
        layers: how many layers each stack has.
        known: the outlines of the calls seen so far in the run, by stack.
        group: the stack of the last of them, which has begun now.
    """
    run, model, outline = session.run, session.recording.model, known[group]
    now, first, past = {group: outline}, None, 0
    if run.two_sided and group == "encoder":
        first = _target(session, model, outline)
        if first is not None and run.planned is None:
            now["decoder"] = first
    elif run.two_sided and group == "decoder":
        first, past = outline, 1
    elif not run.two_sided and group in TOWERS:
        first, past = _text(model, one, layers, outline), 1
        now |= {} if first is None else {_own(layers): first}
    elif group != "cross" and len(outline.shape) == 4 and outline.queries == one.side.new:
        first, past = outline, 1
    width = known["encoder"].keys if "encoder" in known else run.source.new
    across = run.two_sided and first is not None
    if across and width is not None and "decoder" in now:
        now["cross"] = _across(now["decoder"], width)
    calls = [Calls(name, layers.get(name, int(name == group)), (found,)) for name, found in now.items()]
    later = []
    if first is not None and run.planned is not None and len(run.forwards) <= 1:
        strides = session.recording.strides and run.planned.cached and run.planned.copies == 1
        steps = list(_steps(first, run.planned, one, past, STRIDE if strides else 1))
        later = [Calls("decoder" if run.two_sided else _own(layers) if group in TOWERS else group, 0, steps)]
        later += [Calls("cross", 0, [_across(step, width) for step in steps])] if across and width is not None else []
    later = [replace(found, layers=layers.get(found.group, 1)) for found in later if found.outlines]
    return [found for found in calls if found.layers], later


def _own(layers: Mapping[str, int]) -> str:
    return next((name for name in layers if name not in (*TOWERS, "cross")), "decoder")


def _across(own: Outline, width: int) -> Outline:
    return replace(own, shape=(*own.shape[:3], width), causal=False)


def _steps(first: Outline, planned: Planned, one: Pass, start: int, stride: int) -> Iterator[Outline]:
    """What comes after (or, with ``start`` 0, with) the first pass that reads tokens.

    Args:
        stride: how many steps are kept together, as rows over the keys of the last of them.
    """
    batch, heads, queries, keys = first.shape
    fixed = bool(start) and keys > one.side.past + queries  # a cache of one size
    total = planned.passes(queries + one.side.past if start else 1, _NEW_TOKENS)
    if not start and total:
        yield replace(first, past=0)
    for step in range(max(1, start), total, stride):
        last = min(step + stride, total) - 1
        rows = last - step + 1 if planned.cached else queries + step
        past = one.side.past + (queries + step - 1 if planned.cached else 0)
        yield replace(first, shape=(batch, heads, rows, keys if fixed else keys + last), past=past, apart=stride > 1)


def _target(session: Session, model: nn.Module, encoder: Outline) -> Outline | None:
    """What the decoder's own attention will be like, by the arguments of the forward or of ``generate()``."""
    planned, length = session.run.planned, None
    batch = encoder.batch
    if planned is not None:
        batch, length = batch * planned.copies, 1
    elif session.contexts:
        outer = session.contexts[0]
        given = named_arguments(model, outer.args, outer.kwargs)
        read = next((given[name] for name in _READ if isinstance(given.get(name), torch.Tensor)), None)
        length = None if read is None or read.dim() < 2 else int(read.shape[1])
    if length is None or len(encoder.shape) != 4:
        return None
    return _reshaped(encoder, batch, _config(model, "decoder_attention_heads"), length, length)


def _text(model: nn.Module, one: Pass, layers: Mapping[str, int], tower: Outline) -> Outline | None:
    """What attention among tokens will be like, after that among patches or frames."""
    new, ids = one.side.new, one.side.ids
    if new is None or _own(layers) not in layers:
        return None
    batch = len(ids) if ids is not None else one.batch or 1
    found = _reshaped(tower, batch, _config(model, "num_attention_heads"), new, one.side.past + new)
    return replace(found, past=one.side.past)


def _reshaped(other: Outline, batch: int, heads: Any, queries: int, keys: int) -> Outline:
    mine = other.shape[1]
    heads = heads if isinstance(heads, int) and heads > 0 else mine
    size = other.size * mine // heads
    return replace(other, shape=(batch, heads, queries, keys), size=size, groups=heads, past=0, causal=True)


def _config(model: nn.Module, name: str) -> Any:
    config = getattr(model, "config", None)
    text = getattr(config, "get_text_config", None)
    own = getattr(config, name, None)
    return getattr(text(), name, None) if own is None and text is not None else own
