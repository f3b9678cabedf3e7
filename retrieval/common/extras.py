"""The optional extras of the package: what each adds, which packages it installs, and the error for a missing one."""

from typing import Final, NamedTuple


class Extra(NamedTuple):
    """An extra of pyproject.toml: what it adds, and its packages, from import name to distribution name."""

    adds: str
    packages: dict[str, str]


EXTRAS: Final[dict[str, Extra]] = {
    "train": Extra(
        "fetch, init, inspect, train, export, run, demo, evaluate and twotower.fit",
        {
            "torch": "torch",
            "pytorch_lightning": "pytorch-lightning",
            "einops": "einops",
            "onnx": "onnx",
            "onnxscript": "onnxscript",
            "polars": "polars",
            "sklearn": "scikit-learn",
            "scipy": "scipy",
            "threadpoolctl": "threadpoolctl",
            "altair": "altair",
            "vl_convert": "vl-convert-python",
        },
    ),
    "server": Extra(
        "serve",
        {
            "starlette": "starlette",
            "uvicorn": "uvicorn",
            "httptools": "httptools",
            "msgspec": "msgspec",
            "prometheus_client": "prometheus-client",
        },
    ),
    "baselines": Extra("the baselines iALS and BPR of evaluate", {"implicit": "implicit"}),
}

# Names as their projects write them, where those differ from the distribution's.
_TITLES: Final = {
    "torch": "PyTorch",
    "pytorch_lightning": "PyTorch Lightning",
    "onnx": "ONNX",
    "polars": "Polars",
    "scipy": "SciPy",
    "altair": "Altair",
    "starlette": "Starlette",
    "uvicorn": "Uvicorn",
}


def install_hint(error: ModuleNotFoundError, *, needed_by: str) -> str | None:
    """One line that says which extra to install, or None if the missing module belongs to no extra.

    Args:
        error: The failed import.
        needed_by: What was called, for example "twotower train".
    """
    module = (error.name or "").split(".")[0]
    for name, extra in EXTRAS.items():
        if module in extra.packages:
            title = _TITLES.get(module, extra.packages[module])
            return f'{needed_by} needs {title}; install it with: pip install "twotower[{name}]"'
    return None
