"""The kit for students: tasks, blanks, checks; nothing of what was taken out; the hand-in of an unfinished sheet."""

import csv
import json
import re
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "export"))
import exercises
import grade
import sheets
import to_kit

SHEETS = list(sheets.load())
SOURCE = '''"""A module."""


class A:
    def f(self, x):
        """Keep this."""
        x = check(x)
        ### BEGIN SOLUTION
        # the trick
        y = (
            x + 1  # ü
        )
        return y
        ### END SOLUTION

    def g(self, x):  # aside
        return x


def outer(a):
    def inner(c):
        ### BEGIN SOLUTION
        return c
        ### END SOLUTION

    return inner  # after
'''


def written(sheet, *options, folder):
    """Write a kit by the command line and return its path."""
    archive = folder / f"{sheet}-kit.zip"
    subprocess.run([sys.executable, ROOT / "export/to_kit.py", archive, sheet, *options], check=True)
    return archive


def solutions(sheet):
    """Return a dict of a sheet's exercises and their solutions."""
    return {one["name"]: exercises.solution(exercises.source_of(one), one["target"]) for one in exercises.load(sheet)}


def answers(sheet):
    """Return the answers' texts in a sheet's notebooks, each as its code."""
    found = []
    for name in sheets.load()[sheet]["notebooks"]:
        for cell in nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells:
            if cell.cell_type == "code" and (place := exercises.answer_call(cell.source)):
                found.append("\n".join(cell.source.splitlines()[place[0] : place[1] + 1]))
    return found


def test_only_the_solution_is_replaced():
    listed = [
        {"number": 1, "name": "A.f", "target": "A.f"},
        {"number": 2, "name": "b", "target": "outer.inner", "bug": "return a\n"},
    ]
    blank = exercises.handed_out(SOURCE, listed)
    error = 'raise NotImplementedError("Task 1, A.f, is not solved yet")'
    expected = re.sub(r"### BEGIN SOLUTION\n        # the trick.*?### END SOLUTION", error, SOURCE, flags=re.DOTALL)
    expected = re.sub(r"### BEGIN.*?### END SOLUTION", "return a", expected, flags=re.DOTALL)
    assert blank == expected
    assert exercises.solution(SOURCE, "A.f").startswith("# the trick\ny = (\n    x + 1")
    assert exercises.without_markers(SOURCE).splitlines() == [s for s in SOURCE.splitlines() if "###" not in s]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing is not there"),
        ("A.nothing", "A.nothing is not there"),
        ("A.g", "A.g must have one solution"),
    ],
)
def test_a_name_without_a_solution_stops_the_build(name, message):
    with pytest.raises(ValueError, match=message):
        exercises.handed_out(SOURCE, [{"number": 1, "name": name, "target": name}])


def test_a_renamed_function_leaves_no_zip(tmp_path, monkeypatch):
    listed = exercises.load("nice")
    listed[0]["target"] = "AdditiveCoupling.renamed"
    monkeypatch.setattr(exercises, "load", lambda sheet: listed)
    monkeypatch.setattr(sys, "argv", ["to_kit.py", str(tmp_path / "kit.zip"), "nice"])
    with pytest.raises(SystemExit, match=r"to_kit.py: AdditiveCoupling.renamed is not there"):
        to_kit.main()
    assert not list(tmp_path.iterdir())


def test_markers_stand_where_the_manifest_says_and_nowhere_else():
    marked = {one["file"] for sheet in SHEETS for one in exercises.load(sheet)}
    targets = {(one["file"], one["target"]) for sheet in SHEETS for one in exercises.load(sheet)}
    files = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("nice_*.py")}
    files |= {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name for name, text in files.items() if exercises.BEGIN in text} == marked
    assert sum(text.count(exercises.BEGIN) for text in files.values()) == len(targets)
    assert {name: text.count(exercises.END) for name, text in files.items()} == {
        name: text.count(exercises.BEGIN) for name, text in files.items()
    }


def test_markers_reach_no_page_and_no_colab_file(tmp_path):
    marks = (exercises.BEGIN, exercises.END)
    smoke = [path for kind in ("ipynb", "html") for path in (ROOT / "build/smoke").glob(f"*.{kind}")]
    assert len(smoke) >= 10  # `make smoke` has made them
    for path in smoke:
        assert not any(mark in path.read_text(encoding="utf-8") for mark in marks), path.name
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        subprocess.run([sys.executable, ROOT / "export/to_colab.py", path, tmp_path / path.name], check=True)
        assert not any(mark in (tmp_path / path.name).read_text(encoding="utf-8") for mark in marks), path.name


@pytest.mark.parametrize("sheet", SHEETS)
def test_the_notebooks_tags_are_those_of_the_manifest(sheet):
    for name in sheets.load()[sheet]["notebooks"]:
        cells = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
        tagged = {tag: {c.id for c in cells if tag in c.metadata.get("tags", [])} for tag in ("exercise", "question")}
        own = {one["cell"] for one in exercises.load(sheet) if one["notebook"] == name and "bug" not in one}
        assert tagged["exercise"] == own
        code = [cell for cell in cells if cell.cell_type == "code"]
        assert tagged["question"] == {cell.id for cell in code if exercises.answer_call(cell.source)}


@pytest.mark.parametrize("sheet", SHEETS)
def test_each_exercise_has_what_a_student_needs(sheet):
    listed = exercises.load(sheet)
    assert len({one["name"] for one in listed}) == len(listed) >= 6
    order = sheets.load()[sheet]["notebooks"]
    assert [one["notebook"] for one in listed] == sorted((one["notebook"] for one in listed), key=order.index)
    for one in listed:
        assert 1 <= one["points"] <= 3 and 5 <= one["minutes"] <= 30
        question, place, formula = one["hints"]
        assert "?" in question and len(one["task"]) >= 30 and place and formula


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("form", [[], ["--colab"]])
def test_nothing_that_was_taken_out_is_in_the_zip(sheet, form, tmp_path):
    archive = zipfile.ZipFile(written(sheet, *form, folder=tmp_path))
    texts = [archive.read(name).decode() for name in archive.namelist() if not name.endswith((".npz", ".woff2"))]
    cells = [c.source for t in texts if t.startswith("{") and '"cells"' in t for c in nbformat.reads(t, 4).cells]
    everything = "\n".join([*texts, *cells])
    bugs = {one["name"] for one in exercises.load(sheet) if "bug" in one}
    for name, body in solutions(sheet).items():
        if name in bugs:
            assert not re.search(r"\s+".join(map(re.escape, body.split())), everything), name
            continue
        for line in (line.strip() for line in body.splitlines()):
            if len(line) > 40:  # shorter ones, as the parts of a split, stand in other functions too
                assert line not in everything, (name, line)
    assert not [cell for cell in cells if "supported = " in cell]  # an answer's conditions
    for answer in answers(sheet):
        for sentence in re.findall(r"[^.\n{}\"]{40,}", answer):
            assert sentence.strip() not in everything
    assert exercises.BEGIN not in "\n".join(t for t in texts if not t.startswith('"""The exercises of'))


@pytest.mark.parametrize("sheet", SHEETS)
def test_the_kit_has_tasks_and_checks_in_order(sheet, tmp_path):
    archive = zipfile.ZipFile(written(sheet, folder=tmp_path))
    names = {name.removeprefix(f"{sheet}-kit/") for name in archive.namelist()}
    assert {"README.md", "Makefile", "handin.py", "checks.py", "test_exercises.py", "requirements.txt"} < names
    assert {member.date_time for member in archive.infolist()} == {(2000, 1, 1, 0, 0, 0)}
    assert "export/exercises.toml" not in names  # it has the hints and the bugs
    found = []
    for name in sheets.load()[sheet]["notebooks"]:
        notebook = nbformat.reads(archive.read(f"{sheet}-kit/notebooks/{name}.ipynb").decode(), as_version=4)
        nbformat.validate(notebook)
        tags = [(cell.metadata.get("tags", [""])[:1] or [""])[0] for cell in notebook.cells]
        assert tags.count("task") == tags.count("check")
        found += [cell.source for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
        assert "%autoreload 2" in notebook.cells[1].source and "from checks import check" in notebook.cells[1].source
        assert sum("Not answered yet." in cell.source for cell in notebook.cells) == tags.count("question")
    listed = [one["name"] for one in exercises.load(sheet)]
    assert [re.match(r'check\("([^"]+)"', source)[1] for source in found] == listed
    readme = archive.read(f"{sheet}-kit/README.md").decode()
    assert all(f"`{name}`" in readme for name in listed) and "{" not in readme.replace("{kernel}", "")


def test_the_same_kit_twice_is_the_same_zip(tmp_path):
    (tmp_path / "again").mkdir()
    first, second = written("inn", folder=tmp_path), written("inn", folder=tmp_path / "again")
    assert first.read_bytes() == second.read_bytes()


def test_the_solution_is_solved_and_answered(tmp_path):
    archive = zipfile.ZipFile(written("ae", "--solution", folder=tmp_path))
    notebook = nbformat.reads(archive.read("ae-kit/notebooks/10_autoencoders.ipynb").decode(), as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells)
    assert "Not answered yet." not in source and "is not solved yet" not in source
    assert source.count("check(") == 7 and exercises.BEGIN not in source


def test_a_colab_notebook_has_the_modules_that_students_edit_in_cells(tmp_path):
    archive = zipfile.ZipFile(written("inn", "--colab", folder=tmp_path))
    notebook = nbformat.reads(archive.read("inn-kit/03_realnvp_moons_hexagon.ipynb").decode(), as_version=4)
    edited = [cell.source.split()[1] for cell in notebook.cells if cell.source.startswith("%%writefile")]
    assert edited == ["nice_helpers.py", "nice_evaluation.py"]
    assert '_write("checks.py"' in notebook.cells[1].source and '_write("nice_data.py"' in notebook.cells[1].source
    assert '_write("nice_helpers.py"' not in notebook.cells[1].source


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Return the folder of a kit of sheet ae, of which two tasks are solved, one of them wrong, after its hand-in."""
    folder = tmp_path_factory.mktemp("begun")
    zipfile.ZipFile(written("ae", folder=folder)).extractall(folder)
    kit = folder / "ae-kit"
    path = kit / "notebooks/10_autoencoders.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "def kl_bernoulli" in cell.source:
            body = "p, q = np.asarray(p), np.asarray(q)\n    return p * np.log(p / q)"
            cell.source = re.sub("raise Not.*", body, cell.source)
        if "def convolution_matrix" in cell.source:
            solved = solutions("ae")["convolution_matrix"].replace("\n", "\n    ")
            cell.source = cell.source.replace(re.search("raise Not.*", cell.source)[0], solved)
        if 'nf.answer("A3"' in cell.source:
            cell.source = 'nf.answer("A3", "It multiplies by the transposed matrix.", holds=C.shape == (9, 49))'
    nbformat.write(notebook, path)
    command = [sys.executable, "handin.py", "--profile", "smoke", "--name", "mueller"]
    done = subprocess.run(command, cwd=kit, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return kit, done.stdout


def test_an_unfinished_sheet_can_be_handed_in(begun):
    kit, said = begun
    assert "1 of 7 exercises solved. Not solved: tasks 1, 2, 3, 5, 6, 7." in said
    assert "1 of 12 questions answered" in said
    names = zipfile.ZipFile(kit / "mueller.zip").namelist()
    assert {"10_autoencoders.html", "10_autoencoders.ipynb", "index.html", "nice_helpers.py", "checks.json"} < set(
        names
    )
    page = (kit / "build/10_autoencoders.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))
    assert "1 of 7 exercises solved." in text
    assert "Task 1: not solved." in text and "✓ convolution_matrix" in text
    assert "Task 3: not solved. kl_bernoulli: the second outcome is missing" in text
    assert "It multiplies by the transposed matrix." in text
    assert "Traceback" not in text and "Hint 1" not in text


def test_checks_by_pytest_say_one_sentence(begun):
    kit, _ = begun
    command = [sys.executable, "-m", "pytest", "-k", "kl_bernoulli or convolution"]
    said = subprocess.run(command, cwd=kit, capture_output=True, text=True, check=False).stdout
    assert "kl_bernoulli: the second outcome is missing" in said and "1 failed, 1 passed" in said
    assert "Error" not in said and "checks.py" not in said


def hand_in(folder, name, bodies, extra=()):
    """Write a zip with the modules of sheet nice, some of whose solutions are replaced."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("nice_*.py")}
    for function, body in bodies.items():
        file = next(one["file"] for one in exercises.load("nice") if one["name"] == function)
        sources[file] = exercises.with_solution(sources[file], function, body)
    notebook = (ROOT / "notebooks/08_outlier_detection.ipynb").read_text(encoding="utf-8")
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        for file in ("nice_helpers.py", "nice_images.py"):
            archive.writestr(f"nice-exercises/{file}", sources[file])
        archive.writestr("nice-exercises/notebooks/08_outlier_detection.ipynb", notebook)
        for file, content in extra:
            archive.writestr(file, content)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Return the rows of grades.csv for some hand-ins, the output's folder, what was said, and a file to be spared."""
    folder = tmp_path_factory.mktemp("graded")
    handins, victim = folder / "handins", folder / "victim"
    handins.mkdir()
    victim.write_text("still here")
    hand_in(handins, "right", {})
    hand_in(handins, "wrong", {"DiagonalScaling.forward": "return x, tf.reduce_sum(self.log_scale)"})
    remove = f"import os\ntry:\n    os.remove({str(victim)!r})\nfinally:\n    print('x' * 10**7)\n"
    ends = """
import os, pathlib, sys
for place in sys.path:
    try:
        pathlib.Path(place, "checks.py").write_text("")
    except OSError:
        pass
os._exit(0)
"""
    forges = """
import os
for channel in range(3, 20):
    try:
        os.write(channel, b'["DiagonalScaling.forward", ""]\\n')
    except OSError:
        pass
os._exit(1)
"""
    bodies = {"AdditiveCoupling.backward": remove, "Flow._backward": ends, "Flow._log_prob": forges}
    hand_in(handins, "hostile", bodies, [("checks.py", "def check(*_): pass"), ("nice-exercises/checks.py", "")])
    with zipfile.ZipFile(handins / "half.zip", "w") as archive:
        archive.writestr("nice_images.py", (ROOT / "nice_images.py").read_text(encoding="utf-8"))
    (handins / "photo.jpg").write_bytes(b"no zip")
    (handins / "broken.zip").write_bytes(b"no zip")
    command = [sys.executable, ROOT / "export/grade.py", "nice", handins, folder / "grades"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (folder / "grades/grades.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}, folder / "grades", done.stdout, victim


def test_points_are_those_of_the_solved_exercises(graded):
    rows, _, _, _ = graded
    points = {one["name"]: one["points"] for one in exercises.load("nice")}
    most = sum(points.values())
    assert int(rows["right.zip"]["total"]) == most and rows["right.zip"]["first message"] == ""
    lost = points["DiagonalScaling.forward"]
    assert int(rows["wrong.zip"]["total"]) == most - lost and rows["wrong.zip"]["DiagonalScaling.forward"] == "0"
    assert rows["wrong.zip"]["first message"].startswith("DiagonalScaling.forward: ")


def test_a_hostile_hand_in_costs_its_own_points_only(graded):
    rows, _, _, victim = graded
    points = {one["name"]: one["points"] for one in exercises.load("nice")}
    own = points["AdditiveCoupling.backward"] + points["Flow._backward"] + points["Flow._log_prob"]
    assert rows["hostile.zip"]["DiagonalScaling.forward"] == "2" and rows["hostile.zip"]["Flow._log_prob"] == "0"
    assert int(rows["hostile.zip"]["total"]) == sum(points.values()) - own
    assert victim.read_text() == "still here"


def test_what_is_no_hand_in_is_listed(graded):
    rows, _, said, _ = graded
    assert set(rows) == {"right.zip", "wrong.zip", "hostile.zip", "half.zip", "photo.jpg", "broken.zip"}
    for name in ("photo.jpg", "broken.zip"):
        assert rows[name]["total"] == "" and rows[name]["first message"].startswith("no hand-in")
        assert f"{name}: no hand-in" in said


def test_a_module_that_is_not_there_gets_no_points(graded):
    rows, _, _, _ = graded
    assert rows["half.zip"]["AdditiveCoupling.forward"] == "0" and rows["half.zip"]["inpaint.step"] == "3"
    assert rows["half.zip"]["first message"] == "nice_helpers.py is not in the hand-in"


BLANK = "def f():\n    raise NotImplementedError('Task 1, f, is not solved yet')\n"


def notebook_of(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells))


def zip_of(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "files",
    [
        {"kit/nice_helpers.py": "solved"},
        {"kit\\nice_helpers.py": "solved"},
        {"kit/nice_helpers.py": "solved", "kit/old/nice_helpers.py": BLANK},
        {"kit/nice_helpers.py": BLANK, "kit/mine/nice_helpers.py": "solved"},
        {"kit/nice_helpers.py": "solved", "__MACOSX/kit/nice_helpers.py": "x", "kit/._nice_helpers.py": "x"},
        {"kit/nice_helpers.py": "\ufeffsolved"},
    ],
)
def test_the_right_copy_of_a_module_is_graded(files, tmp_path):
    archive = zip_of(tmp_path / "A. Müller.ZIP", files)
    assert grade.read(archive, "nice") == {"nice_helpers.py": b"solved"}
    folder = tmp_path / "Mueller_assignsubmission_file_"
    folder.mkdir()
    shutil.copy(archive, folder)
    assert grade.read(folder, "nice") == {"nice_helpers.py": b"solved"}
    nested = zip_of(tmp_path / "outer.zip", {"inner.zip": archive.read_bytes()})
    assert grade.read(nested, "nice") == {"nice_helpers.py": b"solved"}


def test_modules_in_the_cells_of_colab_notebooks_are_graded(tmp_path):
    first = notebook_of(f"\n%%writefile nice_helpers.py\n{BLANK}", "1 + 1")
    second = notebook_of("%%writefile nice_helpers.py\nsolved")
    files = {"01_nice_parabola.ipynb": first, "Kopie von 07_inpainting.ipynb": second}
    found = grade.read(zip_of(tmp_path / "colab.zip", files), "nice")
    assert found["nice_helpers.py"] == b"solved"
    assert set(found) == {"nice_helpers.py", "01_nice_parabola.ipynb", "07_inpainting.ipynb"}


def test_a_students_own_module_is_there_but_no_librarys_name(tmp_path):
    files = {"nice_helpers.py": "import my_tools", "my_tools.py": "", "numpy.py": "", "checks.py": ""}
    assert set(grade.read(zip_of(tmp_path / "own.zip", files), "nice")) == {"nice_helpers.py", "my_tools.py"}


@pytest.mark.parametrize("files", [{}, {"notes.txt": "hello"}, {"photo.ipynb": "no notebook"}])
def test_something_else_is_no_hand_in(files, tmp_path):
    with pytest.raises(grade.NoHandin, match="no hand-in: none of nice_helpers.py"):
        grade.read(zip_of(tmp_path / "other.zip", files), "nice")


def test_grades_do_not_replace_marks_nor_hand_ins(tmp_path, monkeypatch):
    (tmp_path / "handins").mkdir()
    arguments = ["grade.py", "nice", str(tmp_path / "handins")]
    for output in (tmp_path / "handins", tmp_path, tmp_path / "handins/grades"):
        monkeypatch.setattr(sys, "argv", [*arguments, str(output)])
        with pytest.raises(SystemExit, match="must not lie with the grades"):
            grade.main()
    (tmp_path / "grades").mkdir()
    (tmp_path / "grades/grades.csv").write_text("my marks")
    monkeypatch.setattr(sys, "argv", [*arguments, str(tmp_path / "grades")])
    grade.main()
    assert (tmp_path / "grades.bak/grades.csv").read_text() == "my marks"
    assert (tmp_path / "grades/grades.csv").read_text(encoding="utf-8-sig").startswith("file,AdditiveCoupling.forward")


def test_each_student_gets_a_page(graded):
    _, folder, _, _ = graded
    assert {path.name for path in folder.glob("*.html")} == {
        f"{name}.zip.html" for name in ("right", "wrong", "hostile", "half")
    }
    page = re.sub(r"<[^>]*>", "", (folder / "wrong.zip.html").read_text(encoding="utf-8"))
    assert "20 of 22 points" in page and "0 of 2" in page and "Not answered yet." in page


def test_the_kit_tells_its_programs_no_secrets():
    for sheet in SHEETS:
        told = json.loads(to_kit.told_of(sheet))
        assert set(told["exercises"][0]) == {"number", "name", "file", "notebook", "points"}
