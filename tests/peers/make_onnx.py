#!/usr/bin/env python3
"""A folder that transformers.js reads, for `cargo xtask bench --peers --onnx FOLDER`, from what onnxruntime-genai's builder made.

usage: make_onnx.py CONFIG.json BUILT FOLDER     needs: pip install onnx
CONFIG.json is the model's own; BUILT comes from `python -m onnxruntime_genai.models.builder -i MODEL -o BUILT -p int4 -e webgpu -c CACHE`.
"""
import json
import pathlib
import shutil
import sys

import onnx

config, built, folder = map(pathlib.Path, sys.argv[1:4])
name = "model_q4f16.onnx"
shape = json.loads(config.read_text())
graph = onnx.load(built / "model.onnx", load_external_data=False)
for tensor in graph.graph.initializer:
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = f"{name}_data"
# transformers.js makes an empty cache of the dimensions that it knows, and takes others for 0.
for value in [*graph.graph.input, *graph.graph.output]:
    for dimension in value.type.tensor_type.shape.dim:
        if dimension.dim_param == "kv_cache_dim":
            dimension.dim_value = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]

(folder / "onnx").mkdir(parents=True, exist_ok=True)
onnx.save(graph, folder / "onnx" / name)
shutil.copy(built / "model.onnx.data", folder / "onnx" / f"{name}_data")
of_transformers_js = {"kv_cache_dtype": {"q4f16": "float16"}, "use_external_data_format": {name: 1}}
(folder / "config.json").write_text(json.dumps({**shape, "transformers.js_config": of_transformers_js}))
