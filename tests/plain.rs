//! Decoders of llama's kind in f64, as their definition has them: whole rows, all positions at once, no cache.

use doppler_engine::formats::{DType, dequantize};

use super::raw::Raw;

/// A model, and what its file does not say.
pub(crate) struct Plain<'a> {
    pub(crate) raw: &'a Raw,
    /// Pairs of the rotary embedding are neighbours, not halves of the head.
    pub(crate) neighbours: bool,
    /// Embeddings grow by the square root of their width, and the gate is a GELU (Gemma).
    pub(crate) gemma: bool,
}

type Vector = Vec<f64>;

impl Plain<'_> {
    /// The vector behind the last norm for each token.
    pub(crate) fn hidden(&self, tokens: &[u32]) -> Vec<Vector> {
        let (width, embeddings) = self.matrix("token_embd.weight").expect("embeddings");
        let scale = if self.gemma { (width as f64).sqrt() } else { 1.0 };
        let embedded = |token: &u32| embeddings[*token as usize * width..][..width].iter().map(|v| v * scale).collect();
        let mut rows: Vec<Vector> = tokens.iter().map(embedded).collect();
        for layer in 0..self.number("block_count").expect("layers") as u32 {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let inputs: Vec<Vector> = rows.iter().map(|x| self.norm(&name("attn_norm"), x)).collect();
            for (x, heads) in rows.iter_mut().zip(self.attention(&name, &inputs)) {
                add(x, &self.norm(&name("post_attention_norm"), &self.product(&name("attn_output"), &heads)));
                let input = self.norm(&name("ffn_norm"), x);
                let gate = self.product(&name("ffn_gate"), &input).into_iter().map(|v| self.activation(v));
                let hidden: Vector = gate.zip(self.product(&name("ffn_up"), &input)).map(|(gate, up)| gate * up).collect();
                add(x, &self.norm(&name("post_ffw_norm"), &self.product(&name("ffn_down"), &hidden)));
            }
        }
        rows.iter().map(|x| self.norm("output_norm", x)).collect()
    }

    /// The logits after a prompt, and those of the likeliest tokens that follow it, `count` rows together.
    pub(crate) fn logits(&self, prompt: &[u32], count: usize) -> Vec<f32> {
        let output = if self.matrix("output.weight").is_some() { "output" } else { "token_embd" };
        let (mut tokens, mut logits) = (prompt.to_vec(), Vec::new());
        for _ in 0..count {
            let row = self.product(output, self.hidden(&tokens).last().expect("a token"));
            tokens.push(row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("a vocabulary").0 as u32);
            logits.extend(row.iter().map(|v| *v as f32));
        }
        logits
    }

    fn attention(&self, name: &impl Fn(&str) -> String, inputs: &[Vector]) -> Vec<Vector> {
        let heads = self.number("attention.head_count").expect("heads") as usize;
        let group = heads / self.number("attention.head_count_kv").expect("heads of keys") as usize;
        let project = |part: &str| inputs.iter().map(|x| self.product(&name(part), x)).collect::<Vec<_>>();
        let (mut queries, mut keys, values) = (project("attn_q"), project("attn_k"), project("attn_v"));
        let length = queries[0].len() / heads;
        for (rows, part) in [(&mut queries, "attn_q_norm"), (&mut keys, "attn_k_norm")] {
            for (position, row) in rows.iter_mut().enumerate() {
                *row = self.norm(&name(part), row);
                row.chunks_mut(length).for_each(|head| self.rotate(head, position as f64));
            }
        }
        let head = |position: usize, head: usize| -> Vector {
            let part = |row: &Vector, head: usize| row[head * length..][..length].to_vec();
            let query = part(&queries[position], head);
            let scores: Vector = (0..=position).map(|p| dot(&query, &part(&keys[p], head / group)) / (length as f64).sqrt()).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vector = scores.iter().map(|score| (score - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut out = vec![0.0; length];
            for (p, weight) in weights.iter().enumerate() {
                out.iter_mut().zip(part(&values[p], head / group)).for_each(|(out, value)| *out += weight / sum * value);
            }
            out
        };
        (0..inputs.len()).map(|position| (0..heads).flat_map(|h| head(position, h)).collect()).collect()
    }

    fn rotate(&self, head: &mut [f64], position: f64) {
        let (length, base) = (head.len(), self.number("rope.freq_base").unwrap_or(1e4));
        for i in 0..length / 2 {
            let (a, b) = if self.neighbours { (2 * i, 2 * i + 1) } else { (i, i + length / 2) };
            let (sin, cos) = (position * base.powf(-2.0 * i as f64 / length as f64)).sin_cos();
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }

    fn activation(&self, x: f64) -> f64 {
        if self.gemma {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        } else {
            x / (1.0 + (-x).exp())
        }
    }

    /// The root mean square norm of each part that is as long as its weights; `x` where the model has no such norm.
    fn norm(&self, name: &str, x: &[f64]) -> Vector {
        let Some((length, weights)) = self.matrix(&format!("{name}.weight")) else { return x.to_vec() };
        let eps = self.number("attention.layer_norm_rms_epsilon").expect("an epsilon");
        let part = |part: &[f64]| -> Vector {
            let factor = 1.0 / (dot(part, part) / length as f64 + eps).sqrt();
            part.iter().zip(&weights).map(|(x, weight)| x * factor * weight).collect()
        };
        x.chunks(length).flat_map(part).collect()
    }

    fn product(&self, name: &str, x: &[f64]) -> Vector {
        let (width, matrix) = self.matrix(&format!("{name}.weight")).expect("a matrix");
        assert_eq!(x.len(), width, "{name}");
        let mut out: Vector = matrix.chunks(width).map(|row| dot(row, x)).collect();
        if let Some((_, bias)) = self.matrix(&format!("{name}.bias")) {
            add(&mut out, &bias);
        }
        out
    }

    /// A tensor with the length of its rows.
    fn matrix(&self, name: &str) -> Option<(usize, Vector)> {
        let tensor = self.raw.tensors.iter().find(|tensor| tensor.name == name.as_bytes())?;
        let mut values = Vec::new();
        dequantize(DType::from_ggml(tensor.dtype), &tensor.data, &mut values).expect("a known type");
        Some((tensor.shape[0] as usize, values.into_iter().map(f64::from).collect()))
    }

    /// A number of the metadata.
    fn number(&self, end: &str) -> Option<f64> {
        let entry = self.raw.entries.iter().find(|entry| entry.key.ends_with(format!(".{end}").as_bytes()))?;
        let bytes = entry.value[..].try_into().expect("four bytes");
        Some(if entry.kind == 6 { f32::from_le_bytes(bytes).into() } else { u32::from_le_bytes(bytes).into() })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
