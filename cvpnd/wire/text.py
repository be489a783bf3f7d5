"""Text of a peer, made safe to show."""


def printable(text: str) -> str:
    """Control characters become ``_``, as in the reference: names end up in logs and files."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "_" for c in text)
