"""The numbers in a message for people, whatever its words and their order."""

import re


def numbers_in(text: str, *names: object) -> list[str]:
    """Return the numbers of a text, sorted as text, without the digits of names such as its paths."""
    for name in names:
        text = text.replace(str(name), "")
    return sorted(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text))
