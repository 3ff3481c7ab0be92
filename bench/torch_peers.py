"""PyTorch's side: FrEIA, normflows, nflows and zuko as their documentation has them, and plain PyTorch; all eager.

The library "torch.compile" is normflows with its log_prob and sample compiled.
"""

import time

import common
import numpy as np
import torch
from torch import nn

S = common.SETTINGS


def network(inputs, outputs):
    """Build a fully connected ReLU network with two hidden layers."""
    h = S["hidden"]
    return nn.Sequential(nn.Linear(inputs, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, outputs))


class FrEIA(nn.Module):
    """AllInOneBlock: one affine coupling and a fixed rotation."""

    def __init__(self, dimensions, blocks, condition):
        super().__init__()
        import FrEIA.framework as framework
        import FrEIA.modules as modules

        options = {"cond": 0, "cond_shape": (condition,)} if condition else {}
        self.inn, self.dimensions = framework.SequenceINN(dimensions), dimensions
        for _ in range(blocks):
            options |= {"subnet_constructor": network, "permute_soft": dimensions < 64}
            self.inn.append(modules.AllInOneBlock, **options)

    def log_prob(self, x, c=None):
        """Return log p(x | c) in nats."""
        z, log_det = self.inn(x, c=[c] if c is not None else None)
        return log_det - 0.5 * (z**2).sum(1) - 0.5 * self.dimensions * np.log(2 * np.pi)

    def sample(self, n):
        """Draw n points."""
        return self.inn(torch.randn(n, self.dimensions), rev=True)[0]


class Normflows(nn.Module):
    """AffineCouplingBlock and a swap."""

    def __init__(self, dimensions, blocks, condition):
        super().__init__()
        import normflows as nf

        first, flows = (dimensions + 1) // 2, []
        for _ in range(blocks):
            sizes = [first, S["hidden"], S["hidden"], 2 * (dimensions - first)]
            flows += [nf.flows.AffineCouplingBlock(nf.nets.MLP(sizes, init_zeros=True))]
            flows += [nf.flows.Permute(dimensions, mode="swap")]
        self.model = nf.NormalizingFlow(nf.distributions.base.DiagGaussian(dimensions), flows)

    def log_prob(self, x, c=None):
        """Return log p(x | c) in nats."""
        return self.model.log_prob(x)

    def sample(self, n):
        """Draw n points."""
        return self.model.sample(n)[0]


class NFlows(nn.Module):
    """AffineCouplingTransform and a reversal."""

    def __init__(self, dimensions, blocks, condition):
        super().__init__()
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms import AffineCouplingTransform, CompositeTransform, ReversePermutation

        class Net(nn.Module):
            def __init__(self, inputs, outputs):
                super().__init__()
                self.net = network(inputs, outputs)

            def forward(self, x, context=None):
                return self.net(x)

        mask = torch.arange(dimensions) % 2
        transforms = []
        for _ in range(blocks):
            transforms += [AffineCouplingTransform(mask, Net), ReversePermutation(dimensions)]
        self.model = Flow(CompositeTransform(transforms), StandardNormal([dimensions]))

    def log_prob(self, x, c=None):
        """Return log p(x | c) in nats."""
        return self.model.log_prob(x)

    def sample(self, n):
        """Draw n points."""
        return self.model.sample(n)


class Zuko(nn.Module):
    """Its own RealNVP."""

    def __init__(self, dimensions, blocks, condition):
        super().__init__()
        import zuko

        self.model = zuko.flows.RealNVP(dimensions, condition, transforms=blocks, hidden_features=[S["hidden"]] * 2)

    def log_prob(self, x, c=None):
        """Return log p(x | c) in nats."""
        return self.model(c).log_prob(x)

    def sample(self, n):
        """Draw n points."""
        return self.model().sample((n,))


class TorchNICE(nn.Module):
    """NICE written out in plain PyTorch: odd-even additive couplings, scaling, logistic prior."""

    def __init__(self, hidden, hidden_layers):
        super().__init__()

        def net():
            sizes = [392, *([hidden] * hidden_layers)]
            layers = [m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.ReLU())]
            return nn.Sequential(*layers, nn.Linear(hidden, 392))

        self.nets = nn.ModuleList(net() for _ in range(4))
        self.log_scale = nn.Parameter(torch.zeros(784))

    def log_prob(self, x):
        """Return log p(x) in nats."""
        a, b = x[:, 0::2], x[:, 1::2]
        for net in self.nets:
            a, b = b + net(a), a
        z = torch.cat([a, b], 1) * torch.exp(self.log_scale)
        prior = -(nn.functional.softplus(z) + nn.functional.softplus(-z)).sum(1)
        return prior + self.log_scale.sum()


def epoch(model, optimizer, x, c, batch, prepare=lambda b: b):
    """Run over the shuffled data once."""
    order = torch.randperm(len(x))
    for i in range(0, len(x), batch):
        chosen = order[i : i + batch]
        loss = -model.log_prob(prepare(x[chosen]), *([] if c is None else [c[chosen]])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def timed_epochs(*args, **options):
    """Return the seconds of each epoch."""
    seconds = []
    for _ in range(S["epochs"]):
        started = time.perf_counter()
        epoch(*args, **options)
        seconds.append(time.perf_counter() - started)
    return seconds


def build():
    """Return the flow that the settings name."""
    kinds = {"FrEIA": FrEIA, "normflows": Normflows, "nflows": NFlows, "zuko": Zuko, "torch.compile": Normflows}
    model = kinds[S["library"]](S["dimensions"], S["blocks"], S["condition"])
    if S["library"] == "torch.compile":
        # Each shape on its own: the last batch of an epoch is smaller, and programs for any size are slower.
        model.log_prob, model.sample = (torch.compile(f, dynamic=False) for f in (model.log_prob, model.sample))
    return model


def realnvp():
    """Train, evaluate and sample; samples per second of each."""
    x, c = (None if v is None else torch.from_numpy(v) for v in common.data())
    model = build()
    seconds = timed_epochs(model, torch.optim.Adam(model.parameters(), 1e-3), x, c, S["batch"])
    numbers = {"first_epoch_seconds": seconds[0], "train": len(x) / float(np.median(seconds[1:]))}
    if S.get("evaluate"):
        many = torch.from_numpy(np.resize(x.numpy(), (100_000, S["dimensions"])))
        with torch.no_grad():
            numbers["log_prob"] = common.per_second(lambda: model.log_prob(many), len(many))
            numbers["sample"] = common.per_second(lambda: model.sample(len(many)), len(many))
    common.report(**numbers)


def to_kl():
    """Train until the KL divergence is at most 0.05 nats; seconds since the process started."""
    x = torch.from_numpy(common.data()[0])
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    reached, count = False, 0
    while not reached and count < 40:
        count += 1
        epoch(model, optimizer, x, None, S["batch"])
        with torch.no_grad():
            reached = common.kl(lambda points: model.log_prob(torch.from_numpy(points)).numpy()) <= 0.05
    common.report(seconds=common.seconds_since_start(), epochs=count)


def nice():
    """Train NICE on random images; samples per second, and the matrix product's GFLOP/s."""
    x = torch.randint(0, 256, (S["points"], 784), dtype=torch.uint8)
    model = TorchNICE(S["hidden"], 5)
    prepare = lambda b: (b.float() + torch.rand(b.shape)) / 256  # noqa: E731
    seconds = timed_epochs(model, torch.optim.Adam(model.parameters(), 1e-3), x, None, S["batch"], prepare=prepare)
    ceiling = common.matmul_ceiling(torch.matmul, torch.randn(2048, 2048))
    common.report(train=len(x) / float(np.median(seconds[1:])), matmul_gflops=ceiling)


def inpaint():
    """Fill in lower halves by Adam through a sigmoid; images per second over 500 steps."""
    model, known = TorchNICE(512, 1).requires_grad_(False), torch.arange(784) < 392
    x = torch.rand(S["images"], 784)
    started = time.perf_counter()
    free = torch.logit(x.mean(0)).repeat(len(x), 1).requires_grad_()
    optimizer = torch.optim.Adam([free], 0.2)
    for _ in range(500):
        optimizer.zero_grad()
        (-model.log_prob(torch.where(known, x, torch.sigmoid(free))).sum()).backward()
        optimizer.step()
    common.report(images=len(x) / (time.perf_counter() - started))


torch.manual_seed(0)
globals()[S["work"]]()
