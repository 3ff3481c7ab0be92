"""Gather build/results into results.json, pictures from the executed notebooks, and the README's tables.

Run by `make results` after `make export-html` or `make bench`; nothing in this folder or in the README's tables is
written by hand. Runs of the profile `full` are kept beside those of `default`, and so is a run with another SEED, made
in a clone: `python results/collect.py <clone>/build/results` adds it.
"""

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

# The README's list: notebook, the items that it answers, its task, and the beginning of the description of the figure
# that stands for it.
NOTEBOOKS = [
    (
        "01_nice_parabola",
        "NICE, N1–N6",
        "NICE from its smallest part: couplings, scaling, checks, likelihood, and how many couplings toy data need",
        "The true density and the learned one",
    ),
    (
        "02_nice_mnist",
        "NICE, N7",
        "NICE on MNIST: curves, overfitting, normalization, and whether the samples are digits",
        "Thirty training digits",
    ),
    (
        "03_realnvp_moons_hexagon",
        "INN, I1.1–I1.7",
        "how to judge samples, a study of hyper-parameters, two moons and a hexagon",
        "Samples, learned and true density",
    ),
    (
        "04_conditional_inn",
        "INN, I2.1–I2.5",
        "a density for each label, and whether labels help",
        "Above: true points of two moons",
    ),
    (
        "05_digits_bottleneck",
        "INN, I3.1–I3.4",
        "is the code normal, and what do k code dimensions carry",
        "Twelve digits and their reconstructions",
    ),
    ("06_conditional_digits", "INN, I4.1–I4.2", "digits on demand, read by a random forest", "For both sets ten rows"),
    (
        "07_inpainting",
        "NICE, N8",
        "hidden pixels filled in by climbing the likelihood, against baselines",
        "Ten digits with hidden parts",
    ),
    (
        "08_outlier_detection",
        "NICE, N9 and N10",
        "corruptions and a threshold, beside scores that know nothing",
        "Histograms of log-likelihoods",
    ),
    (
        "09_flow_diary",
        "diary, D1–D12",
        "twelve entries on flows and images: symptom, experiment, cause and cure",
        "Twenty samples of the convolutional",
    ),
    (
        "10_autoencoders",
        "ae, A1a–A5",
        "theory, four autoencoders and a variational one on Fashion-MNIST, anomalies",
        "Decoded random codes",
    ),
]

# The results table: notebook, quantity, the format of a number, its keys, and what to compare it with, as pairs of a
# name and numbers; where a run of full has others, they follow in brackets.
ROWS = [
    (
        "01_nice_parabola",
        "parabola: KL to the true density, nats",
        ".4f",
        ["kl_nats"],
        [("one Gaussian", "{kl_gaussian_fit:.2f}")],
    ),
    (
        "02_nice_mnist",
        "MNIST: test log-likelihood, nats per image",
        ",.0f",
        ["test_nats"],
        [
            ("NICE paper, 1,500 epochs", "1,980.5"),
            ("one Gaussian per label", "{gaussian_per_label_nats:,.0f}"),
        ],
    ),
    (
        "03_realnvp_moons_hexagon",
        "two moons; hexagon: KL, nats",
        ".4f",
        ["moons_kl_nats", "hexagon_kl_nats"],
        [("Gaussian mixture", "{moons_mixture_kl_nats:.4f}; {hexagon_mixture_kl_nats:.4f}")],
    ),
    (
        "04_conditional_inn",
        "the same with labels, merged: KL, nats",
        ".4f",
        ["moons_marginal_kl_conditional", "hexagon6_marginal_kl_conditional"],
        [("without labels", "{moons_marginal_kl_plain:.4f}; {hexagon_marginal_kl_plain:.4f}")],
    ),
    (
        "05_digits_bottleneck",
        "8×8 digits: MSE per pixel from 2; 8 of 64 code dimensions",
        ".4f",
        ["reconstruction_mse_k2", "reconstruction_mse_k8"],
        [
            ("PCA", "{pca_mse_k2:.4f}; {pca_mse_k8:.4f}"),
            ("autoencoder", "{autoencoder_mse_k2:.4f}; {autoencoder_mse_k8:.4f}"),
        ],
    ),
    (
        "06_conditional_digits",
        "generated digits read as asked for: 8×8 digits; MNIST",
        ".3f",
        ["digits_rf_generated_accuracy", "mnist8_rf_generated_accuracy"],
        [
            ("real ones", "{digits_rf_real_accuracy:.3f}; {mnist8_rf_real_accuracy:.3f}"),
            ("one Gaussian per label", "{digits_rf_gaussian_accuracy:.3f}; {mnist8_rf_gaussian_accuracy:.3f}"),
        ],
    ),
    (
        "07_inpainting",
        "MSE per hidden pixel, lower half; centre",
        ".4f",
        ["mse_lower_half", "mse_centre"],
        [("mean of ten neighbours", "{mse_lower_half_ten_neighbours:.4f}; {mse_centre_ten_neighbours:.4f}")],
    ),
    (
        "08_outlier_detection",
        "digits turned by 90°: AUROC",
        ".3f",
        ["auroc_rotation_max"],
        [("one Gaussian", "{auroc_rotation_max_gaussian:.3f}")],
    ),
    (
        "08_outlier_detection",
        "digits among clothes: AUROC of a convolutional flow (digits look likelier)",
        ".4f",
        ["auroc_fashion_vs_mnist_likelihood"],
        [("length of a PNG file", "{auroc_fashion_vs_mnist_png_length_alone:.3f}")],
    ),
    (
        "09_flow_diary",
        "MNIST: bits per dimension; seconds of training",
        ".3f",
        ["conv_bits_per_dim", "conv_train_seconds"],
        [("published, trained far longer", "[0.97 to 1.06](https://arxiv.org/abs/1906.02735)")],
    ),
    (
        "10_autoencoders",
        "Fashion-MNIST, dense 784–64–784: MSE per pixel",
        ".5f",
        ["rec_mse_A_long"],
        [("PCA with 64 components", "{pca64_mse:.5f}")],
    ),
]

# The comparison's rows: work, our key, the eager competitors' keys, JAX's key if any.
EAGER = ("FrEIA", "normflows", "nflows", "zuko")
BENCH = [
    (
        f"RealNVP, two moons: {what}, samples/s",
        f"moons_ours_{key}",
        [f"moons_{name}_{key}" for name in EAGER],
        f"moons_jax_{key}",
    )
    for what, key in (("training", "train"), ("log_prob", "log_prob"), ("sample", "sample"))
]
BENCH += [
    (
        "the same with a condition: training, samples/s",
        "conditional_ours_train",
        ["conditional_FrEIA_train", "conditional_zuko_train"],
        "conditional_jax_train",
    ),
    ("NICE, MNIST, 5×1000: training, samples/s", "nice1000_ours_train", ["nice1000_torch_train"], None),
    ("inpainting, 500 steps: images/s", "inpaint_ours_images", ["inpaint_torch_images"], None),
]


def notebooks_table(results):
    """Return the README's list of notebooks as Markdown, with a picture and a time for each."""
    lines = ["| | notebook | answers | time |", "|---|---|---|---:|"]
    for notebook, items, task, alt in NOTEBOOKS:
        picture = f'<img src="results/{notebook}.png" width="150" alt="{alt}">'
        name = f"[{notebook}](notebooks/{notebook}.ipynb): {task}"
        lines.append(f"| {picture} | {name} | {items} | {results[notebook]['seconds']:.0f} s |")
    return "\n".join(lines)


def numbers(record, keys, form, other=None):
    """Return a run's numbers as text, each with its deviation: over the run's trainings, else over it and another."""
    texts = []
    for key in keys:
        deviation = record.get(f"{key}_sd")
        if deviation is None and other and "seconds" not in key:
            deviation = np.std([record[key], other[key]], ddof=1)
        spread = "" if deviation is None else f" ± {deviation:{form}}"
        texts.append(f"{record[key]:{',.0f' if 'seconds' in key else form}}{spread}")
    return "; ".join(texts)


def results_table(results):
    """Return the README's table of results as Markdown: those of the default run, beside those of the profile full."""
    lines = ["| | quantity | here | `full` | to compare |", "|---|---|---:|---:|---|"]
    for notebook, quantity, form, keys, compared in ROWS:
        record, full = results[notebook], results.get(f"{notebook} (full)")
        here = numbers(record, keys, form, results.get(f"{notebook} (other seed)"))
        cells = [notebook[:2], quantity, here, numbers(full, keys, form) if full else "–"]
        lines.append(f"| {' | '.join([*cells, beside(compared, record, full)])} |")
    return "\n".join(lines)


def beside(compared, record, full):
    """Return what a row is to be compared with as text: the default run's numbers, and those of full that differ."""
    texts = []
    for name, form in compared:
        here = form.format(**record)
        there = form.format(**full) if full else here
        texts.append(f"{name}: {here}" + (f" (`full`: {there})" if there != here else ""))
    return " · ".join(texts)


def bench_table(bench):
    """Return the comparison with other libraries as Markdown."""
    lines = [
        "| work | here | the best other, eager | torch.compile | JAX, by hand | here / best eager | here / JAX |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for work, ours, others, jax in BENCH:
        name, best = max(((other.split("_")[1], bench[other]) for other in others), key=lambda pair: pair[1])
        keys = (ours.replace("ours", "torch.compile"), jax)
        compiled = " | ".join(f"{bench[key]:,.0f}" if key in bench else "–" for key in keys)
        ratios = f"{bench[ours] / best:.1f} | " + (f"{bench[ours] / bench[jax]:.1f}" if jax else "–")
        lines.append(f"| {work} | {bench[ours]:,.0f} | {best:,.0f} ({name}) | {compiled} | {ratios} |")
    times = [
        f"{who} {bench[f'to_kl_{key}_seconds']:.0f} s in {bench[f'to_kl_{key}_epochs']:.0f} epochs"
        for who, key in (("here", "ours"), ("zuko", "zuko"), ("FrEIA", "FrEIA"))
    ]
    reached = f"To a KL of 0.05 nats on two moons, start included: {', '.join(times)}."
    return "\n".join([*lines, "", reached])


def bench_picture(bench, path):
    """Draw training speed on two moons and how it grows with batch size, dimensions and blocks."""
    import matplotlib.pyplot as plt

    names = ("ours", "jax", "torch.compile", *EAGER)
    figure, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
    spread = [bench[f"moons_{name}_train_spread"] / 2000 for name in names]
    axes[0].barh(names, [bench[f"moons_{name}_train"] / 1000 for name in names], xerr=spread, color="#0072b2")
    axes[0].set(title="RealNVP, two moons", xlabel="thousand training samples per second")
    axes[0].invert_yaxis()
    for ax, key in zip(axes[1:], ("batch", "dimensions", "blocks"), strict=True):
        values = sorted(
            int(k.split("_")[2]) for k in bench if k.startswith(f"growth_{key}_") and k.endswith("_ours_train")
        )
        for name, color, marker in (("ours", "#0072b2", "o"), ("jax", "#d55e00", "s"), ("FrEIA", "#009e73", "^")):
            speeds = [bench[f"growth_{key}_{value}_{name}_train"] for value in values]
            slope = np.polyfit(np.log(values), np.log(speeds), 1)[0]
            ax.loglog(values, speeds, marker=marker, color=color, label=f"{name}, slope {slope:.2f}")
        ax.set_xticks(values, map(str, values))
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        ax.set(xlabel={"batch": "batch size"}.get(key, key))
        ax.legend(fontsize="small", frameon=False)
    axes[1].set_ylabel("training samples per second")
    figure.savefig(path, dpi=110)


def with_tables(readme, results, bench):
    """Return the README's text with what stands between each pair of its markers replaced."""
    tables = {"notebooks": notebooks_table(results), "results": results_table(results), "bench": bench_table(bench)}
    minutes = [round(bench[key] / 60) for key in ("export_seconds", "setup_seconds")]
    tables["time"] = (
        f"`make export-html` made all ten in {minutes[0]} minutes on {bench['cores']} cores, two at a time, after "
        f"{minutes[1]} for the environment; it held up to\n{bench['export_peak_gb']:.0f} GB of memory. A page's time "
        "below is that beside another page."
    )
    for marker, content in tables.items():
        marked = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
        if not marked.search(readme):
            raise ValueError(f"README.md must have the markers <!-- {marker} --> and <!-- /{marker} -->")
        readme = marked.sub(lambda match: match[1] + content + "\n" + match[2], readme)  # noqa: B023
    return readme


def picture(notebook, description):
    """Return the PNG bytes of the figure whose description starts like this in an executed notebook."""
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
            if alt.startswith(description):
                return base64.b64decode(output["data"]["image/png"])
    raise ValueError(f"no figure in {notebook.name} has a description that starts with {description!r}")


def main():
    """Write results.json, the pictures and the README's tables; results of other notebooks stay as they are."""
    path = ROOT / "results" / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    folders = {ROOT / "build" / "results": ""} | {Path(folder): " (other seed)" for folder in sys.argv[1:]}
    for folder, seed in folders.items():
        for file in sorted(folder.glob("*.json")):
            record = json.loads(file.read_text())
            suffix = "" if record["profile"] == "default" else f" ({record['profile']})"
            results[record["notebook"] + suffix + seed] = record
    path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    for notebook, *_, description in NOTEBOOKS:
        executed = ROOT / "build" / "default" / f"{notebook}.ipynb"
        if executed.exists():
            (ROOT / "results" / f"{notebook}.png").write_bytes(picture(executed, description))
    bench = json.loads((ROOT / "results" / "bench.json").read_text())
    bench_picture(bench, ROOT / "results" / "bench.png")
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(), results, bench))
    print(f"results of {', '.join(results)}")


if __name__ == "__main__":
    main()
