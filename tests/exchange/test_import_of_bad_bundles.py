"""A bundle that is damaged, or that somebody made who means no good: one sentence, and nothing has changed."""

from __future__ import annotations

import gzip
import io
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import stored_sweep
from archives import Parts
from stored_sweep import SWEEP

from harness.errors import UserError
from harness.exchange.pack import pack
from harness.exchange.take_in import take_in
from harness.store.db import open_store

RUN = f"{SWEEP}/{SWEEP}-0000"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(stored_sweep.make(folder / "here", runs=2), folder / "here", SWEEP, folder / "bundle.tar.gz")
    return folder / "bundle.tar.gz"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A runs folder with a sweep of its own."""
    stored_sweep.make(tmp_path / "there", sweep_id="20250101-000000-ffff", runs=1)
    return tmp_path / "there"


def state(folder: Path) -> dict[str, bytes]:
    """Every file, but for the lock that is only ever held."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".lock"
    }


def refused(source: Path, there: Path, why: str) -> None:
    around = set(there.parent.iterdir())
    before = state(there)
    with pytest.raises(UserError, match=why) as error:
        take_in(source, there / "harness.db", there)
    assert "\n" not in str(error.value)
    assert state(there) == before
    assert set(there.parent.iterdir()) == around


def test_a_bundle_that_is_cut_off_anywhere(bundle: Path, there: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        cut.write_bytes(whole[: int(len(whole) * share)])
        refused(cut, there, "damaged or cut off|is not a bundle")
    cut.write_bytes(whole[:-4])  # nothing but the size that gzip has at its end
    refused(cut, there, "damaged or cut off")


def test_a_byte_that_is_another(bundle: Path, there: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    changed = tmp_path / "changed.tar.gz"
    for place in range(10, len(whole), len(whole) // 12):
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        refused(changed, there, "damaged|is not a bundle|holds|has|no plain file|neither")


@pytest.mark.parametrize("name", ["calls.jsonl.gz", "patch.diff.gz"])
def test_a_file_with_another_content_in_a_sound_archive(bundle: Path, there: Path, tmp_path: Path, name: str) -> None:
    parts = Parts(bundle)
    content = parts.files[f"{RUN}/{name}"]
    parts.files[f"{RUN}/{name}"] = content[:-1] + bytes([content[-1] ^ 1])
    refused(parts.write(tmp_path / "x.tar.gz"), there, f"the checksum of {RUN}/{name} is another")


def text(path: Path) -> None:
    path.write_text("this is no archive, it is a shopping list")


def compressed_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"this is no archive either" * 99))


def other_archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("somebody/else.txt"), io.BytesIO())


def other_manifest(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("package/manifest.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"[]"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("make", [text, compressed_text, other_archive, other_manifest, empty])
def test_a_file_that_is_no_bundle(there: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    refused(tmp_path / "x", there, "is not a bundle of the harness")


def test_a_file_that_is_not_there_or_is_a_folder(there: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none.tar.gz", there, "can't be read: No such file")
    refused(tmp_path, there, "can't be read: Is a directory")


@pytest.mark.parametrize(
    "name",
    ["../outside", f"{SWEEP}/../../outside", "/tmp/outside", f"{SWEEP}//x", f"{SWEEP}/./x", "harness.db-wal",
     "20250101-000000-ffff/x", f"{SWEEP}/a\nb", SWEEP],
)  # fmt: skip
def test_a_name_that_leads_elsewhere(bundle: Path, there: Path, tmp_path: Path, name: str) -> None:
    parts = Parts(bundle)
    parts.put(name, b"x")
    refused(parts.write(tmp_path / "x.tar.gz"), there, "has no place in a bundle")


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("../outside", {}, "does not name"),
        ("/etc/outside", {}, "does not name"),
        (f"harness-{SWEEP}/{SWEEP}/more", {}, "does not name"),
        (f"harness-{SWEEP}/harness.db", {}, "harness.db twice"),
        (f"harness-{SWEEP}/more", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "no plain file"),
        (f"harness-{SWEEP}/more", {"type": tarfile.LNKTYPE, "linkname": "../x"}, "no plain file"),
        (f"harness-{SWEEP}/more", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, "no plain file"),
        (f"harness-{SWEEP}/more", {"type": tarfile.FIFOTYPE}, "no plain file"),
        (f"harness-{SWEEP}/more", {"type": tarfile.DIRTYPE}, "no plain file"),
    ],
)
def test_a_member_that_no_harness_packs(
    bundle: Path, there: Path, tmp_path: Path, name: str, fields: dict[str, object], why: str
) -> None:
    parts = Parts(bundle)
    if why == "no plain file":  # named by the manifest, and no file
        parts.manifest["files"][f"{SWEEP}/more"] = {"sha256": "0" * 64, "bytes": 0}
        name = f"harness-{SWEEP}/{SWEEP}/more"
    parts.member(name, **fields)
    refused(parts.write(tmp_path / "x.tar.gz"), there, why)


def test_sizes_beyond_what_the_manifest_says(bundle: Path, there: Path, tmp_path: Path) -> None:
    parts = Parts(bundle)
    parts.files[f"{RUN}/agent.log.gz"] += b"more"
    refused(parts.write(tmp_path / "x.tar.gz"), there, "has .* bytes, and .* by its manifest")
    parts = Parts(bundle)
    source = parts.write(tmp_path / "x.tar.gz")
    source.write_bytes(source.read_bytes() + gzip.compress(bytes(64 << 20)))  # zeros behind the end
    assert source.stat().st_size < 1 << 20
    refused(source, there, "holds more than its manifest.json says")


def test_a_file_that_the_manifest_names_and_that_is_not_in_it(bundle: Path, there: Path, tmp_path: Path) -> None:
    parts = Parts(bundle)
    del parts.files[f"{RUN}/agent.log.gz"]
    refused(parts.write(tmp_path / "x.tar.gz"), there, "agent.log.gz is named in its manifest.json and is not in it")
    del parts.manifest["files"][f"{RUN}/agent.log.gz"]
    refused(parts.write(tmp_path / "x.tar.gz"), there, "agent.log.gz is neither in it nor said to be missing")


def test_more_than_there_is_room_for(bundle: Path, there: Path, tmp_path: Path) -> None:
    from harness.errors import MachineError

    parts = Parts(bundle)
    parts.manifest["files"][f"{SWEEP}/large"] = {"sha256": "0" * 64, "bytes": 1 << 60}
    before = state(there)
    with pytest.raises(MachineError, match="GB left"):
        take_in(parts.write(tmp_path / "x.tar.gz"), there / "harness.db", there)
    assert state(there) == before


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("version", 2, "newer harness"),
        ("sweep_id", "../x", "can't be the id of a sweep"),
        ("sweep_id", 7, "sweep_id"),
        ("files", {}, "holds no harness.db"),
        ("files", {"harness.db": {"sha256": "x", "bytes": -1}}, "files.harness.db"),
        ("format", "a bundle of something else", "is not a bundle"),
    ],
)
def test_a_manifest_that_is_none(
    bundle: Path, there: Path, tmp_path: Path, field: str, value: object, why: str
) -> None:  # fmt: skip
    parts = Parts(bundle)
    parts.manifest[field] = value
    refused(parts.write(tmp_path / "x.tar.gz"), there, why)


TRIGGER = "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM sweeps; END"


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("INSERT INTO migrations VALUES ('m999_future', NULL)", "packed by a newer harness .*m999_future"),
        ("DROP TABLE migrations", "database is damaged"),
        (TRIGGER, "holds 't', which no harness makes"),
        ("CREATE TABLE more (run_id TEXT)", "other tables or columns"),
        ("ALTER TABLE jobs DROP COLUMN detail", "other tables or columns"),
        ("INSERT INTO sweeps SELECT 'other', created_at, ended_at, machine_id, harness_version, spec, resolved, "
         "planned_runs FROM sweeps", "holds other sweeps"),
        ("UPDATE artefacts SET path = '../../x' WHERE name = 'agent.log'", "leads out of the folder"),
        ("UPDATE grades SET log = '/etc/passwd'", "leads out of the folder"),
        (f"UPDATE artefacts SET sha256 = '{'0' * 64}'", "another file than its database names"),
        ("UPDATE runs SET run_id = run_id || '/../x'", "can't be the id of a run|belongs to none"),
        ("DELETE FROM runs", "belongs to none of runs"),
    ],
)  # fmt: skip
def test_a_database_that_no_harness_packs(
    bundle: Path, there: Path, tmp_path: Path, statement: str, why: str
) -> None:  # fmt: skip
    parts = Parts(bundle)
    parts.change_database(tmp_path, lambda db: db.execute(statement))
    refused(parts.write(tmp_path / "x.tar.gz"), there, why)


def test_a_database_that_is_none(bundle: Path, there: Path, tmp_path: Path) -> None:
    parts = Parts(bundle)
    parts.put("harness.db", b"a shopping list" * 99)
    refused(parts.write(tmp_path / "x.tar.gz"), there, "database is damaged: file is not a database")


def test_a_folder_of_that_name_with_other_files_is_left_alone(bundle: Path, there: Path) -> None:
    (there / SWEEP).mkdir()
    (there / SWEEP / "mine.txt").write_text("mine")
    refused(bundle, there, "is there already, with other files")


IMPORT = """
import os, signal, sys
from pathlib import Path
from harness.exchange import take_in
rename = Path.rename
def dying(self, target):
    if sys.argv[3] == "after":
        rename(self, target)
    if sys.argv[3] == "interrupted":
        rename(self, target)
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = dying
take_in.take_in(Path(sys.argv[1]), Path(sys.argv[2]) / "harness.db", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_that_is_killed_leaves_the_store_as_it_was_and_the_next_one_goes_on(
    bundle: Path, there: Path, moment: str
) -> None:
    with open_store(there / "harness.db").conn as db:
        before = list(db.iterdump())
    done = subprocess.run([sys.executable, "-c", IMPORT, str(bundle), str(there), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    with sqlite3.connect(there / "harness.db") as db:
        assert list(db.iterdump()) == before
    assert (there / SWEEP).exists() == (moment == "after")
    assert take_in(bundle, there / "harness.db", there).is_new
    assert not (there / f".import-{SWEEP}").exists()
    assert (there / RUN / "calls.jsonl.gz").exists()
    assert sqlite3.connect(there / "harness.db").execute("SELECT COUNT(*) FROM sweeps").fetchone() == (2,)


def test_one_that_is_interrupted_takes_its_files_back(bundle: Path, there: Path) -> None:
    before = state(there)
    arguments = [str(bundle), str(there), "interrupted"]
    done = subprocess.run([sys.executable, "-c", IMPORT, *arguments], capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert state(there) == before


COMMAND = "from harness.cli import main; main()"


def command(*words: str, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes})); "
    code = (limit if limit_bytes else "") + COMMAND
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def test_on_the_command_line_it_is_one_sentence_and_exit_code_2(there: Path, tmp_path: Path) -> None:
    text(tmp_path / "list.txt")
    done = command("import", str(tmp_path / "list.txt"), "--runs-dir", str(there))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("harness: ")
    assert done.stderr.count("\n") == 1


def test_where_nothing_more_can_be_written_nothing_stays(bundle: Path, there: Path, tmp_path: Path) -> None:
    before = state(there)
    done = command("import", str(bundle), "--runs-dir", str(there), limit_bytes=64 << 10)
    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert state(there) == before
    (tmp_path / "a file").touch()
    done = command("import", str(bundle), "--runs-dir", str(tmp_path / "a file" / "runs"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
