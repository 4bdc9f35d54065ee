"""Where a model server runs: rules that need no network, and real sockets and namespaces of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.engines import location
from harness.engines.location import (
    Listener,
    container_of,
    in_container,
    is_own,
    of_addresses,
    of_url,
    own_of,
    plain,
    proxied,
    resolve,
    serving,
)

ID = "0123456789abcdef" * 4
OWN = own_of(
    [
        ("lo", "127.0.0.1", "255.0.0.0"),
        ("lo", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("eth0", "192.0.2.10", "255.255.255.0"),
        ("docker0", "172.17.0.1", "255.255.0.0"),
        ("docker0", "fe80::42%docker0", "ffff:ffff:ffff:ffff::"),
        ("br-0123456789ab", "172.18.0.1", "255.255.0.0"),
        ("br-0123456789ab", "fd00:77::1", "ffff:ffff:ffff:ffff::"),
        ("br-lan", "198.51.100.1", "255.255.255.0"),
        ("tun0", "203.0.113.9", None),
    ]
)
SERVER = (
    "import socket, sys; s = socket.socket(); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); "
    "print(s.getsockname()[1], flush=True); sys.stdin.read()"
)

Serve = Callable[..., tuple[int, "subprocess.Popen[str]"]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a listening process behind a command (`unshare ...`) and returns its port."""
    with contextlib.ExitStack() as stack:

        def start(*before: str, host: str = "127.0.0.1", port: int = 0) -> tuple[int, subprocess.Popen[str]]:
            process = subprocess.Popen(
                [*before, sys.executable, "-c", SERVER, host, str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)  # its input is closed then, and it ends
            assert process.stdout is not None
            return int(process.stdout.readline()), process

        yield start


def namespaces(*flags: str) -> None:
    """Skips where this user may not make namespaces."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode:
        pytest.skip("namespaces can't be made here")


def shows_pids() -> bool:
    """Whether connections are shown with their processes, which not everybody gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        return any(listener.pid == os.getpid() for listener in location._listeners() if listener.port == port)


def test_a_server_on_loopback_is_local_and_its_process_is_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for host in ("localhost", "127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"):
            found = of_url(f"http://{host}:{port}/v1")
            assert found.word == "local"
            assert found.pids == ((os.getpid(),) if shows_pids() else ())
        assert of_url(f"127.0.0.1:{port}").word == "local"


def test_a_closed_port_of_this_machine_is_local_and_nobodys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = of_url(f"http://127.0.0.1:{port}")
    assert (found.word, found.pids) == ("local", ())
    assert found.reason.endswith("where nothing is seen to listen")


def test_a_process_of_another_program(serve: Serve) -> None:
    port, process = serve()
    found = of_url(f"http://127.0.0.1:{port}")
    assert found.word == "local"
    assert found.pids == ((process.pid,) if shows_pids() else ())


def test_processes_that_the_caller_knows_are_kept() -> None:
    assert of_url("http://127.0.0.1:9", pids=[os.getpid()]).pids == (os.getpid(),)
    assert of_url("http://192.0.2.77:9", pids=[os.getpid()]).pids == ()


def test_a_process_in_a_pid_namespace_of_its_own_is_in_a_container(serve: Serve) -> None:
    namespaces("--pid", "--fork")
    port, _ = serve("unshare", "--pid", "--fork")
    found = of_url(f"http://127.0.0.1:{port}")
    if not found.pids:
        pytest.skip("connections are not shown with their processes")
    assert (found.word, found.reason) == ("container", "its process is in a container of this machine")


def test_a_service_with_mounts_of_its_own_and_the_same_root_is_local(serve: Serve) -> None:
    namespaces("--mount")
    port, process = serve("unshare", "--mount")
    assert Path(f"/proc/{process.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    assert not in_container(process.pid)
    assert of_url(f"http://127.0.0.1:{port}").word == "local"


def test_another_root_is_a_container(serve: Serve, tmp_path: Path) -> None:
    # What a container is made of: mounts of its own, and another file system for its root.
    own_root = """
        mount -t tmpfs none "$0" || exit 1
        for folder in /*; do
            if [ -d "$folder" ]; then mkdir "$0$folder" && mount --rbind "$folder" "$0$folder"; fi
        done
        exec chroot "$0" "$@"
    """
    into = ["unshare", "--mount", "sh", "-c", own_root, str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*into, "true"], capture_output=True).returncode:
        pytest.skip("a root of its own can't be made here")
    port, process = serve(*into)
    assert in_container(process.pid)
    assert of_url(f"http://127.0.0.1:{port}", [process.pid]).word == "container"


def test_a_server_in_a_network_of_its_own_is_found_by_its_address(serve: Serve) -> None:
    namespaces("--net")
    if shutil.which("ip") is None:
        pytest.skip("there is no ip")
    address = "192.0.2.55"
    script = f'ip link set lo up && ip addr add {address}/32 dev lo && exec "$@"'
    port, process = serve("unshare", "--net", "sh", "-c", script, "sh", host=address)
    assert location._in_other_networks(address, port) == (process.pid,)
    assert location._in_other_networks("192.0.2.56", port) == ()
    assert location._in_other_networks(address, port - 1) == ()


def test_a_port_that_a_proxy_holds_belongs_to_the_container_behind_it(serve: Serve, tmp_path: Path) -> None:
    namespaces("--net")
    if shutil.which("ip") is None or not shows_pids():
        pytest.skip("needs ip, and connections shown with their processes")
    address = "192.0.2.57"
    script = f'ip link set lo up && ip addr add {address}/32 dev lo && exec "$@"'
    behind, server = serve("unshare", "--net", "sh", "-c", script, "sh", host=address)
    stand_in = tmp_path / "docker-proxy"  # has the name and the command line of Docker's
    stand_in.write_text(f"#!{sys.executable}\nimport sys\nsys.argv = [sys.argv[0], sys.argv[2], sys.argv[4]]\n{SERVER}")
    stand_in.chmod(0o755)
    command = f"-host-ip 127.0.0.1 -host-port 0 -container-ip {address} -container-port {behind}".split()
    with subprocess.Popen([stand_in, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = of_url(f"http://127.0.0.1:{int(process.stdout.readline())}")
    assert (found.word, found.pids) == ("container", (server.pid,))


@pytest.mark.parametrize(
    "url", ["http://nobody.invalid:11434", "http://host:99999", "http://[bad", "", f"http://{'a' * 70}.example"]
)
def test_what_does_not_resolve_is_elsewhere(url: str) -> None:
    assert of_url(url).word == "remote"


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent_stand_in(*_: object, **__: object) -> list[object]:
        time.sleep(2)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent_stand_in)
    assert resolve("anybody.example", limit_s=0.01) == []


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.0.0.53", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.10", True),
        ("fe80::42%docker0", True),
        ("172.17.0.1", True),
        ("203.0.113.9", True),
        ("192.0.2.11", False),
        ("172.17.0.2", False),
        ("2001:db8::1", False),
    ],
)
def test_own_addresses(address: str, own: bool) -> None:
    assert is_own(address, OWN) is own


def test_networks_of_containers_are_those_of_dockers_bridges() -> None:
    assert [str(network) for network in OWN.bridges] == ["172.17.0.0/16", "172.18.0.0/16", "fd00:77::/64"]


@pytest.mark.parametrize(
    ("addresses", "word"),
    [
        (["172.17.0.5"], "container"),
        (["172.18.3.5"], "container"),
        (["fd00:77::5"], "container"),
        (["172.19.0.5"], "remote"),
        (["198.51.100.7"], "remote"),  # beside br-lan, which is no bridge of Docker's
        (["192.0.2.11"], "remote"),
        (["2001:db8::1"], "remote"),
        (["192.0.2.11", "192.0.2.10"], "local"),
        ([], "remote"),
    ],
)
def test_words_for_addresses(addresses: list[str], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "own_addresses", lambda: OWN)
    assert of_addresses(addresses, 9).word == word


def test_the_addresses_of_this_machine_are_found() -> None:
    assert plain("127.0.0.1") in location.own_addresses().addresses


@pytest.mark.parametrize(
    ("target", "pids"),
    [
        ("127.0.0.1", [1]),  # the one that names the address, not the one that takes any
        ("::ffff:127.0.0.1", [1]),
        ("0.0.0.0", [1]),
        ("172.17.0.1", [2]),
        ("192.0.2.10", [3, 4]),
        ("::1", [4]),  # a socket of 0.0.0.0 takes no IPv6
    ],
)
def test_who_serves_an_address(target: str, pids: list[int]) -> None:
    listeners = [
        Listener("127.0.0.1", 80, 1),
        Listener("::ffff:172.17.0.1", 80, 2),
        Listener("0.0.0.0", 80, 3),
        Listener("::", 80, 4),
        Listener("127.0.0.1", 81, 5),
        Listener("::1", 81, 6),
    ]
    assert [listener.pid for listener in serving(listeners, target, 80)] == pids


@pytest.mark.parametrize(
    ("cgroup", "container"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", f"docker-{ID}.scope"),
        (f"4:memory:/docker/{ID}\n1:cpu:/docker/{ID}\n", f"docker/{ID}"),
        (f"0::/docker/{ID}/worker\n", f"docker/{ID}"),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", f"libpod-{ID}.scope"),
        (f"1:name=systemd:/machine.slice/libpod-{ID}.scope\n", f"libpod-{ID}.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/podman-77.scope\n", "podman-77.scope"),
        (
            f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n",
            f"kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope",
        ),
        (f"3:cpu:/kubepods/burstable/pod1/{ID}\n", f"kubepods/burstable/pod1/{ID}"),
        (f"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}\n", f"containerd:{ID}"),
        ("0::/lxc.payload.web/system.slice/ollama.service\n", "lxc.payload.web"),
        ("5:memory:/lxc/web\n", "lxc/web"),
        ("0::/system.slice/ollama.service\n", None),
        ("0::/system.slice/docker.service\n", None),
        ("0::/system.slice/docker-cleanup.service\n", None),
        ("0::/system.slice/containerd.service\n", None),
        ("0::/lxc.monitor.web\n", None),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_a_container_is_known_by_its_control_group(cgroup: str, container: str | None) -> None:
    assert container_of(cgroup) == container


def stand_in_process(proc: Path, pid: str, cgroup: str, pid_ns: str = "pid:[1]", mnt_ns: str = "mnt:[1]") -> None:
    (proc / pid / "ns").mkdir(parents=True)
    (proc / pid / "cgroup").write_text(cgroup)
    (proc / pid / "ns/pid").symlink_to(pid_ns)
    (proc / pid / "ns/mnt").symlink_to(mnt_ns)
    (proc / pid / "root").symlink_to("/" if mnt_ns == "mnt:[1]" else proc)


def test_the_harnesss_own_container_does_not_count(tmp_path: Path) -> None:
    stand_in_process(tmp_path, "self", f"0::/docker/{ID}\n")
    stand_in_process(tmp_path, "7", f"0::/docker/{ID}/engine\n")
    stand_in_process(tmp_path, "8", f"0::/docker/{ID[::-1]}\n")
    assert [in_container(pid, tmp_path) for pid in (7, 8)] == [False, True]


def test_namespaces_tell_where_the_control_group_does_not(tmp_path: Path) -> None:
    stand_in_process(tmp_path, "self", "0::/\n")
    stand_in_process(tmp_path, "6", "0::/\n")
    stand_in_process(tmp_path, "7", "0::/\n", pid_ns="pid:[2]")
    stand_in_process(tmp_path, "8", "0::/\n", mnt_ns="mnt:[2]")
    assert [in_container(pid, tmp_path) for pid in (6, 7, 8)] == [False, True, True]


def test_a_process_that_is_gone_or_hidden_is_in_no_container(tmp_path: Path) -> None:
    stand_in_process(tmp_path, "self", "0::/\n")
    (tmp_path / "9").mkdir()
    (tmp_path / "9/cgroup").write_text("0::/\n")
    assert [in_container(pid, tmp_path) for pid in (8, 9)] == [False, False]


def test_what_a_proxy_leads_to() -> None:
    command = (
        "/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip 172.17.0.2 -container-port 8"
    )
    assert proxied(command.split()) == ("172.17.0.2", 8)
    assert proxied(["rootlessport"]) is None
    assert proxied(["docker-proxy", "-container-ip", "172.17.0.2", "-container-port", "many"]) is None
