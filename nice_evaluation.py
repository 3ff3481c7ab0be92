"""How good a flow is: divergences from a known truth, comparisons of samples, tests of the code."""

from typing import NamedTuple

import nice_helpers as nh

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics.pairwise import rbf_kernel


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: float
    standard_error: float


def kl_divergence(truth, flow, *, condition=None, num_samples=20_000, seed=0):
    """Estimate KL(truth ‖ flow) = E[log p_true(x) − log p_flow(x)] in nats over samples of the truth.

    Args:
        truth: a TFP distribution over (D,), for example from toy_distribution.
        flow: a Flow, or another TFP distribution.
        condition: one row (C,) for a conditional flow.

    Returns:
        Estimate(value, standard_error).
    """
    x = truth.sample(num_samples, seed=tf.constant([seed, 1]))
    if condition is not None:
        condition = np.tile(np.asarray(condition, np.float32), (num_samples, 1))
    model = flow.log_prob(x) if condition is None else flow.log_prob(x, condition)
    difference = (truth.log_prob(x) - model).numpy().astype(np.float64)
    return Estimate(float(difference.mean()), float(difference.std() / np.sqrt(num_samples)))


def median_bandwidths(x):
    """Return kernel bandwidths for `mmd`: the median distance of x (N, D), first 2,000 points, times ¼, ½, 1, 2."""
    return np.median(pdist(np.asarray(x, np.float64)[:2000])) * np.array([0.25, 0.5, 1.0, 2.0])


def _kernel(x, y, bandwidths):
    # In float32: exponentials take a fifth of the time there. Their sums must be in float64.
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    return sum(rbf_kernel(x, y, gamma=0.5 / b**2) for b in bandwidths) / np.float32(len(bandwidths))


def _mmd2(k_xx, k_yy, k_xy):
    ### BEGIN SOLUTION
    n, m = k_xy.shape
    off_diagonal = [k.sum(dtype=float) - len(k) for k in (k_xx, k_yy)]  # a point beside itself would bias the means
    return float(off_diagonal[0] / (n * (n - 1)) + off_diagonal[1] / (m * (m - 1)) - 2 * k_xy.mean(dtype=float))
    ### END SOLUTION


def mmd(x, y, *, bandwidths):
    """Estimate the squared maximum mean discrepancy of two samples without bias; it can be slightly negative.

    The kernel is the mean over the bandwidths b of exp(−‖x − y‖² / 2b²). Source: Gretton et al.: A Kernel
    Two-Sample Test, 2012, JMLR 13, Lemma 6.

    Args:
        x: sample (N, D), N ≥ 2.
        y: sample (M, D), M ≥ 2.
        bandwidths: in the units of the data; take median_bandwidths(real data), the same for all that is compared.
    """
    x, y = nh.as_matrix(x, np.shape(x)[-1], "x"), nh.as_matrix(y, np.shape(x)[-1], "y")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"x and y must have at least 2 samples each, got {len(x)} and {len(y)}")
    return _mmd2(*(_kernel(a, b, bandwidths) for a, b in ((x, x), (y, y), (x, y))))


class Floor(NamedTuple):
    """What a perfect model would get: mean and 95 % quantile of a score, real against real."""

    mean: float
    quantile95: float


def mmd_floor(real, num_samples, *, bandwidths, splits=200, seed=0):
    """Return the Floor of `mmd` of disjoint parts of `num_samples` each, over random splits of real (N, D).

    Of `real` the first 4 × num_samples are used.
    """
    num_samples = nh.as_integer("num_samples", num_samples, 2)
    if len(real) < 2 * num_samples:
        raise ValueError(f"real must have at least 2 × {num_samples} samples, got {len(real)}")
    rng = np.random.default_rng(seed)
    kernel = _kernel(real[: 4 * num_samples], real[: 4 * num_samples], bandwidths)
    members = np.zeros((2, splits, len(kernel)), np.float32)
    for first, second in zip(*members, strict=True):
        order = rng.permutation(len(kernel))
        first[order[:num_samples]] = second[order[num_samples : 2 * num_samples]] = 1
    products = members @ kernel  # one product of matrices in place of a look-up for each split
    within = (products * members).sum((0, 2), dtype=float) - 2 * num_samples  # without the diagonal of ones
    between = (products[0] * members[1]).sum(1, dtype=float)
    values = within / (num_samples * (num_samples - 1)) - 2 * between / num_samples**2
    return Floor(float(np.mean(values)), float(np.quantile(values, 0.95)))


def quality_card(real, generated, forest, *, seed=0):
    """Score generated samples against real ones (N, D) of the same kind, unseen in training and in random order.

    Args:
        generated: a dict of each model's name and its samples (M, D), in random order.
        forest: a scikit-learn classifier trained on real samples and their labels.

    Returns:
        A DataFrame with a row for each model: `mmd2` and its `mmd2_floor95`; `c2st_accuracy`, that of a random forest
        that tells real from generated, on what each of its trees has not seen; 0.5 if it can't (Lopez-Paz and Oquab
        2017, arXiv:1610.06545); `confidence`, the classifier's mean largest probability. MMD² and c2st compare equally
        many of each, at most 1,000 and half of the real ones.
    """
    n = min(len(real) // 2, *(len(samples) for samples in generated.values()), 1000)
    bandwidths, rows = median_bandwidths(real), {}
    floor = mmd_floor(real, n, bandwidths=bandwidths, seed=seed).quantile95
    for name, samples in generated.items():
        pair = np.concatenate([real[:n], samples[:n]])
        judge = RandomForestClassifier(oob_score=True, random_state=seed, n_jobs=-1).fit(pair, np.repeat([0, 1], n))
        rows[name] = {
            "mmd2": mmd(samples[:n], real[:n], bandwidths=bandwidths),
            "mmd2_floor95": floor,
            "c2st_accuracy": judge.oob_score_,
            "confidence": forest.predict_proba(samples).max(1).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def code_report(flow, x, condition=None, *, projections=100, seed=0):
    """Test whether the code of data (N, D) is standard normal: four statistics, each with its limit.

    Returns:
        A DataFrame with the rows `mean` (largest |mean| of a dimension), `deviation` (largest |σ − 1| of a dimension),
        `radius` (Kolmogorov–Smirnov distance of ‖z‖ from χ with D degrees of freedom) and `projection` (largest such
        distance from N(0, 1) over random directions), and the columns `value`, `limit` (each is exceeded with about
        5 % probability by a normal code, or less; one of the four in up to 20 %) and `normal`.
    """
    if flow.prior_name != "gaussian":
        raise ValueError(f"flow must have a Gaussian prior, got {flow.prior_name or flow.prior}")
    z = flow.forward(x, condition)[0].numpy().astype(np.float64)
    count, dimensions = z.shape
    directions = np.random.default_rng(seed).standard_normal((dimensions, projections))
    projected = z @ (directions / np.linalg.norm(directions, axis=0))
    normal = stats.norm.ppf(1 - 0.025 / dimensions) / np.sqrt(count)  # Bonferroni's bound over the dimensions
    radius = stats.kstest(np.linalg.norm(z, axis=1), stats.chi(dimensions).cdf).statistic
    worst = stats.kstest(projected, stats.norm.cdf).statistic.max()  # of each column
    rows = {
        "mean": (np.abs(z.mean(0)).max(), normal),
        "deviation": (np.abs(z.std(0) - 1).max(), normal / np.sqrt(2)),
        "radius": (radius, stats.kstwo.ppf(0.95, count)),
        "projection": (worst, stats.kstwo.ppf(1 - 0.05 / projections, count)),
    }
    report = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "limit"])
    return report.assign(normal=report["value"] <= report["limit"])
