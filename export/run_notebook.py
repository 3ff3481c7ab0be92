"""Run a notebook in a fresh kernel: `python run_notebook.py NOTEBOOK OUTPUT --profile default`.

OUTPUT appears only if every cell succeeded. On failure one line names the notebook, the cell and the error. With
--keep-going cells that fail are left with their error, and the others run.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
from exercises import without_markers
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets.config import Config

QUIET_SHUTDOWN = "__import__('logging').getLogger('asyncio').setLevel('CRITICAL')"


def injected_parameters(profile):
    """Return what papermill injects after the parameters cell: nothing where the notebook's own default is wanted."""
    return {} if profile == "default" else {"PROFILE": profile}


class CellError(Exception):
    """A cell that stopped the run."""


def run(notebook, output, profile, timeout, *, keep_going=False):
    """Execute `notebook` with PROFILE set and write `output`, without the marks of solutions.

    Raises:
        ValueError: for a file that is not a notebook.
        CellError: names the cell that stopped the run; one tagged raises-exception may fail, and the run goes on.
        CellTimeoutError, DeadKernelError: from nbclient.
    """
    try:
        content = nbformat.read(notebook, as_version=4)
        content.metadata.setdefault("kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"})
        content.metadata.kernelspec.setdefault("language", "python")
    except Exception as error:  # nbformat raises whatever it stumbles over
        raise ValueError(f"not a notebook: {' '.join(str(error).split())[:200]}") from None
    for cell in content.cells:
        cell.source = without_markers(cell.source)
        if keep_going and cell.cell_type == "code":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "raises-exception"]
    partial = output.with_name(f".{output.stem}.part.ipynb")
    injected = {"PROFILE": profile} if keep_going else injected_parameters(profile)  # whatever a student has set
    try:
        # Kernels talk over sockets in a folder of their own: two that start at once may draw the same TCP port, and one
        # of them dies. The folder is a temporary one because such a socket's path may have 107 bytes at most.
        folder = tempfile.gettempdir()
        folder = "/tmp" if len(folder) > 60 and os.access("/tmp", os.W_OK) else folder
        with (
            tempfile.TemporaryDirectory(prefix="kernel-", dir=folder) as sockets,
            contextlib.suppress(papermill.exceptions.PapermillExecutionError),  # looked for below
        ):
            papermill.execute_notebook(
                content,
                str(partial),
                parameters=injected,
                kernel_name="python3",
                cwd=str(notebook.parent),
                progress_bar=False,  # several notebooks may run at once
                execution_timeout=timeout,
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/socket"}),
                # The kernel or asyncio logs its own shutdown as an error; what goes wrong in a cell comes through
                # papermill.
                extra_arguments=["--log-level=CRITICAL", f"--IPKernelApp.exec_lines={QUIET_SHUTDOWN}"],
            )
        executed = nbformat.read(partial, as_version=4)
        executed.cells = [c for c in executed.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
        for cell in executed.cells:
            # Also where papermill sees no error, as after sys.exit().
            if keep_going and cell.cell_type == "code":
                cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if tag != "raises-exception"]
            elif cell.metadata.get("papermill", {}).get("exception"):
                number = cell.execution_count - len(injected)  # as the stored notebook counts
                raise CellError(f"cell [{number}]: {reason(cell)}\n{cell.source}")
        # Times, paths and random ids of this run would make two builds of the same notebook differ.
        executed.metadata.pop("papermill", None)
        for cell in executed.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.id = "injected-parameters"
            for key in ("papermill", "execution", "execution_failed"):
                cell.metadata.pop(key, None)
        nbformat.write(executed, partial)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def reason(cell):
    """Return why a cell stopped: its error, or what it wrote to standard error, as IPython does for a magic."""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
    told = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
    return " ".join(told.split()) or "it stopped without an error"


def main():
    """Parse the command line, run, and turn an error into one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds that one cell may take")
    parser.add_argument("--keep-going", action="store_true", help="run what runs")
    options = parser.parse_args()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    name = options.notebook.name
    try:
        run(options.notebook, options.output, options.profile, options.timeout, keep_going=options.keep_going)
    except CellError as error:
        sys.exit(f"{name}, {error}")
    except CellTimeoutError as error:
        sys.exit(f"{name}: a cell took longer than {options.timeout} s: {str(error).splitlines()[0]}")
    except DeadKernelError:
        sys.exit(f"{name}: the kernel died, for want of memory perhaps; open the notebook in JupyterLab to see where")
    except (ValueError, OSError) as error:
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    main()
