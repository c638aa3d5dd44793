//! Apertus: no gate, and an activation whose parameters each layer has as its own.

use super::Family;
use super::dense::Dense;
use super::header::Header;
use super::qwen;
use crate::error::{EngineError, Result};
use crate::formats::{FormatError, Value};
use crate::kernels::{Activation, XieluParameters};
use crate::model::spec::{FfnSpec, ModelSpec};

const DENSE: Dense = Dense { activation: Activation::None, gated: false, ..qwen::DENSE };

pub(super) const APERTUS: Family = Family::gguf("apertus", spec);

fn spec(header: &Header<'_>) -> Result<ModelSpec> {
    let mut spec = DENSE.spec(header)?;
    let layers = spec.layers.len();
    let of_layers = |key: &str| of_layers(header, key, layers);
    let softplus = |x: f32| (f64::from(x).exp().ln_1p()) as f32;
    let (negative, positive) = (of_layers("xielu.alpha_n")?, of_layers("xielu.alpha_p")?);
    let (beta, eps) = (of_layers("xielu.beta")?, of_layers("xielu.eps")?);
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        let FfnSpec::Dense(dense) = &mut layer.ffn else { continue };
        dense.xielu = Some(XieluParameters {
            positive: softplus(positive[i]),
            negative: beta[i] + softplus(negative[i]),
            beta: beta[i],
            eps: eps[i],
        });
    }
    Ok(spec)
}

/// A number for each layer, or one for all.
fn of_layers(header: &Header<'_>, key: &str, layers: usize) -> Result<Vec<f32>> {
    let metadata = header.metadata();
    let Some(Value::Array(_)) = metadata.get(key) else { return Ok(vec![metadata.f32(key)?; layers]) };
    let numbers = metadata.f32_array_opt(key)?.ok_or_else(|| FormatError::MissingKey { key: key.to_owned() })?;
    if numbers.len() < layers {
        let value = format!("{key} of {} numbers", numbers.len());
        return Err(EngineError::Unsupported { what: "model shape", value, supported: format!("one for each of the {layers} layers") });
    }
    Ok(numbers[..layers].to_vec())
}
