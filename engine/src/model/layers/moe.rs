//! A mixture of experts: the feed-forward network of a layer, of which each token has the weights that a router chooses for it.

use super::super::loader::Loader;
use super::super::pass::{Act, Attend, PassRecorder};
use super::super::slab::Weight;
use super::super::spec::{MoeSpec, SharedExpert};
use super::linear::{Operand, Projection, Target};
use super::mlp::Mlp;
use crate::error::Result;
use crate::exec::BufferId;
use crate::kernels::{
    Epilogue, Experts, Gated, GatedBindings, Linear, Matmul, MatmulBindings, MatmulInt8, MatmulInt8Bindings, Matvec, MatvecBindings,
    MoeCombine, MoeCombineBindings, MoeSort, MoeSortBindings, MoeTopk, MoeTopkBindings, Shared,
};

/// Most rows of a run of a prefill pass whose experts are read for each row; those of more are sorted by expert.
const FEW_ROWS: u32 = 8;

/// The matrices of all experts, one below the other.
#[derive(Debug)]
pub(crate) struct ExpertMatrices {
    pub(crate) weight: Weight,
    /// One element for each row of each matrix.
    pub(crate) bias: Option<BufferId>,
    /// Rows of one matrix.
    pub(crate) rows: u32,
}

/// The experts of each row.
#[derive(Clone, Copy)]
struct Choices {
    /// Number of choices of all rows.
    count: u32,
    /// `u32 (rows, used)`, or what [`MoeSort`] made of it.
    chosen: BufferId,
    /// Tiles of sorted choices; 0: rows one by one.
    tiles: u32,
}

/// A mixture of experts.
#[derive(Debug)]
pub(crate) struct Moe {
    spec: MoeSpec,
    /// To a logit for each expert.
    router: Projection,
    selection_bias: Option<BufferId>,
    /// Gate and up, their rows alternating.
    up: ExpertMatrices,
    down: ExpertMatrices,
    /// An expert that all rows have, and what gives its weight.
    shared: Option<(Mlp, Option<Projection>)>,
}

impl Moe {
    /// Loads the mixture of layer `i`, whose residual stream has rows of `dim` elements.
    pub(super) fn load(loader: &mut Loader<'_>, spec: MoeSpec, dim: u32, i: u32) -> Result<Self> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let experts = spec.top_k.experts;
        let both = name("ffn_gate_up_exps");
        let up = if loader.has(&format!("{both}.weight")) {
            loader.expert_halves(&both, experts, spec.width, dim)?
        } else {
            loader.experts(&[&name("ffn_gate_exps"), &name("ffn_up_exps")], experts, spec.width, dim)?
        };
        let selection_bias = if spec.selection_bias {
            let bias = name("exp_probs_b.bias");
            let values = loader.floats(&bias, experts)?;
            Some(loader.buffer(&bias, &[values])?)
        } else {
            None
        };
        let shared = match spec.shared {
            Some(SharedExpert { dense, gated }) => {
                let gate = if gated { Some(loader.row_projection(&name("ffn_gate_inp_shexp.weight"), dim)?) } else { None };
                Some((Mlp::load_named(loader, dense, dim, i, "_shexp")?, gate))
            }
            None => None,
        };
        Ok(Self {
            spec,
            router: loader.projection(&name("ffn_gate_inp"), experts, dim)?,
            selection_bias,
            up,
            down: loader.experts(&[&name("ffn_down_exps")], experts, dim, spec.width)?,
            shared,
        })
    }

    /// `scale` times the weighted sum of the experts' outputs, stored in `out` or added to it. Its rows may be those of `x`.
    pub(super) fn record(&self, pass: &mut PassRecorder<'_>, mut x: Operand, out: &Act, scale: f32, add: bool) {
        let (rows, top_k) = (x.count(), self.spec.top_k);
        let (chosen, weights) = self.record_choice(pass, &mut x);
        let shared = self.record_shared(pass, &mut x);
        let count = rows * top_k.used;
        let sort = MoeSort { choices: count, experts: top_k.experts };
        // Few rows, and those of sequences that decode, are computed as one by one: an answer does not depend on who else is served.
        let sorts = pass.pass.attend == Attend::Prefill && pass.run_of(rows) > FEW_ROWS;
        let sorted = sorts.then(|| {
            let sorted = pass.workspace(4 * u64::from(sort.numbers()));
            pass.dispatch(sort, MoeSortBindings { chosen: chosen.buffer, sorted: sorted.buffer });
            sorted
        });
        let choices = match &sorted {
            Some(sorted) => Choices { count, chosen: sorted.buffer, tiles: sort.tiles() },
            None => Choices { count, chosen: chosen.buffer, tiles: 0 },
        };
        let hidden = self.record_hidden(pass, x, choices);
        let y = pass.rows(count, out.stride);
        self.down.record(pass, &mut Operand::plain(hidden), choices, 1, &y, Epilogue::STORE);
        let kind = match &shared {
            None => Shared::None,
            Some((_, None)) => Shared::Plain,
            Some((_, Some(_))) => Shared::Gated,
        };
        let combine = MoeCombine { rows, dim: out.stride, used: top_k.used, scale, add, shared: kind };
        let bindings = MoeCombineBindings {
            y: y.buffer,
            expert_weights: weights.buffer,
            out: out.buffer,
            shared_out: shared.as_ref().map(|(out, _)| out.buffer),
            shared_gate: shared.as_ref().and_then(|(_, gate)| gate.as_ref().map(|gate| gate.buffer)),
        };
        pass.dispatch(combine, bindings);
    }

    /// The experts of each row `(rows, used)`, and their weights.
    fn record_choice(&self, pass: &mut PassRecorder<'_>, x: &mut Operand) -> (Act, Act) {
        let (rows, top_k) = (x.count(), self.spec.top_k);
        let logits = pass.rows(rows, top_k.experts);
        self.router.record_exact(pass, x, Target::rows(&logits));
        let (chosen, weights) = (pass.rows(rows, top_k.used), pass.rows(rows, top_k.used));
        let bindings =
            MoeTopkBindings { logits: logits.buffer, bias: self.selection_bias, chosen: chosen.buffer, expert_weights: weights.buffer };
        pass.dispatch(MoeTopk { rows, top_k, biased: self.selection_bias.is_some() }, bindings);
        (chosen, weights)
    }

    /// The output of the expert that all rows have, and the number that its weight is made of.
    fn record_shared(&self, pass: &mut PassRecorder<'_>, x: &mut Operand) -> Option<(Act, Option<Act>)> {
        let (mlp, gate) = self.shared.as_ref()?;
        let gate = gate.as_ref().map(|gate| {
            let out = pass.rows(x.count(), 1);
            gate.record_exact(pass, x, Target::rows(&out));
            out
        });
        let hidden = mlp.record_hidden(pass, x.again());
        let out = pass.act(mlp.down.weight.rows);
        mlp.down.record(pass, &mut Operand::plain(hidden), Target::rows(&out), Epilogue::STORE);
        Some((out, gate))
    }

    /// The hidden layers of all choices `(rows, used, width)`, activated.
    fn record_hidden(&self, pass: &mut PassRecorder<'_>, mut x: Operand, choices: Choices) -> Act {
        let MoeSpec { width, activation, top_k, .. } = self.spec;
        if choices.tiles == 0 {
            let hidden = pass.rows(choices.count, width);
            let epilogue = Epilogue { activation, gated: true, ..Epilogue::STORE };
            self.up.record(pass, &mut x, choices, top_k.used, &hidden, epilogue);
            return hidden;
        }
        let gate_up = pass.rows(choices.count, 2 * width);
        self.up.record(pass, &mut x, choices, top_k.used, &gate_up, Epilogue::STORE);
        drop(x);
        let hidden = pass.rows(choices.count, width);
        let bindings = GatedBindings { gate_up: gate_up.buffer, out: hidden.buffer };
        pass.dispatch(Gated { rows: choices.count, dim: width, activation }, bindings);
        hidden
    }
}

impl ExpertMatrices {
    /// The products of the choices with the matrices of their experts; `share` of them have one row of x.
    fn record(&self, pass: &mut PassRecorder<'_>, x: &mut Operand, choices: Choices, share: u32, out: &Act, epilogue: Epilogue) {
        let epilogue = Epilogue { bias: self.bias.is_some(), weight_scale: self.weight.scale, ..epilogue };
        let layout = self.weight.layout;
        let (bias, chosen, out_buffer) = (self.bias, Some(choices.chosen), out.buffer);
        for slab in &self.weight.slabs {
            let weights = slab.buffer;
            let experts = Experts { share, first: slab.first_row / self.rows, count: slab.rows / self.rows, tiles: choices.tiles };
            let linear = |rows: &Act| Linear {
                layout,
                n_out: self.rows,
                rows: choices.count,
                x_offset: rows.offset,
                x_stride: rows.stride,
                out_offset: out.offset,
                out_stride: out.stride,
                out_step: 1,
                first_out: 0,
                epilogue,
                experts: Some(experts),
            };
            if choices.tiles == 0 {
                let (rows, norm_weight) = x.record_unfused(pass);
                let bindings = MatvecBindings { weights, x: rows.buffer, out: out_buffer, norm_weight, bias, chosen };
                pass.dispatch(Matvec { linear: linear(&rows), norm: norm_weight.map(|_| pass.norm.eps) }, bindings);
            } else if MatmulInt8::suits(&layout, pass.capabilities) {
                let (x, activation_scales) = x.record_int8(pass, &layout);
                let bindings = MatmulInt8Bindings { weights, x, out: out_buffer, activation_scales, bias, chosen };
                pass.dispatch(MatmulInt8 { linear: linear(out), splits: 1 }, bindings);
            } else {
                let rows = x.record_norm(pass);
                let bindings = MatmulBindings { weights, x: rows.buffer, out: out_buffer, bias, chosen };
                pass.dispatch(Matmul { linear: linear(&rows), splits: 1 }, bindings);
            }
        }
    }
}
