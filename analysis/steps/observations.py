"""What came of a step: its text, what of it counts when two are compared, and what it says about the answer."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 32_768  # characters that are compared: half from the front, half from the end
MOST_LINES = 2_000
SAYS_SOMETHING = 20  # characters, from which on a line is worth having read: "ok", "root" and "/testbed" are not

SAYING = re.compile(r"\w")
SETS = re.compile(r"(?<=\{)'[^'{}]*'(?:, '[^'{}]*')+(?=\})")  # printed in another order by each process
NUMBERED = re.compile(r"\d+(?:[:\t]|[ ]{2,})\s*")  # as nl, cat -n and grep -n begin a line
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?!\n)")
# What differs each time though the outcome is the same. Other numbers stay: five failures are not three. Each pattern
# begins with one set of characters, by which the search is many times faster than with a boundary before it; the
# boundary is looked at from there.
NUMBERS = re.compile(
    r"\d(?<![\w.]\d)(?:"
    r"(?P<moment>\d{3}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[ ]?[+-]\d\d:?\d\d)?)?\b"
    r"|\d?:\d\d:\d\d(?:[.,]\d+)?\b)"
    r"|(?P<time>\d*(?:m\d+)?(?:\.\d+)?\s?(?:ns|us|µs|ms|s|secs?|seconds?|minutes?)\b)"
    r"|(?P<address>(?<=0)x[0-9a-fA-F]+\b)"
    r"|(?P<epoch>(?<=1)[5-9]\d{8}(?:\d{3}|\.\d+)?\b))"
)
LONG_NUMBERS = re.compile(
    r"\d(?<![\w.]\d)\d*\.\d{8,}(?:e[+-]?\d+)?\b|\d(?<![\w.]\d)(?:\.\d+)?e-\d\d\b"
)  # of clocks, mostly
DATES = re.compile(
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\s+\d{1,2}"
    r"(?:\s+\d\d:\d\d(?::\d\d)?(?:\s+[A-Z]{3,4})?)?(?:\s+\d{4})?\b"
)
HASHES = re.compile(
    r"[0-9a-f](?<!\w[0-9a-f])(?:[0-9a-f]{7}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?=[a-f]*\d)[0-9a-f]{11,63})\b"
)
PATHS = re.compile(r"/(?:var/)?tmp/[^\s'\":,;)\]]+")
PROCESSES = re.compile(r"[Pp][Ii][Dd][ =:]+\d+|^\[\d+\]\s+\d+$", re.MULTILINE)

# The frames that frameworks put around what a command printed: what stands within is the command's word.
FRAMES = re.compile(
    r"\s*(?:\{\s*\"returncode\"|<returncode>|<observation>|<output>|OBSERVATION:|EXECUTION RESULT of|Observation:)"
)

MASKS = re.compile(r"<[a-z]+>")
FRAME_LINES = re.compile(r"\[(?:The command completed|Current working directory|Python interpreter)\b")

UNREADABLE = re.compile(
    r"format error|format was|not (?:been )?(?:properly |correctly )?formatted|did not conform"
    r"|(?:exactly|only) (?:one|1|ONE) (?:action|command|tool call|bash|code block)"
    r"|(?:not|n't) (?:use|contain|include|make|call|have) any (?:tool|function|action|command|code)"
    r"|no (?:tool|function) calls? (?:was |were )?found|multiple tool calls"
    r"|error in code parsing|code snippet is invalid"
    r"|(?:api|tool|function) calls? (?:seems?|is|are|were) (?:not|in)\s?valid"
    r"|(?:could|can|cannot|was|were)(?: ?not|n't) (?:be )?(?:parse|read|understood)"
    r"|(?:failed|unable) to parse|invalid (?:json|tool call|action|response format|function call)"
    r"|unknown (?:tool|action|function)|tool '?[\w.-]+'? (?:was |is )?not found"
    r"|error validating (?:the )?(?:args|arguments|parameters|tool)|missing required param"
    r"|(?:answer|reply|respond) with (?:exactly )?(?:one|a single) |output token limit|search/replace blocks? failed",
    re.IGNORECASE,
)
COMPLAINT_CHARACTERS = 400  # within which a framework says that it could not read an answer

FAILURES = (
    "command not found", "no such file or directory", "permission denied", "syntax error", "\ntraceback (most recent",
    "\nusage: ", "\nerror", "\nfatal", ": error:", ": fatal:",
)  # fmt: skip
EXIT_CODES = re.compile(r"(?:<returncode>|exit(?:ed with)? (?:code|status)[ :=]*)-?[1-9]")
ERROR_NAMES = re.compile(r"\n[\w.]*(?:error|exception)\b")
FOLDERS = re.compile(r"(?<![\w.~/-])(?:[\w.~-]*/)+(?=[\w.-])")
ERROR_LINES = 3


def text_of(content: object) -> str:
    """A message's content as text. What is not text is named, not shown."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    return json.dumps(content, sort_keys=True, default=str)


def _part(part: object) -> str:
    if isinstance(part, Mapping):
        text = part.get("text", part.get("content"))
        return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"
    return str(part)


def observation_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the messages say that came after an answer, the model's own among them left out."""
    return "\n".join(text_of(message.get("content")) for message in messages if message.get("role") != "assistant")


def compared(observation: str) -> str:
    """The text by which outcomes are compared: what is volatile masked, a very long one by its ends and its length."""
    text = observation.strip()
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]}\n<{len(text)} characters>\n{text[-half:]}"
    if "\x1b" in text or "\r" in text:
        text = ESCAPES.sub("", text)
    text = NUMBERS.sub(lambda match: f"<{match.lastgroup}>", text)
    text = LONG_NUMBERS.sub("<number>", text)
    text = DATES.sub("<moment>", text)
    text = HASHES.sub("<hash>", text)
    if "tmp/" in text:
        text = PATHS.sub("<path>", text)
    if "{'" in text:
        text = SETS.sub(lambda match: ", ".join(sorted(match[0].split(", "))), text)
    return PROCESSES.sub("<process>", text)


def lines_of(outcome: str, asked: str = "") -> tuple[int, ...]:
    """A number for each different line that is worth having read: what is new is told by these.

    Line numbers are no part of a line, and an echo of the action that was `asked` for says nothing new.
    """
    echoes = "echo" in asked or "print" in asked
    lines = {line.strip() for line in _unwrapped(outcome).splitlines()[:MOST_LINES]}
    return tuple(
        zlib.crc32(line.encode("utf-8", "replace"))
        for line in {_without_number(line) for line in lines}
        if len(MASKS.sub("", line)) >= SAYS_SOMETHING
        and SAYING.search(line)
        and not FRAME_LINES.match(line)
        and line not in asked
        and not (echoes and _is_echo(line, asked))
    )


def _is_echo(line: str, asked: str) -> bool:
    words = line.split()
    return 2 * sum(word in asked for word in words) > len(words)


def _without_number(line: str) -> str:
    match = NUMBERED.match(line) if line[:1].isdigit() else None
    return line[match.end() :] if match else line


def _unwrapped(outcome: str) -> str:
    """What was printed, where a framework puts it into a JSON object."""
    if not (outcome.startswith("{") and outcome.endswith("}")):
        return outcome
    try:
        content = json.loads(outcome)
    except (ValueError, RecursionError):
        return outcome
    return "\n".join(value if isinstance(value, str) else f"{name}: {value}" for name, value in content.items())


def error_of(outcome: str) -> str | None:
    """The last lines that read as an error, without the folders in them; None where none does."""
    lines = [line for line in _unwrapped(outcome).splitlines() if _reads_as_error(f"\n{line.lower()}")]
    return FOLDERS.sub("", "\n".join(lines[-ERROR_LINES:])) if lines else None


def _reads_as_error(text: str) -> bool:
    return any(words in text for words in FAILURES) or ERROR_NAMES.search(text) is not None


def is_complaint(observation: str) -> bool:
    """Whether the framework says that it could not read the answer as an action."""
    beginning = observation[:COMPLAINT_CHARACTERS]
    if FRAMES.match(beginning) or UNREADABLE.search(beginning) is None:
        return False
    # OpenHands puts its frame below what a command printed.
    return FRAME_LINES.search(observation, max(0, len(observation) - COMPLAINT_CHARACTERS)) is None


def is_failure(observation: str) -> bool:
    """Whether what came of an action reads as an error."""
    text = f"\n{observation[:LONGEST].lower()}"
    return _reads_as_error(text) or EXIT_CODES.search(text) is not None
