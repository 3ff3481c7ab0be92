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
    ("03_realnvp_moons_hexagon", "moons: KL, nats", "moons_kl_nats", ".4f", "± {moons_kl_standard_error:.4f}"),
    ("03_realnvp_moons_hexagon", "hexagon: KL, nats", "hexagon_kl_nats", ".4f", "± {hexagon_kl_standard_error:.4f}"),
    ("03_realnvp_moons_hexagon", "moons: MMD²", "moons_mmd2", ".5f", "floor {moons_mmd2_floor95:.5f}"),
    ("03_realnvp_moons_hexagon", "hexagon: MMD²", "hexagon_mmd2", ".5f", "floor {hexagon_mmd2_floor95:.5f}"),
    (
        "04_conditional_inn",
        "moons, labels merged: KL, nats",
        "moons_marginal_kl_conditional",
        ".4f",
        "without labels {moons_marginal_kl_plain:.4f}",
    ),
    (
        "04_conditional_inn",
        "hexagon, 6 labels merged: KL, nats",
        "hexagon6_marginal_kl_conditional",
        ".4f",
        "without labels {hexagon_marginal_kl_plain:.4f}",
    ),
    (
        "05_digits_bottleneck",
        "error from 8 of 64 code dimensions",
        "reconstruction_mse_k8",
        ".4f",
        "PCA {pca_mse_k8:.4f}",
    ),
    (
        "06_conditional_digits",
        "8×8 MNIST: generated digits read right",
        "mnist8_rf_generated_accuracy",
        ".3f",
        "real test digits {mnist8_rf_real_accuracy:.3f}",
    ),
    (
        "07_inpainting",
        "lower half: MSE per hidden pixel",
        "mse_lower_half",
        ".4f",
        "Gaussian {mse_lower_half_gaussian:.4f}, mean of 10 neighbours {mse_lower_half_ten_neighbours:.4f}",
    ),
    (
        "07_inpainting",
        "centre: MSE per hidden pixel",
        "mse_centre",
        ".4f",
        "Gaussian {mse_centre_gaussian:.4f}, mean of 10 neighbours {mse_centre_ten_neighbours:.4f}",
    ),
    (
        "07_inpainting",
        "lower half: restored digits read right",
        "classifier_accuracy_lower_half",
        ".3f",
        "truth {classifier_accuracy_truth:.3f}, mean of 10 {classifier_accuracy_lower_half_ten_neighbours:.3f}",
    ),
    (
        "08_outlier_detection",
        "fashion as outliers of digits: AUROC",
        "auroc_mnist_vs_fashion",
        ".4f",
        "autoencoder {auroc_mnist_vs_fashion_autoencoder:.4f}",
    ),
    (
        "08_outlier_detection",
        "digits as outliers of fashion, convolutional: AUROC",
        "auroc_fashion_vs_mnist_likelihood",
        ".3f",
        "best remedy {auroc_fashion_vs_mnist_best_remedy:.3f}, autoencoder {auroc_fashion_vs_mnist_autoencoder:.3f}",
    ),
    (
        "09_flow_diary",
        "convolutional RealNVP: bits per dimension",
        "conv_bits_per_dim",
        ".3f",
        "fully connected {base_bits_per_dim:.3f}; published 0.97 to 1.06 (Chen et al. 2019)",
    ),
    ("09_flow_diary", "its training time, seconds", "conv_train_seconds", ".0f", "published: hours on GPUs"),
    (
        "10_autoencoders",
        "Fashion-MNIST, dense 784–64–784: MSE per pixel",
        "rec_mse_A",
        ".5f",
        "PCA with 64 components {pca64_mse:.5f}",
    ),
    (
        "10_autoencoders",
        "Fashion-MNIST: NICE, nats",
        "nice_nats",
        ",.0f",
        "variational autoencoder, bound {vae32_elbo_nats:,.0f}",
    ),
]
# Pictures for the README: notebook and the beginning of the figure's description.
PICTURES = {
    "01_nice_parabola": "The true density and the learned one",
    "02_nice_mnist": "Thirty training digits",
    "03_realnvp_moons_hexagon": "Samples, learned and true density",
    "06_conditional_digits": "Four grids with a row",
    "07_inpainting": "Ten digits with hidden parts",
    "08_outlier_detection": "Log-likelihoods of both data sets",
    "09_flow_diary": "Twenty samples of the convolutional",
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
    marked = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
    if not marked.search(readme):
        raise ValueError("README.md must have the markers <!-- results --> and <!-- /results -->, got neither or one")
    return marked.sub(lambda match: match[1] + table(results) + "\n" + match[2], readme)


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
        results[file.stem] = json.loads(file.read_text())
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
