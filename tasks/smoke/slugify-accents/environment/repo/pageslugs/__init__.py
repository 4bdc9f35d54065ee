from pageslugs.slugs import slugify
from pageslugs.unique import unique_slugs

__all__ = ["slugify", "unique_slugs"]
