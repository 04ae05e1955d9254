"""Settings from environment variables, or from files that `NAME_FILE` names, as containers mount secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from environs import Env


class EnvOfFiles(Env):
    """Reads a variable, or the file that `NAME_FILE` names. Setting both is refused: one would be ignored."""

    def _get_value(self, env_key: str, default: Any) -> Any:
        file_key = f"{env_key}_FILE"
        path = super()._get_value(file_key, "")
        if not path:
            return super()._get_value(env_key, default)
        if super()._get_value(env_key, ""):
            self._errors[env_key].append(f"{env_key} and {file_key} are both set")
            return default
        try:
            # Editors end the last line with a newline; our secrets neither begin nor end with white space.
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            self._errors[env_key].append(f"{file_key} names {path}, which cannot be read")
            return default
