"""Relevance and head importance once more, entry by entry over Python floats, without a line of ours.

`[layer][head][query][key]` are float64 arrays; the letters are those of Chefer et al. 2021 and Michel et al. 2019.
"""

import math


def mean_of_positive(attention, gradient):
    """Equation 5 for one layer."""
    heads, queries, keys = attention.shape
    return [
        [
            sum(max(0.0, float(attention[h, i, j] * gradient[h, i, j])) for h in range(heads)) / heads
            for j in range(keys)
        ]
        for i in range(queries)
    ]


def identity(size):
    return [[1.0 if i == j else 0.0 for j in range(size)] for i in range(size)]


def times(left, right):
    return [[math.fsum(row[k] * right[k][j] for k in range(len(right))) for j in range(len(right[0]))] for row in left]


def plus(left, right):
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(left, right, strict=True)]


def relevance(attention, gradient):
    """Equation 6 over all layers of one example."""
    result = identity(attention.shape[-1])
    for layer in range(len(attention)):
        result = plus(result, times(mean_of_positive(attention[layer], gradient[layer]), result))
    return result


def normalised(matrix):
    """Equations 8 and 9."""
    rows = []
    for i, row in enumerate(matrix):
        beyond = [value - (1.0 if i == j else 0.0) for j, value in enumerate(row)]
        total = math.fsum(beyond)
        rows.append([value / total if total else 0.0 for value in beyond])
        rows[-1][i] += 1.0
    return rows


def encoder_decoder(encoder, decoder, cross):
    """Equations 6, 7 and 10; each argument is (attention, gradient)."""
    source = relevance(*encoder)
    target = identity(decoder[0].shape[-1])
    across = [[0.0] * len(source) for _ in target]
    for layer in range(len(decoder[0])):
        own = mean_of_positive(decoder[0][layer], decoder[1][layer])
        target, across = plus(target, times(own, target)), plus(across, times(own, across))
        turned = [list(column) for column in zip(*normalised(target), strict=True)]
        other = mean_of_positive(cross[0][layer], cross[1][layer])
        across = plus(across, times(times(turned, other), normalised(source)))
    return {"encoder": source, "decoder": target, "cross": across}


def head_importance(output, gradient, normalise):
    layers, batch, heads, tokens, size = output.shape
    scores = []
    for layer in range(layers):
        row = []
        for head in range(heads):
            total = 0.0
            for example in range(batch):
                total += abs(
                    math.fsum(
                        float(output[layer, example, head, t, d] * gradient[layer, example, head, t, d])
                        for t in range(tokens)
                        for d in range(size)
                    )
                )
            row.append(total / batch)
        length = math.sqrt(math.fsum(score**2 for score in row))
        scores.append([(score / length if length else float("nan")) for score in row] if normalise else row)
    return scores
