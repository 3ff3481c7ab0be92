"""Run a notebook in a fresh kernel: `python run_notebook.py NOTEBOOK OUTPUT --profile default`.

OUTPUT appears only if every cell succeeded. On failure one line names the notebook, the cell and the error.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets.config import Config

QUIET_SHUTDOWN = "__import__('logging').getLogger('asyncio').setLevel('CRITICAL')"


def injected_parameters(profile):
    """Return what papermill injects after the parameters cell: nothing where the notebook's own default is wanted."""
    return {} if profile == "default" else {"PROFILE": profile}


def run(notebook, output, profile, timeout):
    """Execute `notebook` with PROFILE set and write `output`; raises what papermill raises."""
    partial = output.with_name(f".{output.stem}.part.ipynb")
    injected = injected_parameters(profile)
    try:
        # Kernels talk over sockets in a folder of their own: two that start at once may draw the same TCP port, and
        # one of them dies. The folder is a temporary one because such a socket's path may have 107 bytes at most.
        with tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
            papermill.execute_notebook(
                str(notebook),
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
        # Times, paths and random ids of this run would make two builds of the same notebook differ.
        executed.metadata.pop("papermill", None)
        for cell in executed.cells:
            if "injected-parameters" in cell.metadata.get("tags", []):
                cell.id = "injected-parameters"
            for key in ("papermill", "execution", "execution_failed"):
                cell.metadata.pop(key, None)
        executed.cells = [c for c in executed.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
        nbformat.write(executed, partial)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def main():
    """Parse the command line, run, and turn an error into one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds that one cell may take")
    options = parser.parse_args()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    name = options.notebook.name
    try:
        run(options.notebook, options.output, options.profile, options.timeout)
    except papermill.exceptions.PapermillExecutionError as error:
        cell = error.exec_count - len(injected_parameters(options.profile))  # as the stored notebook counts
        sys.exit(f"{name}, cell [{cell}]: {error.ename}: {error.evalue}\n{error.source}")
    except CellTimeoutError as error:
        sys.exit(f"{name}: a cell took longer than {options.timeout} s: {str(error).splitlines()[0]}")
    except DeadKernelError:
        sys.exit(f"{name}: the kernel died, for want of memory perhaps; open the notebook in JupyterLab to see where")


if __name__ == "__main__":
    main()
