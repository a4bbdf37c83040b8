"""The process in which one variant's memory is measured: ``python -m hf_attnviz.benchmarking.child JSON``."""

import itertools
import json
import sys
import warnings

import torch

from hf_attnviz.benchmarking.beds import Bed
from hf_attnviz.benchmarking.given import NotThereError
from hf_attnviz.benchmarking.memory import WARM, measured
from hf_attnviz.benchmarking.shapes import Shape
from hf_attnviz.benchmarking.timing import one_thread
from hf_attnviz.benchmarking.variants import variants


def main(asked: str) -> str:
    """Measure what is asked for, and say it in JSON."""
    given = json.loads(asked)
    bed = Bed(Shape(**given["shape"]), seed=given["seed"], device=given["device"])
    try:
        with warnings.catch_warnings(), one_thread(), torch.inference_mode():
            warnings.simplefilter("ignore")  # told by the process that asked, in the table
            run = variants()[given["key"]].open(bed)
            bed.ids  # noqa: B018 - what plain runs need is made before the mark is set
            grown = list(itertools.islice(measured(run, given["device"]), WARM))
    except NotThereError as missing:
        return json.dumps({"reason": [missing.reason.en, missing.reason.zh]})
    return json.dumps({"growth": grown})


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1]) + "\n")
