#!/usr/bin/env python3
"""Writes a language model that is small and always the same: llama architecture, random weights, two layers, one byte a token.

    tiny_gguf.py FILE [--type f32|f16|q8_0]

The format is GGUF 3 (ggml's docs/gguf.md). The weights are large where they decide what comes next, so that rounding does not.
"""
import argparse
import random
import struct

WIDTH, LAYERS, HEADS, HIDDEN, CONTEXT = 256, 2, 4, 256, 512
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
TYPES = {"f32": 0, "f16": 1, "q8_0": 8}


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    if kind == STRING:
        return text(key) + struct.pack("<I", kind) + text(value)
    return text(key) + struct.pack("<I", kind) + struct.pack("<f" if kind == F32 else "<I", value)


def array(key, kind, values):
    body = b"".join(text(v) if kind == STRING else struct.pack("<f" if kind == F32 else "<i", v) for v in values)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + body


def encode(values, kind):
    if kind == "f32":
        return struct.pack("<%df" % len(values), *values)
    if kind == "f16":
        return struct.pack("<%de" % len(values), *values)
    out = b""
    for at in range(0, len(values), 32):  # a block: a half scale and 32 signed bytes
        block = values[at:at + 32]
        scale = struct.unpack("<e", struct.pack("<e", max(map(abs, block)) / 127 or 1))[0]
        out += struct.pack("<e32b", scale, *(max(-127, min(127, round(v / scale))) for v in block))
    return out


def tokens():
    """The special ones, the 256 bytes, and words, for the tokenizer of llama."""
    words = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % n for n in range(256)] + ["\u2581" + w for w in ("the", "a", "of", "and", "Hello", "my", "name")]
    words += ["\u2581"] + [chr(c) for c in range(33, 127)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(words) - 259)
    return words, [-float(n) for n in range(len(words))], kinds


def tensors(vocabulary):
    """(name, columns, rows, how large the numbers are); rows 0: a vector."""
    yield "token_embd.weight", WIDTH, vocabulary, 1.0
    for n in range(LAYERS):
        for name, columns, rows in (("attn_norm", WIDTH, 0), ("attn_q", WIDTH, WIDTH), ("attn_k", WIDTH, WIDTH), ("attn_v", WIDTH, WIDTH),
                                    ("attn_output", WIDTH, WIDTH), ("ffn_norm", WIDTH, 0), ("ffn_gate", WIDTH, HIDDEN),
                                    ("ffn_up", WIDTH, HIDDEN), ("ffn_down", HIDDEN, WIDTH)):
            yield "blk.%d.%s.weight" % (n, name), columns, rows, 0.2
    yield "output_norm.weight", WIDTH, 0, 1.0
    yield "output.weight", WIDTH, vocabulary, 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--type", choices=TYPES, default="f32")
    options = parser.parse_args()
    words, scores, kinds = tokens()
    keys = [entry("general.architecture", STRING, "llama"), entry("general.name", STRING, "tiny"),
            entry("llama.context_length", U32, CONTEXT), entry("llama.embedding_length", U32, WIDTH), entry("llama.block_count", U32, LAYERS),
            entry("llama.feed_forward_length", U32, HIDDEN), entry("llama.attention.head_count", U32, HEADS),
            entry("llama.attention.head_count_kv", U32, HEADS), entry("llama.rope.dimension_count", U32, WIDTH // HEADS),
            entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5), entry("llama.vocab_size", U32, len(words)),
            entry("tokenizer.ggml.model", STRING, "llama"), array("tokenizer.ggml.tokens", STRING, words),
            array("tokenizer.ggml.scores", F32, scores), array("tokenizer.ggml.token_type", I32, kinds),
            entry("tokenizer.ggml.bos_token_id", U32, 1), entry("tokenizer.ggml.eos_token_id", U32, 2)]
    numbers = random.Random(1)
    rows, data = [], b""
    for name, columns, count, size in tensors(len(words)):
        kind = options.type if count else "f32"
        values = [numbers.gauss(0, size) if count else 1.0 for _ in range(columns * (count or 1))]
        shape = struct.pack("<IQQ", 2, columns, count) if count else struct.pack("<IQ", 1, columns)
        rows.append(text(name) + shape + struct.pack("<IQ", TYPES[kind], len(data)))
        data += encode(values, kind)
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(rows), len(keys)) + b"".join(keys) + b"".join(rows)
    with open(options.file, "wb") as out:
        out.write(head + bytes(-len(head) % 32) + data)


if __name__ == "__main__":
    main()
