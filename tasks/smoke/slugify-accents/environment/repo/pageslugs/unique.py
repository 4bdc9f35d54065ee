"""Slugs for a whole site."""

from pageslugs.slugs import slugify


def unique_slugs(titles):
    """A slug for each title, in order; repeated ones get -2, -3 and so on."""
    used = set()
    slugs = []
    for title in titles:
        base = slugify(title)
        slug = base
        number = 2
        while slug in used:
            slug = f"{base}-{number}"
            number += 1
        used.add(slug)
        slugs.append(slug)
    return slugs
