"""The door of a torch layer that takes a faster way when nobody looks.

It is run apart from the observers, so that it takes the way it always takes; then once more under them, for the
weights, and both outputs must agree.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from hf_attnviz.capturing import scope, steering
from hf_attnviz.capturing.doors import replayed
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text

if TYPE_CHECKING:
    from hf_attnviz.capturing.recording import Recording

TORCH_ATTENTION: Final = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class Apart:
    """What stands at the door of one such layer."""

    def __init__(self, recording: "Recording", module: nn.Module) -> None:
        self.recording, self.module = recording, module

    def __call__(self, following: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_compiling():
            return following(*args, **kwargs)
        session = scope.session_of(self.recording)
        if session is None or scope.is_deaf():
            return following(*args, **kwargs)
        session.contexts.append(scope.Context(self.module, args, kwargs))
        try:
            changed = steering.wanted(scope.all_sessions())
            if changed or scope.is_replaying() or self.module.training or torch.is_grad_enabled():
                return following(*args, **kwargs)  # the slow way, whoever looks
            with scope.deaf(), torch._C.DisableTorchFunction():
                output = following(*args, **kwargs)
            try:
                with replayed(self.module):
                    args, kwargs = _padded(self.module, args, kwargs)
                    _compare(following(*args, **kwargs), output)
            except Exception as problem:  # ours, and never the model's
                self.recording.blame(session, self.module, problem)
            return output
        finally:
            session.leave(self.module)


def _padded(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as the slow way takes them: nested tensors padded, and their padding masked."""
    nested = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor) and a.is_nested), None)
    if nested is None:
        return args, kwargs
    lengths = torch.tensor([len(part) for part in nested.unbind()], device=nested.device)
    padding = torch.arange(int(lengths.max()), device=nested.device) >= lengths[:, None]
    name = "key_padding_mask" if isinstance(module, nn.MultiheadAttention) else "src_key_padding_mask"
    return tuple(map(_unnested, args)), {key: _unnested(a) for key, a in kwargs.items()} | {name: padding}


def _unnested(value: Any) -> Any:
    nested = isinstance(value, torch.Tensor) and value.is_nested
    return torch.nested.to_padded_tensor(value, 0.0) if nested else value


def _compare(replayed: Any, output: Any) -> None:
    """The two ways differ by rounding; where the fast one leaves padding out, it puts zeros."""
    one, other = (_unnested(value[0] if isinstance(value, tuple) else value) for value in (replayed, output))
    rows = other.abs().sum(-1) > 0
    deviation = (one - other)[rows].abs().max() if rows.any() else torch.zeros(())
    bound = 1e-4 * max(1.0, float(other.abs().max()))
    if not float(deviation) <= bound:
        raise CaptureError(
            Text(
                f"the fast and the slow way of this layer differ by {float(deviation):.2g}",
                f"这一层的快路径与慢路径相差 {float(deviation):.2g}",
            )
        )
