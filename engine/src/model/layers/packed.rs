//! Several projections of the same rows, packed into as few products as the types in the file allow.

use super::super::loader::{Loader, Part};
use super::super::pass::{Act, PassRecorder};
use super::linear::{Operand, Projection, Target};
use crate::error::Result;
use crate::kernels::{Activation, Epilogue, Gated, GatedBindings};

/// Projections side by side in the rows of one output.
#[derive(Debug)]
pub(crate) struct Stacked {
    /// Each with its first column: one for neighbours of one type and scale. Files often have a finer type for the values alone.
    parts: Vec<(Projection, u32)>,
    /// Columns of all together.
    width: u32,
}

impl Stacked {
    /// Loads one tensor of this name where the file has it, or `parts` with their rows.
    pub(super) fn load(loader: &mut Loader<'_>, fused: &str, parts: &[(String, u32)], cols: u32) -> Result<Self> {
        let width = parts.iter().map(|(_, rows)| rows).sum();
        if loader.has(&format!("{fused}.weight")) {
            return Ok(Self { parts: vec![(loader.projection(fused, width, cols)?, 0)], width });
        }
        let mut groups: Vec<Vec<(&String, u32)>> = Vec::new();
        for (part, rows) in parts {
            match groups.last_mut() {
                Some(group) if loader.are_alike(&format!("{part}.weight"), &format!("{}.weight", group[0].0))? => {
                    group.push((part, *rows));
                }
                _ => groups.push(vec![(part, *rows)]),
            }
        }
        let mut projections = Vec::new();
        let mut first = 0;
        for group in groups {
            projections.push((loader.stacked_projection(&group, cols)?, first));
            first += group.iter().map(|(_, rows)| rows).sum::<u32>();
        }
        Ok(Self { parts: projections, width })
    }

    /// All products of `x`.
    pub(super) fn record(&self, pass: &mut PassRecorder<'_>, mut x: Operand) -> Act {
        let out = pass.act(self.width);
        for (projection, first) in &self.parts {
            projection.record(pass, &mut x, Target::columns(&out, *first, 1), Epilogue::STORE);
        }
        out
    }
}

/// The part of a feed-forward network before its activation.
#[derive(Debug)]
pub(crate) enum GateUp {
    /// Gate and up, their rows alternating.
    Interleaved(Projection),
    /// Gate and up of different types or scales, or with biases.
    Separate {
        /// Activated.
        gate: Projection,
        /// Multiplied by the activated gate.
        up: Projection,
    },
    /// No gate.
    Plain(Projection),
}

impl GateUp {
    /// Loads the tensors of these names, of `width` rows each.
    pub(super) fn load(loader: &mut Loader<'_>, [gate, up]: [&str; 2], gated: bool, width: u32, cols: u32) -> Result<Self> {
        let (gate_weight, up_weight) = (format!("{gate}.weight"), format!("{up}.weight"));
        if !gated {
            return Ok(Self::Plain(loader.projection(up, width, cols)?));
        }
        if !loader.has(&gate_weight) {
            // Phi-3: one tensor with the gate's rows first.
            let halves = [Part { name: &up_weight, first_row: 0, rows: width }, Part { name: &up_weight, first_row: width, rows: width }];
            let bias = format!("{up}.bias");
            let bias = if loader.has(&bias) { Some(loader.interleaved_halves(&bias, width)?) } else { None };
            return Ok(Self::Interleaved(Projection { weight: loader.interleaved(halves, cols)?, bias }));
        }
        let has_bias = [gate, up].iter().any(|name| loader.has(&format!("{name}.bias")));
        if !loader.are_alike(&gate_weight, &up_weight)? || has_bias {
            let gate = loader.projection(gate, width, cols)?;
            return Ok(Self::Separate { gate, up: loader.projection(up, width, cols)? });
        }
        let parts = [Part { name: &gate_weight, first_row: 0, rows: width }, Part { name: &up_weight, first_row: 0, rows: width }];
        Ok(Self::Interleaved(Projection { weight: loader.interleaved(parts, cols)?, bias: None }))
    }

    /// `activation(gate(x)) * up(x)`, or `activation(up(x))` without a gate.
    pub(super) fn record(&self, pass: &mut PassRecorder<'_>, mut x: Operand, width: u32, activation: Activation) -> Act {
        let projections = match self {
            Self::Plain(up) => return Self::record_activated(pass, up, &mut x, width, Epilogue { activation, ..Epilogue::STORE }),
            Self::Interleaved(both) if both.fuses_gate(pass) => {
                let epilogue = Epilogue { activation, gated: true, ..Epilogue::STORE };
                return Self::record_activated(pass, both, &mut x, width, epilogue);
            }
            Self::Interleaved(both) => vec![(both, 0, 1)],
            Self::Separate { gate, up } => vec![(gate, 0, 2), (up, 1, 2)],
        };
        let gate_up = pass.act(2 * width);
        for (projection, first, step) in projections {
            projection.record(pass, &mut x, Target::columns(&gate_up, first, step), Epilogue::STORE);
        }
        drop(x);
        let out = pass.act(width);
        let rows = pass.pass.rows;
        pass.dispatch(Gated { rows, dim: width, activation }, GatedBindings { gate_up: gate_up.buffer, out: out.buffer });
        out
    }

    /// A product that applies the activation itself.
    fn record_activated(pass: &mut PassRecorder<'_>, projection: &Projection, x: &mut Operand, width: u32, epilogue: Epilogue) -> Act {
        let out = pass.act(width);
        projection.record(pass, x, Target::rows(&out), epilogue);
        out
    }
}
