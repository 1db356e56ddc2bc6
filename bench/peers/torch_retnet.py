#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The same RetNet in PyTorch: what its user reaches on this machine, same sizes, same threads.

Rows are those of bench_ops, bench_forms and bench_model with "torch/" before the name, in the JSON
of Google Benchmark, so that bench_report reads them all alike. Three things show that both sides
compute the same function from the same numbers: inputs by one formula (bench/problems.hpp), the
checksum of the error/ rows, and the fingerprint of the model's logits.

Written as PyTorch likes it: all chunks of a text in one batched product, only the states between
chunks in a loop; in-place state updates in generation; scaled_dot_product_attention where there
is one.
"""
import argparse
import json
import math
import os
import statistics
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F


# ---- inputs ----

def formula(stream, n):
    """Element i: the upper 24 bits of the splitmix64 mix of stream 2^32 + i, in [-1, 1)."""
    with np.errstate(over="ignore"):
        z = (np.uint64(stream) << np.uint64(32)) + np.arange(n, dtype=np.uint64)
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def tensor(stream, *shape, scale=1.0):
    return torch.from_numpy(formula(stream, math.prod(shape)) * np.float32(scale)).reshape(shape)


def heads_first(x, heads):
    """[B,T,H*D] -> [B,H,T,D]"""
    b, t, _ = x.shape
    return x.view(b, t, heads, -1).transpose(1, 2)


def problem(batch, tokens, heads, key_dim, value_dim):
    q = tensor(0, batch, tokens, heads * key_dim)
    k = tensor(1, batch, tokens, heads * key_dim, scale=0.125)
    v = tensor(2, batch, tokens, heads * value_dim)
    return [heads_first(x, heads) for x in (q, k, v)]


# ---- the operator: q, k [B,H,T,Dk], v [B,H,T,Dv] ----

def log_gammas(heads):
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, dtype=torch.float64)))


class Decays:
    """Everything about the decay that depends on the chunk's length alone."""

    @torch.inference_mode(False)  # training uses the same tables
    def __init__(self, heads, length, dtype):
        g = log_gammas(heads)
        i = torch.arange(length, dtype=torch.float64)
        distance = i[:, None] - i[None, :]
        inner = torch.exp(distance.clamp(min=0)[None] * g[:, None, None]) * (distance >= 0)
        self.inner = inner.to(dtype)  # [H,C,C]
        self.from_start = torch.exp((i + 1)[None] * g[:, None]).to(dtype)[..., None]  # [H,C,1]
        self.to_end = torch.exp((length - 1 - i)[None] * g[:, None]).to(dtype)[..., None]
        self.whole = torch.exp(length * g).to(dtype)[:, None, None]  # [H,1,1]


def parallel(q, k, v, decays):
    return (q @ k.transpose(-1, -2) * decays.inner) @ v


def chunkwise(q, k, v, decays, state=None):
    """Returns o and the state after the text. T is a multiple of the chunk."""
    chunk = decays.inner.shape[-1]
    b, h, t, dk = q.shape
    n = t // chunk
    q, k, v = (x.reshape(b, h, n, chunk, -1) for x in (q, k, v))
    added = (k * decays.to_end[:, None]).transpose(-1, -2) @ v  # [B,H,N,Dk,Dv]
    states = []
    now = state if state is not None else added.new_zeros(added[:, :, 0].shape)
    for i in range(n):
        states.append(now)
        now = now * decays.whole + added[:, :, i]
    o = (q @ k.transpose(-1, -2) * decays.inner[:, None]) @ v
    o = o + (q * decays.from_start[:, None]) @ torch.stack(states, dim=2)
    return o.reshape(b, h, t, -1), now


def recurrent_step(q, k, v, gamma, state):
    """One token, [B,H,1,D]; the state changes in place."""
    state.mul_(gamma).add_(k.transpose(-1, -2) * v)
    return q @ state


def recurrent(q, k, v, gamma, state):
    o = torch.empty(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for i in range(q.shape[2]):
        o[:, :, i:i + 1] = recurrent_step(q[:, :, i:i + 1], k[:, :, i:i + 1], v[:, :, i:i + 1],
                                          gamma, state)
    return o


# ---- the model: preset torchscale_v2 of retnet/model/presets.hpp ----

def linear(x, w):
    return F.linear(x, w) if x.dtype == w.dtype else F.linear(x.to(w.dtype), w).to(x.dtype)


def rms_norm(x, weight=None, eps=1e-6):
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


class Positions:
    """What depends on the positions of the tokens, once for all layers."""

    def __init__(self, first, tokens, heads, key_dim):
        pairs = key_dim // 2
        theta = 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / (pairs - 1))
        n = torch.arange(first, first + tokens, dtype=torch.float64)
        g = log_gammas(heads)[:, None]
        scale = (torch.expm1(g) / torch.expm1((n + 1) * g)).sqrt()[..., None]  # of queries
        angle = n[:, None] * theta
        cos, sin = angle.cos(), angle.sin()
        self.query = (cos * scale).float(), (sin * scale).float()
        self.key = (cos * key_dim**-0.5).float(), (sin * key_dim**-0.5).float()


def rotate(x, table):
    cos, sin = table
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


class Retention(torch.nn.Module):
    def __init__(self, add, o):
        super().__init__()
        d = o.d_model
        self.heads, self.chunk = o.heads, o.chunk
        self.q, self.k = add(d, d), add(d, d)
        self.v, self.g = add(o.d_value, d), add(o.d_value, d)
        self.out = add(d, o.d_value)
        self.gamma = log_gammas(o.heads).exp().float()[:, None, None]
        self.decays = {}

    def read(self, q, k, v, state):
        """Whole chunks, then what is left."""
        done, outputs, t = 0, [], q.shape[2]
        for n in (t // self.chunk * self.chunk, t % self.chunk):
            if n == 0:
                continue
            length = min(n, self.chunk)
            if length not in self.decays:
                self.decays[length] = Decays(self.heads, length, torch.float32)
            part = [x[:, :, done:done + n] for x in (q, k, v)]
            o, state = chunkwise(*part, self.decays[length], state)
            outputs.append(o)
            done += n
        return torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0], state

    def forward(self, x, positions, state):
        b, t, _ = x.shape
        q, k, v = (heads_first(linear(x, w), self.heads) for w in (self.q, self.k, self.v))
        q, k = rotate(q, positions.query), rotate(k, positions.key)
        if t == 1 and state is not None:
            o = recurrent_step(q, k, v, self.gamma, state)
        else:
            o, state = self.read(q, k, v, state)
        o = rms_norm(o).transpose(1, 2).reshape(b, t, -1)
        return linear(F.silu(linear(x, self.g)) * o, self.out), state


class Block(torch.nn.Module):
    def __init__(self, add, o):
        super().__init__()
        self.retention = Retention(add, o)
        self.retention_norm = add(1, o.d_model)
        self.fc1, self.gate, self.fc2 = (add(o.ffn, o.d_model), add(o.ffn, o.d_model),
                                         add(o.d_model, o.ffn))
        self.ffn_norm = add(1, o.d_model)

    def forward(self, x, positions, state):
        y, state = self.retention(rms_norm(x, self.retention_norm[0]), positions, state)
        h = x + y
        z = rms_norm(h, self.ffn_norm[0])
        return h + linear(F.silu(linear(z, self.fc1)) * linear(z, self.gate), self.fc2), state


class RetNet(torch.nn.Module):
    """Weights by the formula, parameter after parameter a stream from 16 on; norms are ones."""

    def __init__(self, o):
        super().__init__()
        stream = iter(range(16, 1 << 20))

        def add(rows, cols):
            s = next(stream)
            if rows == 1:
                return torch.nn.Parameter(torch.ones(1, cols))
            return torch.nn.Parameter(tensor(s, rows, cols, scale=np.sqrt(np.float32(3) / cols)))

        self.embedding = add(o.vocab, o.d_model)
        self.blocks = torch.nn.ModuleList(Block(add, o) for _ in range(o.layers))
        self.final_norm = add(1, o.d_model)
        self.output = add(o.vocab, o.d_model)
        self.heads, self.key_dim = o.heads, o.d_model // o.heads

    def hidden(self, tokens, position=0, states=None):
        x = self.embedding[tokens].float()
        positions = Positions(position, tokens.shape[1], self.heads, self.key_dim)
        after = []
        for i, block in enumerate(self.blocks):
            x, state = block(x, positions, states[i] if states else None)
            after.append(state)
        return rms_norm(x, self.final_norm[0]), after

    def prefill(self, tokens, per_call=512):
        states = None
        for i in range(0, tokens.shape[1], per_call):
            h, states = self.hidden(tokens[:, i:i + per_call], i, states)
        return linear(h[:, -1:], self.output), states

    def loss(self, tokens, targets):
        h, _ = self.hidden(tokens)
        return F.cross_entropy(linear(h, self.output).flatten(0, 1), targets.flatten())


# ---- measuring ----

def waited_ns():
    total = 0
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/schedstat") as f:
                total += int(f.read().split()[1])
    except OSError:
        pass
    return total


class Bench:
    def __init__(self, repetitions, min_time):
        self.repetitions, self.min_time = repetitions, min_time
        self.rows = []

    def add(self, name, repetition, seconds, counters):
        self.rows.append({"name": name, "run_name": name, "run_type": "iteration",
                          "repetition_index": repetition, "real_time": seconds * 1e6,
                          "time_unit": "us", **counters})

    def time(self, name, tokens, body, flops=0.0):
        body()
        for r in range(self.repetitions):
            waited, count, start = waited_ns(), 0, time.perf_counter()
            while count == 0 or time.perf_counter() - start < self.min_time:
                body()
                count += 1
            total = time.perf_counter() - start
            seconds = total / count
            counters = {"tokens/s": tokens / seconds, "ns/token": seconds * 1e9 / tokens,
                        "waited": (waited_ns() - waited) / (total * 1e9)}
            if flops:
                counters["FLOP/s"] = flops / seconds
            self.add(name, r, seconds, counters)
        rates = [row["tokens/s"] for row in self.rows[-self.repetitions:]]
        print(f"{name:60s} {statistics.median(rates):12.1f} tokens/s", file=sys.stderr)


def operators(bench, o, threads):
    end = f"/threads:{threads}"
    h, dk, dv = o.op_heads, o.op_key_dim, o.op_value_dim
    decays, gamma = Decays(h, o.chunk, torch.float32), log_gammas(h).exp().float()[:, None, None]
    for t in o.op_tokens:
        q, k, v = problem(1, t, h, dk, dv)
        bench.time(f"torch/op/chunkwise/T:{t}{end}", t, lambda: chunkwise(q, k, v, decays))
        if t <= 4096:
            whole = Decays(h, t, torch.float32)
            bench.time(f"torch/op/parallel/T:{t}{end}", t, lambda: parallel(q, k, v, whole))
        state = torch.zeros(1, h, dk, dv)
        if t <= 1024:
            bench.time(f"torch/op/recurrent/T:{t}{end}", t,
                       lambda: recurrent(q, k, v, gamma, state))
        narrow = v[..., :dk].contiguous()
        if hasattr(F, "scaled_dot_product_attention"):
            bench.time(f"torch/op/attention/T:{t}{end}", t,
                       lambda: F.scaled_dot_product_attention(q, k, narrow, is_causal=True),
                       h * t * (t + 1) * 2 * dk)


def linears(bench, o, threads):
    for d in o.linear_widths:
        for dtype, name in ((torch.float32, "float"), (torch.bfloat16, "bfloat16")):
            count = (1 << 30) // (d * d * torch.empty(0, dtype=dtype).element_size())
            many = [torch.randn(d, d).to(dtype) for _ in range(count)]
            for m in (1, 2, 4, 8, 16, 64, 512):
                x = torch.randn(m, d).to(dtype)
                turn = [0]

                def cold():
                    turn[0] = (turn[0] + 1) % count
                    return F.linear(x, many[turn[0]])

                where = f"torch/linear/{name}/M:{m}/d:{d}"
                flops = 2 * m * d * d
                bench.time(f"{where}/warm/threads:{threads}", m,
                           lambda: F.linear(x, many[0]), flops)
                if m <= 16:
                    bench.time(f"{where}/cold/threads:{threads}", m, cold, flops)


def tokens_of(n, vocab):
    return torch.randint(vocab, (1, n), generator=torch.Generator().manual_seed(1))


def decode_time(bench, name, model, o):
    _, states = model.prefill(tokens_of(64, o.vocab))
    position, token = [64], torch.zeros(1, 1, dtype=torch.long)

    def step():
        h, _ = model.hidden(token, position[0], states)
        token[0, 0] = linear(h, model.output)[0, 0].argmax()
        position[0] += 1

    bench.time(name, 1, step)


def models(bench, o, threads):
    end = f"/threads:{threads}"
    model = RetNet(o)
    with torch.inference_mode():
        for t in o.tokens:
            words = tokens_of(t, o.vocab)
            bench.time(f"torch/prefill/retention/T:{t}{end}", t, lambda: model.prefill(words))
        decode_time(bench, f"torch/decode/retention/float{end}", model, o)
        half = RetNet(o)
        for p in half.parameters():
            if p.shape[0] > 1:
                p.data = p.data.to(torch.bfloat16)
        decode_time(bench, f"torch/decode/retention/bfloat16{end}", half, o)
    n = o.batch * o.train_tokens
    words = tokens_of(n + 1, o.vocab)
    inputs, targets = (x.reshape(o.batch, -1) for x in (words[:, :-1], words[:, 1:]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def gradient():
        optimizer.zero_grad(set_to_none=True)
        model.loss(inputs, targets).backward()

    def training():
        gradient()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    where = f"/retention/B:{o.batch}/T:{o.train_tokens}{end}"
    bench.time("torch/gradient" + where, n, gradient)
    bench.time("torch/training" + where, n, training)


def add_error(bench, name, got, good, tokens):
    """good [B,H,T,D]; the checksum sums it as C++ stores it, [B,T,H*D]."""
    d = (got.double() - good).abs()
    rows = good.transpose(1, 2).reshape(-1)
    bench.add(f"torch/error/{name}/64x128/T:{tokens}/threads:1", 0, 0.0, {
        "rms_error": float(d.square().sum().sqrt() / good.square().sum().sqrt()),
        "max_error": float(d.max() / good.abs().max()),
        "checksum": float(rows @ torch.from_numpy(formula(6, rows.numel())).double())})


def accuracy(bench, tokens, chunk):
    """The errors of bench_ops error/: float32 against float64, same inputs."""
    h, dk, dv = 8, 64, 128
    q, k, v = problem(1, tokens, h, dk, dv)
    g = log_gammas(h).exp()[:, None, None]
    good = recurrent(q.double(), k.double(), v.double(), g, torch.zeros(1, h, dk, dv).double())
    forms = {
        "parallel": lambda: parallel(q, k, v, Decays(h, tokens, torch.float32)),
        "chunkwise": lambda: chunkwise(q, k, v, Decays(h, chunk, torch.float32))[0],
        "recurrent": lambda: recurrent(q, k, v, g.float(), torch.zeros(1, h, dk, dv)),
    }
    for form, run in forms.items():
        add_error(bench, form, run(), good, tokens)


def gradient_accuracy(bench, tokens, chunk):
    h, dk, dv = 8, 64, 128
    upstream = heads_first(tensor(3, 1, tokens, h * dv), h)

    def gradients(form, length, dtype):
        qkv = [x.to(dtype).requires_grad_() for x in problem(1, tokens, h, dk, dv)]
        form(*qkv, Decays(h, length, dtype)).backward(upstream.to(dtype))
        return [x.grad for x in qkv]

    def in_chunks(*operands):
        return chunkwise(*operands)[0]

    good = gradients(in_chunks, chunk, torch.float64)
    for name, form, length in ("parallel", parallel, tokens), ("chunkwise", in_chunks, chunk):
        for d, got, exact in zip("qkv", gradients(form, length, torch.float32), good):
            add_error(bench, f"{name}_d{d}", got, exact, tokens)


def fingerprint(bench, o):
    words = (7 * torch.arange(64) % o.vocab)[None]
    logits = RetNet(o).prefill(words)[0].flatten()
    value = float(logits.double() @ torch.from_numpy(formula(6, o.vocab)).double())
    bench.add("torch/fingerprint", 0, 0.0, {"fingerprint": value})


def numbers(text):
    return [int(x) for x in text.split(",")]


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="smaller sizes, as in the C++ programs")
    p.add_argument("--out", help="JSON file; default: standard output")
    p.add_argument("--parts", type=lambda text: text.split(","),
                   default=["operators", "linears", "models"])
    p.add_argument("--threads", type=numbers, default=[1, 2])
    p.add_argument("--repetitions", type=int, default=1)
    p.add_argument("--min-time", type=float, default=0.5)
    p.add_argument("--chunk", type=int, default=128, help="of the PyTorch forms")
    p.add_argument("--d-model", type=int)
    p.add_argument("--layers", type=int)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--d-value", type=int)
    p.add_argument("--ffn", type=int)
    p.add_argument("--vocab", type=int, default=1000)
    p.add_argument("--tokens", type=numbers)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--train-tokens", type=int)
    o = p.parse_args()
    quick = o.quick
    o.d_model = o.d_model or (128 if quick else 512)
    o.layers = o.layers or (2 if quick else 6)
    o.d_value = o.d_value or 2 * o.d_model
    o.ffn = o.ffn or 2 * o.d_model
    o.tokens = o.tokens or ([512] if quick else [512, 2048, 8192])
    o.train_tokens = o.train_tokens or (128 if quick else 512)
    o.op_heads, o.op_key_dim, o.op_value_dim = 8, 64, 128
    o.op_tokens = [256, 1024] if quick else [256, 1024, 4096, 16384]
    o.linear_widths = [512] if quick else [512, 1024, 2048]
    return o


def main():
    o = options()
    bench = Bench(o.repetitions, o.min_time)
    torch.manual_seed(1)
    for tokens in [512] if o.quick else [512, 4096]:
        with torch.inference_mode():
            accuracy(bench, tokens, o.chunk)
        gradient_accuracy(bench, tokens, o.chunk)
    with torch.inference_mode():
        fingerprint(bench, o)
    for threads in o.threads:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            if "operators" in o.parts:
                operators(bench, o, threads)
            if "linears" in o.parts:
                linears(bench, o, threads)
        if "models" in o.parts:
            models(bench, o, threads)
    result = {"context": {"executable": "torch_retnet.py", "torch": torch.__version__,
                          "python": sys.version.split()[0]}, "benchmarks": bench.rows}
    text = json.dumps(result, indent=1)
    if o.out:
        with open(o.out, "w") as f:
            f.write(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
