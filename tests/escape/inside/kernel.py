"""What only somebody with capabilities, or without a filter of system calls, gets from the kernel. Harmless where it
works: nothing is changed, or it is changed in a namespace of the attempt's own and changed back."""

import ctypes
import os
import pathlib
import resource
import socket
import stat
import struct
import tempfile

from attempts import Refused, attempt, let_through

libc = ctypes.CDLL(None, use_errno=True)

# Those that the C library has no function for; the newer ones have one number everywhere.
NUMBERS = {
    name: numbers[os.uname().machine == "aarch64"]
    for name, numbers in {
        "pivot_root": (155, 41),
        "settimeofday": (164, 170),
        "reboot": (169, 142),
        "delete_module": (176, 106),
        "kexec_load": (246, 104),
        "add_key": (248, 217),
        "keyctl": (250, 219),
        "perf_event_open": (298, 241),
        "finit_module": (313, 273),
        "bpf": (321, 280),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "open_tree": (428, 428),
        "fsopen": (430, 430),
        "mount_setattr": (442, 442),
    }.items()
}

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWCGROUP = 0x20000, 0x10000000, 0x40000000, 0x2000000
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call(name, *arguments):
    return checked(libc.syscall(NUMBERS[name], *arguments))


def tried(name, *arguments):
    """A call that can't succeed as it is made."""
    try:
        return f"returned {call(name, *arguments)}"
    except OSError as error:
        return let_through(error)


def mounted(source, target, kind, flags=0, data=None):
    checked(libc.mount(source, target, kind, flags, data))
    checked(libc.umount2(target, 0))
    return "mounted"


def folder():
    return tempfile.mkdtemp(dir="/root").encode()


# Namespaces and mounts.


@attempt
def a_user_namespace():
    checked(libc.unshare(CLONE_NEWUSER))
    return f"now uid {os.getuid()} of its own"


@attempt
def a_mount_namespace():
    checked(libc.unshare(CLONE_NEWNS))
    return "made"


@attempt
def a_network_namespace():
    checked(libc.unshare(CLONE_NEWNET))
    return "made"


@attempt
def a_cgroup_namespace():
    checked(libc.unshare(CLONE_NEWCGROUP))
    return "made"


@attempt
def the_namespace_of_another_process():
    with open("/proc/1/ns/mnt") as namespace:
        checked(libc.setns(namespace.fileno(), 0))
    return "entered"


@attempt
def mounting_memory():
    return mounted(b"tmpfs", folder(), b"tmpfs")


@attempt
def mounting_processes():
    return mounted(b"proc", folder(), b"proc")


@attempt
def mounting_an_overlay():
    base = pathlib.Path(os.fsdecode(folder()))
    # On a file system of memory: an overlay does not lie upon another.
    checked(libc.mount(b"tmpfs", bytes(base), b"tmpfs", 0, None))
    try:
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        data = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work".encode()
        return mounted(b"overlay", bytes(base / "merged"), b"overlay", 0, data)
    finally:
        libc.umount2(bytes(base), 2)


@attempt
def mounting_control_groups():
    for kind, data in ((b"cgroup2", None), (b"cgroup", b"pids")):
        target = folder()
        if libc.mount(kind, target, kind, 0, data) == 0:
            libc.umount2(target, 0)
            return kind.decode()
    return checked(-1)


@attempt
def binding_one_folder_over_another():
    return mounted(b"/root", folder(), b"", MS_BIND)


@attempt
def mounting_the_new_way():
    return os.close(call("fsopen", b"tmpfs", 0)) or "a file system was opened"


@attempt
def cloning_a_mount():
    return os.close(call("open_tree", -100, b"/", 1)) or "cloned"


@attempt
def changing_a_mount():
    return tried("mount_setattr", -1, b"", 0, 0, 0)


@attempt
def writing_to_the_framework():
    """Mounted read-only."""
    with open("/opt/agent/escape", "w"):
        pass
    os.unlink("/opt/agent/escape")
    return "written"


@attempt
def mounting_the_framework_again_for_writing():
    checked(libc.mount(None, b"/opt/agent", None, MS_REMOUNT | MS_BIND, None))
    try:
        return writing_to_the_framework()
    finally:
        libc.mount(None, b"/opt/agent", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


@attempt
def another_root_by_pivoting():
    return tried("pivot_root", b"/nowhere", b"/nowhere")


@attempt
def another_root():
    os.chroot("/root")
    return "changed"


@attempt
def swapping_to_a_file():
    try:
        return str(checked(libc.swapon(b"/nowhere", 0)))
    except OSError as error:
        return let_through(error)


# The kernel itself.


@attempt
def loading_a_module():
    with tempfile.TemporaryFile() as nothing:
        return tried("finit_module", nothing.fileno(), b"", 0)


@attempt
def unloading_a_module():
    return tried("delete_module", b"no_such_module", os.O_NONBLOCK)


@attempt
def another_kernel():
    return tried("kexec_load", 0, 0, None, -1)


@attempt
def restarting_the_machine():
    """With a number that says: not really."""
    return tried("reboot", 0, 0, 0, 0)


@attempt
def a_program_in_the_kernel():
    return tried("bpf", 5, ctypes.create_string_buffer(128), 128)


@attempt
def counters_of_the_processor():
    return tried("perf_event_open", ctypes.create_string_buffer(128), -1, 0, -1, 0)


@attempt
def handling_faults_of_pages():
    return tried("userfaultfd", -1)


@attempt
def a_ring_of_io():
    return tried("io_uring_setup", 0, None)


@attempt
def the_keys_of_the_user():
    return str(call("keyctl", 0, -4, 1))


@attempt
def keeping_a_key():
    return str(call("add_key", b"user", b"harness-escape", b"x", 1, -2))


@attempt
def watching_a_file_system():
    return os.close(checked(libc.fanotify_init(4, 0))) or "watching"  # FAN_CLASS_CONTENT


@attempt
def opening_by_a_handle():
    try:
        return str(checked(libc.open_by_handle_at(-1, ctypes.create_string_buffer(128), 0)))
    except OSError as error:
        return let_through(error)


@attempt
def the_log_of_the_kernel():
    return f"{checked(libc.klogctl(3, ctypes.create_string_buffer(4096), 4096))} bytes"


@attempt
def setting_the_clock():
    return tried("settimeofday", None, None)


@attempt
def the_name_of_the_machine():
    socket.sethostname(socket.gethostname())
    return "set"


# Files of the kernel. Opened for writing, and nothing is written.


def made_writable(path):
    """Try to; what comes of it shows in what is done next."""
    libc.mount(None, path, None, MS_REMOUNT, None)
    libc.mount(None, path, None, MS_REMOUNT | MS_BIND, None)


def opened(*paths):
    for path in paths:
        if os.path.exists(path):
            with open(path, "r+b", buffering=0):
                return f"{path} was opened for writing"
    raise Refused("no such file")


@attempt
def the_pattern_of_core_files():
    made_writable(b"/proc/sys")
    return opened("/proc/sys/kernel/core_pattern")


@attempt
def the_magic_key():
    with open("/proc/sysrq-trigger", "wb", buffering=0):
        return "opened for writing"


@attempt
def a_setting_of_the_kernel_in_sys():
    made_writable(b"/sys")
    return opened("/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_helper", "/sys/power/state")


@attempt
def who_is_called_when_a_control_group_is_empty():
    """A control group of one's own, whose release_agent runs on the host."""
    for controller in (pathlib.Path("/sys/fs/cgroup/pids"), pathlib.Path("/sys/fs/cgroup")):
        if controller.is_dir():
            made_writable(bytes(controller))
            group = controller / "harness-escape"
            group.mkdir()
            group.rmdir()
            return str(group)
    raise Refused("there are none")


@attempt
def sparing_oneself_when_memory_is_short():
    pathlib.Path("/proc/self/oom_score_adj").write_text("-1000")
    return "spared"


@attempt
def timers_of_all_processes():
    """Docker puts an empty file over it, as over others that tell of the host."""
    libc.umount2(b"/proc/timer_list", 0)
    shown = pathlib.Path("/proc/timer_list").read_bytes()[:10]
    if not shown:
        raise Refused("it is empty")
    return shown.decode()


# Devices.


def device(kind, number, name):
    path = f"/root/{name}"
    os.mknod(path, kind | 0o600, number)
    try:
        with open(path, "rb", buffering=0) as file:
            return f"{len(file.read(512))} bytes read"
    except OSError as error:
        return f"made; opening it: {error.strerror}"
    finally:
        os.unlink(path)


@attempt
def the_disk_of_the_host():
    return device(stat.S_IFBLK, os.stat("/etc/hosts").st_dev, "disk")


@attempt
def the_memory_of_the_host():
    return device(stat.S_IFCHR, os.makedev(1, 1), "mem")


# Capabilities, limits and other users.


@attempt
def becoming_somebody_else():
    os.setuid(65534)
    return f"now uid {os.getuid()}"


@attempt
def giving_a_file_away():
    path = os.path.join(os.fsdecode(folder()), "file")
    pathlib.Path(path).touch()
    os.chown(path, 65534, 65534)
    return "given"


@attempt
def a_program_with_capabilities():
    path = os.path.join(os.fsdecode(folder()), "program")
    pathlib.Path(path).touch()
    os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0))
    return "made"


@attempt
def a_higher_limit_of_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except ValueError as error:
        raise Refused(str(error)) from error
    return "raised"


@attempt
def going_first():
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "niceness -5"


# Sockets that need more than a network.


@attempt
def a_raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "made"


@attempt
def a_socket_of_packets():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300).close()
    return "made"


@attempt
def a_socket_to_the_hypervisor():
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError as error:
        return let_through(error)
    return "made"


@attempt
def an_address_of_ones_own():
    """SIOCSIFFLAGS with the flags that the loopback has."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH14x", b"lo", 0))
        fcntl.ioctl(any_socket, 0x8914, flags)
    return "an interface was changed"
