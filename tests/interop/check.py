# SPDX-License-Identifier: MIT
"""Models across the border, both ways, for one family:

  check.py FAMILY [--written FOLDER] [--saved FOLDER]

The first holds what write_models wrote: each folder is loaded with the package's own loader, no key
may be missing or left over, and its logits must be those in io.safetensors. The second gets models
that the package saves, with the logits that it computes, for read_models. FAMILY is torchscale_v1,
torchscale_v2, torchscale_wheel, syncdoth, xatl or fla; the package must be importable. README.md
says which package and version.
"""

import argparse
import importlib
import json
import pathlib
import sys
import types
import warnings

import torch
from safetensors.torch import load_file, save_file, save_model

TOLERANCE = 2e-5  # of the largest logit
CHUNK = 16  # as kChunk in common.hpp
VOCAB, LENGTH = 97, 70  # longer than the 64 tokens up to which fla runs its recurrent kernel


def stub(name, **attributes):
    """Stands for a package that is imported, but of which nothing is used here."""
    try:
        importlib.import_module(name)
    except ImportError:
        for i in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:i])
            sys.modules.setdefault(part, types.ModuleType(part))
        for key, value in attributes.items():
            setattr(sys.modules[name], key, value)


def error(given, expected):
    given, expected = given.double().cpu(), expected.double().cpu()
    if given.shape != expected.shape or not given.isfinite().all():
        return float("inf")
    return ((given - expected).abs().max() / expected.abs().max()).item()


def randomize(model, seed):
    """Weights of order one in the place of the package's own start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
            elif "embed" in name:
                p.normal_()
            else:
                p.normal_(std=p.shape[-1] ** -0.5)


class Torchscale:
    """microsoft/torchscale. It has no files of its own: a state_dict and a RetNetConfig."""

    dialect = None  # that of the family
    modes = {"parallel": "reference", "recurrent": "exact", "chunkwise": "reference"}
    skipped = {}

    def __init__(self):
        stub("fairscale.nn", checkpoint_wrapper=None, wrap=None)
        stub("timm.models.layers", drop_path=None)
        from torchscale.architecture.config import RetNetConfig
        from torchscale.architecture.retnet import RetNetDecoder

        self.config, self.decoder = RetNetConfig, RetNetDecoder
        glu = "decoder_value_embed_dim" in vars(RetNetConfig())
        self.activation = "swish" if glu else "relu"

    def build(self, keys):
        config = self.config(**keys)
        embedding = torch.nn.Embedding(config.vocab_size, config.decoder_embed_dim)
        return self.decoder(config, embed_tokens=embedding).eval()

    def modes_of(self, model):
        return self.modes

    def load(self, folder):
        keys = json.loads((folder / "config.json").read_text())
        unknown = set(keys) - set(vars(self.config()))
        if unknown:
            raise RuntimeError(f"config.json: unknown {sorted(unknown)}")
        model, tensors = self.build(keys), {}
        for file in sorted(folder.glob("model*.safetensors")):
            tensors |= load_file(file)
        if keys["share_decoder_input_output_embed"]:  # one tensor under two names
            tensors["output_projection.weight"] = tensors["embed_tokens.weight"]
        model.load_state_dict(tensors, strict=True)
        return model

    def save(self, model, folder):
        save_model(model, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(vars(model.args)))

    def logits(self, model, ids, mode):
        model.chunkwise_recurrent = mode == "chunkwise"
        model.recurrent_chunk_size = model.retnet_rel_pos.recurrent_chunk_size = CHUNK
        if mode != "recurrent":
            return model(ids)[0]
        state = {}
        return torch.cat([model(ids[:, : t + 1], state)[0] for t in range(ids.shape[1])], 1)

    def own(self):
        base = {
            "vocab_size": VOCAB,
            "decoder_embed_dim": 48,
            "decoder_value_embed_dim": 72,
            "decoder_ffn_embed_dim": 60,
            "decoder_retention_heads": 3,
            "decoder_layers": 2,
        }
        yield "init", base, False
        yield "random", base | {"activation_fn": self.activation}, True
        yield "tied", base | {
            "share_decoder_input_output_embed": True,
            "layernorm_embedding": True,
            "no_scale_embedding": False,
        }, True
        yield "deepnorm", base | {"deepnorm": True, "decoder_normalize_before": False}, True


class TorchscaleWheel(Torchscale):
    """torchscale 0.3.0 of PyPI: layers as today, two rules of before."""

    dialect = "torchscale_v2"
    modes = Torchscale.modes | {"parallel": "wheel"}  # divides by |sum|, not by the sum of |.|
    skipped = {"deepnorm_pre": "its config has DeepNorm with norms behind the branches only"}


class HuggingFace:
    """What syncdoth, XATL and fla share: from_pretrained and save_pretrained."""

    dialect = None
    skipped = {}

    def modes_of(self, model):
        return self.modes

    def device(self):
        return "cpu"

    def load(self, folder):
        stored = json.loads((folder / "config.json").read_text())["torch_dtype"]
        automatic = self.causal.from_pretrained(folder, **{self.dtype: "auto"})
        if str(automatic.dtype) != "torch." + stored:
            raise RuntimeError(f"dtype auto is {automatic.dtype}, {stored} in config.json")
        model, info = self.causal.from_pretrained(
            folder, output_loading_info=True, **{self.dtype: torch.float32}
        )
        bad = {key: list(value) for key, value in info.items() if value}
        if bad:
            raise RuntimeError(f"{bad}")
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        if tied != model.config.tie_word_embeddings:
            raise RuntimeError(f"tied is {tied}")
        return model.eval().to(self.device())

    def build(self, keys):
        return self.causal(self.config(**keys)).eval()

    def save(self, model, folder):
        model.save_pretrained(folder, max_shard_size="60KB" if self.sharded else "5GB")


class Syncdoth(HuggingFace):
    modes = Torchscale.modes
    activation = "swish"
    dtype = "torch_dtype"
    sharded = False

    def __init__(self):
        importlib.import_module("transformers")  # which looks for timm itself
        stub("timm.models.layers", drop_path=None)
        package = importlib.import_module("retnet.modeling_retnet")
        self.causal, self.config = package.RetNetForCausalLM, package.RetNetConfig

    def logits(self, model, ids, mode):
        if mode != "recurrent":
            return model(ids, forward_impl=mode, recurrent_chunk_size=CHUNK, use_cache=False).logits
        out, past = [], None
        for t in range(ids.shape[1]):
            step = model(
                ids[:, : t + 1], forward_impl=mode, past_key_values=past, use_cache=True
            )
            past = step.past_key_values
            out.append(step.logits)
        return torch.cat(out, 1)

    def own(self):
        base = next(Torchscale.own(self))[1]
        yield "init", base, False
        yield "random", base | {"activation_fn": "swish", "use_lm_decay": True}, True
        yield "tied", base | {
            "tie_word_embeddings": True,
            "layernorm_embedding": True,
            "no_scale_embedding": False,
        }, True
        yield "deepnorm", base | {"deepnorm": True}, True
        yield "mlp", base | {"use_glu": False, "decoder_ffn_embed_dim": 48}, True


class Xatl(Syncdoth):
    def __init__(self):
        sys.modules["fla"] = None  # its kernels have no rotation of this layout
        package = importlib.import_module("hf_retnet.modeling_retnet")
        self.causal, self.config = package.RetNetForCausalLM, package.RetNetConfig
        # Without flash_attn the package tiles sine and cosine over pairs that it interleaves. This
        # is what flash_attn computes there.
        package.apply_rotary_emb_func = rotate

    def modes_of(self, model):
        """Its chunkwise form scales the state in place, again in each chunk, if it scales at all:
        it then differs from its own other forms by half of the largest logit. Its attention layers
        keep nothing from token to token."""
        if model.config.hybrid_attention_layers:
            return {mode: self.modes[mode] for mode in ("parallel", "chunkwise")}
        if model.config.retnet_stability_update:
            return {mode: self.modes[mode] for mode in ("parallel", "recurrent")}
        return self.modes

    def own(self):
        base = next(Torchscale.own(self))[1]
        yield "init", base, False
        yield "stable", base | {"retnet_stability_update": True, "use_lm_decay": True}, True
        yield "tied", base | {
            "tie_word_embeddings": True,
            "layernorm_embedding": True,
            "no_scale_embedding": False,
            "groupnorm_affine": True,
        }, True
        yield "biases", base | {
            "use_glu": False,
            "decoder_ffn_embed_dim": 48,
            "decoder_value_embed_dim": 48,
            "use_rms_norm": False,
            "use_bias": True,
            "lm_head_bias": True,
            "groupnorm_affine": True,
            "parallel_residual": True,
            "shared_attention_norm": True,
            "rotary_percentage": 0.5,
            "retnet_bottleneck": 20,
            "activation_fn": "gelu_new",
        }, True
        yield "hybrid", base | {"decoder_value_embed_dim": 48, "hybrid_attention_layers": [0]}, True
        yield "no_rotation", base | {"rotary_percentage": 0.0}, True


def rotate(x, cos, sin, interleaved, inplace):
    """flash_attn's rotation of the first dimensions, of pairs or of halves."""
    n = 2 * cos.shape[-1]
    a, b = (x[..., 0:n:2], x[..., 1:n:2]) if interleaved else x[..., :n].chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    turned = a * cos - b * sin, a * sin + b * cos
    turned = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat((turned, x[..., n:]), -1)


def softmax_attention(q, k, v, causal, window_size):
    """flash_attn_func on [B,T,H,D]; a window counts the tokens before the query's own."""
    assert causal
    group = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    n = torch.arange(q.shape[2], device=q.device)
    distance = n[:, None] - n[None, :]
    hidden = distance < 0
    if window_size[0] >= 0:
        hidden |= distance > window_size[0]
    return (scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(1, 2)


class Fla(HuggingFace):
    """One maths; its kernels are those of the forms. They need a GPU."""

    modes = {"chunk": "exact", "parallel": "exact", "fused_recurrent": "exact"}
    dtype = "dtype"
    sharded = False

    def __init__(self):
        from fla.models import RetNetConfig, RetNetForCausalLM
        from triton.runtime.autotuner import Autotuner

        attention = importlib.import_module("fla.layers.attn")
        if attention.flash_attn_func is None:
            attention.flash_attn_func = softmax_attention
        # The variants of a kernel are not timed: the first one runs.
        Autotuner.do_bench = staticmethod(lambda call, quantiles: [0.0, 0.0, 0.0])
        self.causal, self.config = RetNetForCausalLM, RetNetConfig

    def device(self):
        return "cuda" if torch.cuda.is_available() else "cpu"

    def logits(self, model, ids, mode):
        for layer in model.model.layers:
            layer.attn.mode = mode
        model = model.to(self.device())
        return model(ids.to(model.device), use_cache=False).logits

    def own(self):
        base = {
            "vocab_size": VOCAB,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "num_hidden_layers": 2,
        }
        yield "init", base, False
        yield "random", base | {"expand_v": 1, "norm_eps": 1e-5}, True
        yield "tied", base | {"tie_word_embeddings": True, "num_kv_heads": 2}, True
        yield "unfused", base | {"fuse_norm": False, "fuse_swiglu": False}, True
        yield "no_gate", base | {"use_output_gate": False, "elementwise_affine": False}, True
        attention = {"layers": [0], "num_heads": 4}
        yield "hybrid", base | {"attn": attention}, True
        yield "rounded", base | {"hidden_size": 200, "num_heads": 10, "expand_v": 1.15}, True
        yield "default_width", {k: v for k, v in base.items() if k != "intermediate_size"}, True


FAMILIES = {
    "torchscale_v1": Torchscale,
    "torchscale_v2": Torchscale,
    "torchscale_wheel": TorchscaleWheel,
    "syncdoth": Syncdoth,
    "xatl": Xatl,
    "fla": Fla,
}
FORMS = {"chunk": "chunkwise", "fused_recurrent": "recurrent"}  # ours; the others have one name


def check_written(family, folder, load_only):
    """One row of the table, and whether all is well."""
    model = family.load(folder)
    if load_only:
        return "loads", True
    io = load_file(folder / "io.safetensors")
    row, good = [], True
    for mode, compat in family.modes_of(model).items():
        expected = io[f"logits.{compat}.{FORMS.get(mode, mode)}"]
        worst = error(family.logits(model, io["input_ids"], mode), expected)
        good &= worst <= TOLERANCE
        row.append(f"{mode} {worst:.1e}")
    return "  ".join(row), good


def save_own(family, folder, keys, random, seed):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = family.build(keys)
    if random:
        randomize(model, seed)
    family.save(model, folder)
    ids = torch.randint(0, VOCAB, (2, LENGTH))
    io = {"input_ids": ids}
    for mode, compat in family.modes_of(model).items():
        logits = family.logits(model, ids, mode).float().cpu().contiguous()
        io[f"logits.{compat}.{FORMS.get(mode, mode)}"] = logits
    save_file(io, folder / "io.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--written", type=pathlib.Path)
    parser.add_argument("--saved", type=pathlib.Path)
    parser.add_argument("--load-only", action="store_true", help="load what is written, no forward")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")
    family, good = FAMILIES[arguments.family](), True
    if arguments.written:
        good &= check_all(family, arguments)
    if arguments.saved:
        good &= save_all(family, arguments)
    return 0 if good else 1


def check_all(family, arguments):
    dialect = family.dialect or arguments.family
    folders = sorted(arguments.written.glob(dialect + "__*"))
    good = bool(folders)
    for folder in folders:
        reason = family.skipped.get(folder.name.removeprefix(dialect + "__"))
        if reason:
            print(f"--   {folder.name:<34} {reason}")
            continue
        try:
            row, same = check_written(family, folder, arguments.load_only)
        except Exception as problem:  # one folder must not hide the next
            row, same = f"{type(problem).__name__}: {problem}", False
        good &= same
        print(f"{'ok' if same else 'BAD':<4} {folder.name:<34} {row}", flush=True)
    return good


def save_all(family, arguments):
    good = True
    for seed, (name, keys, random) in enumerate(family.own()):
        try:
            dialect = family.dialect or arguments.family
            folder = arguments.saved / f"{dialect}__{name}"
            save_own(family, folder, keys, random, seed)
        except Exception as problem:
            print(f"BAD  {name} not saved: {type(problem).__name__}: {problem}")
            good = False
    return good


if __name__ == "__main__":
    sys.exit(main())
