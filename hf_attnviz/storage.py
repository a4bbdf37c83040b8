"""Files that are either wholly there or as they were: written beside, flushed, then renamed into place."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from hf_attnviz.errors import SaveError, TraceFileError

_METADATA_KEY = "hf_attnviz"


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write ``data`` to ``path`` in one step: a reader sees the old file or the new one, never a part.

    Raises:
        SaveError: the folder is missing, the disk is full, permission is denied …; the old file is untouched.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _default_mode())  # noqa: PTH101 - mkstemp makes files that only the owner reads
        os.replace(temporary, target)  # noqa: PTH105 - the atomic rename, by its own name
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
        raise SaveError(
            f"could not write {str(target)!r} ({len(data):,} bytes; {_free(target.parent)}): "
            f"{error.strerror or error}; nothing was changed there. Choose a folder that exists, is writable "
            "and has room"
        ) from error
    return target


def write_archive(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Path:
    """Write named tensors and a JSON description as one safetensors file, atomically.

    ``meta["format"]`` and ``meta["version"]`` say what it is; :func:`read_archive` checks them.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # safetensors refuses tensors that share memory; a view of a joined map may.
    unshared = {name: tensor.clone() if tensor._is_view() else tensor for name, tensor in plain.items()}
    text = json.dumps(meta, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, safetensors.torch.save(unshared, metadata={_METADATA_KEY: text}))


def read_archive(
    path: str | os.PathLike[str], *, expected_format: str, newest_version: int
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`write_archive` wrote. Nothing in the file is executed.

    Raises:
        TraceFileError: missing, damaged, somebody else's, or written by a newer version.
    """
    source = Path(path)
    if not source.is_file():
        raise TraceFileError(f"expected a file of hf_attnviz at {str(source)!r}; there is none")
    try:
        with safetensors.safe_open(source, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            if text is None:
                raise TraceFileError(
                    f"{str(source)!r} is a safetensors file, but not one that hf_attnviz wrote; "
                    "expected a file from Trace.save"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        meta = json.loads(text)
    except (safetensors.SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TraceFileError(
            f"{str(source)!r} is damaged or no safetensors file ({error}); expected a file from Trace.save"
        ) from error
    if not isinstance(meta, dict) or meta.get("format") != expected_format:
        came = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise TraceFileError(f"{str(source)!r} holds {came!r}; expected {expected_format!r}")
    version = meta.get("version")
    if not isinstance(version, int) or not 1 <= version <= newest_version:
        raise TraceFileError(
            f"{str(source)!r} has format version {version!r}; this release reads 1 to {newest_version}: "
            "upgrade hf-attnviz to read newer files"
        )
    return tensors, meta


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes free"
    except OSError:
        return "no such folder"
