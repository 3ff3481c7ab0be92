"""Make one file of a notebook and what it needs, for Colab: `python to_colab.py NOTEBOOK OUTPUT`.

A folded first cell writes nice_helpers.py beside the notebook. A notebook that loads images also brings the bundled
subsets: on Colab the full sets are downloaded, but with the subsets the one file also runs where nothing can be.
Nothing is installed. The same input gives the same bytes.
"""

import ast
import base64
import re
from pathlib import Path

import nbformat
from convert import command_line, write_whole

ROOT = Path(__file__).resolve().parent.parent

# Colab's own keys: a GPU where there is one, and the table of contents open.
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "name": "python3"},
    "language_info": {"name": "python"},
}

WRITER = '''\
# @title Run this first: it writes nice_helpers.py, which this notebook imports
import base64
from pathlib import Path


def _write(path, content):
    """Write a file; one of the same name with other content is kept as .bak."""
    path = Path(path)
    if path.exists() and path.read_bytes() != content:
        path.replace(f"{path}.bak")
        print(f"{path} was there with other content, kept as {path}.bak")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


'''


def write_text(path):
    """Return the code that writes a text file of the repository, with its content left readable."""
    text = (ROOT / path).read_text(encoding="utf-8")
    literal = f"r'''{text}'''"
    try:
        faithful = ast.literal_eval(literal) == text
    except SyntaxError:
        faithful = False
    if not faithful:
        raise ValueError(f"{path} holds ''' or ends in a quote or a backslash: it can't be written as r'''…'''")
    return f'_write("{path}", {literal}.encode())\n'


def write_binary(path):
    """Return the code that writes a binary file of the repository."""
    content = base64.b64encode((ROOT / path).read_bytes()).decode()
    return f'_write("{path}", base64.b64decode("{content}"))\n'


def needed_data(notebook):
    """Return the bundled files that a notebook falls back to: a set is needed where code that loads images names it."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    named = set(re.findall(r'"(mnist|fashion_mnist)"', code)) if "load_images" in code else set()
    return [f"data/{name}_subset.npz" for name in sorted(named)]


def to_colab(notebook):
    """Return the notebook with a first cell that writes its files, and with Colab's metadata."""
    data = needed_data(notebook)
    source = WRITER + write_text("nice_helpers.py")
    if data:
        # The licences want to be wherever the images are.
        texts = ["data/README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "data/licenses").iterdir())]
        source += "".join(map(write_text, texts)) + "".join(map(write_binary, data))
    cell = nbformat.v4.new_code_cell(source.rstrip("\n"), id="colab-files", metadata={"cellView": "form"})
    return nbformat.v4.new_notebook(cells=[cell, *notebook.cells], metadata=METADATA)


def export(notebook, output):
    """Write the Colab version of `notebook` to `output`, whole or not at all."""
    content = to_colab(nbformat.read(notebook, as_version=4))
    nbformat.validate(content)
    write_whole(output, lambda path: nbformat.write(content, path))


def main():
    """Run the command line."""
    expected = (ValueError, OSError, nbformat.ValidationError)
    command_line(export, __doc__.splitlines()[0], dict.fromkeys(expected, "{}: {}"))


if __name__ == "__main__":
    main()
