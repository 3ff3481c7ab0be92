"""Grade hand-ins: `python grade.py SHEET FOLDER OUTPUT`.

FOLDER has one zip, folder or notebook for each student. OUTPUT gets grades.csv, with the points of each exercise, the
total and the first message, and a page of feedback for each. The reference's checks run beside the student's files,
each hand-in in a process of its own with limits on time and memory, and without network and a writable disk where the
system allows it. Answers in words are on the page, for a person to grade. What is no hand-in is listed.
"""

import argparse
import codecs
import contextlib
import csv
import functools
import importlib.util
import io
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
OURS = {"checks.py", "handin.py", "test_exercises.py"}
# A user and mount namespace of its own: everything but the scratch folder is read-only, and there is no network.
SANDBOX = """
mount --bind "$1" "$1" && cd / &&
while read -r _ place _; do
  place=$(printf '%b' "$place")
  [ "$place" = "$1" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done < /proc/self/mounts
! touch "$2" 2>/dev/null || { rm -f "$2"; exit 97; }
shift 2; exec "$@"
"""


class NoHandin(Exception):
    """A file that is not a hand-in."""


def sandbox(scratch):
    """Return the beginning of a command line that shuts a program in: only `scratch` can be written."""
    shell = "unshare --map-root-user --mount --net --pid --fork --kill-child -- sh -c".split()
    return [*shell, SANDBOX, "sh", str(scratch), str(scratch.parent / "probe")]


def has_sandbox():
    """Return whether this system can shut programs in."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder).resolve() / "scratch"
        scratch.mkdir()
        try:
            return subprocess.run([*sandbox(scratch), "true"], capture_output=True, timeout=30).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def wanted(sheet):
    """Return the names of the files that a hand-in has to bring: modules with exercises, and the sheet's notebooks."""
    modules = [one["file"] for one in exercises.load(sheet) if one["file"].endswith(".py")]
    return list(dict.fromkeys(modules)), [f"{name}.ipynb" for name in sheets.load()[sheet]["notebooks"]]


def everything(path):
    """Yield the parts of the path and the bytes of each file in a hand-in: a folder, a zip, zips in them."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.suffix.lower() == ".zip":
                yield from zipped(file)
            elif file.is_file() and file.stat().st_size <= LARGEST:
                yield file.relative_to(path).parts, file.read_bytes()
    elif path.suffix.lower() == ".zip":
        yield from zipped(path)
    elif path.suffix.lower() == ".ipynb" and path.stat().st_size <= LARGEST:
        yield (path.name,), path.read_bytes()
    else:
        raise NoHandin(f"no hand-in: a zip, a folder or a notebook is expected, not {path.suffix or 'this'}")


def zipped(file, depth=0):
    """Yield the same for a zip, and for zips in it."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            parts = tuple(Path(member.filename.replace("\\", "/")).parts)
            if member.is_dir() or member.file_size > LARGEST or not parts or "__MACOSX" in parts:
                continue
            if parts[-1].lower().endswith(".zip") and depth == 0:
                yield from zipped(io.BytesIO(archive.read(member)), depth=1)
            else:
                yield parts, archive.read(member)


def read(path, sheet):
    """Return the files of a hand-in, a dict of bare names and bytes, without byte order marks.

    Of several copies of a module the one with the fewest missing solutions counts, of a notebook one that has run; then
    the one that lies least deep. Colab's notebooks have the modules in cells.

    Raises:
        NoHandin: says what it is instead.
    """
    modules, notebooks = wanted(sheet)
    found = {}
    try:
        for parts, content in sorted(everything(path), key=lambda item: len(item[0])):
            name = parts[-1]
            if name.endswith(".ipynb") and name not in notebooks:
                name = next((n for n in notebooks if re.search(rf"(?<!\d){n[:2]}(?!\d)|{n[3:-6]}", name)), name)
            own = (
                name.endswith(".py") and name[:-3].isidentifier() and not name.startswith("nice_") and name not in OURS
            )
            if name in [*modules, *notebooks] or (own and importlib.util.find_spec(name[:-3]) is None):
                found.setdefault(name, []).append(content.removeprefix(codecs.BOM_UTF8))
    except NoHandin:
        raise
    except Exception as error:  # zipfile and the system raise whatever they stumble over
        raise NoHandin(f"no hand-in: {type(error).__name__}: {error}") from None
    for content in [c for name in notebooks for c in found.get(name, [])]:
        for cell in cells_of(content):
            head, _, body = cell.get("source", "").strip().partition("\n")
            written = re.fullmatch(r"%%writefile (\S+)\s*", head)
            if written and written[1] in modules:
                found.setdefault(written[1], []).append(body.encode(errors="replace"))
    if not found:
        raise NoHandin(f"no hand-in: none of {', '.join([*modules, *notebooks])} is in it")
    unsolved = {name: min(some, key=lambda c: c.count(b"is not solved yet")) for name, some in found.items()}
    return unsolved | {n: max(found[n], key=lambda c: b'"output_type"' in c) for n in notebooks if n in found}


def cells_of(content):
    """Return a notebook's code cells, or none of something that is no notebook."""
    try:
        return [cell for cell in nbformat.reads(content.decode(), as_version=4).cells if cell.cell_type == "code"]
    except Exception:  # nbformat raises whatever it stumbles over
        return []


def grade(files, reference, listed, *, shut_in):
    """Return a dict of the exercises and their messages, an empty text for one that is solved.

    Args:
        files: the hand-in's.
        reference: a dict of the names and bytes of checks and modules without solutions.
    """
    messages, why = {}, None
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        folders = {name: Path(folder).resolve() / name for name in ("reference", "student", "scratch")}
        for name, contents in (("reference", reference), ("student", files), ("scratch", {})):
            folders[name].mkdir()
            for file, content in contents.items():
                (folders[name] / file).write_bytes(content)
        while len(messages) < len(listed):
            why = one_process(folders, listed, messages, shut_in=shut_in)
            if why is None or why.startswith("the modules"):  # a second try would end there too
                break
            if len(messages) < len(listed):
                messages[listed[len(messages)]["name"]] = why
        shutil.rmtree(folders["scratch"], ignore_errors=True)  # whatever stands in it
    missing = [one["file"] for one in listed if one["file"].endswith(".py") and one["file"] not in files]
    result = {one["name"]: messages.get(one["name"], why or "no result") for one in listed}
    return result | {one["name"]: f"{one['file']} is not in the hand-in" for one in listed if one["file"] in missing}


def one_process(folders, listed, messages, *, shut_in):
    """Check the exercises that have no message yet; return why the process ended before the last one, or None."""
    receiver, sender = os.pipe()
    scratch = str(folders["scratch"])
    command = [*(sandbox(folders["scratch"]) if shut_in else []), sys.executable, "-B", "-E", "-s", "-X", "utf8"]
    command += [str(HERE / "grade_one.py"), *map(str, folders.values()), str(sender), str(len(messages))]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    home = dict.fromkeys(("HOME", "KERAS_HOME", "MPLCONFIGDIR", "TMPDIR"), scratch)
    environment = {"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **home}
    process = subprocess.Popen(command, env=environment, pass_fds=[sender], start_new_session=True, **quiet)
    os.close(sender)
    os.set_blocking(receiver, False)
    state, held, deadline = "start", b"", time.monotonic() + START
    try:
        while state != "done":
            with contextlib.suppress(BlockingIOError):
                new = os.read(receiver, 2**16)
                if not new:
                    break
                held += new
            if time.monotonic() > deadline:
                return told(state, f"took longer than {START if state == 'start' else EACH} s")
            *lines, held = held.split(b"\n")
            for line in lines:
                name, message = json.loads(line)
                expected = listed[len(messages)]["name"] if len(messages) < len(listed) else None
                if name and name != expected:
                    return told(state, "wrote something that is no result")
                if name:
                    messages[name] = str(message)
                elif str(message).startswith("the modules"):
                    return message
                else:
                    state = message
                deadline = time.monotonic() + EACH
            if len(held) > 2**16:
                return told(state, "wrote something that is no result")
            time.sleep(0.02)
    except (ValueError, TypeError, RecursionError):
        return told(state, "wrote something that is no result")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(receiver)
    return None if state == "done" else told(state, "ended the process")


def told(state, what):
    """Return what is said of a process that did not come to its end."""
    if state == "start":
        raise RuntimeError(f"the grader's own start {what}")
    return f"the modules can't be imported: this {what}" if state in ("ready", "imported") else f"{state} {what}"


def answers(files, notebooks):
    """Return the answers in words of a hand-in's notebooks: as shown by their last run."""
    found = []
    for name in (name for name in notebooks if name in files):
        with contextlib.suppress(Exception):  # no notebook
            found += sheets.answers(nbformat.reads(files[name].decode(), as_version=4))
    return {answer.item: answer.text for answer in found}


def plain(text):
    """Return a text in one line that can be encoded."""
    return " ".join(str(text).encode("utf-8", "replace").decode().split())


def feedback(name, sheet, listed, messages, given, total):
    """Return the Markdown of a student's page of feedback."""
    most = sum(one["points"] for one in listed)
    lines = [
        f"# {sheets.load()[sheet]['title']}: {escaped(name)}",
        "",
        f"**{total} of {most} points** for exercises.",
        "",
    ]
    lines += ["| task | exercise | points | check |", "|---|---|---|---|"]
    for one in listed:
        points = 0 if messages[one["name"]] else one["points"]
        message = escaped(messages[one["name"]].removeprefix(f"{one['name']}: ")[:300]) or "✓"
        lines.append(f"| {one['number']} | `{one['name']}` | {points} of {one['points']} | {message} |")
    lines += ["", "## Answers", "", f"Graded by hand, {to_kit.QUESTION_POINTS} points each.", ""]
    for item in sheets.load()[sheet]["items"]:
        text = escaped(given.get(item["id"], exercises.NOT_ANSWERED))
        lines += [f"**{item['id']}** {item['question']}", "", f"> {text}", ""]
    return "\n".join(lines)


def escaped(text):
    """Return a text that Markdown shows as it is."""
    return re.sub(r"([|*_`<>$\[\]\\!#])", r"\\\1", text)


def main():
    """Grade a folder of hand-ins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sheet", choices=list(sheets.load()))
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    output, folder = options.output.resolve(), options.folder.resolve()
    if not folder.is_dir():
        sys.exit(f"HANDINS must be a folder, got '{options.folder}'")
    if output == folder or output in folder.parents or folder in output.parents:
        sys.exit(f"the hand-ins must not lie with the grades, got {folder} and {output}")
    listed, shut_in = exercises.load(options.sheet), has_sandbox()
    if not shut_in:
        print("this system has no namespaces: only Python's audit hook keeps hand-ins from writing and connecting")
    files = to_kit.members(options.sheet)
    reference = {n: c for n, c in files.items() if n.startswith("nice_") or n in ("checks.py", "exercises.json")}
    partial = output.with_name(f".{output.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    paths = sorted(path for path in folder.iterdir() if path.name not in (".DS_Store", "__MACOSX"))
    rows, grade_it = {}, functools.partial(graded, options.sheet, listed, reference, partial, shut_in)
    pool = ThreadPoolExecutor(options.jobs)
    try:
        for path, row in zip(paths, pool.map(grade_it, paths), strict=True):
            rows[path] = row
            print(f"{row['file']}: {row['first message'] if row['total'] == '' else row['total']}", flush=True)
    finally:  # what is graded is kept, also after Ctrl-C
        pool.shutdown(cancel_futures=True)
        write_table(partial / "grades.csv", options.sheet, listed, rows.values())
        if output.exists():  # with the marks that somebody has written into it
            shutil.rmtree(output.with_name(f"{output.name}.bak"), ignore_errors=True)
            output.rename(output.with_name(f"{output.name}.bak"))
        partial.rename(output)
    most, count = sum(one["points"] for one in listed), sum(row["total"] != "" for row in rows.values())
    print(f"{count} graded ({most} points at most), {len(rows) - count} no hand-ins: {output / 'grades.csv'}")


def graded(sheet, listed, reference, output, shut_in, path):
    """Return a hand-in's row of the table; its page of feedback goes to `output`."""
    name = plain(path.name)
    try:
        files = read(path, sheet)
        messages = {key: plain(m) for key, m in grade(files, reference, listed, shut_in=shut_in).items()}
        points = {one["name"]: 0 if messages[one["name"]] else one["points"] for one in listed}
        given = {item: plain(text) for item, text in answers(files, wanted(sheet)[1]).items()}
        page = feedback(name, sheet, listed, messages, given, sum(points.values()))
        make_index.page(page, output / f"{name[:200]}.html")
        first = next((message for message in messages.values() if message), "")
        return {"file": name, **points, "total": sum(points.values()), "first message": first}
    except NoHandin as reason:
        return {"file": name, "total": "", "first message": plain(reason)}
    except Exception as error:  # one hand-in must not stop the others
        return {"file": name, "total": "", "first message": plain(f"not graded: {type(error).__name__}: {error}")}


def write_table(path, sheet, listed, rows):
    """Write grades.csv; answers in words have columns for what a person gives them."""
    items = [item["id"] for item in sheets.load()[sheet]["items"]]
    columns = ["file", *(one["name"] for one in listed), "total", "first message", *items]
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # so that Excel reads it as UTF-8
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
