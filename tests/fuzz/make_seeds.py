"""Write seeds/: small valid inputs of each fuzz target, named TARGET-WHAT.

    pip install gguf numpy && python make_seeds.py
"""
import glob
import io
import json
import os
import shutil
import struct

import gguf
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "../fixtures")
SEEDS = os.path.join(HERE, "seeds")
SEPARATOR = b"\n--8<--\n"
TEXT = "Hello  world, 123 <|im_start|> Grüße 日本\n\n".encode()


def save(name, *pieces):
    open(os.path.join(SEEDS, name), "wb").write(SEPARATOR.join(pieces))


def gguf_file(arch, fill, tensors=()):
    path = os.path.join(SEEDS, "new.gguf")
    w = gguf.GGUFWriter(path, arch)
    fill(w)
    for name, data in tensors:
        w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    data = open(path, "rb").read()
    os.remove(path)
    return data


def vocabulary(model, tokens, types, scores=None, merges=None, **keys):
    def fill(w):
        w.add_tokenizer_model(model)
        w.add_token_list(tokens)
        w.add_token_types(types)
        if scores is not None:
            w.add_token_scores(scores)
        if merges is not None:
            w.add_token_merges(merges)
        for key, value in keys.items():
            add = {bool: w.add_bool, int: w.add_uint32, str: w.add_string, bytes: lambda k, v: w.add_array(k, v)}[type(value)]
            add("tokenizer.ggml." + key, value)
    return fill


def tensors(header):
    """A safetensors file of these (name, shape) in F16, all zeros."""
    at, out = 0, {}
    for name, shape in header:
        size = 2 * int(np.prod(shape))
        out[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(out).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    os.makedirs(SEEDS)

    def every_type(w):
        for i, add in enumerate([w.add_uint8, w.add_int8, w.add_uint16, w.add_int16, w.add_uint32, w.add_int32, w.add_uint64, w.add_int64]):
            add("a.%d" % i, i)
        w.add_float32("f", 0.5)
        w.add_float64("d", 0.5)
        w.add_bool("b", True)
        w.add_string("s", "text")
        w.add_array("as", ["x", "yz"])
        w.add_array("ai", [1, 2, 3])
    two = [("a.weight", np.ones((2, 4), np.float32)), ("b.weight", np.ones(8, np.float16))]
    save("gguf-types", gguf_file("llama", every_type, two))
    save("gguf-empty", gguf_file("llama", lambda w: None))

    def part(i):
        def fill(w):
            w.add_uint16("split.no", i)
            w.add_uint16("split.count", 2)
            w.add_int32("split.tensors.count", 2)
        return gguf_file("llama", fill, two[i:i + 1])
    save("split_gguf-two", part(0), part(1))
    save("split_gguf-one", gguf_file("llama", every_type, two))

    normal, unknown, control, user, byte = 1, 2, 3, 4, 6
    letters = list("abdehlorw")
    save("tokenizer-bytes", TEXT, gguf_file("llama", vocabulary(
        "gpt2", letters + ["Ġ", "he", "ll", "Ġw", "<|im_start|>", "  "], [normal] * 13 + [control, user], merges=["h e", "l l", "Ġ w"], pre="llama-bpe",
        eos_token_id=13, add_bos_token=False)))
    pieces = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(32, 64)] + ["▁"] + letters + ["he", "ll", "▁w", "▁wo"]
    types = [unknown, control, control] + [byte] * 32 + [normal] * (len(pieces) - 35)
    scores = [-float(i) for i in range(len(pieces))]
    save("tokenizer-pieces", TEXT, gguf_file("llama", vocabulary("llama", pieces, types, scores, add_space_prefix=True)))
    save("tokenizer-unigram", TEXT, gguf_file("t5", vocabulary("t5", pieces, types, scores, unknown_token_id=0, remove_extra_whitespaces=True)))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["▁" + c for c in letters] + letters + ["▁he"]
    save("tokenizer-words", TEXT, gguf_file("bert", vocabulary("bert", words, [control] * 4 + [normal] * (len(words) - 4), unknown_token_id=1, bos_token_id=2,
                                                              eos_token_id=3, seperator_token_id=3)))

    for folder in ("llama", "qwen2", "bert"):
        read = lambda name: open(os.path.join(FIXTURES, "folders", folder, name), "rb").read()
        optional = lambda name: read(name) if os.path.exists(os.path.join(FIXTURES, "folders", folder, name)) else b"{}"
        save("tokenizer_json-" + folder, TEXT, read("tokenizer.json"), read("tokenizer_config.json"), optional("generation_config.json"), b"{{ bos_token }}")

    # The first layer's tensors of every architecture, two rows or columns at the most.
    for name, model in json.load(open(os.path.join(FIXTURES, "folders/names.json"))).items():
        config = model["config"] | {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "num_kv_heads": 1, "head_dim": 4}
        config = {k: v for k, v in config.items() if not isinstance(v, (list, dict)) or k.startswith("rope")}
        heads = [(n, s) for n, s, ours in model["tensors"] if ours and "1." not in n]
        small = [(n, [8 if "query_key_value" in n else 2, 8][:len(s)]) for n, s in heads]
        save("safetensors-" + name, json.dumps(config).encode(), tensors(small))

    templates = json.load(open(os.path.join(FIXTURES, "text/templates.json")))
    sources = sorted({t["template"] for t in (templates["cases"] if isinstance(templates, dict) and "cases" in templates else []) if isinstance(t, dict) and "template" in t})
    sources.append("{% for m in messages %}{{ '<|' + m.role + '|>' + m['content'] | trim + eos_token }}{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}")
    sources.append("{% macro f(x) %}{{ x | tojson }}{% endmacro %}{% set ns = namespace(i=0) %}{% if tools %}{{ f(tools) }}{% endif %}"
                   "{%- for m in messages if loop.index0 > 0 %}{% set ns.i = ns.i + 1 %}{{ m.content.split('a')[-1].strip() ~ ns.i }}{% endfor %}{{ strftime_now('%d %b') }}")
    for i, source in enumerate(sources):
        save("template-%d" % i, source.encode(), TEXT)

    native_host()


def native_host():
    frame = lambda message: struct.pack("=I", len(message)) + message
    call = lambda number, method, params: frame(json.dumps({"id": number, "method": method, "params": params}).encode())
    hello = call(1, "hello", {"protocol": 1})
    model = {"id": "0" * 32}
    read = model | {"file": 0, "offset": 0, "bytes": 4, "etag": '""'}
    save("host_messages-all", b"".join([hello, call(2, "ping", {}), call(3, "models.list", {}), call(4, "models.open", model),
                                        call(5, "models.stat", model), call(6, "models.close", model), call(7, "read", read)]))
    save("host_messages-wrong", b"".join([frame(b"{"), call(1, "ping", {}), call(2, "hello", {"protocol": 2}), hello, call(3, "no", [])]))
    save("host_messages-long", hello + struct.pack("=I", 1 << 30))
    head = b"%s @PATH@ HTTP/1.1\r\nHost: @HOST@\r\nAuthorization: Bearer @TOKEN@\r\n"
    save("host_http-get", head % b"GET" + b"Range: bytes=0-9\r\n\r\n" + head % b"GET" + b"Range: bytes=-9\r\nConnection: close\r\n\r\n")
    save("host_http-head", head % b"HEAD" + b"If-Match: *\r\nOrigin: chrome-extension://blpdmpmmcoebgabjpadedfdhkfgghpnn\r\n\r\n")
    save("host_http-post", head % b"POST" + b"Transfer-Encoding: chunked\r\n\r\n4\r\nGGUF\r\n0\r\n\r\n")
    save("host_http-range", b"bytes=1-2")


if __name__ == "__main__":
    main()
