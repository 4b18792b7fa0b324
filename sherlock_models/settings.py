"""What `--set key=value` says: YAML values, lists with commas, members of mappings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sherlock_data.errors import ConfigError
from sherlock_data.plain_yaml import read_yaml


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `--set key=value` arguments.

    Parameters
    ----------
    settings : sequence of str
        `key=value`, the value in YAML (`1e-4`, `true`, `[0, 1]`) or a list with commas (`0,1,2`).
        `weights.video=2` sets one member of a mapping.

    Raises
    ------
    ConfigError
        If one has no `=`, or no key or no value.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key.strip() and equals and text.strip()):
            raise ConfigError(
                f"'{setting}' is no setting", where="--set", remedy="write --set key=value"
            )
        outer, _, inner = key.strip().partition(".")
        if inner:
            members = parsed.setdefault(outer, {})
            if not isinstance(members, dict):
                raise ConfigError(
                    f"'{outer}' is given whole and by member", where="--set", remedy="choose one"
                )
            members[inner] = _value(text)
        elif outer in parsed and isinstance(parsed[outer], dict):
            raise ConfigError(
                f"'{outer}' is given whole and by member", where="--set", remedy="choose one"
            )
        else:
            parsed[outer] = _value(text)
    return parsed


def _value(text: str) -> Any:
    text = text.strip()
    if "," in text and text[0] not in "[{":
        return [_value(part) for part in text.split(",") if part.strip()]
    try:
        return float(text) if _is_exponent(text) else read_yaml(text)
    except ValueError:
        return text


def _is_exponent(text: str) -> bool:
    """YAML 1.1 reads `1e-4` as text; people do not."""
    try:
        float(text)
    except ValueError:
        return False
    return "e" in text.lower() and not text.lower().startswith(("inf", "nan"))
