"""The pages that tell a user what to type, and what they show."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, SPANISH, TUTORIAL = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.es.md", "docs/tutorial.md")
)
Shown = tuple[list[str], str | None]


def shown_commands(*texts: str) -> list[Shown]:
    """Each `gax` command line of the pages, as a shell splits it, and the file that its output goes to."""
    found: list[Shown] = []
    for text in texts:
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                if line.startswith((".venv/bin/gax ", "gax ")):
                    _, *words = shlex.split(line, comments=True)
                    found.append((words[:-2], words[-1]) if ">" in words else (words, None))
    return found
