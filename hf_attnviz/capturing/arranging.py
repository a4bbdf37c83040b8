"""From an operand, as it stands in a product, to weights ``[batch, head, query, key]``."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

Arrange = Callable[[torch.Tensor], torch.Tensor]


def four(tensor: torch.Tensor) -> torch.Tensor:
    """``[batch, head, position, size]``, whatever stood before the positions."""
    if tensor.dim() == 2:
        return tensor[None, None]
    return tensor[:, None] if tensor.dim() == 3 else tensor.reshape(-1, *tensor.shape[-3:])


def batched(weights: torch.Tensor, batch: int | None) -> torch.Tensor:
    """``[batch · head, query, key]`` as ``[batch, head, query, key]``; other numbers of axes as they are."""
    if weights.dim() != 3:
        return weights
    return weights[:, None] if batch is None else weights.reshape(batch, -1, *weights.shape[1:])


def as_matrix(weights: torch.Tensor, turned: bool) -> torch.Tensor:
    """An operand of a product as weights ``[…, query, key]``; ``turned``: it stood on the right."""
    weights = weights[None] if weights.dim() == 1 else weights.transpose(-1, -2) if turned else weights
    return weights[None, None] if weights.dim() == 2 else weights


def ordered_by(order: str, weights: torch.Tensor) -> torch.Tensor:
    """An operand of an einsum as weights ``[…, query, key]``."""
    found = torch.einsum(order.removesuffix("?"), weights)
    if not order.endswith("?"):
        return found
    return found.unsqueeze(-2) if found.dim() > 2 else found[:, None, None]


def first_of_last(weights: torch.Tensor) -> torch.Tensor:
    """``[…, key, 1]`` without its last axis, along which nothing changes."""
    return weights[..., 0]


def one_query(arrange: Arrange, axis: int, weights: torch.Tensor) -> torch.Tensor:
    """Weights without an axis of queries, keys along ``axis``, as ``[batch, head, query, key]`` with one query."""
    found = arrange(weights).movedim(axis, -1).unsqueeze(-2)
    return found if found.dim() > 3 else found[:, None]


@dataclass(frozen=True)
class Placed:
    """How a product of weights and values stands in memory: to ``[…, query, size]``, and back.

    Attributes:
        to: brings the product into that order.
        back: brings a product from that order into its own.
        values: brings the values into the order ``[…, key, size]``.
    """

    to: Arrange
    back: Arrange
    values: Arrange

    @classmethod
    def of_matrix(cls, turned: bool) -> "Placed":
        """``weights @ values``; ``turned``: ``values @ weights``, both transposed."""
        arrange = functools.partial(as_matrix, turned=turned)
        return cls(arrange, functools.partial(_turned_back, turned), arrange)

    @classmethod
    def of_einsum(cls, equation: str, place: int) -> "Placed | None":
        """The result of an einsum whose operand number ``place`` are the weights; None where heads are summed up."""
        order = order_of(equation, place)
        inputs, _, output = equation.replace(" ", "").partition("->")
        if order is None or order.endswith("?"):
            return None
        values = inputs.split(",")[1 - place]
        rows, key = order.partition("->")[2][:-1], order[-1]
        size = "".join(c for c in output.replace("...", "") if c not in rows)
        if len(size) != 1 or {*output} != {*rows, size} or {*values} != {*rows[:-1], key, size}:
            return None
        return cls(
            functools.partial(torch.einsum, f"{output}->{rows}{size}"),
            functools.partial(torch.einsum, f"{rows}{size}->{output}"),
            functools.partial(torch.einsum, f"{values}->{rows[:-1]}{key}{size}"),
        )


def _turned_back(turned: bool, product: torch.Tensor) -> torch.Tensor:
    return product.transpose(-1, -2) if turned else product


def order_of(equation: str, place: int) -> str | None:
    """An equation that brings the weights of ``weights,values->output`` into the order ``…, query, key``.

    It ends in ``?`` where there is no axis of queries.
    """
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not output or len(terms) != 2:
        return None
    weights, values = terms[place], terms[1 - place]
    letters = weights.replace("...", "")
    keys = [c for c in letters if c in values and c not in output]
    queries = [c for c in letters if c in output and c not in values]
    if len(keys) != 1 or len(queries) > 1:
        return None
    others = "".join(c for c in letters if c not in (*keys, *queries))
    lead = "..." if "..." in weights else ""
    return f"{weights}->{lead}{others}{''.join(queries)}{keys[0]}" + ("" if queries else "?")
