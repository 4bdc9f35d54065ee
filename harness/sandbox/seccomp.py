"""Which system calls a sandbox's processes may make; the kernel answers any other with "not permitted".

Docker has a list of its own, and how strict that is depends on its age. That of 20.10 lets through `AF_VSOCK`, a way to
the hypervisor past every network, and io_uring, behind which a filter of system calls sees nothing. So every sandbox
has this list: a daemon without seccomp then refuses to start it instead of going without. What an agent's commands
do needs nothing that is missing here: mounting, modules, namespaces, keys, tracing of the kernel, clocks, memory
policies and asynchronous I/O of the kernel's own, whose slots are few and the whole machine's.
"""

from __future__ import annotations

import errno
import json

FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
    fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat
    listxattr listxattrat llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
    newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat
    splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2
    arm_sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes
    vmsplice write writev
"""
WATCHING = """
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll
    ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
"""
MEMORY = """
    brk cachestat madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap remap_file_pages
"""
PROCESSES = """
    arch_prctl arm_fadvise64_64 breakpoint cacheflush capget capset execve execveat exit exit_group fork
    get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid
    gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
    membarrier modify_ldt pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease ptrace restart_syscall
    rseq riscv_flush_icache rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
    set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit setsid setuid setuid32 sigaltstack sigprocmask sigreturn sysinfo tgkill tkill ugetrlimit
    uname vfork wait4 waitid waitpid
"""
BETWEEN_PROCESSES = """
    accept accept4 bind connect futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getpeername
    getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64
    recvmsg semctl semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl
    shmdt shmget shutdown socketpair
"""
TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
"""
ALLOWED = " ".join((FILES, WATCHING, MEMORY, PROCESSES, BETWEEN_PROCESSES, TIME)).split()

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # none, 32 bits, how uname speaks, both, what is it
NEW_NAMESPACES = 0x7E020000  # the flags of clone that make one

# Sockets by `socket` alone: what the older `socketcall` asks for can't be seen.
ARCHITECTURES = {"X86_64": ["X86"], "AARCH64": ["ARM"], "RISCV64": []}


def profile() -> str:
    """In the form that Docker takes as `seccomp=`."""

    def allow(name: str, value: int, comparison: str, second: int = 0) -> dict[str, object]:
        argument = {"index": 0, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{comparison}"}
        return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}

    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [
                {"architecture": f"SCMP_ARCH_{name}", "subArchitectures": [f"SCMP_ARCH_{sub}" for sub in subs]}
                for name, subs in ARCHITECTURES.items()
            ],
            "syscalls": [
                {"names": ALLOWED, "action": "SCMP_ACT_ALLOW"},
                {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
                *(allow("socket", family, "EQ") for family in (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)),
                *(allow("personality", value, "EQ") for value in PERSONALITIES),
                allow("clone", NEW_NAMESPACES, "MASKED_EQ"),
                # Its flags lie in memory, out of sight; without it the C library takes clone.
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            ],
        }
    )
