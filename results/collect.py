"""Gather build/results into results.json, pictures from the executed notebooks, and the README's table.

Run by `make results` after `make export-html`; nothing in this folder or in the table is written by hand.
"""

import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What the README shows: notebook, quantity, key, format, and what to compare it with: text, or a key in braces.
ROWS = [
    ("01_nice_parabola", "KL to the true density, nats", "kl_nats", ".4f", "Gaussian fit {kl_gaussian_fit:.2f}"),
    ("02_nice_mnist", "test log-likelihood, nats", "test_nats", ",.1f", "paper 1,980.5 (NICE, section 5.1)"),
    ("02_nice_mnist", "bits per dimension", "bits_per_dim", ".3f", "paper 4.36, from its nats"),
    ("02_nice_mnist", "training time, seconds", "train_seconds", ".0f", "paper: 1,500 epochs"),
]
# Pictures for the README: notebook and the beginning of the figure's description.
PICTURES = {
    "01_nice_parabola": "The true density and the learned one",
    "02_nice_mnist": "Thirty training digits",
}


def table(results):
    """Return the README's table as Markdown, a line for each of ROWS whose notebook has results."""
    lines = ["| notebook | quantity | here | to compare |", "|---|---|---:|---|"]
    for notebook, quantity, key, form, comparison in ROWS:
        if notebook in results:
            numbers = results[notebook]
            lines.append(f"| {notebook} | {quantity} | {numbers[key]:{form}} | {comparison.format(**numbers)} |")
    return "\n".join(lines)


def with_table(readme, results):
    """Return the README's text with the table between its two markers replaced."""
    marked = re.compile(r"(<!-- results -->\n).*?(\n<!-- /results -->)", re.DOTALL)
    if not marked.search(readme):
        raise ValueError("README.md must have the markers <!-- results --> and <!-- /results -->, got neither or one")
    return marked.sub(lambda match: match[1] + table(results) + match[2], readme)


def picture(notebook, description):
    """Return the PNG bytes of the figure whose description starts like this in an executed notebook."""
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if alt.startswith(description):
                return base64.b64decode(output["data"]["image/png"])
    raise ValueError(f"no figure in {notebook.name} has a description that starts with {description!r}")


def main():
    """Write results.json, the pictures and the README's table; results of other notebooks stay as they are."""
    path = ROOT / "results" / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for file in sorted((ROOT / "build" / "results").glob("*.json")):
        record = json.loads(file.read_text())
        if record["profile"] != "smoke":
            results[file.stem] = record
    for notebook, description in PICTURES.items():
        executed = ROOT / "build" / "default" / f"{notebook}.ipynb"
        if executed.exists():
            (ROOT / "results" / f"{notebook}.png").write_bytes(picture(executed, description))
    path.write_text(json.dumps(results, indent=1) + "\n")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), results))
    print(f"results of {', '.join(results)}")


if __name__ == "__main__":
    main()
