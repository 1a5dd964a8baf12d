"""Confines a child process that works on untrusted data: it may only compute, read files, and answer over one pipe.

The layers are an empty environment, no capabilities, resource limits, namespaces without a network, Landlock for files,
and a system-call filter for the rest. A layer that the kernel or the container lacks is skipped.
"""

import ctypes
import faulthandler
import gc
import os
import platform
import resource
import signal
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38  # <linux/prctl.h>
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
ENV_START, ENV_END = 47, 48  # in /proc/self/stat, counted from the state (proc_pid_stat(5): fields 50 and 51)
CAPABILITY_VERSION = 0x20080522  # <linux/capability.h>

# <linux/landlock.h>; the calls have the same numbers on every architecture
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, LANDLOCK_VERSION = 444, 446, 1
# Execute, write, remove, make, move and truncate; reading files and folders is not among them.
FILE_RIGHTS = 0b111_1111_1111_0011

# <linux/seccomp.h>, <linux/filter.h>, <linux/audit.h>
SECCOMP_MODE_FILTER, ALLOW, REFUSE = 2, 0x7FFF0000, 0x00050000 | 1  # EPERM
LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # calls with this bit belong to another table of calls
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PRLIMIT = {"x86_64": 302, "aarch64": 261}  # allowed for the process itself, because setrlimit uses it
REFUSED = {
    "x86_64": {
        "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "clone": 56, "fork": 57, "vfork": 58, "clone3": 435,
        "execve": 59, "execveat": 322, "kill": 62, "rt_sigqueueinfo": 129, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "pidfd_open": 434, "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452,
        "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261,
        "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198,
        "fremovexattr": 199, "io_uring_setup": 425,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "sendto": 206, "sendmsg": 211, "clone": 220, "clone3": 435, "execve": 221,
        "execveat": 281, "kill": 129, "rt_sigqueueinfo": 138, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "pidfd_open": 434, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55,
        "fchownat": 54, "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14,
        "lremovexattr": 15, "fremovexattr": 16, "io_uring_setup": 425,
    },
}  # fmt: skip


def confine(pipe: int, parent: int) -> None:
    """Confine the calling child: it dies with its parent, keeps only the pipe open, and can neither write nor connect.

    `pipe` is the descriptor of its pipe, `parent` the parent's process id.
    """
    libc = ctypes.CDLL(None)
    prctl = libc.prctl
    _forget_environment()
    # A namespace without network, and a user namespace without the right to read the parent's memory. Some kernels and
    # containers refuse both; the child then runs without them. PDEATHSIG is set later: new rights reset it.
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.capset(struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24))
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != pipe:
            try:
                os.close(int(name))
            except OSError:  # the descriptor of the listing itself
                continue
    # Nothing may finalise the parent's sockets and loggers here: their descriptors are closed, their locks may be held.
    gc.freeze()
    faulthandler.disable()  # its descriptor is closed too, and the number may be reused
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # the kernel ignores it for root
    # If cores are piped to a program, the kernel ignores the limit of 0, but not PR_SET_DUMPABLE, after which
    # /proc/self/fd cannot be listed.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_DUMPABLE, 0)
    _only_read(libc)
    _refuse_calls(libc, platform.machine())


def _forget_environment() -> None:
    """Remove all keys from the environment, also from /proc/self/environ, where `clear` leaves the initial bytes."""
    os.environ.clear()
    with open("/proc/self/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    start, end = int(fields[ENV_START]), int(fields[ENV_END])
    ctypes.memset(start, 0, end - start)


def _only_read(libc: ctypes.CDLL) -> None:
    """Give up all rights on files that the kernel's Landlock version knows, except reading. No-op without Landlock."""
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_VERSION)
    if version < 1:
        return
    known = (
        0x1FFF if version == 1 else 0x3FFF if version == 2 else 0x7FFF
    )  # version 2 added moving, version 3 truncating
    rights = FILE_RIGHTS & known
    ruleset = struct.pack("Q", rights)
    if version > 5:  # also TCP, and signals and abstract sockets to other processes
        ruleset = struct.pack("QQQ", rights, 0b11, 0b11)
    handle = libc.syscall(LANDLOCK_CREATE_RULESET, ruleset, ctypes.c_size_t(len(ruleset)), 0)
    libc.syscall(LANDLOCK_RESTRICT_SELF, handle, 0)
    os.close(handle)


def _refuse_calls(libc: ctypes.CDLL, machine: str) -> None:
    """Make the kernel answer EPERM to calls that change modes, times or owners of files, or reach other processes."""
    if machine not in ARCHITECTURES:
        return
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _filter(machine))
    held = ctypes.create_string_buffer(code, len(code))
    libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held)), 0, 0
    )


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter's instructions: (operation, jump if true, jump if false, value). A jump skips so many instructions."""
    refused = sorted(REFUSED[machine].values())
    checks = [(JUMP_IF_EQUAL, len(refused) - at + 3, 0, number) for at, number in enumerate(refused)]
    return [
        (LOAD_WORD, 0, 0, ARCHITECTURE_AT),
        (JUMP_IF_EQUAL, 0, len(refused) + 6, ARCHITECTURES[machine]),
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_IF_AT_LEAST, len(refused) + 4, 0, X32),
        *checks,
        (JUMP_IF_EQUAL, 0, 2, PRLIMIT[machine]),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT_AT),
        (JUMP_IF_EQUAL, 0, 1, 0),  # the process itself
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
