"""Optional packages: imported on first use, and missed in words that say how to get them."""

import importlib
from types import ModuleType

from hf_attnviz.errors import MissingPackageError
from hf_attnviz.language import Text


def require(package: str, extra: str) -> ModuleType:
    """Import ``package``, which the extra ``extra`` of ours brings.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise  # the package is there and something inside it is broken: that is another message
        raise MissingPackageError(
            Text(
                f"this needs the package {package!r}, which is not installed; "
                f"get it with: pip install 'hf-attnviz[{extra}]'",
                f"这需要包 {package!r}，它没有安装；安装方法：pip install 'hf-attnviz[{extra}]'",
            )
        ) from error
