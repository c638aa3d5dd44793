//! Rotary embedding: base and scaling, in GGUF's keys and tensors.

use std::f64::consts::TAU;

use super::json::Json;
use super::spec::{FolderSpec, Heads, RopeOrder};
use crate::formats::{DType, FormatError, Metadata, TensorInfo, Transform, Value};

/// Adds the keys; gives the tensors that GGUF files hold for it (`rope_freqs.weight` and the like), whose values follow from the
/// configuration.
pub(super) fn add(family: &str, spec: &FolderSpec, config: &Json, metadata: &mut Metadata) -> Result<Vec<TensorInfo>, FormatError> {
    if spec.rope == RopeOrder::None {
        return Ok(Vec::new());
    }
    let mut put = |key: &str, value: Value| drop(metadata.insert(format!("{family}.rope.{key}"), value));
    // transformers 5 has everything in rope_parameters, Gemma 3 by the kind of layer; before, rope_scaling had what is not the base.
    let parameters = |key: &str| Ok(config.object(key)?.map(|object| config.part(key, object)));
    let all = parameters("rope_parameters")?;
    let kind = |key| all.as_ref().map_or(Ok(None), |all| Ok(all.object(key)?.map(|object| all.part(key, object))));
    let (full, sliding) = (kind("full_attention")?, kind("sliding_attention")?);
    let scaling = match full {
        Some(full) => Some(full),
        None => all.or(parameters("rope_scaling")?),
    };
    let number = |keys: &[&str]| match &scaling {
        Some(scaling) => scaling.f32(keys).transpose().or_else(|| config.f32(keys).transpose()).transpose(),
        None => config.f32(keys),
    };
    let base = number(&["rope_theta"])?.unwrap_or(spec.defaults.rope_base);
    put("freq_base", Value::F32(base));
    if let Some(default) = spec.defaults.local_rope_base {
        let local = match sliding {
            Some(sliding) => sliding.f32(&["rope_theta"])?,
            None => config.f32(&["rope_local_base_freq"])?,
        };
        put("freq_base_swa", Value::F32(local.unwrap_or(default)));
    }
    let fraction = number(&["partial_rotary_factor", "rope_pct"])?.unwrap_or(spec.defaults.rotated);
    let head_dim = Heads::new(config, spec)?.dim;
    let rotated = (fraction * head_dim as f32) as u32;
    if !(2..=head_dim).contains(&rotated) {
        return Err(config.invalid(format!("{rotated} of {head_dim} elements of a head cannot be rotated")));
    }
    put("dimension_count", Value::U32(rotated));
    let Some(scaling) = &scaling else { return Ok(Vec::new()) };
    let need = |keys: &[&str]| number(keys)?.ok_or_else(|| scaling.invalid(format!("{} is missing", keys.join(" or "))));
    let original = number(&["original_max_position_embeddings"])?;
    match scaling.str("rope_type").or(scaling.str("type")).unwrap_or("default") {
        "default" | "none" => Ok(Vec::new()),
        "linear" => {
            put("scaling.type", Value::String("linear".to_owned()));
            put("scaling.factor", Value::F32(need(&["factor"])?));
            Ok(Vec::new())
        }
        "yarn" => {
            put("scaling.type", Value::String("yarn".to_owned()));
            put("scaling.factor", Value::F32(need(&["factor"])?));
            let context = config.need_u32(&["max_position_embeddings"])?;
            put("scaling.original_context_length", Value::U32(original.map_or(context, |original| original as u32)));
            for (from, to) in [
                ("attention_factor", "scaling.attn_factor"),
                ("beta_fast", "scaling.yarn_beta_fast"),
                ("beta_slow", "scaling.yarn_beta_slow"),
                ("mscale_all_dim", "scaling.yarn_log_multiplier"),
            ] {
                if let Some(value) = scaling.f32(&[from])? {
                    put(to, Value::F32(value));
                }
            }
            Ok(Vec::new())
        }
        "llama3" => {
            let (low, high) = (need(&["low_freq_factor"])?, need(&["high_freq_factor"])?);
            let divisors = llama3(base, rotated, need(&["factor"])?, low, high, original.unwrap_or(8192.0));
            Ok(vec![vector("rope_freqs.weight", divisors)])
        }
        "longrope" | "su" => {
            let context = config.need_u32(&["max_position_embeddings"])? as f32;
            let original = original.ok_or_else(|| scaling.invalid("original_max_position_embeddings is missing".to_owned()))?;
            put("scaling.original_context_length", Value::U32(original as u32));
            let scale = scaling.f32(&["factor"])?.unwrap_or(context / original);
            let usual = if scale > 1.0 { (1.0 + scale.ln() / original.ln()).sqrt() } else { 1.0 };
            put("scaling.attn_factor", Value::F32(scaling.f32(&["attention_factor"])?.unwrap_or(usual)));
            let factors = |key: &str, name| {
                let values = scaling.get(key).and_then(|values| values.as_array()).map(Vec::as_slice).unwrap_or_default();
                let values: Vec<f32> = values.iter().filter_map(|value| value.as_f64().map(|v| v as f32)).collect();
                let pairs = rotated as usize / 2;
                if values.is_empty() || values.len() != pairs {
                    return Err(scaling.invalid(format!("{key} has {} numbers instead of {pairs}", values.len())));
                }
                Ok(vector(name, values))
            };
            Ok(vec![factors("long_factor", "rope_factors_long.weight")?, factors("short_factor", "rope_factors_short.weight")?])
        }
        other => Err(FormatError::UnsupportedFolder {
            what: "rope_type",
            value: other.to_owned(),
            supported: "default, linear, llama3, yarn, longrope".to_owned(),
        }),
    }
}

/// What llama 3 divides each of its frequencies by: 1 for short waves, `factor` for long ones, between them something between.
fn llama3(base: f32, rotated: u32, factor: f32, low: f32, high: f32, context: f32) -> Vec<f32> {
    let (base, factor, low, high, context) = (f64::from(base), f64::from(factor), f64::from(low), f64::from(high), f64::from(context));
    let divisor = |i: u32| {
        let wavelength = TAU * base.powf(f64::from(2 * i) / f64::from(rotated));
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..rotated / 2).map(|i| divisor(i) as f32).collect()
}

/// A tensor that is not stored.
fn vector(name: &str, values: Vec<f32>) -> TensorInfo {
    TensorInfo {
        name: name.to_owned(),
        dtype: DType::F32,
        shape: vec![values.len() as u64],
        offset: 0,
        bytes: 4 * values.len() as u64,
        transform: Some(Transform::Values(values)),
    }
}
