"""Grade hand-ins: `python grade.py SHEET FOLDER OUTPUT`.

FOLDER has one zip, folder or notebook for each student. OUTPUT gets grades.csv, with the points of each exercise, the
total and the first message, and a page of feedback for each. The reference's checks run beside the student's files,
each hand-in in a process of its own with limits on time and memory, and without network and a writable disk where the
system allows it. Answers in words are on the page, for a person to grade. What is no hand-in is listed.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import exercises
import make_index
import nbformat
import sheets
import to_kit

HERE = Path(__file__).resolve().parent
START, EACH = 120, 30  # seconds until the libraries are there, and for an exercise
LARGEST = 50 * 2**20  # bytes of a file in a hand-in
# A user and mount namespace of its own: everything but the scratch folder is read-only, and there is no network.
SANDBOX = """
mount --bind "$1" "$1" && cd / &&
while read -r _ place _; do
  [ "$place" = "$1" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done < /proc/self/mounts
[ ! -w / ] || ! touch "$2" 2>/dev/null || { rm -f "$2"; exit 97; }
shift 2; exec "$@"
"""


class NoHandin(Exception):
    """A file that is not a hand-in."""


def sandbox(scratch):
    """Return the beginning of a command line that shuts a program in, or an empty list where that can't be had."""
    probe = scratch.parent / "probe"
    shell = [
        "unshare",
        "--map-root-user",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--",
        "sh",
        "-c",
        SANDBOX,
    ]
    shell += ["sh", str(scratch), str(probe)]
    try:
        works = subprocess.run([*shell, "true"], capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        works = False
    return shell if works else []


def wanted(sheet):
    """Return the names of the files that a hand-in has to bring: modules with exercises, and the sheet's notebooks."""
    modules = [one["file"] for one in exercises.load(sheet) if one["file"].endswith(".py")]
    return list(dict.fromkeys(modules)), [f"{name}.ipynb" for name in sheets.load()[sheet]["notebooks"]]


def read(path, sheet):
    """Return the files of a hand-in, a dict of bare names and bytes.

    Raises:
        NoHandin: says what it is instead.
    """
    modules, notebooks = wanted(sheet)
    names = [*modules, *notebooks]
    try:
        if path.is_dir():
            files = {p.name: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file() and p.name in names}
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = {Path(m.filename).name: m for m in archive.infolist() if Path(m.filename).name in names}
                if any(member.file_size > LARGEST for member in members.values()):
                    raise NoHandin("a file of it is too large")
                files = {name: archive.read(member) for name, member in members.items()}
        elif path.suffix == ".ipynb":
            files = {next((n for n in notebooks if n[:2] == path.name[:2]), notebooks[0]): path.read_bytes()}
        else:
            raise NoHandin(f"no hand-in: a zip, a folder or a notebook is expected, not {path.suffix or 'this'}")
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise NoHandin(f"no hand-in: {error}") from None
    for name in (name for name in notebooks if name in files):  # Colab's have the modules in cells
        for cell in cells_of(files[name]):
            head, _, body = cell.source.partition("\n")
            written = re.fullmatch(r"%%writefile (\S+)\s*", head)
            if written and written[1] in modules:
                files.setdefault(written[1], body.encode())
    if not files:
        raise NoHandin(f"no hand-in: none of {', '.join(names)} is in it")
    return files


def cells_of(content):
    """Return a notebook's code cells, or none of something that is no notebook."""
    try:
        return [cell for cell in nbformat.reads(content.decode(), as_version=4).cells if cell.cell_type == "code"]
    except Exception:  # nbformat raises whatever it stumbles over
        return []


def grade(files, reference, listed):
    """Return a dict of the exercises and their messages, an empty text for one that is solved."""
    messages, why = {}, None
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        student, scratch = Path(folder) / "student", Path(folder) / "scratch"
        student.mkdir()
        scratch.mkdir()
        for name, content in files.items():
            (student / name).write_bytes(content)
        while len(messages) < len(listed):
            first = len(messages)
            why = one_process(reference, student, scratch, first, messages)
            if why is None or why.startswith("the modules"):  # a second try would end there too
                break
            if len(messages) < len(listed):
                messages[listed[len(messages)]["name"]] = why
    return {one["name"]: messages.get(one["name"], why or "no result") for one in listed}


def one_process(reference, student, scratch, first, messages):
    """Check from exercise number `first` on; return why the process ended before the last one, or None."""
    receiver, sender = os.pipe()
    command = [*sandbox(scratch), sys.executable, "-B", "-E", "-s", str(HERE / "grade_one.py")]
    command += [str(reference), str(student), str(scratch), str(sender), str(first)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    home = {"HOME": str(scratch), "KERAS_HOME": str(scratch), "MPLCONFIGDIR": str(scratch), "TMPDIR": str(scratch)}
    environment = {"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3", "LANG": "C.UTF-8", **home}
    process = subprocess.Popen(command, env=environment, pass_fds=[sender], start_new_session=True, **quiet)
    os.close(sender)
    os.set_blocking(receiver, False)
    state, held, deadline = "start", b"", time.monotonic() + START
    try:
        while state != "done":
            try:
                new = os.read(receiver, 2**16)
            except BlockingIOError:
                new = None
            if new == b"":
                break
            if new is None:
                if time.monotonic() > deadline:
                    return told(state, f"took longer than {EACH} s")
                time.sleep(0.02)
                continue
            *lines, held = (held + new).split(b"\n")
            for line in lines:
                name, message = json.loads(line)
                if name:
                    messages[name] = message
                elif message.startswith("the modules"):
                    return message
                else:
                    state = message
                deadline = time.monotonic() + EACH
    except ValueError:
        return told(state, "wrote something that is no result")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(receiver)
    return None if state == "done" else told(state, "ended the process")


def told(state, what):
    """Return what is said of a process that did not come to its end."""
    if state in ("start", "ready", "imported"):
        return f"the modules can't be imported: this {what}"
    return f"{state} {what}"


def answers(files, notebooks):
    """Return the answers in words of a hand-in's notebooks: as shown by their last run."""
    found = []
    for name in (name for name in notebooks if name in files):
        try:
            found += sheets.answers(nbformat.reads(files[name].decode(), as_version=4))
        except Exception:  # no notebook
            continue
    return {answer.item: answer.text for answer in found}


def feedback(name, sheet, listed, messages, given, total, most):
    """Return the Markdown of a student's page of feedback."""
    lines = [f"# {sheets.load()[sheet]['title']}: {name}", "", f"**{total} of {most} points** for exercises.", ""]
    lines += ["| task | exercise | points | check |", "|---|---|---|---|"]
    for one in listed:
        message = re.sub(r"([|*_`<>$\[\]\\])", r"\\\1", " ".join(messages[one["name"]].split())) or "✓"
        points = 0 if messages[one["name"]] else one["points"]
        lines.append(f"| {one['number']} | `{one['name']}` | {points} of {one['points']} | {message} |")
    lines += ["", "## Answers", "", f"Graded by hand, {to_kit.QUESTION_POINTS} points each.", ""]
    for item in sheets.load()[sheet]["items"]:
        text = re.sub(r"[<>$]", r"\\\g<0>", given.get(item["id"], exercises.NOT_ANSWERED))
        lines += [f"**{item['id']}** {item['question']}", "", f"> {text}", ""]
    return "\n".join(lines)


def main():
    """Grade a folder of hand-ins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sheet", choices=list(sheets.load()))
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if not options.folder.is_dir():
        sys.exit(f"HANDINS must be a folder, got '{options.folder}'")
    listed, (_, notebooks) = exercises.load(options.sheet), wanted(options.sheet)
    names = [one["name"] for one in listed]
    items = [item["id"] for item in sheets.load()[options.sheet]["items"]]
    most = sum(one["points"] for one in listed)
    paths = sorted(path for path in options.folder.iterdir() if not path.name.startswith("."))
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="reference-") as folder:
        reference = Path(folder)
        for name, content in to_kit.members(options.sheet, solved=True).items():
            if name.startswith("nice_") or name in ("checks.py", "exercises.json"):
                (reference / name).write_bytes(content)
        scratch = reference / "scratch"
        scratch.mkdir()
        if not sandbox(scratch):
            print("this system has no namespaces: only Python's audit hook keeps hand-ins from writing and connecting")

        def one(path):
            try:
                files = read(path, options.sheet)
            except NoHandin as reason:
                print(f"{path.name}: {reason}", flush=True)
                return {"file": path.name, "total": 0, "first message": str(reason)}
            messages = grade(files, reference, listed)
            points = {o["name"]: 0 if messages[o["name"]] else o["points"] for o in listed}
            total = sum(points.values())
            page = feedback(path.name, options.sheet, listed, messages, answers(files, notebooks), total, most)
            make_index.page(page, options.output / f"{path.name}.html")
            print(f"{path.name}: {total} of {most}", flush=True)
            first = next((message for message in messages.values() if message), "")
            return {"file": path.name, **points, "total": total, "first message": first}

        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(one, paths))
    with (options.output / "grades.csv").open(
        "w", newline="", encoding="utf-8-sig"
    ) as file:  # Excel reads this as UTF-8
        writer = csv.DictWriter(file, ["file", *names, "total", "first message", *items], restval="")
        writer.writeheader()
        writer.writerows(rows)
    print(
        f"{len(rows)} graded, {options.output / 'grades.csv'}; the columns {items[0]} to {items[-1]} are graded by hand"
    )


if __name__ == "__main__":
    main()
