"""train_inn: it learns, it is reproducible, it stops on NaN, and standard Keras callbacks work."""

import subprocess
import sys

import nice_helpers as nh
import nice_images as ni

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, randomize, sample_data

QUIET = {"verbose": False, "seed": 3}
FAST = {"epochs": 3, "batch_size": 64, "verbose": False}


def scaling_flow(size=2):
    """Return a flow whose best fit is known: it is the Gaussian with the data's mean and deviation."""
    return nh.Flow([nh.DiagonalScaling(size)])


def test_it_finds_the_maximum_likelihood_gaussian():
    x = np.random.default_rng(0).normal([1.0, -0.5], [0.5, 2.0], (2000, 2)).astype(np.float32)
    flow = scaling_flow()
    history = nh.train_inn(flow, x, epochs=60, batch_size=200, learning_rate=0.02, verbose=False)
    np.testing.assert_allclose(flow.transforms[0].mean, x.mean(0), atol=0.05)
    np.testing.assert_allclose(np.exp(-flow.transforms[0].log_scale), x.std(0), rtol=0.05)
    entropy = -np.log(x.std(0)).sum() - 1 - np.log(2 * np.pi)
    assert history["nats"].iloc[-1] == pytest.approx(entropy, abs=0.02)


@pytest.mark.parametrize("decay", [0.0, 3.0])
def test_the_steps_are_those_of_keras_adam(decay):
    x, _ = sample_data(100, 3)
    rate = keras.optimizers.schedules.CosineDecay(0.01, 20)
    flow, plain = (randomize(nh.NICE(3, 8, 1, seed=1)) for _ in range(2))
    nh.train_inn(flow, x, epochs=20, batch_size=100, learning_rate=rate, weight_decay=decay, verbose=False)
    optimizer, weights = keras.optimizers.Adam(rate, weight_decay=decay), plain.trainable_variables
    optimizer.exclude_from_weight_decay([w for w in weights if len(w.shape) < 2])  # we shrink matrices only
    start = [w.numpy() for w in weights]
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(plain.log_prob(x))
        optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)
    for w, expected, first in zip(flow.trainable_variables, weights, start, strict=True):
        assert np.abs(expected.numpy() - first).max() > 0.02
        np.testing.assert_allclose(w.numpy(), expected.numpy(), atol=1e-4)
    for received, expected in zip(flow.optimizer.variables, optimizer.variables, strict=True):
        np.testing.assert_allclose(received.numpy(), expected.numpy(), rtol=1e-2, atol=1e-5)


def test_images_start_from_their_scales_and_train_with_fresh_noise():
    pixels, seeds = np.random.default_rng(0).integers(0, 9, (6000, 4)), []

    def augment(batch, seed):
        seeds.append(seed)
        return nh.dequantize(batch, seed, levels=9)

    flow, start = scaling_flow(4), scaling_flow(4)
    history = ni.train_on_images(flow, pixels, epochs=2, batch_size=1000, peak=0.0, augment=augment, **QUIET)
    start.adapt(nh.dequantize(pixels[:5000], (3, 0), levels=9))  # a rate of 0 leaves what `adapt` made
    assert tuple(np.asarray(seeds[0])) == (3, 0) and len(seeds) == 3  # then a look at the data, and the graph's
    for received, expected in zip(flow.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_array_equal(received, expected)
    assert len(history) == 2 and flow.optimizer.iterations == 12
    ni.train_on_images(flow, pixels, epochs=2, peak=0.1, augment=augment, **QUIET)
    assert np.abs(flow.get_weights()[0] - start.get_weights()[0]).max() > 0.01


def test_log_probabilities_of_pixels_are_those_of_batches_of_500():
    pixels, flow = np.random.default_rng(0).integers(0, 256, (1203, 4)), randomize(nh.RealNVP(4, 8, 2, seed=0))
    received = ni.pixel_log_prob(flow, pixels, 7)
    for start in (0, 500, 1000):
        part = slice(start, start + 500)
        noisy = (pixels[part] + tf.random.stateless_uniform(pixels[part].shape, (7, start), alg="philox")) / 256
        np.testing.assert_allclose(received[part], flow.log_prob(noisy), rtol=1e-5)
    assert received.shape == (1203,)


def cell_centres(batch, seed):
    """Return bytes as numbers in (0, 1), without dequantize's noise: XLA draws another than the plain graph."""
    return (tf.cast(batch, tf.float32) + 0.5) / 256


ALIKE = {
    "NICE": (lambda: nh.NICE(9, 8, 1, seed=1), {"augment": cell_centres}),
    "two columns": (lambda: nh.RealNVP(2, 8, 3, seed=1), {}),
    "bottleneck": (lambda: nh.RealNVP(6, 8, 3, 2, seed=1), {"extra_loss": nh.reconstruction_loss(2, 0.1)}),
    "convolutional": (lambda: ni.ConvRealNVP(8, 4, 4, 1, seed=1), {"augment": cell_centres}),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_xla_and_the_plain_graph_train_alike(kind):
    make, options = ALIKE[kind]
    flows = [make(), make()]
    x, condition = sample_data(200, flows[0].input_size, flows[0].condition_size)
    x = np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8) if "augment" in options else x
    options = FAST | options | {"batch_size": 200}
    xla = nh.train_inn(flows[0], x, condition, jit_compile=True, **options).drop(columns="seconds")
    plain = nh.train_inn(flows[1], x, condition, jit_compile=False, **options).drop(columns="seconds")
    np.testing.assert_allclose(xla, plain, rtol=1e-4, atol=1e-4)
    assert np.diff(xla["nats"]).min() > 1e-3  # progress that is larger than the tolerance


def test_a_weight_without_a_gradient_stays_as_it_is():
    x, _ = sample_data(100, 2)
    flow = scaling_flow()
    idle = flow.transforms[0].add_weight(shape=(2,), initializer="ones", name="idle")
    nh.train_inn(flow, x, **FAST)
    np.testing.assert_array_equal(idle.numpy(), 1.0)
    assert np.abs(flow.transforms[0].mean.numpy()).min() > 0


def test_a_trained_flow_is_saved_with_its_optimizer(tmp_path):
    x, _ = sample_data(100, 2)
    flow = nh.RealNVP(2, 8, 2, seed=0)
    nh.train_inn(flow, x, **FAST, learning_rate=nh.warm_up_cosine(1e-3))
    flow.save(tmp_path / "flow.keras")
    loaded = keras.models.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.log_prob(x), flow.log_prob(x))
    for received, expected in zip(loaded.optimizer.variables, flow.optimizer.variables, strict=True):
        np.testing.assert_array_equal(received.numpy(), expected.numpy())


def test_history_has_a_row_for_each_epoch():
    x, _ = sample_data(200, 2)
    history = nh.train_inn(scaling_flow(), x, **FAST, validation=x[:50])
    assert list(history.columns) == ["nats", "validation_nats", "seconds"]
    assert list(history.index) == [1, 2, 3]
    assert history["seconds"].is_monotonic_increasing


def test_validation_nats_are_the_flows_own():
    x, _ = sample_data(200, 2)
    flow = scaling_flow()
    history = nh.train_inn(flow, x, **FAST, validation=x[:50])
    assert history["validation_nats"].iloc[-1] == pytest.approx(float(tf.reduce_mean(flow.log_prob(x[:50]))), abs=1e-5)


def test_same_seed_same_numbers():
    x, _ = sample_data(300, 3)
    runs = [nh.train_inn(nh.NICE(3, 8, 1, seed=1), x, **FAST, seed=seed)["nats"].to_numpy() for seed in (4, 4, 5)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_last_short_batch_is_trained_too():
    # The mean of 0, 0, 0 and 8 is 2: gradient steps that never saw the last sample would leave m near 0.
    x = np.zeros((65, 2), np.float32)
    seen = []

    def record(batch, seed):
        tf.py_function(lambda b: seen.append(b.numpy().ravel()), [batch], [])
        return tf.cast(batch, tf.float32)

    x[:, 0] = np.arange(65)
    nh.train_inn(scaling_flow(), x, epochs=2, batch_size=64, augment=record, jit_compile=False, verbose=False)
    for epoch in np.split(np.concatenate(seen), 2):
        assert set(range(65)) <= set(epoch.astype(int))


def test_batches_larger_than_the_data_are_cut():
    history = nh.train_inn(scaling_flow(), np.ones((1, 2), np.float32), epochs=1, batch_size=512, verbose=False)
    assert np.isfinite(history["nats"].iloc[0])


def test_conditional_training_uses_the_condition():
    label = np.random.default_rng(0).integers(2, size=1000)
    x = (np.where(label, 3.0, -3.0)[:, None] + np.random.default_rng(1).standard_normal((1000, 2))).astype(np.float32)
    condition = np.eye(2, dtype=np.float32)[label]
    flow = nh.RealNVP(2, 16, 3, condition_size=2, seed=0)
    pair = (x[:200], condition[:200])
    history = nh.train_inn(
        flow, x, condition, epochs=20, batch_size=100, learning_rate=5e-3, validation=pair, verbose=False
    )
    merged = np.log(0.5) + history["validation_nats"].iloc[-1]  # an unconditional model can't beat the mixture
    assert merged + np.log(2) > -3.3
    means = flow.sample(300, np.eye(2), seed=0).numpy().mean(1)
    assert means[0].max() < -2 < 2 < means[1].min()


def test_integers_need_an_augment():
    x = np.random.default_rng(0).integers(0, 256, (100, 4)).astype(np.uint8)
    with pytest.raises(ValueError, match="floating dtype, got uint8: discrete values need augment=dequantize"):
        nh.train_inn(scaling_flow(4), x, **FAST)
    history = nh.train_inn(scaling_flow(4), x, **FAST, augment=nh.dequantize, validation=x[:20])
    assert np.isfinite(history.to_numpy()).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_dequantize_spreads_each_pixel_over_its_cell(compiled):
    x = np.tile(np.arange(256, dtype=np.uint8), (500, 1))
    dequantize = tf.function(nh.dequantize, jit_compile=True) if compiled else nh.dequantize
    y = dequantize(x, tf.constant(3)).numpy()
    x = x.astype(np.float64)
    assert ((y * 256 >= x) & (y * 256 <= x + 1)).all()
    np.testing.assert_allclose((y * 256 - x).mean(), 0.5, atol=0.01)
    np.testing.assert_array_equal(y, dequantize(x, tf.constant(3)))
    assert not np.array_equal(y, dequantize(x, tf.constant(4)))
    assert np.mean(nh.quantize(y) == x) > 0.9999  # but for u that float32 rounds up to 1
    np.testing.assert_array_equal(nh.quantize([-0.2, 0.5, 1.3], levels=17), [0, 8, 16])


def test_extra_loss_is_added():
    def push(flow, x, z, condition):
        return 1000.0 * tf.reduce_mean((flow.transforms[0].mean - 5.0) ** 2)

    x, _ = sample_data(500, 2)
    flow = scaling_flow()
    history = nh.train_inn(flow, x, epochs=40, batch_size=50, learning_rate=0.05, extra_loss=push, verbose=False)
    np.testing.assert_allclose(flow.transforms[0].mean, 5, atol=0.2)
    assert history["extra_loss"].iloc[-1] < history["extra_loss"].iloc[0]


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((0, 2)), {}, "at least one sample, got 0"),
        (np.array([[np.nan, 1.0]]), {}, "finite"),
        (np.zeros((5, 3)), {}, r"shape \(N, 2\), got \(5, 3\)"),
        (np.zeros((5, 2)), {"epochs": 0}, "epochs must be an integer ≥ 1, got 0"),
        (np.zeros((5, 2)), {"batch_size": 2.5}, "batch_size must be an integer ≥ 1, got 2.5"),
        (np.zeros((5, 2)), {"condition": np.zeros((5, 1))}, "condition_size is 0"),
        (np.zeros((5, 2)), {"validation": np.zeros((5, 3))}, r"validation must have shape \(N, 2\), got \(5, 3\)"),
        (np.zeros((5, 2)), {"validation": [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]}, r"shape \(N, 2\), got \(2, 3\)"),
        (np.full((5, 2), 0.25), {"augment": nh.dequantize}, "x must be whole numbers 0…255"),
        (np.zeros((5, 2), np.uint8), {}, "discrete values need augment=dequantize"),
        (np.zeros((5, 2)), {"augment": lambda x, seed: x * np.nan}, r"augment\(x\) must be finite"),
        (np.zeros((5, 2)), {"augment": lambda x, seed: x[:, :1]}, r"augment\(x\) must have shape"),
        (np.zeros((5, 2)), {"validation": (np.zeros((5, 2)),)}, "expected 2, got 1"),
    ],
)
def test_bad_data_are_refused_before_the_first_step(x, options, message):
    flow = scaling_flow()
    before = flow.get_weights()
    with pytest.raises(ValueError, match=message):
        nh.train_inn(flow, x, **FAST | options)
    np.testing.assert_array_equal(flow.get_weights(), before)


def test_nan_stops_training_and_restores_the_best_weights():
    def explode(flow, x, z, condition):  # NaN from the third epoch on
        late = tf.cast(flow.optimizer.iterations >= 8, tf.float32)
        return tf.math.log(1.0 - 2.0 * late)

    x, _ = sample_data(200, 2)
    good = scaling_flow()
    history = nh.train_inn(good, x, epochs=2, batch_size=50, verbose=False)
    bad = scaling_flow()
    with pytest.raises(FloatingPointError, match="in epoch 3; the weights of epoch 2 are restored. Try a smaller"):
        nh.train_inn(bad, x, epochs=9, batch_size=50, extra_loss=explode, verbose=False)
    assert len(history) == 2
    np.testing.assert_allclose(bad.get_weights(), good.get_weights())


def test_after_nan_a_trained_flow_gets_back_what_it_came_with():
    x, _ = sample_data(200, 2)
    flow = scaling_flow()
    flow.adapt(x)
    start = flow.get_weights()

    def explode(flow, x, z, condition):
        return tf.math.log(1.0 - tf.cast(flow.optimizer.iterations >= 8, tf.float32))

    with pytest.raises(FloatingPointError, match="the weights of epoch 0 are restored"):
        nh.train_inn(flow, x, epochs=4, batch_size=50, learning_rate=9.0, validation=x, extra_loss=explode, **QUIET)
    np.testing.assert_array_equal(flow.get_weights(), start)


def test_weights_with_nan_are_never_the_best():
    def harm(flow, x, z, condition):  # its value is finite, its gradient is not
        return tf.norm(z - z)

    x, _ = sample_data(100, 2)
    flow = scaling_flow()
    with pytest.raises(FloatingPointError, match="in epoch 2; the weights of epoch 0 are restored"):
        nh.train_inn(flow, x, epochs=3, batch_size=100, extra_loss=harm, **QUIET)
    assert np.isfinite(flow.log_prob(x)).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_augment_may_return_another_dtype(jit_compile):
    x, options = sample_data(100, 2)[0].astype(np.float64), {"epochs": 1, "batch_size": 50, "jit_compile": jit_compile}
    flows = [scaling_flow() for _ in range(2)]
    nh.train_inn(flows[0], x, augment=lambda batch, seed: batch, **options, **QUIET)
    nh.train_inn(flows[1], x, **options, **QUIET)
    np.testing.assert_array_equal(flows[0].get_weights(), flows[1].get_weights())


def test_early_stopping_restores_the_best_epoch():
    x, _ = sample_data(100, 2)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    flow = scaling_flow()
    flow.adapt(x)
    history = nh.train_inn(
        flow, x, epochs=50, batch_size=10, learning_rate=1.0, validation=x, callbacks=[stop], verbose=False
    )
    assert len(history) < 50
    best = history["validation_nats"].max()
    assert float(tf.reduce_mean(flow.log_prob(x))) == pytest.approx(best, abs=1e-4)


def test_a_callback_can_change_the_learning_rate():
    x, _ = sample_data(100, 2)
    rates = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(flow.optimizer.learning_rate))
    )
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    flow = scaling_flow()
    nh.train_inn(flow, x, **FAST, callbacks=[schedule, keep])
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.1 / 3], rtol=1e-6)


def test_keras_contract_of_callbacks_holds():
    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            calls.append(("begin", self.params["epochs"], self.params["steps"], self.model is flow))

        def on_train_batch_end(self, batch, logs=None):
            calls.append(("batch", batch, sorted(logs)))

        def on_epoch_end(self, epoch, logs=None):
            calls.append(("epoch", epoch, sorted(logs)))

    x, _ = sample_data(200, 2)
    flow, calls = scaling_flow(), []
    push = lambda flow, x, z, condition: tf.constant(0.25)  # noqa: E731
    note = Note()
    history = nh.train_inn(
        flow, x, epochs=2, batch_size=64, validation=(x[:9], None), extra_loss=push, callbacks=[note], verbose=False
    )
    epoch = [("batch", 0, ["extra_loss", "loss", "nats"]), ("epoch", 0, ["extra_loss", "loss", "nats", "val_loss"])]
    assert calls[:3] == [("begin", 2, 1, True), *epoch] and len(calls) == 5
    assert flow.history.history["val_loss"] == pytest.approx(-history["validation_nats"])
    assert flow.history.history["loss"] == pytest.approx(0.25 - history["nats"], abs=1e-6)
    assert flow.optimizer.iterations == 8


def test_backup_and_restore_continues_where_it_stopped(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    x, _ = sample_data(200, 2)
    options = {"epochs": 5, "batch_size": 64, "verbose": False}
    whole = nh.NICE(2, 8, 1, seed=1)
    nh.train_inn(whole, x, **options)
    backup = lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup")  # noqa: E731
    with pytest.warns(UserWarning, match="stopped by hand; the history has 2 of 5 epochs"):
        stopped = nh.train_inn(nh.NICE(2, 8, 1, seed=1), x, **options, callbacks=[backup(), Interrupt()])
    assert list(stopped.index) == [1, 2] and list(stopped.columns) == ["nats", "seconds"]
    resumed = nh.NICE(2, 8, 1, seed=1)
    history = nh.train_inn(resumed, x, **options, callbacks=[backup()])
    assert list(history.index) == [3, 4, 5]
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_training_that_breaks_restores_the_backup_and_leaves_no_trace(tmp_path):
    x, _ = sample_data(200, 2)
    options = {"batch_size": 64, "verbose": False}
    trained, flow = scaling_flow(), scaling_flow()
    nh.train_inn(trained, x, epochs=2, **options)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    nh.train_inn(scaling_flow(), x, epochs=2, **options, callbacks=[backup])
    options |= {"epochs": 5, "batch_size": 64}
    with pytest.raises(FloatingPointError, match="loss became nan in epoch 3; the weights of epoch 2 are restored"):
        nh.train_inn(flow, x, **options, callbacks=[backup], extra_loss=lambda *_: tf.constant(np.nan))
    np.testing.assert_array_equal(flow.get_weights(), trained.get_weights())
    assert list(nh.train_inn(flow, x, **options).index) == [1, 2, 3, 4, 5]


def test_progress_is_one_line_updated_in_place(monkeypatch):
    from IPython import display as ipython_display

    lines = []
    monkeypatch.setattr("IPython.get_ipython", lambda: type("Shell", (), {"kernel": object()}))

    class Handle:
        def update(self, data, raw):
            lines.append(("update", data["text/plain"]))

    def display(data, raw, display_id):
        lines.append(("display", data["text/plain"]))
        return Handle()

    monkeypatch.setattr(ipython_display, "display", display)
    nh.train_inn(scaling_flow(), sample_data(100, 2)[0], epochs=4, batch_size=50)
    assert [kind for kind, _ in lines].count("display") == 1
    assert lines[-1][1].startswith("epoch 4/4 · train")


def test_reconstruct_keeps_the_first_code_dimensions_and_zeroes_the_rest():
    flow = randomize(nh.RealNVP(5, 8, 2, condition_size=2), scale=0.3)
    x, condition = sample_data(7, 5, 2)
    code = flow.forward(x, condition)[0].numpy()
    for k in (1, 3, 5):
        again = flow.forward(nh.reconstruct(flow, x, k, condition), condition)[0].numpy()
        np.testing.assert_allclose(again[:, :k], code[:, :k], atol=1e-4)
        np.testing.assert_allclose(again[:, k:], 0, atol=1e-4)
    np.testing.assert_allclose(nh.reconstruct(flow, x, 5, condition), x, atol=1e-4)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k must lie in 1…5, got {k}"):
            nh.reconstruct(flow, x, k, condition)


def test_the_reconstruction_loss_is_that_of_the_reconstruction():
    flow = randomize(nh.RealNVP(4, 8, 2), scale=0.3)
    x, _ = sample_data(9, 4)
    loss = nh.reconstruction_loss(2, 10.0)(flow, x, flow.forward(x)[0], None)
    assert float(loss) == pytest.approx(10 * np.mean(np.sum((nh.reconstruct(flow, x, 2) - x) ** 2, axis=1)), rel=1e-5)


def test_the_bottleneck_lowers_the_error_of_the_reconstruction():
    plane = np.random.default_rng(0).standard_normal((500, 2)) @ np.random.default_rng(1).standard_normal((2, 6))
    x = (plane + 0.1 * np.random.default_rng(2).standard_normal((500, 6))).astype(np.float32)
    errors = {}
    for weight in (0.0, 100.0):
        flow = nh.RealNVP(6, 16, 4, seed=0)
        options = {"epochs": 30, "batch_size": 100, "learning_rate": 3e-3, "verbose": False}
        nh.train_inn(flow, x, **options, extra_loss=nh.reconstruction_loss(2, weight))
        errors[weight] = np.mean((nh.reconstruct(flow, x, 2) - x) ** 2)
    assert errors[100.0] < 0.5 * errors[0.0]


def test_warm_up_cosine_starts_at_zero_peaks_after_a_twentieth_and_ends_at_zero():
    rate = nh.warm_up_cosine(3e-3)(1000)
    assert float(rate(0)) == 0
    assert float(rate(25)) == pytest.approx(1.5e-3)
    assert float(rate(50)) == pytest.approx(3e-3)
    assert float(rate(525)) == pytest.approx(1.5e-3)
    assert float(rate(1000)) == pytest.approx(0, abs=1e-9)
    flow = nh.NICE(2, 4, 1)
    nh.train_inn(flow, np.zeros((25, 2)), epochs=3, batch_size=10, learning_rate=nh.warm_up_cosine(3e-3), verbose=False)
    # After 3 × 3 steps, the topped-up last batches among them, the rate has arrived.
    assert float(flow.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


def test_a_callback_finds_what_keras_promises(small_flow):
    """As tqdm's bar does: it reads `params` and counts epochs and batches."""
    seen = []

    class Bar(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(("epochs", self.params["epochs"], "steps", self.params["steps"]))

        def on_train_batch_end(self, batch, logs=None):
            seen.append(("batch", batch, sorted(logs)))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("epoch", epoch))

    x = np.random.default_rng(0).standard_normal((20, 2))
    nh.train_inn(small_flow, x, epochs=2, batch_size=10, callbacks=[Bar()], verbose=False)
    assert seen[0][:2] == ("epochs", 2)
    assert [entry[:2] for entry in seen[1:]] == [("batch", 0), ("epoch", 0), ("batch", 0), ("epoch", 1)]


def test_it_imports_without_a_standard_error():
    command = f"cd '{ROOT}' && '{sys.executable}' -c 'import nice_helpers; print(1)' 2>&-"
    assert subprocess.run(command, shell=True, capture_output=True, text=True).stdout == "1\n"
