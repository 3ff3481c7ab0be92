"""Gather build/results into results.json, pictures from the executed notebooks, and the README's tables.

Run by `make results` after `make export-html` or `make bench`; nothing in this folder or in the README's tables is
written by hand. Runs of the profile `full` are kept beside those of `default`.
"""

import base64
import json
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

# The README's list: notebook, the exercise that it answers, its task, its headline, and the beginning of the
# description of the figure that stands for it.
NOTEBOOKS = [
    (
        "01_nice_parabola",
        "NICE, N1–N6",
        "NICE from its smallest part: couplings, scaling, checks, likelihood, and how many couplings toy data need",
        "KL {kl_nats:.4f} nats",
        "The true density and the learned one",
    ),
    (
        "02_nice_mnist",
        "NICE, N7",
        "NICE on MNIST: curves, overfitting, normalization, and whether the samples are digits",
        "{test_nats:,.0f} nats",
        "Thirty training digits",
    ),
    (
        "03_realnvp_moons_hexagon",
        "INN, I1.1–I1.7",
        "how to judge samples, a study of hyper-parameters, two moons and a hexagon",
        "KL {moons_kl_nats:.4f} and {hexagon_kl_nats:.4f} nats",
        "Samples, learned and true density",
    ),
    (
        "04_conditional_inn",
        "INN, I2.1–I2.5",
        "a density for each label, and whether labels help",
        "KL {moons_marginal_kl_conditional:.4f}, without labels {moons_marginal_kl_plain:.4f} nats",
        "Above: true points of two moons",
    ),
    (
        "05_digits_bottleneck",
        "INN, I3.1–I3.4",
        "is the code normal, and what do k code dimensions carry",
        "error {reconstruction_mse_k8:.4f} from 8 dimensions",
        "Twelve digits and their reconstructions",
    ),
    (
        "06_conditional_digits",
        "INN, I4.1–I4.2",
        "digits on demand, read by a random forest",
        "{mnist8_rf_generated_accuracy:.1%} read right",
        "For both sets ten rows",
    ),
    (
        "07_inpainting",
        "NICE, N8",
        "hidden pixels filled in by climbing the likelihood, against baselines",
        "lower half: MSE {mse_lower_half:.4f}",
        "Ten digits with hidden parts",
    ),
    (
        "08_outlier_detection",
        "NICE, N9 and N10",
        "corruptions and a threshold, beside scores that know nothing",
        "threshold {threshold_nats:,.0f} nats: precision {precision:.2f}, recall {recall:.2f}",
        "Histograms of log-likelihoods",
    ),
    (
        "09_flow_diary",
        "diary, D1–D12",
        "twelve entries on flows and images: symptom, experiment, cause and cure",
        "{conv_bits_per_dim:.3f} bits per dimension",
        "Twenty samples of the convolutional",
    ),
    (
        "10_autoencoders",
        "ae, A1a–A5",
        "theory, four autoencoders and a variational one on Fashion-MNIST, anomalies",
        "MSE {rec_mse_A_long:.5f} with 64 numbers",
        "Decoded normal codes and interpolations",
    ),
]

# The results table: notebook, quantity, the number, and what to compare it with and where that comes from.
SAME = "same data, same page"
ROWS = [
    ("01_nice_parabola", "KL to the true density, nats", "{kl_nats:.4f}", "Gaussian fit {kl_gaussian_fit:.2f}", SAME),
    ("02_nice_mnist", "test log-likelihood, nats", "{test_nats:,.1f}", "1,980.5", "NICE, section 5.1: 1,500 epochs"),
    ("02_nice_mnist", "the same", "{test_nats:,.1f}", "a Gaussian for each label {gaussian_per_label_nats:,.1f}", SAME),
    ("02_nice_mnist", "bits per dimension", "{bits_per_dim:.3f}", "4.36", "from the paper's nats"),
    (
        "03_realnvp_moons_hexagon",
        "moons: KL over {trainings} trainings, nats",
        "{moons_kl_nats:.4f} ± {moons_kl_nats_sd:.4f}",
        "Gaussian mixture {moons_mixture_kl_nats:.4f}",
        SAME,
    ),
    (
        "03_realnvp_moons_hexagon",
        "hexagon: the same",
        "{hexagon_kl_nats:.4f} ± {hexagon_kl_nats_sd:.4f}",
        "Gaussian mixture {hexagon_mixture_kl_nats:.4f}",
        SAME,
    ),
    (
        "04_conditional_inn",
        "moons, labels merged: KL, nats",
        "{moons_marginal_kl_conditional:.4f} ± {moons_marginal_kl_conditional_sd:.4f}",
        "without labels, same budget {moons_marginal_kl_plain:.4f}",
        "same data, {trainings} trainings",
    ),
    (
        "04_conditional_inn",
        "hexagon, 6 labels merged: KL, nats",
        "{hexagon6_marginal_kl_conditional:.4f} ± {hexagon6_marginal_kl_conditional_sd:.4f}",
        "without labels, same budget {hexagon_marginal_kl_plain:.4f}",
        "same data, {trainings} trainings",
    ),
    (
        "05_digits_bottleneck",
        "squared error from 2, 4, 8 of 64 code dimensions",
        "{reconstruction_mse_k2:.4f}, {reconstruction_mse_k4:.4f}, {reconstruction_mse_k8:.4f}",
        "PCA {pca_mse_k2:.4f}, {pca_mse_k4:.4f}, {pca_mse_k8:.4f}; autoencoder "
        "{autoencoder_mse_k2:.4f}, {autoencoder_mse_k4:.4f}, {autoencoder_mse_k8:.4f}",
        SAME,
    ),
    (
        "06_conditional_digits",
        "8×8 MNIST: generated digits read right",
        "{mnist8_rf_generated_accuracy:.3f}",
        "real test digits {mnist8_rf_real_accuracy:.3f}, a Gaussian's for each label {mnist8_rf_gaussian_accuracy:.3f}",
        SAME,
    ),
    (
        "06_conditional_digits",
        "8×8 small digits: the same, {digits_trainings} trainings",
        "{digits_rf_generated_accuracy:.3f} ± {digits_rf_generated_accuracy_sd:.3f}",
        "real test digits {digits_rf_real_accuracy:.3f}, a Gaussian's {digits_rf_gaussian_accuracy:.3f}",
        SAME,
    ),
    (
        "07_inpainting",
        "MSE per hidden pixel, lower half; centre",
        "{mse_lower_half:.4f}; {mse_centre:.4f}",
        "Gaussian {mse_lower_half_gaussian:.4f}; {mse_centre_gaussian:.4f}",
        SAME,
    ),
    (
        "07_inpainting",
        "the same",
        "{mse_lower_half:.4f}; {mse_centre:.4f}",
        "mean of 10 neighbours {mse_lower_half_ten_neighbours:.4f}; {mse_centre_ten_neighbours:.4f}",
        SAME,
    ),
    (
        "07_inpainting",
        "lower half: restored digits read right",
        "{classifier_accuracy_lower_half:.3f}",
        "truth {classifier_accuracy_truth:.3f}, mean of 10 {classifier_accuracy_lower_half_ten_neighbours:.3f}",
        SAME,
    ),
    (
        "08_outlier_detection",
        "digits turned by 90°: AUROC of NICE",
        "{auroc_rotation_max:.3f}",
        "one Gaussian {auroc_rotation_max_gaussian:.3f}",
        SAME,
    ),
    (
        "08_outlier_detection",
        "threshold at 5 % false alarms, clothes and turned digits: precision; recall",
        "{precision:.3f}; {recall:.3f}",
        "–",
        SAME,
    ),
    (
        "08_outlier_detection",
        "digits as outliers of fashion: AUROC of a convolutional flow",
        "{auroc_fashion_vs_mnist_likelihood:.3f}",
        "length of a PNG file {auroc_fashion_vs_mnist_png_length_alone:.3f}",
        "fails as in Nalisnick et al. 2019",
    ),
    (
        "09_flow_diary",
        "bits per dimension after {conv_train_seconds:,.0f} s, {date}",
        "{conv_bits_per_dim:.3f}",
        "0.97 to 1.06, trained far longer",
        "Chen et al. 2019, table 2",
    ),
    (
        "10_autoencoders",
        "dense 784–64–784, 8 passes: MSE per pixel",
        "{rec_mse_A_long:.5f}",
        "PCA with 64 components {pca64_mse:.5f}",
        SAME,
    ),
    (
        "10_autoencoders",
        "NICE behind a logit, eight classes of Fashion-MNIST: nats",
        "{nice_nats:,.0f}",
        "one Gaussian {gaussian_nats:,.0f}",
        SAME,
    ),
]

# The comparison's rows: work, our key, the eager competitors' keys, JAX's key if any, the ratio's key.
EAGER = ("FrEIA", "normflows", "nflows", "zuko")
BENCH = [
    (
        f"RealNVP, two moons: {what}, samples/s",
        f"moons_ours_{key}",
        [f"moons_{name}_{key}" for name in EAGER],
        f"moons_jax_{key}",
        f"{key}_vs_best_eager",
    )
    for what, key in (("training", "train"), ("log_prob", "log_prob"), ("sample", "sample"))
]
BENCH += [
    (
        "the same with a condition: training, samples/s",
        "conditional_ours_train",
        ["conditional_FrEIA_train", "conditional_zuko_train"],
        "conditional_jax_train",
        "conditional_train_vs_best_eager",
    ),
    (
        "NICE, MNIST, 5×1000: training, samples/s",
        "nice1000_ours_train",
        ["nice1000_torch_train"],
        None,
        "nice_vs_torch",
    ),
    ("inpainting, 500 steps: images/s", "inpaint_ours_images", ["inpaint_torch_images"], None, "inpaint_vs_torch"),
]


def notebooks_table(results):
    """Return the README's list of notebooks as Markdown, with a picture, a time and a headline for each."""
    lines = ["| | notebook | exercise | headline | time |", "|---|---|---|---|---:|"]
    for notebook, exercise, task, headline, alt in NOTEBOOKS:
        numbers = results[notebook]
        picture = f'<img src="results/{notebook}.png" width="150" alt="{alt}">'
        name = f"[{notebook}](notebooks/{notebook}.ipynb): {task}"
        lines.append(f"| {picture} | {name} | {exercise} | {headline.format(**numbers)} | {numbers['seconds']:.0f} s |")
    return "\n".join(lines)


def results_table(results):
    """Return the README's table of results as Markdown."""
    lines = ["| notebook | quantity | here | to compare | from |", "|---|---|---:|---|---|"]
    for notebook, *cells in ROWS:
        cells = [cell.format(**results[notebook]) for cell in cells]
        lines.append("| " + " | ".join([notebook, *cells]) + " |")
    return "\n".join(lines)


def bench_table(bench):
    """Return the comparison with other libraries as Markdown."""
    lines = ["| work | here | the best other, eager | JAX, by hand | ratio |", "|---|---:|---:|---:|---:|"]
    for work, ours, others, jax, ratio in BENCH:
        name, best = max(((other.split("_")[1], bench[other]) for other in others), key=lambda pair: pair[1])
        jax_value = f"{bench[jax]:,.0f}" if jax else "–"
        lines.append(f"| {work} | {bench[ours]:,.0f} | {best:,.0f} ({name}) | {jax_value} | {bench[ratio]:.2f} |")
    return "\n".join(lines)


def bench_picture(bench, path):
    """Draw training speed on two moons and how it grows with batch size, dimensions and blocks."""
    import matplotlib.pyplot as plt

    names = ("ours", "jax", "FrEIA", "zuko", "normflows", "nflows")
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
    tables["time"] = (
        f"`make export-html` makes all ten in {bench['export_seconds'] / 60:.0f} minutes on the {bench['cores']} cores "
        f"that the numbers below are from,\nand holds up to {bench['export_peak_gb']:.0f} GB of memory. The times of "
        "the single pages are those of a page that shares the cores\nwith another."
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
    for file in sorted((ROOT / "build" / "results").glob("*.json")):
        record = json.loads(file.read_text())
        suffix = "" if record["profile"] == "default" else f" ({record['profile']})"
        results[record["notebook"] + suffix] = record
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
