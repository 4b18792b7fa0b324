"""YAML that people write, read into plain values: nothing is constructed, nothing explodes."""

from __future__ import annotations

from typing import Any

import yaml

#: values of a document with every alias written out; aliases of aliases reach billions in a few
#: lines, and whoever prints or copies one of them fills the memory
MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key stands once; YAML itself would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Read a YAML document.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict, list, str, int, float, bool, date or None

    Raises
    ------
    ValueError
        With one line: the text is no YAML, asks for an object to be made, names a key twice, or
        its aliases explode or hold themselves.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > MOST_VALUES:
                raise ValueError(f"with its aliases written out it has over {MOST_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:
        # PyYAML leaves numbers and dates that it takes for such but that are none to Python
        raise ValueError(" ".join(str(error).split())) from None


def _values(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Count the values below a node as often as they are named."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = None
        parts = node.value if isinstance(node, yaml.SequenceNode) else sum(node.value, ())
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    count = known[id(node)]
    if count is None:
        raise ValueError(f"what is at line {node.start_mark.line + 1} holds itself")
    return count
