"""Which links lead nowhere."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from linkcheck.extract import extract_links


def is_local(target):
    parts = urlsplit(target)
    return not parts.scheme and not parts.netloc and bool(parts.path)


def dead_links(page):
    """The links of a page whose files do not exist; the page is a pathlib.Path."""
    dead = []
    for link in extract_links(page.read_text(encoding="utf-8")):
        if is_local(link.target):
            wanted = page.parent / unquote(urlsplit(link.target).path)
            if not wanted.exists():
                dead.append(link)
    return dead


def check_folder(folder):
    """[(page, link)] of all dead links below the folder, pages in alphabetical order."""
    return [(page, link) for page in sorted(Path(folder).rglob("*.md")) for link in dead_links(page)]
