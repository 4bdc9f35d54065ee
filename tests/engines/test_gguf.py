from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.engines import gguf
from harness.errors import UserError


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(*entries: bytes, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + struct.pack("<IQQ", version, 0, len(entries)) + b"".join(entries)


def string(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def uint32(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


def strings(key: str, values: list[str]) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def floats(key: str, values: list[float]) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 6, len(values)) + struct.pack(f"<{len(values)}f", *values)


def test_reads_what_stands_before_and_after_the_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(
        header(
            string("general.architecture", "toy"),
            uint32("toy.context_length", 4096),
            strings("tokenizer.ggml.tokens", ["a", "bb", "ü" * 70]),
            floats("tokenizer.ggml.scores", [0.5, 1.5, 2.5]),
            string("tokenizer.chat_template", "{{ messages }}"),
            string("general.size_label", "1B"),
            uint32("general.file_type", 15),
        )
    )
    assert gguf.read(file) == gguf.Header(4096, "{{ messages }}", "1B", "Q4_K_M")


def test_what_the_file_does_not_say_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(header(string("general.architecture", "toy"), uint32("general.file_type", 9999)))
    assert gguf.read(file) == gguf.Header(None, None, None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model at all, but long enough for a header",
        header(string("general.architecture", "toy"))[:-2],
        header(string("general.architecture", "toy"), magic=b"GGML"),
        header(string("general.architecture", "toy"), version=1),
        header(text("general.architecture") + struct.pack("<I", 77)),
    ],
)
def test_a_file_that_is_no_gguf_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.gguf is not a whole GGUF file"):
        gguf.read(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.gguf"):
        gguf.read(tmp_path / "nowhere.gguf")


PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, set()),
        (PLAIN, set()),
        (PLAIN + "{% if tools %}{{ tools | tojson }}{% endif %}", {"tools"}),
        # The word alone does not count: this one refuses them.
        (PLAIN + "{% if tools %}{{ raise_exception('no tools') }}{% endif %}", set()),
        (PLAIN + "{% if enable_thinking is false %}/no_think{% endif %}", {"thinking"}),
        (PLAIN + "<think>\n{{ tools }}", {"tools", "thinking"}),
        ("{% this is no template", set()),
    ],
)
def test_capabilities_are_what_the_template_does(template: str | None, expected: set[str]) -> None:
    assert gguf.template_capabilities(template) == expected
