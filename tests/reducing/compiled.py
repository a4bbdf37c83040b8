"""Run by itself: the kernels through Triton's compiler for an H100 or H200, none being at hand; told as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hf_attnviz.reducing import fused_triton

POINTERS = {"query", "key", "mask"}
FLOATS = {"lse", "stands", "places", "counted", "entropy", "distance", "sinks", "mass"}
OTHERS = {"firsts": "*i32", "received": "*i64", "scale": "fp32", "never": "fp32"}


def main() -> None:
    kinds = {
        "sums": (fused_triton.sums_kernel, "bf16", False),
        "sums, masked": (fused_triton.sums_kernel, "bf16", True),
        "sums, float32": (fused_triton.sums_kernel, "fp32", False),
        "log-sum-exp": (fused_triton.lse_kernel, "bf16", False),
    }
    json.dump({name: told(*kind) for name, kind in kinds.items()}, sys.stdout)


def told(kernel, dtype: str, masked: bool, size: int = 128) -> dict[str, int]:
    """Registers spilled, shared memory, and the instructions that matter."""
    wide = dtype == "fp32"
    how = fused_triton.blocks(size, wide=wide, masked=masked)
    options = {name: how.pop(name) for name in ("num_warps", "num_stages")} | {"enable_fp_fusion": True}
    fixed = how | {"masked": masked, "causal": not masked, "wide": wide, "part": False, "depth": size}
    fixed |= {"query_part": 1, "key_part": 1}  # Triton knows a stride of one by itself
    fixed = {name: value for name, value in fixed.items() if name in kernel.arg_names}
    types = {name: _type(name, dtype) for name in kernel.arg_names} | dict.fromkeys(fixed, "constexpr")
    even = [
        i
        for i, (name, kind) in enumerate(types.items())
        if kind[0] == "*" or name.endswith(("_row", "_head", "_batch"))
    ]
    even.append(kernel.arg_names.index("size"))
    source = ASTSource(kernel, types, fixed, {(i,): [["tt.divisibility", 16]] for i in even})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return {
        "spilled": _stack(made.asm["cubin"]),
        "shared": made.metadata.shared,
        "matrix_units": made.asm["ptx"].count("wgmma.mma_async"),
        "atomics": len(re.findall(r"atom\.\S*add\.u64|red\.\S*add\.u64", made.asm["ptx"])),
    }


def _type(name: str, dtype: str) -> str:
    return f"*{dtype}" if name in POINTERS else "*fp32" if name in FLOATS else OTHERS.get(name, "i32")


def _stack(cubin: bytes) -> int:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    return int(re.search(r"STACK:(\d+)", run.stdout)[1])


if __name__ == "__main__":
    main()
