"""Files that are either wholly there or as they were: written beside, flushed, then renamed into place."""

import contextlib
import hashlib
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
from hf_attnviz.language import Text, told

_METADATA_KEY = "hf_attnviz"
_CHECKSUM_KEY = "sha256"


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write ``data`` to ``path`` in one step: a reader sees the old file or the new one, never a part.

    Raises:
        SaveError: the folder is missing, the disk is full, permission is denied …; the old file is untouched.
    """
    asked, part = Path(path), None
    try:
        target = Path(os.path.realpath(asked))  # a link stays a link: what it points to is written
        handle, part = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, _mode(target))  # noqa: PTH101 - mkstemp makes files that only the owner reads
        os.replace(part, target)  # noqa: PTH105 - the atomic rename, by its own name
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        free, why = _free(asked.parent), getattr(error, "strerror", None) or error
        raise SaveError(
            Text(
                f"could not write {str(asked)!r} ({len(data):,} bytes; {free.en}): {why}; nothing was changed there. "
                "Choose a folder that exists, is writable and has room, and a name that a file can have",
                f"无法写入 {str(asked)!r}（{len(data):,} 字节；{free.zh}）：{why}；那里原有的内容没有改动。"
                "请选择存在、可写且有空间的文件夹，以及合法的文件名",
            )
        ) from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):  # it is gone when all went well
                os.unlink(part)  # noqa: PTH108
    return asked


def write_archive(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Path:
    """Write named tensors and a JSON description as one safetensors file, atomically.

    ``meta["format"]`` and ``meta["version"]`` say what it is; :func:`read_archive` checks them.
    """
    unshared: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory; views of a joined map do, and two maps may be one tensor.
        unshared[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    text = json.dumps(meta, allow_nan=False)  # ASCII: half a surrogate pair in a label has no UTF-8
    header = {_METADATA_KEY: text, _CHECKSUM_KEY: _checksum(unshared, text)}
    return write_atomically(path, safetensors.torch.save(unshared, metadata=header))


def read_archive(
    path: str | os.PathLike[str], *, expected_format: str, newest_version: int
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`write_archive` wrote. Nothing in the file is executed.

    Raises:
        TraceFileError: missing, damaged, somebody else's, or written by a newer version.
    """
    source = Path(path)
    if not source.is_file():
        raise TraceFileError(
            Text(
                f"expected a file of hf_attnviz at {str(source)!r}; there is none",
                f"{str(source)!r} 处应为 hf_attnviz 的文件；那里没有文件",
            )
        )
    try:
        with safetensors.safe_open(source, framework="pt") as file:
            header = file.metadata() or {}
            text = header.get(_METADATA_KEY)
            if text is None:
                raise TraceFileError(
                    Text(
                        f"{str(source)!r} is a safetensors file, but not one that hf_attnviz wrote; "
                        "expected a file from Trace.save",
                        f"{str(source)!r} 是 safetensors 文件，但不是 hf_attnviz 写的；应为 Trace.save 保存的文件",
                    )
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        meta = json.loads(text)
    except TraceFileError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise TraceFileError(
            Text(
                f"{str(source)!r} is damaged or no safetensors file ({error}); expected a file from Trace.save",
                f"{str(source)!r} 已损坏，或不是 safetensors 文件（{error}）；应为 Trace.save 保存的文件",
            )
        ) from error
    if not isinstance(meta, dict) or meta.get("format") != expected_format:
        came = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise TraceFileError(
            Text(
                f"{str(source)!r} holds {came!r}; expected {expected_format!r}",
                f"{str(source)!r} 存放的是 {came!r}；应为 {expected_format!r}",
            )
        )
    version = meta.get("version")
    if type(version) is not int or not 1 <= version <= newest_version:
        raise TraceFileError(
            Text(
                f"{str(source)!r} has format version {version!r}; this release reads 1 to {newest_version}: "
                "upgrade hf-attnviz to read newer files",
                f"{str(source)!r} 的格式版本为 {version!r}；本版可读 1 到 {newest_version}：读更新的文件请升级 "
                "hf-attnviz",
            )
        )
    # Only now: a newer version may reckon its checksum in another way, and should be called newer, not damaged.
    if header.get(_CHECKSUM_KEY) != _checksum(tensors, text):
        raise TraceFileError(
            Text(
                f"{str(source)!r} is damaged: its checksum does not fit; copy or capture it again",
                f"{str(source)!r} 已损坏：校验和不符；请重新复制或重新捕获",
            )
        )
    return tensors, meta


def described_text(name: str, text: Text | str) -> dict[str, str]:
    """A sentence as a file says it, in both languages under two names; see :func:`restored_text`."""
    return {name: told(text).en, f"{name}_zh": told(text).zh}


def restored_text(about: Mapping[str, Any], name: str) -> Text | str:
    """What :func:`described_text` told; older files say it in English only, or not at all."""
    en = typed(about.get(name, ""), str)
    zh = typed(about.get(f"{name}_zh", en), str)
    return en if en == zh else Text(en, zh)


def typed(value: Any, *types: type, each: bool = False) -> Any:
    """The value, if it is of one of these types (with ``each``: a list of such, as a tuple). A file may lie.

    Raises:
        TypeError: it is of another.
    """
    if each:
        return tuple(typed(one, *types) for one in typed(value, list))
    if type(value) not in types:  # to the letter: true is no number here
        names, came = [t.__name__ for t in types], type(value).__name__
        raise TypeError(Text(f"expected {' or '.join(names)}, got {came}", f"应为 {'、'.join(names)}，得到 {came}"))
    return value


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """SHA-256 of the description and of each tensor's name, type, shape and bytes."""
    names = sorted(tensors)
    about = [text, [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]]
    digest = hashlib.sha256(json.dumps(about).encode("ascii"))
    for name in names:
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _mode(target: Path) -> int:
    """The mode of the file that stands there, else that of any new file."""
    with contextlib.suppress(FileNotFoundError):
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _free(folder: Path) -> Text:
    try:
        free = shutil.disk_usage(folder).free
        return Text(f"{free:,} bytes free", f"剩余 {free:,} 字节")
    except (OSError, ValueError):
        return Text("no such folder", "没有这个文件夹")
