import sys

from linkcheck.check import check_folder

dead = check_folder(sys.argv[1])
for page, link in dead:
    print(f"{page}:{link.line}: {link.target}")
sys.exit(1 if dead else 0)
