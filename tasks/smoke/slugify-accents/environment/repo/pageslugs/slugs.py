"""A title's slug."""

import re

MAX_LENGTH = 60
SEPARATORS = re.compile(r"[^a-z0-9]+")


def shorten(slug):
    """Cut a slug that is too long at the last hyphen that fits."""
    if len(slug) <= MAX_LENGTH:
        return slug
    head, hyphen, _ = slug[: MAX_LENGTH + 1].rpartition("-")
    return head if hyphen else slug[:MAX_LENGTH]


def slugify(title):
    text = title.lower()
    slug = SEPARATORS.sub("-", text).strip("-")
    return shorten(slug) or "page"
