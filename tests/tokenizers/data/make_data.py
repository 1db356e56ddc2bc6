#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the reference data of the tokenizer tests into this folder: small tokenizers, trained here, and what the
packages that define the formats make of awkward texts with them.

    pip install tokenizers==0.23.3 tiktoken==0.14.0 sentencepiece==0.2.3
    tests/tokenizers/data/make_data.py
"""
import base64
import io
import itertools
import json
import pathlib

import sentencepiece
import tiktoken
from tiktoken_ext import openai_public
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
AUSTEN = (HERE / "../../../examples/data/austen.txt").read_text()
OTHER = [
    "Das Wetter ist schön, die Straße naß; größer wär's übel. ",
    "Le garçon a mangé où l'été était déjà là. ",
    "Быстрая лиса бежит через лес и поле. ",
    "γνῶθι σεαυτόν, λέγει ὁ φιλόσοφος. ",
    "春眠不覺曉，處處聞啼鳥。日本語の文章も少し。 ",
    "한국어 문장도 하나 있습니다. ",
    "العربية لغة جميلة جدا. ",
    "हिन्दी भाषा में एक वाक्य। ",
    "Numbers: 1234567890, 3.14159, 2024-11-22; x = 10 * (y + 2)\n",
    "I'm, you're, he'll, she'd, we've, it's, don't; I'M, YOU'RE\r\n",
    "\tint main() {\n\t\treturn 0;\n\t}\n\n",
    "🙂🎉 emoji 👩‍👩‍👧 family 🇩🇪 flags ",
]
CORPUS = [AUSTEN[i : i + 500] for i in range(0, 150000, 500)] + OTHER * 20

TEXTS = [
    "",
    " ",
    "  ",
    "a",
    "Hello, world!",
    " leading and trailing ",
    "  two   and   three    spaces  ",
    "It is a truth universally acknowledged, that a single man must be in want of a wife.",
    "I'm, you're he'll SHE'D we've it's 'tis don't'll",
    "'S 'ſ I'ſ I'LL",
    "line\nline\n\nline\r\nline\r\n\r\n  indented\n\t\ttabs\t \n",
    "\n",
    "\n\n\n   \n",
    "tail spaces then newline   \n",
    "1 12 123 1234 12345 123456789 3.14 ½ ² Ⅷ ٣٤٥ १२३",
    "naïve café, Å vs A\u030a, e\u0301\u0301 n\u0303, ﬁ ﬀ, ẞ ß, ǅ, İ",
    "combining: a\u0300\u0301\u0302\u0303 q\u0307\u0323 q\u0323\u0307",
    "春眠不覺曉，處處聞啼鳥。日本語の文章、カタカナ。",
    "한국어 문장 \u1100\u1161\u11a8",
    "العربية لغة جميلة، مَرْحَبًا",
    "हिन्दी भाषा में एक वाक्य।",
    "Быстрая ЛИСА; γνῶθι σεαυτόν ΟΔΥΣΣΕΥΣ",
    "🙂 🎉🎉 👩‍👩‍👧 🇩🇪🇫🇷 👍🏽 ☃️",
    "\u00a0nbsp\u00a0\u00a0 \u2003em \u3000ideographic\u200bzero\ufeffbom\u180evowel\u2028sep\u2029par\u0085nel",
    "\x00 \x01 \x1f \x7f control",
    "\U0010ffff \ue000 \ufffd \ufdd0",
    "snake_case camelCase PascalCase HTTPServer kebab-case a.b.c @x #y $z 100%",
    "if (x<=10&&y!=3){return*p->q;} // комментарий /* */ https://a.b/c?d=e&f#g",
    "----====....!!!!????####",
    "▁lower▁one ▁ eighth ▁▁",
    "<0x41> <unk> <0xZZ>",
    "before<|endoftext|>after",
    "<|endoftext|>",
    "<|endoftext|><|endoftext|> <s> </s> <|endo",
    "text  <mask>  more xMASKx MASK, MASK",
    "a" * 300,
    " " * 100 + "x" + " " * 31,
    "\n" * 40,
    "ab" * 100 + "🙂" * 20,
    "ÀÉÎ" * 10 + "e\u0301" * 10,
]
LONG = {"a": "a", "space": " ", "newline": "\n", "ab": "ab", "emoji": "🙂", "han": "春", "ABC": "A", "digits": "7"}
LONG_SIZE = 100_000


def save(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=False) + "\n")


def runs(ids):
    """[id, [id, how often in a row], ...]"""
    return [i if n == 1 else [i, n] for i, n in ((i, len(list(group))) for i, group in itertools.groupby(ids))]


def trained(pre_tokenizer, vocab, alphabet, special, limit=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    more = {} if limit is None else {"limit_alphabet": limit}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=alphabet, special_tokens=special, show_progress=False, **more)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())


def added(id, content, special=True, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": not special, "special": special}
    return token | flags


def old_merges(model):
    model["merges"] = [" ".join(m) for m in model["merges"]]


CL100K = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
          r"""|\s*[\r\n]+|\s+(?!\S)|\s+""")


def make_json_tokenizers():
    letters = pre_tokenizers.ByteLevel.alphabet()
    base = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 440, letters, ["<|endoftext|>"])
    files = {}

    gpt2 = json.loads(json.dumps(base))
    old_merges(gpt2["model"])
    gpt2["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    gpt2["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    gpt2["pre_tokenizer"]["trim_offsets"] = True
    files["gpt2"] = gpt2

    # NFC, a space in front, runs of spaces as added tokens, and every flag of added tokens.
    neox = json.loads(json.dumps(gpt2))
    neox["normalizer"] = {"type": "NFC"}
    neox["pre_tokenizer"]["add_prefix_space"] = True
    n = len(neox["model"]["vocab"])
    neox["added_tokens"] = [added(0, "<|endoftext|>")] + [
        added(n + i, " " * (i + 2), special=False) for i in range(3)] + [
        added(n + 3, "<mask>", lstrip=True, rstrip=True),
        added(n + 4, "MASK", special=False, single_word=True, normalized=False),
        added(n + 5, "\u00e9\u0301", special=False)]
    files["neox"] = neox

    llama3 = json.loads(json.dumps(base))
    llama3["model"]["ignore_merges"] = True
    n = len(llama3["model"]["vocab"])
    llama3["added_tokens"].append(added(n, "<|begin_of_text|>"))
    llama3["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": CL100K}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    llama3["decoder"] = gpt2["decoder"]
    llama3["post_processor"] = {"type": "Sequence", "processors": [
        gpt2["post_processor"],
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
         "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [n], "tokens": ["<|begin_of_text|>"]}}}]}
    files["llama3"] = llama3

    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    llama = trained(pre_tokenizers.Metaspace(prepend_scheme="always", split=False), 600, [],
                    ["<unk>", "<s>", "</s>"] + byte_tokens, limit=90)
    llama["added_tokens"] = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    llama["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    llama["pre_tokenizer"] = None
    llama["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    llama["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    llama["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                           "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
    old_merges(llama["model"])
    files["llama"] = llama

    # Without bytes to fall back to: unknown characters, fused; words split at the marks; digits alone; lower case.
    marks = trained(pre_tokenizers.Metaspace(prepend_scheme="first"), 320, [], ["<unk>", "<|endoftext|>"], limit=90)
    marks["model"] |= {"fuse_unk": True, "unk_token": "<unk>"}
    marks["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": "[\\r\\n]+"}, "content": " "}]}
    marks["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]}
    marks["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    files["metaspace"] = marks

    # Words with marks on their parts: a prefix on all but the first letter, a suffix on the last.
    affixes = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    affixes.pre_tokenizer = pre_tokenizers.Whitespace()
    affixes.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<unk>"], show_progress=False, limit_alphabet=60,
        continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    files["affixes"] = json.loads(affixes.to_str())

    expected = {}
    for name, content in files.items():
        save(f"{name}.json", content)
        tokenizer = Tokenizer.from_file(str(HERE / f"{name}.json"))
        cases = []
        for text in TEXTS:
            ids = tokenizer.encode(text).ids
            case = {"ids": runs(ids)}
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = True
            no_special = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            decoded, everything = tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=False)
            for key, value, default in [("no_special", runs(no_special), runs(plain)), ("text", decoded, text),
                                        ("all", everything, decoded)]:
                if value != default:
                    case[key] = value
            cases.append(case)
        long = {key: runs(tokenizer.encode(unit * LONG_SIZE).ids) for key, unit in LONG.items()}
        expected[name] = {"cases": cases, "long": {k: v for k, v in long.items() if len(v) < 12}}
    return base, expected


def make_tiktoken(base):
    """The merges of the byte-level vocabulary as ranks."""
    letter_of = {chr(b): b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255}
    rest = [b for b in range(256) if b not in letter_of.values()]
    letter_of |= {chr(256 + i): b for i, b in enumerate(rest)}
    tokens = [bytes([b]) for b in range(256)]
    tokens += [bytes(letter_of[c] for c in a + b) for a, b in base["model"]["merges"]]
    ranks = {token: i for i, token in enumerate(tokens)}
    (HERE / "small.tiktoken").write_bytes(
        b"".join(base64.b64encode(t) + b" " + str(i).encode() + b"\n" for t, i in ranks.items()))

    r50k, cl100k = openai_public.r50k_pat_str, (
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"""
        r"""|\s+(?!\S)|\s""")
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    ending = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    o200k = "|".join([rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{ending}", rf"[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{ending}",
                      r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
    special = {"gpt2": {"<|endoftext|>": 50256}, "cl100k_base": {"<|endoftext|>": 100257},
               "o200k_base": {"<|endoftext|>": 199999}}
    expected = {}
    for name, pattern in {"gpt2": r50k, "cl100k_base": cl100k, "o200k_base": o200k}.items():
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special[name])
        cases = []
        for text in TEXTS:
            ids = encoding.encode(text, allowed_special="all")
            plain = encoding.encode(text, disallowed_special=())
            assert encoding.decode(ids) == text
            cases.append({"ids": runs(ids)} | ({"no_special": runs(plain)} if plain != ids else {}))
        long = {key: runs(encoding.encode(unit * LONG_SIZE)) for key, unit in LONG.items() if key != "ABC"}
        expected[name] = {"cases": cases, "long": {k: v for k, v in long.items() if len(v) < 12}}
    return expected


def make_sentencepiece():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=600, model_type="bpe", byte_fallback=True,
        character_coverage=0.98, pad_id=3, user_defined_symbols=["<|sep|>"], minloglevel=2, num_threads=1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True)
    (HERE / "small.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(str(HERE / "small.model"))
    texts = TEXTS + ["a<|sep|>b <|sep|>"]
    cases = [{"ids": runs(processor.encode(t)), "text": processor.decode(processor.encode(t))} for t in texts]
    for text, case in zip(texts, cases):
        if case["text"] == text:
            del case["text"]
    return {"texts": texts[len(TEXTS):], "cases": cases}


def make_parts():
    """Single pre-tokenizers, normalizers and decoders: [their JSON, [output for each input, null if it is the same]]."""
    split = lambda pattern, behavior, invert=False: {
        "type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
    behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    pre = [split({"String": "-"}, b, i) for b in behaviors for i in (False, True)]
    pre += [split({"Regex": "\\d+|b*"}, b) for b in behaviors]
    pre += [split({"Regex": r}, "Isolated") for r in (
        "^.", ".$", "\\s+$", "[a-z&&[^b]]+", "(?<=a)b", "(?i)B", "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+",
        "[一-龥぀-ゟ゠-ヿ]+", "\\p{Han}+|\\w+", "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s+(?!\\S)|\\s+",
        "\\p{N}", ".", "\\s", "\\S+\\s*")]
    pre += [{"type": "ByteLevel", "add_prefix_space": a, "trim_offsets": True, "use_regex": r}
            for a in (False, True) for r in (False, True)]
    pre += [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": p, "split": s}
            for p in ("always", "first", "never") for s in (False, True)]
    pre += [{"type": "Digits", "individual_digits": i} for i in (False, True)]
    pre += [{"type": "Punctuation", "behavior": b} for b in ("Isolated", "Contiguous", "MergedWithPrevious", "Removed")]
    pre += [{"type": "Whitespace"}, {"type": "WhitespaceSplit"}]
    pre += [{"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]}]
    norm = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")]
    norm += [{"type": "Strip", "strip_left": l, "strip_right": r} for l in (False, True) for r in (False, True)]
    norm += [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "_"}, {"type": "Prepend", "prepend": "▁"},
             {"type": "Replace", "pattern": {"String": "a"}, "content": ""}]
    texts = ["", " ", "ab-12--cb- b3", "--a--", " a  b\n c \n", "a1b22c333 ٣½", "x, y; «z»! $+~`^ (a)…", "▁a ▁b", "\u3000 \ta\u00a0b",
             "İΣ ΑΣ ǅ ẞ ﬁ Å A\u030a q\u0307\u0323 \u1100\u1161", "a_b c‿d e\u200df é e\u0301", "日本語ノ文 漢字abc", "🙂👩‍👧 x", "[Ab .cD `x", "aB bB\r\nb"]

    def results(kind, spec, apply, inputs, unchanged):
        part = getattr(Tokenizer.from_str(json.dumps(shell | {kind: spec})), kind)
        return [spec, [None if apply(part, x) == unchanged(x) else apply(part, x) for x in inputs]]

    shell = json.loads(Tokenizer(models.BPE()).to_str())
    tokens = [["▁a", "▁▁b", "▁"], ["▁▁a", "b▁"], ["▁", "▁c"], ["<0xE6>", "<0x98>", "<0xA5>", "<0xG6>", "<0xe6>", "<0x4>", "x"],
              ["Ġa", "Ċ", "æĺ", "¥"], ["Ġ", "日Ġ"], ["  a ", " b "], [], ["<s>", "▁a"]]
    decode = [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "ByteFallback"},
              {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1},
              {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
              {"type": "Replace", "pattern": {"Regex": "▁+"}, "content": " "}]
    decode += [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": p, "split": True} for p in ("always", "first", "never")]
    decode += [{"type": "Sequence", "decoders": [decode[4], decode[1], decode[2], {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}]

    pieces = lambda part, text: [piece for piece, _ in part.pre_tokenize_str(text)]
    save("parts.json", {
        "texts": texts, "tokens": tokens,
        "pre_tokenizers": [results("pre_tokenizer", spec, pieces, texts, lambda t: [t]) for spec in pre],
        "normalizers": [results("normalizer", spec, lambda p, t: p.normalize_str(t), texts, str) for spec in norm],
        "decoders": [results("decoder", spec, lambda p, t: p.decode(t), tokens, "".join) for spec in decode]})


base, expected = make_json_tokenizers()
save("cases.json", {"texts": TEXTS, "json": expected, "tiktoken": make_tiktoken(base), "sentencepiece": make_sentencepiece()})
make_parts()
