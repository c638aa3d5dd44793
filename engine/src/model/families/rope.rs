//! Rotary embedding from GGUF's keys, the same in all families.

use super::header::Header;
use crate::error::{EngineError, Result};
use crate::kernels::{RopePairing, Temperature};
use crate::model::rope::{LONG_ROPE_FACTORS, ROPE_FACTORS, RopeScaling, RopeSpec, SHORT_ROPE_FACTORS};

/// The rotary embedding of the layers that see everything. `base` is the family's where the file has none, `context` what the model was
/// trained for.
pub(super) fn global(header: &Header<'_>, pairing: RopePairing, base: f32, head_dim: u32, context: u32) -> Result<RopeSpec> {
    let rotated = header.integer("rope.dimension_count")?.unwrap_or(head_dim);
    if rotated == 0 || rotated > head_dim || !rotated.is_multiple_of(2) {
        let supported = format!("even numbers up to {head_dim}");
        return Err(EngineError::Unsupported { what: "rope.dimension_count", value: rotated.to_string(), supported });
    }
    // Checkpoints from safetensors keep the order of Hugging Face.
    let pairing = match header.metadata().str_opt(crate::formats::huggingface::PAIRING_KEY)? {
        Some("halves") => RopePairing::Halves,
        _ => pairing,
    };
    let original_context = header.integer("rope.scaling.original_context_length")?.unwrap_or(context);
    let growth = header.number("attention.temperature_scale")?.unwrap_or(0.0);
    let span = header.integer("attention.temperature_length")?.unwrap_or(original_context).max(1);
    let base = header.number("rope.freq_base")?.unwrap_or(base);
    // Hunyuan: a larger base for longer contexts.
    let base = match header.factor("rope.scaling.alpha")? {
        Some(alpha) if head_dim > 2 => base * alpha.powf(head_dim as f32 / (head_dim - 2) as f32),
        _ => base,
    };
    let (scaling, magnitude) = scaling(header, base, original_context)?;
    Ok(RopeSpec {
        rotated,
        pairing,
        base,
        scaling,
        magnitude,
        factors: [ROPE_FACTORS, SHORT_ROPE_FACTORS, LONG_ROPE_FACTORS].iter().any(|name| header.has(name)),
        original_context,
        temperature: (growth != 0.0).then_some(Temperature { growth, span: span as f32 }),
    })
}

/// The rotary embedding of the layers that see a window only where the family does not scale it: with the base that the file has for
/// them, or `base`, or that of the others.
pub(super) fn local(header: &Header<'_>, global: &RopeSpec, base: Option<f32>) -> Result<RopeSpec> {
    let base = header.number("rope.freq_base_swa")?.or(base).unwrap_or(global.base);
    let unscaled = RopeSpec { base, scaling: RopeScaling::None, magnitude: 1.0, ..global.clone() };
    let differs = unscaled != *global;
    Ok(RopeSpec { factors: global.factors && !differs, ..unscaled })
}

/// How frequencies stretch to a longer context than the `original`, and the factor on rotated pairs.
fn scaling(header: &Header<'_>, base: f32, original: u32) -> Result<(RopeScaling, f32)> {
    let number = |suffix: &str| header.number(&format!("rope.{suffix}"));
    let unsupported = |value: String| EngineError::Unsupported {
        what: "rope scaling",
        value,
        supported: "none, linear, yarn, longrope, and llama 3's factors".to_owned(),
    };
    // Before there were types, the factor of linear scaling was `rope.scale_linear`.
    let stretch = number("scaling.factor")?.or(number("scale_linear")?);
    let factor = stretch.unwrap_or(1.0);
    for (what, value) in [("base", base), ("factor", factor)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(unsupported(format!("{what} {value}")));
        }
    }
    let attention = number("scaling.attn_factor")?.unwrap_or(1.0);
    let (scaling, magnitude) = match header.metadata().str_opt(&header.key("rope.scaling.type"))? {
        Some("none" | "longrope") => (RopeScaling::None, 1.0),
        None if stretch.is_none() => (RopeScaling::None, 1.0),
        None | Some("linear") => (RopeScaling::Linear(factor), 1.0),
        Some("yarn") => {
            let growth = |scale: f32| if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 };
            let all = number("scaling.yarn_log_multiplier")?.unwrap_or(0.0);
            let magnitude = match number("scaling.yarn_attn_factor")? {
                Some(magnitude) => magnitude,
                None if all == 0.0 => growth(1.0),
                None => growth(1.0) / growth(all),
            };
            let beta_fast = number("scaling.yarn_beta_fast")?.unwrap_or(32.0);
            let beta_slow = number("scaling.yarn_beta_slow")?.unwrap_or(1.0);
            (RopeScaling::Yarn { factor, original, beta_fast, beta_slow }, magnitude)
        }
        Some(other) => return Err(unsupported(other.to_owned())),
    };
    Ok((scaling, magnitude * attention))
}
