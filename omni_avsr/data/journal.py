"""What was found out about each item, line by line on disk: nothing is found out twice, whenever a run was killed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Journal:
    """Answers by key, in a file of JSON lines that only grows.

    A line cut short by a crash is left out, and the next answer begins on a line of its own.

    Args:
        path: the file; it is made with the first answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        self._whole = text.endswith("\n") or not text
        for line in text.split("\n"):
            if line:
                try:
                    entry = json.loads(line)
                    self._answers[entry["key"]] = entry["answer"]
                except (ValueError, KeyError, TypeError):
                    logger.warning("'%s': a broken line is left out", path)

    def __contains__(self, key: str) -> bool:
        """Whether `key` has an answer."""
        return key in self._answers

    def __getitem__(self, key: str) -> Any:
        """The newest answer to `key`."""
        return self._answers[key]

    def put(self, key: str, answer: Any) -> None:
        """Writes down `answer`, anything JSON, before it is used."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line if self._whole else "\n" + line)
        self._whole = True
        self._answers[key] = answer
