"""Load a model with what is needed to feed it: an embedded one, a local folder, or one from the hub.

Weights are read from safetensors only and code from a repository is never run.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hf_attnviz.errors import AttnvizError, ModelError, UnknownNameError, listed
from hf_attnviz.language import Text

MODELS = Path(__file__).parent / "models"
HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "*.model", "tekken.json")
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
HUB_TIMEOUT = 5.0


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, with what is needed to feed it.

    Attributes:
        name: the name it was asked for.
        model, processor: the model, and its tokenizer or processor (None where it has none).
        folder: where it lies; ``from_pretrained(loaded.folder)`` of transformers reads it too.
        examples: texts to try (embedded models only).
        truth: what is known about it (embedded models only).
    """

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    folder: Path = field(repr=False)
    examples: tuple[str, ...] = ()
    truth: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def telling_layer(self) -> int | None:
        """The layer whose heads do what the model was trained for, where that is known: the first one to look at."""
        heads = [
            self.truth.get("alignment_head"),
            *self.truth.get("induction_heads", ()),
            *self.truth.get("finding_heads", ()),
        ]
        return next((int(head[0]) for head in heads if head is not None), None)


def names() -> tuple[str, ...]:
    """The embedded models."""
    return tuple(sorted(path.parent.name for path in MODELS.glob("*/config.json")))


def load(name: str) -> Loaded:
    """An embedded model. The network is not touched."""
    if name not in names():
        raise UnknownNameError(
            Text(
                f"There is no embedded model {name!r}. The embedded models are: {listed(names())}. "
                "For a folder or a model of the hub use load_model.",
                f"没有内置模型 {name!r}。内置模型有：{listed(names())}。文件夹或 hub 上的模型请用 load_model。",
            )
        )
    return from_folder(MODELS / name, name=name)


def load_model(name_or_path: str | Path, *, task: str | None = None) -> Loaded:
    """An embedded model, else a local folder, else a model of the hub.

    A bare embedded name wins over a folder of that name; write `./induction` for the folder. `task` is the name of a
    pipeline ("fill-mask", "text-classification") and chooses the head of the model; without it the config decides.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in names():
        return from_folder(MODELS / name, name=name, task=task)
    path = Path(name).expanduser()
    if path.is_dir():
        return from_folder(path, name=name, task=task)
    missing = Text(
        f"{name!r} is no embedded model ({listed(names())}), and there is no local folder of that name",
        f"{name!r} 不是内置模型（{listed(names())}），也没有这个名字的本地文件夹",
    )
    if isinstance(name_or_path, Path) or not HUB_NAME.fullmatch(name):
        raise UnknownNameError(
            Text(
                f"{missing.en}. Give an embedded name, an existing folder, or a hub name like org/model.",
                f"{missing.zh}。请给出内置模型名、存在的文件夹，或形如 org/model 的 hub 名。",
            )
        )
    return from_folder(from_hub(name, missing), name=name, task=task)


def from_hub(name: str, missing: Text) -> Path:
    """The folder of the hub's cache that holds the model, after a download if needed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    fetch = partial(snapshot_download, name, ignore_patterns=["*/*", "consolidated*"], etag_timeout=HUB_TIMEOUT)
    try:
        return Path(fetch(allow_patterns=list(WANTED)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UnknownNameError(
            Text(
                f"{missing.en}; the hub has no such model, or wants you to log in for it. "
                "Look at the spelling, or run `hf auth login`.",
                f"{missing.zh}；hub 上没有这个模型，或需要登录。请检查拼写，或运行 `hf auth login`。",
            )
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            Text(f"{missing.en}; the hub refused: {error}", f"{missing.zh}；hub 拒绝了：{error}")
        ) from error
    except OSError as error:
        raise UnknownNameError(
            Text(
                f"{missing.en}; the hub could not be reached and its cache does not hold it. "
                "Look at the spelling and the network, or give a folder that holds the model.",
                f"{missing.zh}；无法访问 hub，其缓存中也没有。请检查拼写与网络，或给出存有该模型的文件夹。",
            )
        ) from error


def from_folder(folder: Path, *, name: str, task: str | None = None) -> Loaded:
    config = read_config(folder)
    ours = all((folder / known).is_file() for known in ("examples.json", "truth.json"))
    refuse_pickles(folder)
    choose = partial(class_for_task, folder, task) if task else partial(class_of, config, folder)
    load_class = told(choose, folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    with no_progress_bar() if folder.parent == MODELS else nullcontext():
        model = told(partial(load_class.from_pretrained, folder, use_safetensors=True, **options), folder)
    model.config.name_or_path = name  # not the place where the hub's cache or this package happens to lie
    return Loaded(
        name=name,
        model=model.eval(),
        processor=processor_of(folder, options),
        folder=folder,
        examples=tuple(read_json(folder / "examples.json", [])) if ours else (),
        truth=read_json(folder / "truth.json", {}) if ours else {},
    )


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Without transformers' bar over the weights: an embedded model is there before it can be drawn."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else default


def read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            Text(
                f"{folder} holds no config.json, so it is no model in the Hugging Face layout. "
                "Give the folder that save_pretrained wrote.",
                f"{folder} 中没有 config.json，因此不是 Hugging Face 布局的模型。请给出 save_pretrained 写出的文件夹。",
            )
        )
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(Text(f"{path} is no JSON: {error}", f"{path} 不是 JSON：{error}")) from error
    if not isinstance(config, dict):
        raise ModelError(
            Text(
                f"Expected an object in {path}, got {type(config).__name__}.",
                f"{path} 中应为一个对象，得到的是 {type(config).__name__}。",
            )
        )
    return config


def refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            Text(
                f"{folder} holds pickled weights only ({listed(pickled)}), and unpickling can run any code. "
                "Only safetensors are read. If you trust the file, convert it once: "
                "model.from_pretrained(folder, use_safetensors=False), then model.save_pretrained(new_folder).",
                f"{folder} 中只有 pickle 的权重（{listed(pickled)}），而读取 pickle 可能运行任意代码。只读取 "
                "safetensors。若你信任该文件，请转换一次：model.from_pretrained(folder, use_safetensors=False)，再 "
                "model.save_pretrained(new_folder)。",
            )
        )
    raise ModelError(
        Text(
            f"{folder} holds no weights: expected model.safetensors.", f"{folder} 中没有权重：应有 model.safetensors。"
        )
    )


def class_of(config: dict[str, Any], folder: Path) -> Any:
    """The class that the config names, if transformers has it; else what AutoModel makes of the model type."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    architecture = (config.get("architectures") or [""])[0]
    found = getattr(transformers, architecture, None) if architecture else None
    known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if "auto_map" in config and not known:
        raise ModelError(
            Text(
                f"{folder} brings its own code ({listed(config['auto_map'].values())}), which would have to be run. "
                "That is refused. If you trust it, load the model yourself and hand it over: every function takes a "
                "model.",
                f"{folder} 带有自己的代码（{listed(config['auto_map'].values())}），加载时须运行它，因此拒绝。"
                "若你信任它，请自己加载模型再传入：每个函数都接受模型。",
            )
        )
    if not known and config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise ModelError(
            Text(
                f"{folder} is of the type {config.get('model_type')!r}, which transformers {transformers.__version__} "
                "does not know. A newer transformers may; or build the model yourself and hand it over.",
                f"{folder} 的类型为 {config.get('model_type')!r}，transformers {transformers.__version__} 不认识它。"
                "更新的 transformers 也许认识；或自己构建模型再传入。",
            )
        )
    return found if known else transformers.AutoModel


def class_for_task(folder: Path, task: str) -> Any:
    """The first model class of the pipeline `task` that fits the config."""
    from transformers import AutoConfig
    from transformers.pipelines import PIPELINE_REGISTRY

    tasks = PIPELINE_REGISTRY.get_supported_tasks()
    if task not in tasks:
        raise UnknownNameError(
            Text(
                f"There is no task {task!r}. The tasks are: {listed(tasks)}.",
                f"没有任务 {task!r}。任务有：{listed(tasks)}。",
            )
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for candidate in PIPELINE_REGISTRY.check_task(task)[1]["pt"]:
        if type(config) in candidate._model_mapping:
            return candidate
    raise ModelError(
        Text(
            f"A model of the type {config.model_type!r} cannot do {task!r}. Leave the task out, or name another.",
            f"类型为 {config.model_type!r} 的模型不能做 {task!r}。请不给任务，或换一个。",
        )
    )


def processor_of(folder: Path, options: dict[str, Any]) -> Any:
    """A processor where images or sound are prepared, or the part of it that lies there; else a tokenizer, else None.

    Where a processor wants a package that is missing (for videos, say), a warning says so, and the tokenizer is given.
    """
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer

    def holds(patterns: tuple[str, ...]) -> bool:
        return any(any(folder.glob(pattern)) for pattern in patterns)

    loaders: list[Any] = [AutoTokenizer] if holds(TOKENIZER_FILES) else []
    alone = read_json(folder / "preprocessor_config.json", {})
    if (loaders and holds(PROCESSOR_FILES)) or holds(("processor_config.json",)):
        loaders = [AutoProcessor, *loaders]
    elif alone:
        loaders = [AutoFeatureExtractor if "sampling_rate" in alone else AutoImageProcessor]
    for loader in loaders:
        try:
            return told(partial(loader.from_pretrained, folder, **options), folder)
        except ModelError as error:
            if loader is loaders[-1] or not isinstance(error.__cause__, ImportError):
                raise
            why = str(error.__cause__).strip().splitlines()[0]
            warnings.warn(
                str(
                    Text(
                        f"only the tokenizer of {folder} is loaded, its processor cannot be: {why}",
                        f"只加载了 {folder} 的分词器，无法加载其 processor：{why}",
                    )
                ),
                stacklevel=2,
            )
    return None


def told(action: Callable[[], Any], folder: Path) -> Any:
    """The action's result; what goes wrong in transformers is told as our error."""
    try:
        return action()
    except AttnvizError:
        raise
    except Exception as error:
        raise ModelError(
            Text(f"transformers could not load {folder}: {error}", f"transformers 无法加载 {folder}：{error}")
        ) from error
