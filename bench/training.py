"""Training speed on two moons: `train_inn`'s compiled epochs against keras.Model.fit on the same model.

RealNVP with 8 blocks of width 128, batches of 256, Adam, float32. Both in one run, in turn; medians of the epochs
after the first, which compiles. Writes build/bench_training.json.
"""

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import nice_helpers as nh  # noqa: I001  first, so that TensorFlow starts quietly
import keras
import numpy as np
from sklearn.datasets import make_moons

POINTS, BATCH, EPOCHS, REPEATS = 50_000, 256, 4, 3


class WithTrainStep(keras.Model):
    """The same flow under fit, compiled with XLA and 32 steps for each call: fit's fastest setting."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def train_step(self, batch):
        """One step of Adam on the negative log-likelihood."""
        with nh.tf.GradientTape() as tape:
            loss = -nh.tf.reduce_mean(self.flow.log_prob(batch))
        variables = self.flow.trainable_variables
        self.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return {"loss": loss}


class EpochTimes(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def on_train_begin(self, logs=None):
        """Start an empty list."""
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.started)


def main():
    """Print and write samples per second for both."""
    x = make_moons(POINTS, noise=0.1, random_state=0)[0].astype(np.float32)
    speeds = {"train_inn": [], "keras_fit": []}
    for repeat in range(REPEATS):
        times = EpochTimes()
        flow = nh.RealNVP(2, 128, 8, seed=repeat)
        nh.train_inn(flow, x, epochs=EPOCHS, batch_size=BATCH, callbacks=[times], verbose=False)
        speeds["train_inn"] += [POINTS / s for s in times.seconds[1:]]
        model = WithTrainStep(nh.RealNVP(2, 128, 8, seed=repeat))
        model.compile(keras.optimizers.Adam(1e-3), jit_compile=True, steps_per_execution=32)
        dropped = POINTS - POINTS % (32 * BATCH)  # fit compiles anew for a short last batch
        model.fit(x[:dropped], batch_size=BATCH, epochs=EPOCHS, callbacks=[times], verbose=0)
        speeds["keras_fit"] += [dropped / s for s in times.seconds[1:]]
    record = {f"{name}_samples_per_second": float(np.median(values)) for name, values in speeds.items()}
    record |= {f"{name}_spread": float(np.ptp(values)) for name, values in speeds.items()}
    record["ratio"] = record["train_inn_samples_per_second"] / record["keras_fit_samples_per_second"]
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench_training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
