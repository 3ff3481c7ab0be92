"""What the converters of notebooks share: their command line, and files that are written whole or not at all."""

import argparse
import os
import sys
from pathlib import Path


def write_whole(output, write):
    """Call write(path) with a name beside `output`, then move that file into place."""
    partial = output.with_name(f".{output.name}.part")
    write(partial)
    os.replace(partial, output)


def command_line(export, description, messages):
    """Call export(notebook, output) for the two paths of the command line; turn an expected error into one line.

    Args:
        messages: a dict of exception classes and the line's form, with places for the notebook's name and the error.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    try:
        export(options.notebook, options.output)
    except tuple(messages) as error:
        form = next(form for kind, form in messages.items() if isinstance(error, kind))
        sys.exit(form.format(options.notebook.name, error))
