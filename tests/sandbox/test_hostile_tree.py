"""Work directories that were left to do harm: each is read out of a real, dead container, as a run's is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from harness.grading.trial import IMAGES_BYTES, Cancelled, work_directory
from harness.images.dockerfiles import build
from harness.images.prepare import Prepared, prepare
from harness.sandbox import archive, tree
from harness.sandbox.archive import File, TooMuch
from harness.sandbox.container import Limits, running, tar_of
from harness.sandbox.daemon import connect
from harness.sandbox.removal import wait_for_removals
from harness.sandbox.tree import Difference
from harness.suites import load_suite

pytestmark = [pytest.mark.docker, pytest.mark.network]

MB = 1 << 20
LIMITS = Limits(cpus=2, memory_bytes=512 * MB, disk_bytes=256 * MB, deadline_s=120)
NEVER = threading.Event()
MARK = Path("/tmp/was-here")  # what a booby trap would make, were it to go off on the host

Left = Callable[..., Difference]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connect()


@pytest.fixture(scope="module")
def prepared(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    task = load_suite("smoke").tasks[0]
    log = tmp_path_factory.mktemp("log") / "build.log"
    return prepare(client, build(client, task.environment, f"smoke/{task.name}", log, print), task.name)


@pytest.fixture
def left(client: docker.DockerClient, prepared: Prepared) -> Iterator[Left]:
    """What is taken of a work directory in which a Python program was run as an agent's is."""

    def left(program: str, limits: Limits = LIMITS, cancelled: threading.Event = NEVER) -> Difference:
        heard = bytearray()
        files = tar_of({"/program.py": f"import os, socket\n{program}".encode()})
        with running(client, prepared.image, kind="run", limits=limits, files=files) as container:
            done = container.exec(["sh", "-c", "cd /testbed && python3 /program.py"], sink=heard.extend)
            assert done.code == 0, heard.decode(errors="replace")
            container.kill()
            return prepared.base.difference(work_directory(container, "/testbed", cancelled))

    MARK.unlink(missing_ok=True)
    yield left
    assert not MARK.exists()
    wait_for_removals()


def contents(prepared: Prepared, difference: Difference) -> dict[str, bytes | None]:
    """What a patch says when it is applied again: path to content, None if removed."""
    changed, removed, _ = prepared.base.apply(difference.patch)
    return {file.path: file.content for file in changed} | dict.fromkeys(removed)


FIX = "open('fix.py', 'w').write('x = 1\\n')\n"

# What is left, and what of it a patch holds besides the file fix.py, which each of them has.
ODD: dict[str, tuple[str, dict[str, bytes]]] = {
    "links out of the work directory": (
        "os.symlink('/etc/shadow', 'absolute'); os.symlink('../../../etc/passwd', 'up')\n"
        "os.symlink('/', 'root'); os.symlink('root', 'chain'); os.symlink('round', 'round')\n",
        {"absolute": b"/etc/shadow", "up": b"../../../etc/passwd", "root": b"/", "chain": b"root", "round": b"round"},
    ),
    "hard links to files of the system": ("os.link('/etc/passwd', 'hard'); os.link('hard', 'harder')\n", {}),
    "pipes and sockets": (
        "os.mkfifo('fifo'); os.mkdir('d'); os.mkfifo('d/README.md')\n"
        "socket.socket(socket.AF_UNIX).bind('socket')\n",
        {},
    ),
    "sparse files": (
        "for n in range(4):\n    with open(f'sparse{n}', 'wb') as file:\n        file.truncate(100 << 20)\n", {},
    ),
    "folders deeper than any path": (
        "for _ in range(3000):\n    os.mkdir('deeper'); os.chdir('deeper')\n"
        "open('bottom', 'w').close(); os.chdir('/testbed')\n", {},
    ),
    "the longest names": ("open('n' * 255, 'w').write('x')\n", {"n" * 255: b"x"}),
    "names that are read as something else": (
        "for name in (':!fix.py', ':(top)x', '-n', '--help', '*', '\"', \"'\", '\\\\', 'a\\nb', 'a\\tb', ' ',\n"
        "             '$(id)', '\\x1b[31m', '~', '#', 'a -> b', '{x => y}', '/'.join(('e', '...', '..x'))):\n"
        "    os.makedirs(os.path.dirname(name) or '.', exist_ok=True); open(name, 'w').write('x')\n",
        dict.fromkeys([":!fix.py", ":(top)x", "-n", "--help", "*", '"', "'", "\\", "a\nb", "a\tb", " ", "$(id)",
                       "\x1b[31m", "~", "#", "a -> b", "{x => y}", "e/.../..x"], b"x"),
    ),
    "names that are no text": ("open(b'\\xff\\xfe', 'w').write('x')\n", {"\udcff\udcfe": b"x"}),
    "names that differ in their case alone": (
        "open('FIX.py', 'w').write('x'); open('Fix.py', 'w').write('y')\n", {"FIX.py": b"x", "Fix.py": b"y"},
    ),
    "names that other systems take for .git": (
        "for name in ('.git.', '.git ', 'git~1', '.git::$INDEX_ALLOCATION', '.g\\u200cit'):\n"
        "    os.mkdir(name); open(name + '/config', 'w').write('x')\n",
        {f"{name}/config": b"x" for name in (".git.", ".git ", "git~1", ".git::$INDEX_ALLOCATION", ".g\u200cit")},
    ),
    "repositories in the repository": (
        "os.system('git init -q sub && cd sub && git -c user.name=a -c user.email=b commit -q --allow-empty -m x')\n"
        "os.mkdir('other'); open('other/.git', 'w').write('gitdir: /etc\\n'); open('other/x', 'w').write('x')\n"
        "os.system('git update-index --add --cacheinfo 160000,0123456789012345678901234567890123456789,link')\n"
        "open('.gitmodules', 'w').write('[submodule \"x\"]\\n\\tpath = link\\n\\turl = ext::touch% /tmp/was-here')\n",
        {"other/x": b"x", ".gitmodules": b'[submodule "x"]\n\tpath = link\n\turl = ext::touch% /tmp/was-here'},
    ),
    "a repository that runs code": (
        "trap = '!touch /tmp/was-here'\n"
        "for name in ('core.fsmonitor', 'core.sshCommand', 'core.pager', 'diff.external', 'filter.x.clean',\n"
        "             'filter.x.smudge', 'filter.x.process', 'diff.x.textconv', 'diff.x.command', 'core.editor'):\n"
        "    assert os.system(f\"git config {name} 'touch /tmp/was-here'\") == 0\n"
        "os.system('git config core.worktree /etc; git config include.path /tmp/x; git config core.hooksPath hooks')\n"
        "os.makedirs('hooks'); open('hooks/post-checkout', 'w').write('touch /tmp/was-here')\n"
        "os.makedirs('.git/objects/info', exist_ok=True)\n"
        "open('.git/objects/info/alternates', 'w').write('/etc\\n')\n"
        "open('.gitattributes', 'w').write('* filter=x diff=x text working-tree-encoding=UTF-16 export-subst')\n"
        "open('id.txt', 'w').write('$Format:%H$ $Id$ a\\r\\nb\\n')\n",
        {".gitattributes": b"* filter=x diff=x text working-tree-encoding=UTF-16 export-subst",
         "hooks/post-checkout": b"touch /tmp/was-here", "id.txt": b"$Format:%H$ $Id$ a\r\nb\n"},
    ),
    "no repository any more": ("os.system('rm -rf .git && ln -s /etc .git')\n", {}),
    "compiled code that Python would not check": (
        "import py_compile\nopen('evil.py', 'w').write('x = 2\\n')\n"
        "py_compile.compile('evil.py', invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n"
        "py_compile.compile('evil.py', cfile='bare.pyc'); os.remove('evil.py')\n", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("program", "held"), ODD.values(), ids=ODD.keys())
def test_what_a_patch_can_hold_it_holds_and_nothing_else_happens(
    left: Left, prepared: Prepared, program: str, held: dict[str, bytes]
) -> None:
    began = time.monotonic()
    difference = left(FIX + program)
    found = contents(prepared, difference)
    assert found.pop("fix.py") == b"x = 1\n"
    for name in ("hard", "harder"):  # the content of a file of the sandbox is what it is
        assert found.pop(name, b"root:").startswith(b"root:")  # type: ignore[union-attr]
    assert found == held
    sparse = "truncate" in program
    assert difference.too_large == (tuple(f"sparse{n}" for n in range(4)) if sparse else ())
    assert time.monotonic() - began < 120


def test_names_that_git_takes_into_no_tree_are_named(left: Left, prepared: Prepared) -> None:
    difference = left(
        FIX + "os.makedirs('.GIT/hooks'); open('.GIT/hooks/post-checkout', 'w').close(); open('d.Git', 'w').close()\n"
        "os.makedirs('sub/.gIt'); open('sub/.gIt/config', 'w').close(); os.symlink('fix.py', '.gitmodules')\n"
    )
    assert set(contents(prepared, difference)) == {"fix.py", "d.Git"}
    assert set(difference.unnameable) == {".GIT/hooks/post-checkout", "sub/.gIt/config", ".gitmodules"}


def test_a_folder_that_became_a_link_and_a_file_that_became_a_pipe(left: Left, prepared: Prepared) -> None:
    difference = left(
        FIX + "import shutil\nfolder = next(n for n in os.listdir('.') if os.path.exists(f'{n}/__init__.py'))\n"
        "shutil.move(folder, '/opt/elsewhere'); os.symlink('/opt/elsewhere', folder)\n"
        "os.remove('README.md'); os.mkfifo('README.md')\n"
    )
    found = contents(prepared, difference)
    [package] = {path.split("/")[0] for path in prepared.base.entries if path.endswith("/__init__.py")}
    gone = {path for path in prepared.base.entries if path.startswith(f"{package}/")} | {"README.md"}
    assert found == {"fix.py": b"x = 1\n", package: b"/opt/elsewhere"} | dict.fromkeys(gone)


@pytest.mark.parametrize("program", ["os.system('rm -rf /testbed; ln -s /etc /testbed')",
                                     "os.system('rm -rf /testbed; echo x > /testbed')"])  # fmt: skip
def test_a_work_directory_that_is_none_any_more_is_every_file_removed(
    left: Left, prepared: Prepared, program: str
) -> None:
    assert contents(prepared, left(program)) == dict.fromkeys(prepared.base.entries)


def test_holes_without_end_are_too_much_and_are_not_read_to_their_end(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.grading.trial.IMAGES_BYTES", 256 * MB)
    assert IMAGES_BYTES + LIMITS.disk_bytes < 16 << 30
    began = time.monotonic()
    with pytest.raises(TooMuch, match="larger than 512 MB"):
        left("for n in range(64):\n    with open(f'{n}', 'wb') as file:\n        file.truncate(2 << 30)\n")
    assert time.monotonic() - began < 60


def test_more_files_than_anybody_makes_are_too_many(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 1000)
    with pytest.raises(TooMuch, match="more than 1000 files"):
        left("os.mkdir('many')\nfor n in range(1001):\n    open(f'many/{n}', 'w').close()\n")


def test_of_many_new_files_the_first_are_in_the_patch_and_the_others_are_named(
    left: Left, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MOST_CHANGED_FILES", 50)
    difference = left("os.mkdir('many')\nfor n in range(80):\n    open(f'many/{n}', 'w').write(str(n))\n")
    found = contents(prepared, difference)
    assert len(found) == 50
    assert set(found) | set(difference.too_large) == {f"many/{n}" for n in range(80)}


def test_another_name_of_what_is_left_out_is_named_and_not_taken_for_removed(left: Left, prepared: Prepared) -> None:
    last = max(prepared.base.entries)  # after the leftover, in the order of the archive
    difference = left(
        FIX + "os.mkdir('__pycache__'); open('__pycache__/x.pyc', 'w').write('x = 3\\n')\n"
        f"os.remove({last!r}); os.link('__pycache__/x.pyc', {last!r})\n"
    )
    assert set(contents(prepared, difference)) == {"fix.py"}
    assert difference.too_large == (last,)


def test_an_interrupt_ends_the_reading(left: Left) -> None:
    interrupted = threading.Event()
    interrupted.set()
    with pytest.raises(Cancelled):
        left(FIX, cancelled=interrupted)


def test_a_file_is_its_bytes(left: Left, prepared: Prepared) -> None:
    difference = left("open('fix.py', 'wb').write(bytes(range(256)) * 3)\nos.chmod('README.md', 0o4777)\n")
    changed, _, _ = prepared.base.apply(difference.patch)
    assert File("fix.py", "100644", bytes(range(256)) * 3) in changed
    assert {file.path: file.mode for file in changed} == {"fix.py": "100644", "README.md": "100755"}
