"""Prints the number of each system call that is answered with "not permitted" or "there is none such". Every argument
is -1, which no call makes anything of."""

import ctypes
import errno
import os
import signal

LAST = 470
# They end a process, start one, wait for ever, or go back to where this one has never been.
LEFT_OUT = {"x86_64": (15, 22, 34, 56, 57, 58, 59, 60, 61, 231, 322), "aarch64": (93, 94, 139, 220, 221, 281)}

libc = ctypes.CDLL(None, use_errno=True)
arguments = [ctypes.c_long(-1)] * 6
for number in range(LAST):
    if number in LEFT_OUT[os.uname().machine]:
        continue
    child = os.fork()
    if child == 0:
        signal.alarm(2)
        os._exit(0 if libc.syscall(number, *arguments) >= 0 else min(ctypes.get_errno(), 255))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (errno.EPERM, errno.ENOSYS):
        print(number)
