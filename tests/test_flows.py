"""Layers and flows against independent oracles: autodiff, TFP's bijectors, closed forms, numerical integrals."""

import itertools

import nice_backend
import nice_helpers as nh
import nice_images as ni

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from conftest import make_coupling, randomize, sample_data

tfb, tfd = tfp.bijectors, tfp.distributions
SIZES = (2, 3, 5, 8)


def assert_invertible_with_right_log_det(transform, x, condition=None):
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        z, log_det = transform.forward(x, condition)
    jacobian = tape.batch_jacobian(z, x, experimental_use_pfor=False).numpy().astype(np.float64)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=2e-5)
    np.testing.assert_allclose(transform.backward(z, condition), x, atol=5e-5)
    assert not np.allclose(z, x)  # an identity would pass the rest
    other = sample_data(len(x), x.shape[1], seed=9)[0]
    np.testing.assert_allclose(transform.forward(transform.backward(other, condition), condition)[0], other, atol=5e-5)


@pytest.mark.parametrize("kind", [nh.AdditiveCoupling, nh.AffineCoupling])
@pytest.mark.parametrize(
    ("size", "condition_size", "split", "swap"),
    list(itertools.product(SIZES, (0, 3), ("odd-even", "half"), (False, True))),
)
def test_couplings(kind, size, condition_size, split, swap):
    layer = make_coupling(kind, size, condition_size, split=split, swap=swap)
    assert_invertible_with_right_log_det(layer, *sample_data(6, size, condition_size))


@pytest.mark.parametrize("size", SIZES)
def test_rotation_and_scaling(size):
    x, _ = sample_data(6, size)
    assert_invertible_with_right_log_det(nh.OrthogonalMixing(size, seed=1), x)
    assert_invertible_with_right_log_det(randomize(nh.DiagonalScaling(size)), x)


@pytest.mark.parametrize("size", SIZES)
def test_logit(size):
    x = np.random.default_rng(0).random((6, size)).astype(np.float32)
    layer = nh.Logit(size)
    z, log_det = layer.forward(x)
    reference = tfb.Chain([tfb.Invert(tfb.Sigmoid()), tfb.Shift(0.05), tfb.Scale(0.9)])
    np.testing.assert_allclose(z, reference.forward(x), atol=1e-5)
    np.testing.assert_allclose(log_det, reference.forward_log_det_jacobian(x, event_ndims=1), atol=1e-4)
    np.testing.assert_allclose(layer.backward(z), x, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("split", ["odd-even", "half"])
@pytest.mark.parametrize("prior", ["logistic", "gaussian"])
def test_nice(size, split, prior):
    flow = randomize(nh.NICE(size, 8, 1, 4, prior, split), scale=0.3)
    assert_invertible_with_right_log_det(flow, sample_data(6, size)[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition_size", [0, 3])
def test_realnvp(size, condition_size):
    flow = randomize(nh.RealNVP(size, 8, 3, condition_size), scale=0.3)
    assert_invertible_with_right_log_det(flow, *sample_data(6, size, condition_size))


def test_couplings_keep_the_part_they_say():
    x, _ = sample_data(4, 5)
    kept = {
        ("odd-even", False): [0, 2, 4],
        ("odd-even", True): [1, 3],
        ("half", False): [0, 1, 2],
        ("half", True): [3, 4],
    }
    for (split, swap), columns in kept.items():
        z, _ = make_coupling(nh.AffineCoupling, 5, split=split, swap=swap).forward(x)
        assert np.flatnonzero(np.all(z.numpy() == x, axis=0)).tolist() == columns


def test_affine_coupling_agrees_with_tfp():
    layer = make_coupling(nh.AffineCoupling, 6, split="half")

    def shift_and_log_scale(kept, *_, **__):
        s, t = tf.split(layer.network(kept), 2, axis=-1)
        return t, tf.tanh(s)

    reference = tfb.RealNVP(num_masked=3, shift_and_log_scale_fn=shift_and_log_scale)
    x, _ = sample_data(7, 6)
    z, log_det = layer.forward(x)
    np.testing.assert_allclose(z, reference.forward(x), atol=1e-6)
    np.testing.assert_allclose(log_det, reference.forward_log_det_jacobian(x, event_ndims=1), atol=1e-6)


def test_scaling_and_rotation_agree_with_the_closed_form_gaussian():
    scaling, mixing = randomize(nh.DiagonalScaling(4)), nh.OrthogonalMixing(4, seed=2)
    flow = nh.Flow([scaling, mixing])
    x, _ = sample_data(9, 4)
    truth = tfd.MultivariateNormalDiag(scaling.mean.numpy(), np.exp(-scaling.log_scale.numpy()))
    np.testing.assert_allclose(flow.log_prob(x), truth.log_prob(x), rtol=1e-5, atol=1e-5)
    matrix = mixing.matrix.numpy()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
@pytest.mark.parametrize("model", ["NICE", "RealNVP"])
def test_density_integrates_to_one(model, prior):
    flow = nh.NICE(2, 8, 1, 3, prior) if model == "NICE" else nh.RealNVP(2, 8, 2)
    randomize(flow, scale=0.4)
    line = np.linspace(-25, 25, 1001, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    assert np.exp(flow.log_prob(grid)).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=2e-3)


def test_conditional_density_depends_on_the_condition():
    flow = randomize(nh.RealNVP(2, 8, 2, condition_size=2))
    x, _ = sample_data(5, 2)
    one, other = (flow.log_prob(x, np.tile(c, (5, 1))) for c in np.eye(2))
    assert np.abs(one - other).min() > 1e-4


def test_sampling_shapes_and_seeds(small_flow):
    np.testing.assert_array_equal(small_flow.sample(5, seed=3), small_flow.sample(5, seed=3))
    assert not np.allclose(small_flow.sample(5, seed=3), small_flow.sample(5, seed=4))
    assert small_flow.sample(0).shape == (0, 2)
    conditional = randomize(nh.RealNVP(3, 8, 2, condition_size=2))
    assert conditional.sample(5, np.eye(2)).shape == (2, 5, 3)
    assert conditional.sample(0, np.eye(2)).shape == (2, 0, 3)


def test_vectorized_conditional_sampling_equals_row_by_row():
    flow, conditions = randomize(nh.RealNVP(3, 8, 2, condition_size=2)), np.array([[0.0, 1.0], [2.0, -1.0]])
    together = flow.sample(4, conditions, seed=5).numpy()
    noise = flow.forward(together.reshape(-1, 3), np.repeat(conditions, 4, axis=0))[0].numpy().reshape(2, 4, 3)
    for row, z, condition in zip(together, noise, conditions, strict=True):
        np.testing.assert_allclose(flow.backward(z, np.tile(condition, (4, 1))), row, atol=1e-5)
    assert np.abs(noise[0] - noise[1]).min() > 1e-4  # each row has noise of its own


def test_samples_follow_the_density(small_flow):
    x = small_flow.sample(4000, seed=1).numpy()
    z, _ = small_flow.forward(x)
    assert abs(float(tf.reduce_mean(z))) < 0.05
    assert np.std(z) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "build", [lambda: nh.NICE(5, 8, 2, normalization="layer"), lambda: nh.RealNVP(3, 8, 3, condition_size=2)]
)
def test_save_and_load_is_bit_exact(build, tmp_path):
    flow = randomize(build())
    x, condition = sample_data(20, flow.input_size, flow.condition_size)
    flow.save(tmp_path / "flow.keras")
    loaded = keras.models.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.log_prob(x, condition), flow.log_prob(x, condition))
    np.testing.assert_array_equal(loaded.backward(x, condition), flow.backward(x, condition))


def test_all_layers_survive_saving(tmp_path):
    layers = [nh.Logit(4, alpha=0.1), nh.OrthogonalMixing(4), randomize(nh.DiagonalScaling(4))]
    flow = nh.Flow([*layers, make_coupling(nh.AffineCoupling, 4)], "logistic")
    flow.save(tmp_path / "flow.keras")
    x = np.random.default_rng(0).random((5, 4))
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "flow.keras").log_prob(x), flow.log_prob(x))


def test_a_prior_without_a_name_cannot_be_saved(tmp_path):
    flow = nh.Flow([nh.DiagonalScaling(2)], tfd.MultivariateNormalDiag([0.0, 0.0]))
    with pytest.raises(ValueError, match="prior"):
        flow.save(tmp_path / "flow.keras")


def test_same_seed_same_weights():
    x, _ = sample_data(5, 4)
    for build in (lambda seed: nh.NICE(4, 8, 1, seed=seed), lambda seed: nh.RealNVP(4, 8, 2, seed=seed)):
        weights = [np.concatenate([w.ravel() for w in build(seed).get_weights()]) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(weights[0], weights[1])
        assert not np.array_equal(weights[0], weights[2])


def test_adapt_gives_the_code_the_priors_spread():
    x = np.random.default_rng(0).normal([1, 2, 3], [0.01, 1, 100], (500, 3))
    for prior, spread in (("gaussian", 1.0), ("logistic", np.pi / np.sqrt(3))):
        flow = nh.NICE(3, 8, 1, prior=prior)
        flow.adapt(x)
        z = flow.forward(x)[0].numpy()
        np.testing.assert_allclose(z.std(0), spread, rtol=1e-3)
        np.testing.assert_allclose(z.mean(0), 0, atol=1e-2)


def test_adapt_leaves_constant_columns_alone():
    flow = nh.NICE(3, 8, 1)
    flow.adapt(np.array([[0.0, 5.0, 1.0], [0.0, 5.0, 2.0]]))
    np.testing.assert_array_equal(flow.transforms[-1].log_scale.numpy()[:2], 0)
    assert np.isfinite(flow.log_prob(np.ones((2, 3)))).all()
    tenths = np.column_stack([np.arange(1000.0), np.full(1000, 0.1), np.arange(1000.0)])  # NumPy's deviation is 1e-17
    flow.adapt(tenths)
    assert flow.transforms[-1].log_scale.numpy()[1] == 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 3)), r"shape \(N, 2\), got \(3, 3\)"),
        (np.zeros(2), r"shape \(N, 2\), got \(2,\)"),
        (np.zeros((1, 3, 2)), r"got \(1, 3, 2\)"),
        ([["a", "b"]], "real numbers, got dtype <U1"),
        (np.zeros((3, 2), bool), "got dtype bool"),
        (np.zeros((3, 2), complex), "got dtype complex128"),
        (tf.zeros((3, 2), tf.bool), "real numbers, got dtype .*bool"),
        (tf.zeros((3, 2), tf.complex64), "real numbers, got dtype .*complex64"),
        (tf.constant([["a", "b"]]), "real numbers, got dtype .*string"),
        ([[np.nan, 1.0]], "finite in float32, got 1 NaN"),
        ([[1e39, np.inf]], "got 2 NaN or infinite"),
    ],
)
def test_bad_input_is_refused(small_flow, x, message):
    for method in (small_flow.forward, small_flow.backward, small_flow.log_prob, small_flow.transforms[0].forward):
        with pytest.raises(ValueError, match=message):
            method(x)


@pytest.mark.parametrize("convert", [list, np.float64, tf.constant, lambda x: __import__("pandas").DataFrame(x)])
def test_numbers_are_accepted_in_any_container(small_flow, convert):
    x = [[0.5, 1.0], [2.0, 3.0]]
    np.testing.assert_array_equal(small_flow.log_prob(convert(x)), small_flow.log_prob(np.float32(x)))


def test_adapt_takes_lists_as_all_methods_do():
    x, condition = sample_data(10, 3, 2)
    flows = [nh.Flow([nh.DiagonalScaling(3), *nh.RealNVP(3, 8, 2, 2, seed=0).transforms]) for _ in range(2)]
    flows[0].adapt(x, condition)
    flows[1].adapt(x.tolist(), condition.tolist())
    np.testing.assert_array_equal(*(flow.log_prob(x, condition) for flow in flows))


def test_bad_conditions_are_refused(small_flow):
    flow, x = nh.RealNVP(2, 8, 2, condition_size=3), np.zeros((4, 2))
    for condition, message in [
        (None, r"shape \(N, 3\), got None"),
        (np.zeros((4, 2)), r"shape \(N, 3\), got \(4, 2\)"),
        (np.zeros((1, 3)), "one row for each of 4 samples, got 1"),
        (np.full((4, 3), np.nan), "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            flow.log_prob(x, condition)
    for condition in (np.zeros((4, 1)), [[0.0]] * 4):
        with pytest.raises(ValueError, match=r"condition_size is 0, got shape \(4, 1\)"):
            small_flow.log_prob(x, condition)
    with pytest.raises(ValueError, match="condition"):
        flow.sample(2)
    with pytest.raises(ValueError, match="condition"):
        small_flow.sample(2, np.zeros((4, 1)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nh.NICE(1), "input_size must be an integer ≥ 2, got 1"),
        (lambda: nh.RealNVP(2.5, 8, 2), "input_size must be an integer ≥ 2, got 2.5"),
        (lambda: nh.NICE(2, couplings=0), "couplings must be an integer ≥ 1, got 0"),
        (lambda: nh.NICE(2, 4, 1, prior="uniform"), "prior must be one of .* got 'uniform'"),
        (lambda: nh.NICE(2, 4, 1, split="thirds"), "split must be .* got 'thirds'"),
        (lambda: nh.NICE(2, 4, 1, normalization="group"), "normalization must be .* got 'group'"),
        (lambda: nh.Flow([]), "at least one layer"),
        (lambda: nh.Flow([nh.DiagonalScaling(2), nh.DiagonalScaling(3)]), r"agree in input_size, got \[2, 3\]"),
        (lambda: nh.Flow([nh.DiagonalScaling(2)], nh.gaussian_prior(3)), r"over \(2,\) in float32"),
        (lambda: nh.Logit(2, alpha=0.6), "alpha must lie between 0 and 0.5, got 0.6"),
        (
            lambda: nh.AffineCoupling(2, nh.mlp(1, 1, hidden_size=4, hidden_layers=1)),
            "network must map 1 columns to 2, got 1 to 1",
        ),
    ],
)
def test_bad_architectures_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_logit_refuses_data_outside_the_unit_interval():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        nh.Logit(2).forward([[0.5, 1.2]])


# ---- check_flow finds planted bugs -----------------------------------------------------------------------------


class _NoLogDet(nh.AffineCoupling):
    def forward(self, x, condition=None, training=False):
        z, log_det = super().forward(x, condition, training)
        return z, tf.zeros_like(log_det)


class _WrongSign(nh.AffineCoupling):
    def forward(self, x, condition=None, training=False):
        z, log_det = super().forward(x, condition, training)
        return z, -log_det


class _Swapped(nh.AffineCoupling):
    def forward(self, x, condition=None, training=False):
        return super().backward(x, condition), super().forward(x, condition)[1]

    def backward(self, z, condition=None):
        return super().forward(z, condition)[0]


class _ForwardTwice(nh.AdditiveCoupling):
    def backward(self, z, condition=None):
        return self.forward(z, condition)[0]


class _Masked(keras.layers.Layer):
    """RealNVP's equation 9 with a mask; its log-det is Σ (1 − mask) s, and Σ s where the mask is forgotten."""

    def __init__(self, size, forget):
        super().__init__()
        self.input_size, self.condition_size, self.forget = size, 0, forget
        self.mask = np.float32(np.arange(size) % 2)
        self.network = randomize(nh.mlp(size, 2 * size, hidden_size=8, hidden_layers=1), scale=0.3)

    def _scale_and_shift(self, x):
        s, t = tf.split(self.network(self.mask * x), 2, axis=1)
        return (tf.tanh(s) if self.forget else (1 - self.mask) * tf.tanh(s)), (1 - self.mask) * t

    def forward(self, x, condition=None, training=False):
        s, t = self._scale_and_shift(x)
        return self.mask * x + (1 - self.mask) * x * tf.exp(s) + t, tf.reduce_sum(s, 1)

    def backward(self, z, condition=None):
        s, t = self._scale_and_shift(z)
        return self.mask * z + (1 - self.mask) * (z - t) * tf.exp(-s)


def test_check_flow_finds_a_forgotten_mask():
    x, _ = sample_data(6, 4)
    nh.check_flow(nh.Flow([nh.DiagonalScaling(4), _Masked(4, forget=False)]), x)
    with pytest.raises(AssertionError, match="1 _Masked: log_det_error"):
        nh.check_flow(nh.Flow([nh.DiagonalScaling(4), _Masked(4, forget=True)]), x)


@pytest.mark.parametrize(
    ("kind", "symptom"),
    [
        (_NoLogDet, "log_det_error"),
        (_WrongSign, "log_det_error"),
        (_Swapped, "log_det"),
        (_ForwardTwice, "round_trip_x"),
    ],
)
def test_check_flow_names_the_wrong_layer(kind, symptom):
    good, bad = make_coupling(nh.AffineCoupling, 4, seed=1), make_coupling(kind, 4, seed=2)
    with pytest.raises(AssertionError, match=f"1 {kind.__name__}: {symptom}"):
        nh.check_flow(nh.Flow([good, bad, nh.OrthogonalMixing(4)]), sample_data(6, 4)[0])


def test_check_flow_finds_a_rotation_that_is_none():
    mixing = nh.OrthogonalMixing(3, seed=0)
    mixing.matrix.assign(mixing.matrix + 0.1)
    with pytest.raises(AssertionError, match="0 OrthogonalMixing"):
        nh.check_flow(nh.Flow([mixing]), sample_data(6, 3)[0])


def test_check_flow_finds_shared_weights():
    first = make_coupling(nh.AdditiveCoupling, 4)
    second = nh.AdditiveCoupling(4, first.network, swap=True)
    with pytest.raises(AssertionError, match="1 AdditiveCoupling shares the weight .* with 0 AdditiveCoupling"):
        nh.check_flow(nh.Flow([first, second]), sample_data(6, 4)[0])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z, log_det, prior: prior.log_prob(z),
        lambda z, log_det, prior: prior.log_prob(z) - log_det,
        lambda z, log_det, prior: tf.reduce_mean(prior.log_prob(z) + log_det),
    ],
)
def test_check_flow_finds_a_wrong_likelihood(wrong):
    class Wrong(nh.Flow):
        def _log_prob(self, x, condition):
            return wrong(*self._forward(x, condition), self.prior)

    flow = Wrong([make_coupling(nh.AffineCoupling, 4), nh.OrthogonalMixing(4, seed=0)])
    with pytest.raises(AssertionError, match="whole flow: log_prob is not"):
        nh.check_flow(flow, sample_data(6, 4)[0])


def test_check_flow_passes_a_right_flow():
    flow = randomize(nh.RealNVP(5, 8, 3, condition_size=2), scale=0.3)
    table = nh.check_flow(flow, *sample_data(6, 5, 2))
    assert list(table.columns) == ["round_trip_x", "round_trip_z", "log_det_error"]
    assert list(table.index)[-1] == "whole flow"
    assert table.to_numpy().max() < 1e-4


@pytest.mark.parametrize("kind", [nh.AdditiveCoupling, nh.AffineCoupling])
@pytest.mark.parametrize("swap", [False, True])
def test_a_coupling_split_by_a_mask(kind, swap, tmp_path):
    mask = np.array([True, False, False, True, False])
    kept = mask != swap
    outputs = (~kept).sum() * kind.outputs_per_column
    network = nh.mlp(int(kept.sum()), int(outputs), hidden_size=16, hidden_layers=2)
    layer = randomize(kind(5, network, split=mask, swap=swap))
    x = sample_data(6, 5)[0]
    z, _ = layer.forward(x)
    np.testing.assert_array_equal(z.numpy()[:, kept], x[:, kept])
    assert (z.numpy()[:, ~kept] != x[:, ~kept]).all()
    flow = nh.Flow([layer])
    nh.check_flow(flow, x)
    flow.save(tmp_path / "flow.keras")
    loaded = keras.models.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize(
    "mask", [np.ones(5, bool), np.zeros(5, bool), np.array([True, False]), np.array([0, 1, 0, 1, 0])]
)
def test_an_unusable_mask_is_refused(mask):
    with pytest.raises(ValueError, match="split must be a mask of 5 booleans"):
        nh.AdditiveCoupling(5, nh.mlp(3, 2, hidden_size=4, hidden_layers=1), split=mask)


@pytest.mark.parametrize("options", [{}, {"second": 4, "dense": 3}])
def test_conv_real_nvp_is_invertible_with_the_right_log_det_and_survives_saving(tmp_path, options):
    flow = ni.ConvRealNVP(8, channels=4, couplings=4, residual_blocks=1, alpha=0.05, seed=0, **options)
    assert len(flow.transforms) == 2 + 4 + options.get("second", 2)
    randomize(flow, scale=0.1)
    x = np.random.default_rng(0).uniform(0.05, 0.95, (4, 64))
    nh.check_flow(flow, x)
    flow.save(tmp_path / "flow.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "flow.keras").log_prob(x), flow.log_prob(x))


def test_conv_real_nvp_finishes_every_second_row_after_the_first_scale():
    flow = randomize(ni.ConvRealNVP(8, channels=4, couplings=8, residual_blocks=0, alpha=0.05, seed=0), scale=0.2)
    h, steps = np.random.default_rng(0).uniform(0.05, 0.95, (6, 64)).astype(np.float32), []
    for transform in flow.transforms[:-1]:
        before, (h, _) = h, transform.forward(h)
        steps.append((np.asarray(h) != np.asarray(before)).all(0).reshape(8, 8))
    first, second = np.sum(steps[1:9], 0), np.sum(steps[9:13], 0)
    np.testing.assert_array_equal(first, np.full((8, 8), 4))  # each pixel is changed by every second coupling
    np.testing.assert_array_equal(second, np.repeat([[2], [0]] * 4, 8, axis=1))


def test_conv_real_nvp_sees_neighbours_at_their_places():
    flow = randomize(ni.ConvRealNVP(12, channels=4, couplings=4, residual_blocks=0, seed=0), scale=0.2)
    for coupling in flow.transforms[1:5]:
        x = np.zeros((145, 144), np.float32)
        x[1:] += np.eye(144, dtype=np.float32)
        z = coupling.forward(x)[0].numpy()
        touched = np.abs((z[1:] - x[1:]) - (z[0] - x[0])) > 1e-6  # which pixel changes when which pixel is lit
        lit, changed = np.nonzero(touched)
        distance = np.abs(np.array(np.divmod(lit, 12)) - np.divmod(changed, 12)).max(0)
        assert len(lit) > 144
        assert distance.max() <= 5  # two 3×3 kernels on blocks of two pixels


@pytest.mark.parametrize("coupling", [nh.AdditiveCoupling, nh.AffineCoupling])
def test_a_chain_keeps_both_parts_in_turn(coupling):
    chain = nh.coupling_chain(coupling, 5, 3, hidden_size=8, hidden_layers=1, split="half", seed=1)
    x, _ = sample_data(10, 5)
    for i, layer in enumerate(chain):
        assert isinstance(randomize(layer), coupling)
        moved = np.abs(layer.forward(x)[0] - x).max(0) > 0
        assert moved.tolist() == ([True] * 3 + [False] * 2 if i % 2 else [False] * 3 + [True] * 2)
    nh.check_flow(nh.Flow(chain), x)


def test_conv_real_nvp_takes_whole_floats():
    assert len(ni.ConvRealNVP(4.0, 2, 4.0, 0, second=2.0).transforms) == 8


@pytest.mark.parametrize("options", [{"size": 6}, {"couplings": 6}, {"size": 0}, {"second": 3}, {"dense": -1}])
def test_conv_real_nvp_refuses_sizes_that_do_not_divide(options):
    with pytest.raises(ValueError, match="must be"):
        ni.ConvRealNVP(**({"size": 4} | options))


@pytest.mark.parametrize("permute", [lambda x, order: nice_backend.Permutation(order)(x), nice_backend.permuted])
def test_a_permutation_has_the_gradient_of_a_gather(permute):
    """A log-determinant can't see it: a wrong permutation in the gradient has a determinant of ±1 too."""
    order = [2, 0, 3, 1]  # its square is not the identity
    x, weight = (tf.constant(np.random.default_rng(seed).standard_normal((5, 4)), tf.float32) for seed in (0, 1))
    results = []
    for function in (permute, lambda x, order: tf.gather(x, order, axis=1)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, order)
            loss = tf.reduce_sum(weight * y**2)
        results.append((y, tape.gradient(loss, x)))
    for received, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("jit", [False, True])
def test_a_network_of_two_columns_has_the_gradients_of_matrix_products(jit):
    network = randomize(nh.mlp(3, 2, hidden_size=7, hidden_layers=1))
    x, weight_y = [tf.random.stateless_normal((11, columns), (columns, 0)) for columns in (3, 2)]
    plain = keras.Sequential([keras.layers.Dense(7, "relu"), keras.layers.Dense(2)])
    plain.build((None, 3))
    plain.set_weights(network.get_weights())

    @tf.function(jit_compile=jit)
    def gradients(model):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)
            loss = tf.reduce_sum(weight_y * y**2)
        return y, *tape.gradient(loss, [x, *model.trainable_variables])

    for ours, theirs in zip(gradients(network), gradients(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# ---- Input that other people have tried ------------------------------------------------------------------------


def test_pixels_that_were_divided_already_are_refused():
    pixels = np.random.default_rng(0).random((300, 16))
    for call in (
        lambda: nh.dequantize(pixels, 0),
        lambda: ni.train_on_images(nh.NICE(16, 16, 1), pixels, epochs=1),
        lambda: nh.dequantize(np.full((2, 16), 256), 0),
        lambda: nh.dequantize(np.full((2, 16), 20), 0, levels=17),
        lambda: nh.dequantize(-np.ones((2, 16)), 0),
    ):
        with pytest.raises(ValueError, match="x must be whole numbers 0…"):
            call()
    assert nh.dequantize(np.zeros((0, 16), np.uint8), 0).shape == (0, 16)


def test_a_sample_without_a_seed_is_refused_within_a_graph(small_flow):
    with pytest.raises(ValueError, match="seed must be given within a tf.function"):
        tf.function(lambda: small_flow.sample(3))()
    draw = tf.function(lambda: small_flow.sample(3, seed=1))
    np.testing.assert_array_equal(draw(), small_flow.sample(3, seed=1))


@pytest.mark.parametrize("way", ["log_prob", "forward", "train", "train with augment", "validation"])
def test_pixels_in_a_flow_that_begins_with_a_logit_are_refused(way):
    flow = nh.Flow([nh.Logit(4), nh.DiagonalScaling(4)])
    pixels, inside = np.full((8, 4), 255.0), np.full((8, 4), 0.5)
    calls = {
        "log_prob": lambda: flow.log_prob(pixels),
        "forward": lambda: flow.forward(pixels),
        "train": lambda: nh.train_inn(flow, pixels, epochs=1, batch_size=4),
        "train with augment": lambda: nh.train_inn(
            flow, pixels, epochs=1, batch_size=4, augment=lambda x, seed: tf.cast(x, tf.float32)
        ),
        "validation": lambda: nh.train_inn(flow, inside, epochs=1, batch_size=4, validation=pixels),
    }
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\] for Logit, got \[255, 255\]"):
        calls[way]()
    assert np.isfinite(flow.log_prob(inside)).all()


def test_data_whose_spread_float32_loses_are_refused(small_flow):
    x = 1e8 + np.random.default_rng(0).standard_normal((500, 2))
    for start in (nh.DiagonalScaling(2), nh.Flow([nh.DiagonalScaling(2)])):
        with pytest.raises(ValueError, match="x must keep its spread in float32"):
            start.adapt(x)
        start.adapt(x - 1e8)


@pytest.mark.parametrize(
    "prior",
    [
        nh.tfd.MultivariateNormalDiag(np.zeros(2), np.ones(2)),  # float64
        nh.tfd.MultivariateNormalDiag(tf.zeros((3, 2)), tf.ones((3, 2))),
        nh.tfd.Normal(tf.zeros(2), 1.0),
        nh.tfd.Independent(nh.tfd.Cauchy(tf.zeros(2), 1.0), 1),
    ],
)
def test_a_prior_that_would_fail_later_is_refused_at_once(prior):
    with pytest.raises(ValueError, match="prior must"):
        nh.Flow([nh.DiagonalScaling(2)], prior)


def test_no_rows_are_refused_by_name(small_flow):
    for call in (nh.DiagonalScaling(2).adapt, small_flow.adapt, lambda x: nh.check_flow(small_flow, x)):
        with pytest.raises(ValueError, match="at least one sample, got 0"):
            call(np.zeros((0, 2)))


def test_another_precision_is_refused_in_one_sentence():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with pytest.raises(ValueError, match="flows compute in float32 only, got Keras' policy mixed_float16"):
            nh.RealNVP(2, 8, 2)
    finally:
        keras.config.set_dtype_policy("float32")


def test_numpys_integers_are_integers():
    flow = nh.RealNVP(np.int64(2), np.int64(8), np.int64(2), seed=np.int64(1))
    history = nh.train_inn(flow, np.zeros((4, 2)), epochs=np.int64(1), batch_size=np.int64(2), seed=np.int64(0))
    assert len(history) == 1 and flow.sample(np.int64(3), seed=np.int64(0)).shape == (3, 2)
    nice = nh.NICE(np.int64(2), np.int64(8), np.int64(1), np.int64(3))
    assert nh.Flow.from_config(nice.get_config()).input_size == 2
