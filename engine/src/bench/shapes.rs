//! Published shapes of models, and files of those shapes with random weights: for timing without a download.

use futures::future::LocalBoxFuture;

use crate::error::{EngineError, Result};
use crate::formats::convert::Recipe;
use crate::formats::gguf_write::{TensorHeader, alignment, header};
use crate::formats::{Array, DType, Metadata, TensorInfo, Value, convert_rows};
use crate::source::Source;

/// The shape of a published model, from its configuration.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "a row of a table")]
pub struct Shape {
    /// Name to ask for it.
    pub name: &'static str,
    architecture: &'static str,
    layers: u32,
    dim: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    feed_forward: u32,
    vocab: u32,
    /// The embedding is the output's matrix too.
    tied: bool,
    rope_base: f32,
    /// Norms of queries and keys.
    qk_norm: bool,
    /// Norms behind attention and feed-forward network.
    post_norms: bool,
    /// Biases of queries, keys and values.
    qkv_bias: bool,
    /// Positions that most layers see; 0: all.
    window: u32,
    /// Experts of each layer, those of a token, and the width of one; 0: none.
    experts: [u32; 3],
}

const LLAMA_1B: Shape = Shape {
    name: "llama-3.2-1b",
    architecture: "llama",
    layers: 16,
    dim: 2048,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    feed_forward: 8192,
    vocab: 128_256,
    tied: true,
    rope_base: 5e5,
    qk_norm: false,
    post_norms: false,
    qkv_bias: false,
    window: 0,
    experts: [0; 3],
};

/// Every shape.
pub const SHAPES: &[Shape] = &[
    LLAMA_1B,
    Shape { name: "llama-3.2-3b", layers: 28, dim: 3072, heads: 24, head_dim: 128, ..LLAMA_1B },
    Shape { name: "llama-3.1-8b", layers: 32, dim: 4096, head_dim: 128, feed_forward: 14_336, tied: false, ..LLAMA_1B },
    Shape { name: "llama-3.1-70b", layers: 80, dim: 8192, heads: 64, head_dim: 128, feed_forward: 28_672, tied: false, ..LLAMA_1B },
    Shape {
        name: "qwen2.5-0.5b",
        architecture: "qwen2",
        layers: 24,
        dim: 896,
        heads: 14,
        kv_heads: 2,
        feed_forward: 4864,
        vocab: 151_936,
        rope_base: 1e6,
        qkv_bias: true,
        ..LLAMA_1B
    },
    Shape {
        name: "qwen3-0.6b",
        architecture: "qwen3",
        layers: 28,
        dim: 1024,
        heads: 16,
        head_dim: 128,
        feed_forward: 3072,
        vocab: 151_936,
        rope_base: 1e6,
        qk_norm: true,
        ..LLAMA_1B
    },
    Shape {
        name: "gemma-3-1b",
        architecture: "gemma3",
        layers: 26,
        dim: 1152,
        heads: 4,
        kv_heads: 1,
        head_dim: 256,
        feed_forward: 6912,
        vocab: 262_144,
        rope_base: 1e6,
        qk_norm: true,
        post_norms: true,
        window: 512,
        ..LLAMA_1B
    },
    Shape {
        name: "gemma-3-12b",
        architecture: "gemma3",
        layers: 48,
        dim: 3840,
        heads: 16,
        head_dim: 256,
        feed_forward: 15_360,
        vocab: 262_208,
        rope_base: 1e6,
        qk_norm: true,
        post_norms: true,
        window: 1024,
        ..LLAMA_1B
    },
    Shape {
        name: "qwen3-30b-a3b",
        architecture: "qwen3moe",
        layers: 48,
        heads: 32,
        kv_heads: 4,
        head_dim: 128,
        feed_forward: 6144,
        vocab: 151_936,
        tied: false,
        rope_base: 1e6,
        qk_norm: true,
        experts: [128, 8, 768],
        ..LLAMA_1B
    },
    Shape {
        name: "mixtral-8x7b",
        layers: 32,
        dim: 4096,
        head_dim: 128,
        feed_forward: 14_336,
        vocab: 32_000,
        tied: false,
        rope_base: 1e6,
        experts: [8, 2, 14_336],
        ..LLAMA_1B
    },
    Shape {
        name: "granite-3-1b-a400m",
        architecture: "granitemoe",
        layers: 24,
        dim: 1024,
        heads: 16,
        feed_forward: 512,
        vocab: 49_155,
        rope_base: 10_000.0,
        experts: [32, 8, 512],
        ..LLAMA_1B
    },
    Shape { name: "tiny-moe", experts: [16, 4, 256], ..TINY },
    TINY,
];

const TINY: Shape = Shape { name: "tiny", layers: 2, dim: 256, heads: 4, kv_heads: 2, feed_forward: 512, vocab: 2048, ..LLAMA_1B };

/// Values that are quantized together by any type.
const POOL_ROW: usize = 256;

/// Rows of values that repeat through all weights of a type: a prime number, so that the rows of a matrix differ.
const POOL_ROWS: usize = 1021;

/// Chat template: one message a line.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}";

impl Shape {
    /// The shape of this name.
    ///
    /// # Errors
    /// When there is none, with the names that there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| EngineError::Unsupported {
            what: "shape",
            value: name.to_owned(),
            supported: SHAPES.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", "),
        })
    }

    fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new();
        let architecture = self.architecture;
        metadata.insert("general.architecture", Value::String(architecture.to_owned()));
        metadata.insert("general.name", Value::String(format!("{} with random weights", self.name)));
        let numbers = [
            ("block_count", self.layers),
            ("context_length", 131_072),
            ("embedding_length", self.dim),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("attention.sliding_window", self.window),
            ("expert_count", self.experts[0]),
            ("expert_used_count", self.experts[1]),
            ("expert_feed_forward_length", self.experts[2]),
        ];
        for (key, value) in numbers {
            metadata.insert(format!("{architecture}.{key}"), Value::U32(value));
        }
        metadata.insert(format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
        metadata.insert(format!("{architecture}.rope.freq_base"), Value::F32(self.rope_base));
        // The bytes of ASCII, one merge, and fillers that no text becomes. Other bytes would make answers of random weights invalid
        // UTF-8, at which wllama fails.
        let mut hidden = 0;
        let mut tokens: Vec<String> = (0..128)
            .map(|byte| {
                let code = if matches!(byte, 33..=126) {
                    byte
                } else {
                    hidden += 1;
                    255 + hidden
                };
                char::from_u32(code).unwrap_or_default().to_string()
            })
            .collect();
        tokens.push("th".to_owned());
        tokens.extend((tokens.len() as u32..self.vocab).map(|i| format!("~{i}")));
        metadata.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
        metadata.insert("tokenizer.ggml.pre", Value::String("gpt-2".to_owned()));
        metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
        metadata.insert("tokenizer.ggml.merges", Value::Array(Array::String(vec!["t h".to_owned()])));
        metadata.insert("tokenizer.chat_template", Value::String(CHAT_TEMPLATE.to_owned()));
        metadata
    }

    /// Names and shapes of the tensors, row length first.
    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (dim, ff, head_dim) = (u64::from(self.dim), u64::from(self.feed_forward), u64::from(self.head_dim));
        let (q, kv) = (u64::from(self.heads) * head_dim, u64::from(self.kv_heads) * head_dim);
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![dim, u64::from(self.vocab)])];
        let mut part = |name: String, shape: &[u64]| tensors.push((name, shape.to_vec()));
        for i in 0..self.layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            part(name("attn_norm.weight"), &[dim]);
            for (projection, rows) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                part(name(&format!("{projection}.weight")), &[dim, rows]);
                if self.qkv_bias {
                    part(name(&format!("{projection}.bias")), &[rows]);
                }
            }
            if self.qk_norm {
                part(name("attn_q_norm.weight"), &[head_dim]);
                part(name("attn_k_norm.weight"), &[head_dim]);
            }
            part(name("attn_output.weight"), &[q, dim]);
            part(name("ffn_norm.weight"), &[dim]);
            if self.experts[0] > 0 {
                let [experts, _, width] = self.experts.map(u64::from);
                part(name("ffn_gate_inp.weight"), &[dim, experts]);
                part(name("ffn_gate_exps.weight"), &[dim, width, experts]);
                part(name("ffn_up_exps.weight"), &[dim, width, experts]);
                part(name("ffn_down_exps.weight"), &[width, dim, experts]);
            } else {
                part(name("ffn_gate.weight"), &[dim, ff]);
                part(name("ffn_up.weight"), &[dim, ff]);
                part(name("ffn_down.weight"), &[ff, dim]);
            }
            if self.post_norms {
                part(name("post_attention_norm.weight"), &[dim]);
                part(name("post_ffw_norm.weight"), &[dim]);
            }
        }
        part("output_norm.weight".to_owned(), &[dim]);
        if !self.tied {
            part("output.weight".to_owned(), &[dim, u64::from(self.vocab)]);
        }
        tensors
    }
}

/// A GGUF file of a shape with random weights, made as it is read.
#[derive(Debug)]
pub struct Synthetic {
    name: String,
    header: Vec<u8>,
    /// Where each tensor begins and ends, and the bytes that repeat in it.
    tensors: Vec<(u64, u64, usize)>,
    pools: Vec<(DType, Vec<u8>)>,
    bytes: u64,
}

impl Synthetic {
    /// The file of `shape` with the types that `recipe` gives its tensors.
    ///
    /// # Errors
    /// When a type cannot be made.
    pub fn new(shape: &Shape, recipe: Recipe) -> Result<Self> {
        let metadata = shape.metadata();
        let infos: Vec<TensorInfo> = shape
            .tensors()
            .into_iter()
            .map(|(name, shape_of)| {
                let mut info = TensorInfo { name, dtype: DType::F32, shape: shape_of, offset: 0, bytes: 0, transform: None };
                info.dtype = recipe.dtype(&info, u64::from(shape.layers), shape.tied);
                info.bytes = info.elements() / info.dtype.block_size() * info.dtype.block_bytes();
                info
            })
            .collect();
        let headers: Vec<TensorHeader<'_>> =
            infos.iter().map(|t| TensorHeader { name: &t.name, dtype: t.dtype, shape: &t.shape, bytes: t.bytes }).collect();
        let mut header = header(&metadata, &headers);
        header.resize(header.len().next_multiple_of(alignment(&metadata)), 0);
        let mut pools: Vec<(DType, Vec<u8>)> = vec![(DType::F32, bytemuck::cast_slice(&[1.0f32; 1024]).to_vec())];
        let mut tensors = Vec::with_capacity(infos.len());
        let mut offset = header.len() as u64;
        for info in &infos {
            if !pools.iter().any(|(dtype, _)| *dtype == info.dtype) {
                pools.push((info.dtype, convert_rows(DType::F32, info.dtype, POOL_ROW as u64, &random_values())?));
            }
            let pool = pools.iter().position(|(dtype, _)| *dtype == info.dtype).unwrap_or(0);
            tensors.push((offset, offset + info.bytes, pool));
            offset = (offset + info.bytes).next_multiple_of(alignment(&metadata) as u64);
        }
        Ok(Self { name: shape.name.to_owned(), header, tensors, pools, bytes: offset })
    }

    /// Fills `out`, which is zero, with the file's bytes from `offset` on. Any number of threads may do so concurrently.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        if offset < self.header.len() as u64 {
            let from_header = &self.header[offset as usize..self.header.len().min(end as usize)];
            out[..from_header.len()].copy_from_slice(from_header);
        }
        let first = self.tensors.partition_point(|(_, tensor_end, _)| *tensor_end <= offset);
        for (tensor, tensor_end, pool) in self.tensors[first..].iter().take_while(|(tensor, ..)| *tensor < end) {
            let pool = &self.pools[*pool].1;
            let mut at = offset.max(*tensor);
            while at < end.min(*tensor_end) {
                let in_pool = ((at - tensor) % pool.len() as u64) as usize;
                let count = (pool.len() - in_pool).min((end.min(*tensor_end) - at) as usize);
                out[(at - offset) as usize..][..count].copy_from_slice(&pool[in_pool..][..count]);
                at += count as u64;
            }
        }
    }
}

/// Numbers of a standard deviation that models have, as little-endian floats: the same in every run.
fn random_values() -> Vec<u8> {
    let mut state = 1u64;
    let mut uniform = || {
        // SplitMix64, Steele et al. 2014.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    };
    // A sum of four uniform numbers is near enough to a normal one.
    let normal = |_| ((uniform() + uniform() + uniform() + uniform() - 2.0) * 0.035).to_le_bytes();
    (0..POOL_ROW * POOL_ROWS).flat_map(normal).collect()
}

impl Source for Synthetic {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, bytes: usize) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let mut out = vec![0; bytes];
        self.fill(offset, &mut out);
        Box::pin(async move { Ok(out) })
    }
}
