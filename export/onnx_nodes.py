"""Nodes: writes a piece of an ONNX graph, value by value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class Nodes:
    """Nodes and initialisers in the order they were added; every value is named `prefix/number`.

    A prefix with a slash keeps these names apart from those of features, which are the graph's inputs.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._count = 0

    def add(
        self,
        op: str,
        *inputs: str,
        domain: str = "",
        outputs: int = 1,
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node. Returns the name of its last output, the one that is used of every operator needed here."""
        names = [self._name() for _ in range(outputs)]
        if output is not None:
            names[-1] = output
        node = helper.make_node(op, list(inputs), names, name=f"{names[-1]}/{op}", domain=domain, **attributes)
        self.nodes.append(node)
        return names[-1]

    def constant(self, value: npt.ArrayLike, dtype: Any = np.int64, *, name: str | None = None) -> str:
        """Add an initialiser. Returns its name."""
        array = np.asarray(value, dtype=dtype)
        name = name or self._name()
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def look_up(self, text: str, keys: Sequence[str], rows: Sequence[int], *, default: int) -> str:
        """Add a look-up of strings, element by element. Returns the int64 rows, of the shape of `text`."""
        return self.add(
            "LabelEncoder",
            text,
            domain="ai.onnx.ml",
            keys_strings=list(keys),
            values_int64s=list(rows),
            default_int64=default,
        )

    def _name(self) -> str:
        self._count += 1
        return f"{self.prefix}/{self._count}"


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same graph."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content
