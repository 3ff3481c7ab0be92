"""JAX's side: RealNVP written by hand, an epoch as one compiled scan."""

import time

import common
import jax
import jax.numpy as jnp
import numpy as np

S = common.SETTINGS
FIRST = (S["dimensions"] + 1) // 2


def initial(rng):
    """Return each block's weights and biases, and the rotations."""
    sizes = [FIRST + S["condition"], S["hidden"], S["hidden"], 2 * (S["dimensions"] - FIRST)]

    def layer(a, b, last):
        return np.float32(0 if last else np.sqrt(2 / a)) * rng.standard_normal((a, b), np.float32), np.zeros(
            b, np.float32
        )

    pairs = list(zip(sizes, sizes[1:], strict=False))
    blocks = [[layer(a, b, i == 2) for i, (a, b) in enumerate(pairs)] for _ in range(S["blocks"])]
    rotations = [np.linalg.qr(rng.standard_normal((S["dimensions"],) * 2))[0] for _ in range(S["blocks"] - 1)]
    return blocks, np.array(rotations, np.float32)


def scale_and_shift(block, kept, c):
    """Run one block's network."""
    h = jnp.concatenate([kept, c], 1)
    for weight, bias in block[:-1]:
        h = jax.nn.relu(h @ weight + bias)
    s, t = jnp.split(h @ block[-1][0] + block[-1][1], 2, axis=1)
    return jnp.tanh(s), t


def log_prob(blocks, rotations, x, c):
    """Return log p(x | c) in nats."""
    log_det = 0.0
    for i, block in enumerate(blocks):
        x = x @ rotations[i - 1] if i else x
        s, t = scale_and_shift(block, x[:, :FIRST], c)
        x = jnp.concatenate([x[:, :FIRST], x[:, FIRST:] * jnp.exp(s) + t], 1)
        log_det += s.sum(1)
    return log_det - 0.5 * (x**2).sum(1) - 0.5 * S["dimensions"] * jnp.log(2 * jnp.pi)


@jax.jit
def log_prob_compiled(blocks, rotations, x, c):
    """Compiled log_prob."""
    return log_prob(blocks, rotations, x, c)


@jax.jit
def decode(blocks, rotations, z):
    """Return the points that codes stand for."""
    c = jnp.zeros((len(z), S["condition"]))
    for i in reversed(range(len(blocks))):
        s, t = scale_and_shift(blocks[i], z[:, :FIRST], c)
        z = jnp.concatenate([z[:, :FIRST], (z[:, FIRST:] - t) * jnp.exp(-s)], 1)
        z = z @ rotations[i - 1].T if i else z
    return z


@jax.jit
def run_epoch(state, rotations, x, c, order):
    """Run Adam over all batches."""

    def step(state, chosen):
        blocks, m, v, count = state
        loss = lambda blocks: -log_prob(blocks, rotations, x[chosen], c[chosen]).mean()  # noqa: E731
        gradient, count = jax.grad(loss)(blocks), count + 1
        m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, gradient)
        v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g**2, v, gradient)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        blocks = jax.tree.map(lambda w, a, b: w - rate * a / (jnp.sqrt(b) + 1e-7), blocks, m, v)
        return (blocks, m, v, count), None

    return jax.lax.scan(step, state, order)[0]


def realnvp():
    """Train, evaluate and sample; samples per second of each."""
    x, c = common.data()
    c = np.zeros((len(x), 0), np.float32) if c is None else c
    rng = np.random.default_rng(0)
    blocks, rotations = initial(rng)
    zeros = jax.tree.map(jnp.zeros_like, blocks)
    state, seconds = (blocks, zeros, zeros, jnp.zeros(())), []
    x, c, rotations = (jax.device_put(a) for a in (x, c, rotations))
    for _ in range(S["epochs"]):
        started = time.perf_counter()
        order = np.resize(rng.permutation(len(x)), (-(-len(x) // S["batch"]), S["batch"]))
        state = jax.block_until_ready(run_epoch(state, rotations, x, c, order))
        seconds.append(time.perf_counter() - started)
    numbers = {"first_epoch_seconds": seconds[0], "train": len(x) / float(np.median(seconds[1:]))}
    if S.get("evaluate"):
        many, empty = np.resize(x, (100_000, S["dimensions"])), np.zeros((100_000, S["condition"]), np.float32)
        call = lambda: np.asarray(log_prob_compiled(state[0], rotations, many, empty))  # noqa: E731
        numbers["log_prob"] = common.per_second(call, len(many))
        codes = lambda: rng.standard_normal(many.shape, np.float32)  # noqa: E731
        numbers["sample"] = common.per_second(lambda: np.asarray(decode(state[0], rotations, codes())), len(many))
    common.report(**numbers)


globals()[S["work"]]()
