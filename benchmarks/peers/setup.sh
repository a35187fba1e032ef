#!/bin/sh
# Makes the peers' environment and every model file that run.py needs; what is there already stays as it is.
#
#     sh setup.sh ENVIRONMENT MODELS [SHAPE]
#
# ENVIRONMENT: folder of the peers' own virtual environment, apart from longspan's. MODELS: folder of the model files.
# SHAPE: S (the default), 1b or 8b. PYTHON: the interpreter of longspan's environment; without it, `python` on the PATH.
set -eu
[ $# -ge 2 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
peers=$1 models=$2 shape=${3:-S} python=${PYTHON:-python}
here=$(cd "$(dirname "$0")" && pwd)

[ -x "$peers/bin/optimum-cli" ] || {
    "$python" -m venv "$peers"
    "$peers/bin/pip" install --quiet llama-cpp-python gguf safetensors "optimum-intel[openvino]" \
        openvino-genai openvino-tokenizers
}
mkdir -p "$models"
[ -f "$models/$shape/tokenizer.json" ] || "$python" "$here/make_model.py" "$models/$shape" --shape "$shape"
for weights in f16 q8_0; do
    [ -f "$models/$shape-$weights.gguf" ] || {
        "$peers/bin/python" "$here/make_gguf.py" "$models/$shape" "$models/part.gguf" --weights "$weights"
        mv "$models/part.gguf" "$models/$shape-$weights.gguf"
    }
done
for weights in fp16 int8; do
    [ -f "$models/$shape-ov-$weights/openvino_model.xml" ] || "$peers/bin/optimum-cli" export openvino \
        --model "$models/$shape" --task text-generation-with-past --weight-format "$weights" \
        "$models/$shape-ov-$weights"
done
