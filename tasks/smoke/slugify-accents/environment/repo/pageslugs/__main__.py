import sys

from pageslugs import unique_slugs

for slug in unique_slugs(sys.argv[1:]):
    print(slug)
