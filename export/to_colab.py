"""Make one file of a notebook and the modules it imports, for Colab: `python to_colab.py NOTEBOOK OUTPUT`.

A folded cell below the title writes the modules beside the notebook. Images come from keras.datasets there. Nothing is
installed. The same input gives the same bytes.
"""

import ast
from pathlib import Path

import nbformat
from convert import command_line, write_whole
from exercises import without_markers

ROOT = Path(__file__).resolve().parent.parent

# Colab's own keys: the table of contents open. No accelerator: the notebooks are made for a CPU.
METADATA = {
    "colab": {"provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "name": "python3"},
    "language_info": {"name": "python"},
}

WRITER = '''\
# @title Run this first: it writes the modules that this notebook imports
from pathlib import Path


def _write(path, content):
    """Write a file; one of the same name with other content is kept as .bak."""
    path = Path(path)
    if path.exists() and path.read_bytes() != content:
        path.replace(f"{path}.bak")
        print(f"{path} was there with other content, kept as {path}.bak")
    path.write_bytes(content)


'''


def write_text(name, text):
    """Return the code that writes a text file, with its content left readable."""
    literal = f"r'''{text}'''"
    try:
        faithful = ast.literal_eval(literal) == text
    except SyntaxError:
        faithful = False
    if not faithful:
        raise ValueError(f"{name} holds ''' or ends in a quote or a backslash: it can't be written as r'''…'''")
    return f'_write("{name}", {literal}.encode())\n'


def modules():
    """Return a dict of the modules' names and sources, without the marks of solutions."""
    return {path.name: without_markers(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("nice_*.py"))}


def to_colab(notebook, written, edited=()):
    """Return the notebook with cells below its title that write the modules, and with Colab's metadata.

    Args:
        written: a dict of the modules' names and sources.
        edited: names of those that students edit; each gets a cell of its own.
    """
    source = WRITER + "".join(write_text(name, text) for name, text in written.items() if name not in edited)
    cells = [nbformat.v4.new_code_cell(source.rstrip("\n"), id="colab-files", metadata={"cellView": "form"})]
    for name in edited:
        told = f"The next cell is `{name}`. Write your solutions here, and run the cell again after each change."
        cells.append(nbformat.v4.new_markdown_cell(told, id=f"colab-about-{Path(name).stem}"))
        source = f"%%writefile {name}\n{written[name].rstrip()}"
        cells.append(nbformat.v4.new_code_cell(source, id=f"colab-{Path(name).stem}"))
    title, *rest = notebook.cells
    for cell in rest:
        cell.source = without_markers(cell.source)
    return nbformat.v4.new_notebook(cells=[title, *cells, *rest], metadata=METADATA)


def export(notebook, output):
    """Write the Colab version of `notebook` to `output`, whole or not at all."""
    content = to_colab(nbformat.read(notebook, as_version=4), modules())
    nbformat.validate(content)
    write_whole(output, lambda path: nbformat.write(content, path))


def main():
    """Run the command line."""
    expected = (ValueError, OSError, nbformat.ValidationError)
    command_line(export, __doc__.splitlines()[0], dict.fromkeys(expected, "{}: {}"))


if __name__ == "__main__":
    main()
