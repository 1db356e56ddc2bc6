#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a PyTorch user reaches on a GPU with the shapes of bench_cuda: fla's Triton kernels, where
fla is installed, and softmax attention of the same width through PyTorch's cuDNN and flash
kernels, which know neither Dk != Dv nor heads of 256: they get H*Dk/128 heads of 128.

Timed as bench_cuda does: device events around each run, inputs rotated and larger than the L2,
random numbers, medians; launches replayed from CUDA graphs, so that Python costs nothing. fla's
tuning is done before; --processes compiles its candidates in parallel first, which is what it
spends minutes on. Writes lines "who,row,milliseconds" that bench_cuda reads with --peers.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

# fla: its Triton kernels, not what other packages would put in their place.
os.environ.setdefault("FLA_DISABLE_BACKEND_DISPATCH", "1")
os.environ.setdefault("FLA_TILELANG", "0")
os.environ.setdefault("FLA_CACHE_RESULTS", "0")

import torch
import torch.nn.functional as F

SHAPES = [  # B, H, T, Dk, Dv
    (8, 8, 4096, 256, 512),
    (8, 16, 4096, 128, 128),
    (2, 16, 16384, 128, 128),
    (1, 8, 16384, 256, 512),
]
STEP_BATCHES = [1, 16, 64, 256]  # of 8 heads of 256/512
L2_BYTES = 64 << 20


def spread_tuning(share, of):
    """Triton's tuner compiles and times only a share of each kernel's candidates."""
    from triton.runtime import autotuner

    bench = autotuner.Autotuner._bench

    def bench_share(self, *args, config, **meta):
        if self.configs.index(config) % of == share:
            return bench(self, *args, config=config, **meta)
        return [1e6] * 3  # another process has it; better than one that does not fit

    autotuner.Autotuner._bench = bench_share


def shorten_tuning():
    """A few runs of each candidate instead of 125 ms; which one wins stays the same."""
    import triton.testing

    bench = triton.testing.do_bench
    triton.testing.do_bench = lambda fn, **kwargs: bench(fn, **{**kwargs, "warmup": 2, "rep": 12})


def inputs_of(shape, heads_first=False):
    b, h, t, dk, dv = shape

    def draw(width):
        x = torch.randn(b, t, h, width, device="cuda", dtype=torch.bfloat16)
        return (x.transpose(1, 2).contiguous() if heads_first else x).requires_grad_()

    return draw(dk), draw(dk), draw(dv)


def log_gammas(heads):
    i = torch.arange(heads, dtype=torch.float64)
    return torch.log1p(-torch.exp2(-5.0 - i)).float().cuda()


def sets_of(shape, make):
    """Enough of them that none is in the L2 when its turn comes again."""
    b, h, t, dk, dv = shape
    return [make() for _ in range(1 + L2_BYTES // (4 * b * h * t * (dk + dv)) + 1)]


def graph_of(run):
    """What run() launches, as a graph; run() was called before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()
    return graph, kept


def median_ms(runs, repetitions=15):
    """Of the callables in turn."""
    events = []
    for i in range(repetitions + 3):
        begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
        begin.record()
        runs[i % len(runs)]()
        end.record()
        events.append((begin, end))
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in events[3:])


def graphed_ms(runs):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for run in runs:
            run()
    torch.cuda.synchronize()
    graphs = [graph_of(run) for run in runs]
    return median_ms([g.replay for g, _ in graphs])


class Report:
    def __init__(self, path, keep):
        self.lines = ["who,row,milliseconds"]
        self.path = path
        if keep and os.path.exists(path):
            with open(path) as f:
                self.lines = f.read().splitlines()

    def add(self, who, row, run):
        if any(line.startswith(f'{who},"{row}"') for line in self.lines):
            return
        try:
            ms = run()
        except Exception as error:  # a kernel that refuses a shape is no reason to lose the others
            print(f"{who:12} {row:36} {type(error).__name__}: {str(error)[:120]}", flush=True)
            return
        torch.cuda.empty_cache()
        print(f"{who:12} {row:36} {ms:9.4f} ms", flush=True)
        self.lines.append(f'{who},"{row}",{ms:.5f}')
        if self.path:
            with open(self.path, "w") as f:
                f.write("\n".join(self.lines) + "\n")


def name_of(shape):
    return ",".join(str(n) for n in shape)


def both_ways(report, who, shape, forward, make):
    """forward and forward+backward of forward(q, k, v) -> o."""
    def run_forward():
        sets = sets_of(shape, make)
        with torch.no_grad():
            return graphed_ms([lambda s=s: forward(*s) for s in sets])

    def run_both():
        sets = sets_of(shape, make)
        grads = torch.randn_like(forward(*sets[0]))

        def step(s):
            return torch.autograd.grad(forward(*s), s, grads)

        return graphed_ms([lambda s=s: step(s) for s in sets])

    report.add(who, f"forward {name_of(shape)}", run_forward)
    report.add(who, f"forward+backward {name_of(shape)}", run_both)


def fla_rows(report):
    from fla.ops.simple_gla import chunk_simple_gla, fused_recurrent_simple_gla

    for shape in SHAPES:
        gammas = log_gammas(shape[1])
        both_ways(report, "fla", shape,
                  lambda q, k, v: chunk_simple_gla(q, k, v, g_gamma=gammas)[0],
                  lambda: inputs_of(shape))
    for batch in STEP_BATCHES:
        q, k, v = (x.detach() for x in inputs_of((batch, 8, 1, 256, 512)))
        gammas, bytes_of_one = log_gammas(8), batch * 8 * 256 * 512 * 4
        states = [torch.randn(batch, 8, 256, 512, device="cuda")
                  for _ in range(2 + L2_BYTES // bytes_of_one)]

        def steps():
            return [fused_recurrent_simple_gla(q, k, v, g_gamma=gammas, initial_state=s,
                                               output_final_state=True)[1] for s in states]

        report.add("fla", f"step {batch},8,256,512", lambda: graphed_ms([steps]) / len(states))


def attention_rows(report):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for who, backend in [("cuDNN", SDPBackend.CUDNN_ATTENTION),
                         ("flash", SDPBackend.FLASH_ATTENTION)]:
        for shape in SHAPES:
            b, h, t, dk, _ = shape
            width = (b, h * dk // 128, t, 128, 128)

            def attend(q, k, v):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True)

            both_ways(report, who, shape, attend, lambda: inputs_of(width, heads_first=True))


def print_limits():
    a = torch.randn(1 << 29, device="cuda")
    b = torch.empty_like(a)
    rate = 2 * a.numel() * 4 / median_ms([lambda: b.copy_(a)]) / 1e9
    del a, b
    x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    flops = 2 * 8192**3 / median_ms([lambda: x @ y]) / 1e9
    print(f"copy {rate:.2f} TB/s, bf16 product of 8192^3 {flops:.0f} TFLOP/s", flush=True)


def compile_candidates(processes):
    """Each process tunes its share on few tokens; the compiled kernels stay in Triton's cache."""
    begin = time.time()
    workers = [subprocess.Popen([sys.executable, __file__, "--share", str(i), str(processes)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for i in range(processes)]
    failed = sum(worker.wait() != 0 for worker in workers)
    print(f"compiled fla's candidates in {time.time() - begin:.0f} s, {failed} processes failed",
          flush=True)


def tune_share():
    from fla.ops.simple_gla import chunk_simple_gla

    for heads, dk, dv in [(8, 256, 512), (16, 128, 128)]:
        q, k, v = inputs_of((1, heads, 512, dk, dv))
        o, _ = chunk_simple_gla(q, k, v, g_gamma=log_gammas(heads))
        o.backward(torch.randn_like(o))
    torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="file of the rows")
    parser.add_argument("--processes", type=int, default=0, help="compile fla's kernels in parallel")
    parser.add_argument("--compile-only", action="store_true", help="and measure later")
    parser.add_argument("--keep", action="store_true", help="rows that --out has already")
    parser.add_argument("--only", choices=["fla", "attention"])
    parser.add_argument("--share", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch_cuda.py: no GPU")
    try:
        import fla  # noqa: F401
        has_fla = True
    except ImportError:
        has_fla = False
    if has_fla:
        shorten_tuning()
    if args.share:
        spread_tuning(*args.share)
        return tune_share()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
          f"cuDNN {torch.backends.cudnn.version()}, fla {fla.__version__ if has_fla else 'not installed'}")
    if has_fla and args.processes > 1 and args.only != "attention":
        compile_candidates(args.processes)
    if args.compile_only:
        return
    report = Report(args.out, args.keep)
    print_limits()
    if args.only != "fla":
        attention_rows(report)
    if has_fla and args.only != "attention":
        fla_rows(report)


if __name__ == "__main__":
    main()
