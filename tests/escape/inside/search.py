"""Looks for what the agent must not see, in every place where an agent could look: files and what is packed in them,
processes' environments and memory. facts.json has the words backwards, or they would be found there."""

import bz2
import gzip
import lzma
import os
import pathlib
import re
import zipfile
import zlib

from attempts import FACTS, Refused, attempt

WORDS = [word[::-1].encode() for word in FACTS["words_backwards"]]
ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
LARGEST_BYTES = 64 << 20  # of what is unpacked
NOT_THESE = ("/proc", "/sys", "/dev")


def found(content):
    return next((word.decode() for word in WORDS if word in content), None)


def unpacked(path, content):
    """What is in a file that is packed in one of the usual ways."""
    try:
        if content[:2] == b"\x1f\x8b":
            return [gzip.decompress(content)]
        if content[:3] == b"BZh":
            return [bz2.decompress(content)]
        if content[:6] == b"\xfd7zXZ\x00":
            return [lzma.decompress(content)]
        if content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                return [archive.read(name) for name in archive.namelist()]
        if ".git" in path or content[:4] == b"PACK" or path.endswith(".pack"):
            return streams(content)
    except Exception:  # half a file, or none of that kind
        return []
    return []


def streams(content):
    """Everything in it that zlib unpacks: loose objects are one, packs are full of them."""
    got = []
    for start in ZLIB.finditer(content):
        try:
            got.append(zlib.decompressobj().decompress(content[start.start() :], LARGEST_BYTES))
        except zlib.error:
            continue
    return got


def searched(folder):
    """Every file below a folder that holds a word; how many were looked at."""
    hits, looked = [], 0
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if os.path.join(where, name) not in NOT_THESE]
        for name in names:
            path = os.path.join(where, name)
            if found(os.fsencode(path)):
                hits.append(path)
            if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) == 0:
                continue
            looked += 1
            with open(path, "rb") as file:
                content = file.read()
            word = found(content) or next(filter(None, map(found, unpacked(path, content))), None)
            if word:
                hits.append(f"{path} has {word!r}")
    return hits, looked


def or_refused(hits, looked):
    if hits:
        return "; ".join(hits[:20])
    raise Refused(f"not in {looked}")


@attempt
def in_files():
    return or_refused(*searched("/"))


@attempt
def in_the_environment_and_the_names_of_processes():
    hits, looked = [], 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        for name in ("environ", "cmdline", "mountinfo", "maps"):
            looked += 1
            if word := found((folder / name).read_bytes()):
                hits.append(f"{folder / name} has {word!r}")
    return or_refused(hits, looked)


@attempt
def in_the_memory_of_processes():
    """Of all but this one, which knows the words."""
    mine = {os.getpid(), os.getppid()}
    hits, looked = [], 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        if int(folder.name) in mine:
            continue
        try:
            with open(folder / "mem", "rb", buffering=0) as memory:
                for line in (folder / "maps").read_text().splitlines():
                    begin, end = (int(number, 16) for number in line.split()[0].split("-"))
                    if not line.split()[1].startswith("r") or end - begin > LARGEST_BYTES:
                        continue
                    try:
                        memory.seek(begin)
                        looked += 1
                        if word := found(memory.read(end - begin)):
                            hits.append(f"process {folder.name} has {word!r}")
                    except (OSError, ValueError, OverflowError):
                        continue  # the kernel's own pages
        except OSError:
            continue
    return or_refused(hits, looked)
