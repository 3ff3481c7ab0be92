"""What the pages show: one style, figures, answers, the source of the modules, and the numbers for results/."""

import inspect
import json
import os
import platform
import re
import textwrap
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import psutil
from IPython.display import Markdown, display

HERE = Path(__file__).resolve().parent

# Okabe and Ito's, colour-blind-safe.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666"


def set_style():
    """Set Matplotlib's defaults for all notebooks: readable at 100 % in the exported page."""
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PINK, GREY]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "image.cmap": "viridis",
            "legend.frameon": False,
        }
    )


def show(figure, alt):
    """Display a figure with a description for readers who can't see it (line breaks are free), and close it."""
    display(figure, metadata={"image/png": {"alt": " ".join(alt.split())}})
    plt.close(figure)


def answer(item, text, holds):
    """Show the answer to an item of the sheet: a plain first sentence, then the numbers that prove it.

    Args:
        item: the item's id in export/sheets.toml, for example "N7".
        text: Markdown that a person wrote; numbers are fields of an f-string. A blank line begins a paragraph, a line
            that begins with "- " a point of a list; all other line breaks are free.
        holds: the condition under which the text is true, in terms of this run's variables, or None for pure theory.
            Where it is False the page marks the answer, and the build says so.
    """
    holds, paragraphs = None if holds is None else bool(holds), re.split(r"\n\s*\n|\n(?=\s*- )", text.strip())
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    quoted = f"**{item}** · {text}".replace("\n", "\n> ")
    data = {"text/markdown": f"> {quoted}", "text/plain": text}
    display(data, raw=True, metadata={"answer": {"item": item, "holds": holds}})
    if holds is False:
        display(Markdown("> ⚠ The numbers of this run do not support this sentence."), metadata={"mark": item})


def source(thing):
    """Show the code of a class, method or function of the modules, and where it stands."""
    code = re.sub("^ *### (BEGIN|END) SOLUTION\n", "", inspect.getsource(thing), flags=re.MULTILINE)
    place = f"# {Path(inspect.getsourcefile(thing)).name}, from line {inspect.getsourcelines(thing)[1]}"
    display(Markdown(f"```python\n{place}\n{textwrap.dedent(code)}```"))


def plot_points(ax, x, title=None, *, color=BLUE, limits=None):
    """Scatter points (N, 2); limits are (left, right, bottom, top). Returns ax."""
    x = np.asarray(x)
    ax.scatter(x[:, 0], x[:, 1], s=3, alpha=0.4, color=color, linewidths=0, rasterized=True)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title, aspect="equal")
    if limits:
        ax.axis(limits)
    return ax


def plot_density(ax, log_prob, limits, title=None, *, points=200, vmax=None):
    """Show exp(log_prob) on a grid over limits (left, right, bottom, top) as an image. Returns ax."""
    grid = np.meshgrid(np.linspace(*limits[:2], points), np.linspace(*limits[2:], points))
    density = np.exp(np.asarray(log_prob(np.stack(grid, -1).reshape(-1, 2).astype(np.float32)))).reshape(points, points)
    ax.imshow(density, extent=limits, origin="lower", vmin=0, vmax=vmax, aspect="equal")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    return ax


def plot_images(ax, images, title=None, *, columns=10):
    """Show images (N, size²) with values in [0, 1] side by side, always on the scale black 0 to white 1. Returns ax."""
    images = np.clip(np.asarray(images, np.float32), 0, 1)
    size, rows = int(np.sqrt(images.shape[1])), -(-len(images) // columns)
    canvas = np.ones((rows * columns, size + 1, size + 1))
    canvas[: len(images), :size, :size] = images.reshape(-1, size, size)
    canvas = canvas.reshape(rows, columns, size + 1, size + 1).swapaxes(1, 2).reshape(rows * (size + 1), -1)
    ax.imshow(canvas[:-1, :-1], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
    return ax


def plot_history(ax, history, label=None, *, color=BLUE):
    """Plot train_inn's training nats, dashed, and validation nats, solid, over epochs. Returns ax."""
    suffix = f" {label}" if label else ""
    ax.plot(history.index, history["nats"], "--", color=color, label=f"train{suffix}")
    if "validation_nats" in history:
        ax.plot(history.index, history["validation_nats"], color=color, label=f"validation{suffix}")
    ax.set(xlabel="epoch", ylabel="log-likelihood (nats)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


_RECORDS = {}  # what this process has recorded, by notebook and profile


def save_results(notebook, *, profile, **numbers):
    """Add numbers to build/results/<notebook>.json, with versions, machine, date and seconds.

    The first call of a process begins the file anew. The profile "full" adds `_full` to the file's name. Numbers of the
    profile "smoke" mean nothing; they go to build/smoke/.

    Args:
        notebook: the file's name without its ending.
        numbers: strings or finite numbers.

    Raises:
        ValueError: for a value that JSON can't hold, NaN among them, named by its key.
    """
    new = {}
    for key, value in numbers.items():
        value = value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value
        if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not np.isfinite(value)):
            raise ValueError(f"{key} must be a string or a finite number, got {value!r}")
        new[key] = value
    record = _RECORDS.setdefault((notebook, profile), {"notebook": notebook, "profile": profile})
    record |= new
    packages = ("tensorflow", "keras", "tensorflow_probability", "numpy")
    record |= {f"version_{package}": version(package) for package in packages}
    record |= {"version_python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    # Seconds since the kernel began.
    record |= {"date": time.strftime("%Y-%m-%d"), "seconds": round(time.time() - psutil.Process().create_time(), 1)}
    name = f"{notebook}_full" if profile == "full" else notebook
    path = HERE / "build" / ("smoke" if profile == "smoke" else "results") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")  # moved into place: the file is whole or not there
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
