"""Check one hand-in, in a process that grade.py starts.

`python grade_one.py REFERENCE STUDENT SCRATCH CHANNEL FIRST`: the checks are those of REFERENCE. Before any code of the
student is imported, writing outside SCRATCH, reading what is none of its business, programs and connections are
forbidden. Each result is a line of JSON in the file descriptor CHANNEL.
"""

import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path

FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.symlink"}
FORBIDDEN |= {"os.link", "os.chmod", "os.chown", "subprocess.Popen", "pty.spawn", "shutil.rmtree", "ctypes.dlopen"}
FORBIDDEN |= {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "sqlite3.connect"}
CHANGING = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.utime", "shutil.move"}
SYSTEM = ("/usr", "/lib", "/etc", "/proc", "/sys", "/dev")  # where libraries look


def forbid(scratch, readable):
    """Let no Python code write outside `scratch`, read outside `readable`, start programs or connect.

    Such calls raise a PermissionError. What is written in C can get round it; on Linux the sandbox is behind it.
    """
    realpath, decode, isdir = os.path.realpath, os.fsdecode, os.path.isdir  # a hand-in may replace those of os
    scratch, readable = realpath(scratch), tuple(realpath(place) for place in readable)

    def within(path, places):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return True
        path = realpath(decode(path))
        return any(path == place or path.startswith(place + os.sep) for place in places)

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            )
            # A folder's descriptor would let relative names lead elsewhere.
            places = (scratch, os.devnull) if writes or (isinstance(path, str) and isdir(path)) else readable
            if not within(path, places):
                raise PermissionError(f"a hand-in may not {'write to' if writes else 'read'} this file")
        elif event in CHANGING and not all(within(path, (scratch,)) for path in arguments[:2]):
            raise PermissionError("a hand-in may not change this file")
        elif event in FORBIDDEN:
            raise PermissionError(f"a hand-in may not use {event}")

    import _posixsubprocess

    def refuse(*arguments):
        raise PermissionError("a hand-in may not start programs")

    _posixsubprocess.fork_exec = refuse  # multiprocessing's, which raises no event
    sys.addaudithook(hook)


def limit(memory):
    """Set the process's limits: bytes of memory, of a file, and no core file; each where the system has it."""
    with contextlib.suppress(ImportError):
        import resource

        for kind, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 2**24), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (value, value))


def load_checks(reference):
    """Return the reference's checks, under a name that a hand-in doesn't know; they import the student's modules."""
    spec = importlib.util.spec_from_file_location("reference_checks", Path(reference) / "checks.py")
    checks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checks)
    return checks


def main(reference, student, scratch, channel, first):
    """Check the exercises from number `first` on."""
    channel = int(channel)

    def tell(name, message):
        os.write(channel, (json.dumps([name, message[:300]]) + "\n").encode())

    os.chdir(scratch)
    limit(12 * 2**30)
    sys.path[0:1] = [student, reference]  # the student's modules, then those that the sheet leaves alone
    import nice_backend  # noqa: F401

    import keras
    import nbformat  # noqa: F401  the libraries first: they open files and load code
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.ensemble  # noqa: F401

    exercises = json.loads((Path(reference) / "exercises.json").read_text(encoding="utf-8"))["exercises"]
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    tell("", "ready")
    del sys.argv[:]
    forbid(scratch, (scratch, reference, student, sys.prefix, sys.base_prefix, *SYSTEM))
    try:
        checks = load_checks(reference)
    except BaseException as error:
        tell("", f"the modules can't be imported: {type(error).__name__}: {error}")
        return
    tell("", "imported")
    for exercise in exercises[int(first) :]:
        tell("", exercise["name"])
        try:
            checks.check(exercise["name"], checks.written_in(exercise, student))
            tell(exercise["name"], "")
        except checks.Wrong as wrong:
            tell(exercise["name"], str(wrong) or "wrong")
        except BaseException as error:
            tell(exercise["name"], f"{exercise['name']} stops with {type(error).__name__}: {error}")
    tell("", "done")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # nothing that a hand-in has left behind can hold the process up
