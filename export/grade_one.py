"""Check one hand-in, in a process that grade.py starts: `python grade_one.py REFERENCE STUDENT SCRATCH CHANNEL FIRST`.

The checks are those of REFERENCE. Before any code of the student is imported, writing outside SCRATCH, programs and
connections are forbidden. Each result is a line of JSON in the file descriptor CHANNEL.
"""

import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path

FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.symlink"}
FORBIDDEN |= {"os.link", "os.chmod", "os.chown", "subprocess.Popen", "pty.spawn", "shutil.rmtree", "ctypes.dlopen"}
CHANGING = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.utime", "shutil.move"}
READING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


def forbid(scratch):
    """Let no Python code write outside `scratch`, start programs or connect: such calls raise a PermissionError."""
    scratch = os.path.realpath(scratch)

    def inside(path):
        return not isinstance(path, (str, bytes, os.PathLike)) or (
            os.path.realpath(os.fsdecode(path)).startswith((scratch + os.sep, os.devnull))
            or os.fsdecode(path) == scratch
        )

    def hook(event, arguments):
        writes = event == "open" and (
            (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"))
            or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        )
        if (writes or event in CHANGING) and not inside(arguments[0]):
            raise PermissionError(f"a hand-in may not write to {arguments[0]}")
        if event in FORBIDDEN or event.startswith("socket.connect"):
            raise PermissionError(f"a hand-in may not use {event}")

    sys.addaudithook(hook)


def limit(memory):
    """Set the process's limits: bytes of memory, of a file, and no core file."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, 2**24))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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
        os.write(channel, (json.dumps([name, message[:1000]]) + "\n").encode())

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
    forbid(scratch)
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
