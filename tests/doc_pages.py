"""The pages that tell a user what to type, and what they show."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# The guides whose commands run in one folder, in this order.
RUN_IN_ORDER = (
    "start/install", "guides/inputs", "guides/runs", "guides/nightly", "guides/look", "guides/publish",
    "guides/population", "guides/zooniverse", "guides/training",
)  # fmt: skip
Shown = tuple[list[str], str | None]


def page(name: str) -> str:
    """The text of a page of the site, by its path in `docs` without the suffix."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


README, SPANISH = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.es.md"))
TUTORIAL = page("start/sdss-frame")
PAGES = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}


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
