//! One product with the kernel that suits the number of rows and the device.

use super::super::pass::{Act, Pass, PassRecorder};
use super::super::scratch::Lease;
use super::super::slab::{Slab, Weight};
use super::norm::NormWeights;
use crate::exec::BufferId;
use crate::kernels::{
    Capabilities, Epilogue, Interleave, Linear, Matmul, MatmulBindings, MatmulCombine, MatmulCombineBindings, MatmulInt8,
    MatmulInt8Bindings, MatmulInt16, Matvec, MatvecBindings, MatvecInt16Bindings, NormKind, QuantizeInt16, QuantizeInt16Bindings,
    QuantizeRows, QuantizeRowsBindings, WeightLayout,
};

/// Most rows of [`Product::Int16`]: those of sequences that decode together.
pub(crate) const INT16_ROWS: u32 = 32;

/// The way in which rows are multiplied by weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    /// One by one.
    Rows,
    /// Together, rounded to 15 bits: as exact as one by one, so that an answer does not depend on who else is served.
    Int16,
    /// In large tiles.
    Tiles,
}

impl Product {
    /// For a slab of so many outputs, and so many rows in runs of `run`.
    fn of(layout: &WeightLayout, outputs: u32, rows: u32, run: u32, capabilities: &Capabilities) -> Self {
        // More rows are not worth re-reading weights for…
        const FEW_ROWS: u32 = 4;
        // …nor are fewer, unless rounding them, in a dispatch of its own, takes longer than re-reading (NVIDIA H200: 3 µs, 3 TB/s).
        const BYTES_WORTH_ROUNDING: u64 = 8 << 20;
        // With subgroup matrices a large tile that is half full is faster already.
        const ROWS_BEFORE_MATRICES: u32 = 16;
        let int16_rows = if Matmul::multiplies_matrices(capabilities) { ROWS_BEFORE_MATRICES } else { INT16_ROWS };
        let int16 = MatmulInt16::suits(layout);
        let re_read = 4 * u64::from(layout.stride) * u64::from(outputs) * u64::from(rows - 1);
        if rows <= FEW_ROWS && (!int16 || re_read < BYTES_WORTH_ROUNDING) {
            Self::Rows
        } else if int16 && run <= int16_rows {
            Self::Int16
        } else {
            Self::Tiles
        }
    }
}

/// A matrix with the bias of its products.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Weight,
    /// One element for each row of the matrix.
    pub(crate) bias: Option<BufferId>,
}

/// Rows to multiply. What products of different kinds need of them is made once.
#[derive(Debug)]
pub(crate) struct Operand {
    /// As they are.
    rows: Act,
    /// The norm that is still to be applied to them.
    norm: Option<NormWeights>,
    /// The rows with the norm applied.
    normalized: Option<Act>,
    /// The rows, normalized, as integers.
    quantized: Option<QuantizedRows>,
}

/// Rows as integers with their scales.
#[derive(Debug)]
struct QuantizedRows {
    order: Interleave,
    /// 8 or 16.
    bits: u32,
    numbers: Lease,
    scales: Lease,
}

/// Place of a product's outputs: a buffer with first element, row stride and distance of outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    buffer: BufferId,
    offset: u32,
    stride: u32,
    step: u32,
}

impl Operand {
    /// Rows that are multiplied as they are.
    pub(super) fn plain(rows: Act) -> Self {
        Self { rows, norm: None, normalized: None, quantized: None }
    }

    /// Rows that are normalized on the way.
    pub(super) fn normalized(rows: Act, norm: NormWeights) -> Self {
        Self { norm: Some(norm), ..Self::plain(rows) }
    }

    /// The same rows for another product, which makes what it needs of them itself.
    pub(super) fn again(&self) -> Self {
        Self { rows: self.rows.clone(), norm: self.norm, normalized: self.normalized.clone(), quantized: None }
    }

    /// Number of rows.
    pub(super) fn count(&self) -> u32 {
        self.rows.rows
    }

    /// Weights of the norm, where a kernel applies it itself.
    fn fused_norm(&self, pass: &PassRecorder<'_>) -> Option<BufferId> {
        self.norm.filter(|norm| pass.norm.kind == NormKind::Rms && norm.bias.is_none()).map(|norm| norm.weight)
    }

    /// The rows that a kernel gets which applies the norm itself where that is [fused](Self::fused_norm).
    pub(super) fn record_unfused(&mut self, pass: &mut PassRecorder<'_>) -> (Act, Option<BufferId>) {
        let fused = self.fused_norm(pass);
        (if fused.is_some() { self.rows.clone() } else { self.record_norm(pass) }, fused)
    }

    /// The rows with the norm applied.
    pub(super) fn record_norm(&mut self, pass: &mut PassRecorder<'_>) -> Act {
        let Some(norm) = self.norm else { return self.rows.clone() };
        self.normalized.get_or_insert_with(|| norm.record_new(pass, &self.rows)).clone()
    }

    /// The rows as int16 for weights of this layout, and their scales.
    fn record_int16(&mut self, pass: &mut PassRecorder<'_>, layout: &WeightLayout) -> (BufferId, BufferId) {
        let order = layout.interleave();
        self.record_quantized(16, order, |x| {
            let short = layout.cols <= QuantizeInt16::MAX_NORM;
            let (rows, norm_weight) = if short { x.record_unfused(pass) } else { (x.record_norm(pass), None) };
            let norm = norm_weight.map(|_| pass.norm.eps);
            let kernel = QuantizeInt16 { rows: rows.rows, n_in: layout.cols, x_offset: rows.offset, x_stride: rows.stride, order, norm };
            let [numbers, scales] = QuantizeInt16::sizes(kernel.rows, kernel.n_in).map(|bytes| pass.workspace(bytes));
            let bindings = QuantizeInt16Bindings { x: rows.buffer, bytes: numbers.buffer, factors: scales.buffer, norm_weight };
            pass.dispatch(kernel, bindings);
            [numbers, scales]
        })
    }

    /// The rows as int8 for weights of this layout, and their scales.
    pub(super) fn record_int8(&mut self, pass: &mut PassRecorder<'_>, layout: &WeightLayout) -> (BufferId, BufferId) {
        let order = layout.interleave();
        self.record_quantized(8, order, |x| {
            let rows = x.record_norm(pass);
            let kernel = QuantizeRows { rows: rows.rows, n_in: layout.cols, x_offset: rows.offset, x_stride: rows.stride, order };
            let [numbers, scales] = QuantizeRows::sizes(kernel.rows, kernel.n_in).map(|bytes| pass.workspace(bytes));
            pass.dispatch(kernel, QuantizeRowsBindings { x: rows.buffer, bytes: numbers.buffer, scales: scales.buffer });
            [numbers, scales]
        })
    }

    /// The rows as integers, by `record` unless they are there already. Others are released first: the next may be in the same slots.
    fn record_quantized(&mut self, bits: u32, order: Interleave, record: impl FnOnce(&mut Self) -> [Lease; 2]) -> (BufferId, BufferId) {
        let known = self.quantized.take().filter(|rows| (rows.bits, rows.order) == (bits, order));
        let rows = known.unwrap_or_else(|| {
            let [numbers, scales] = record(self);
            QuantizedRows { order, bits, numbers, scales }
        });
        let buffers = (rows.numbers.buffer, rows.scales.buffer);
        self.quantized = Some(rows);
        buffers
    }
}

impl Target {
    /// Whole rows.
    pub(super) fn rows(out: &Act) -> Self {
        Self::columns(out, 0, 1)
    }

    /// Every `step`th column from `first` on.
    pub(super) fn columns(out: &Act, first: u32, step: u32) -> Self {
        Self { buffer: out.buffer, offset: out.offset + first, stride: out.stride, step }
    }
}

impl Projection {
    /// `out = x * weight^T + bias`, in the way that `epilogue` says.
    pub(super) fn record(&self, pass: &mut PassRecorder<'_>, x: &mut Operand, out: Target, epilogue: Epilogue) {
        let epilogue = Epilogue { bias: self.bias.is_some(), weight_scale: self.weight.scale, ..epilogue };
        for slab in &self.weight.slabs {
            // Pairs of rows become one output.
            let first_out = if epilogue.gated { slab.first_row / 2 } else { slab.first_row };
            let linear = Linear {
                layout: self.weight.layout,
                n_out: slab.rows,
                rows: x.count(),
                x_offset: x.rows.offset,
                x_stride: x.rows.stride,
                out_offset: out.offset + first_out * out.step,
                out_stride: out.stride,
                out_step: out.step,
                first_out: slab.first_row,
                epilogue,
                experts: None,
            };
            match Product::of(&linear.layout, linear.n_out, linear.rows, pass.run_of(linear.rows), pass.capabilities) {
                Product::Rows => self.record_rows(pass, slab, linear, x, out.buffer),
                Product::Int16 => self.record_int16(pass, slab, linear, x, out.buffer),
                Product::Tiles => self.record_tiles(pass, slab, linear, x, out.buffer),
            }
        }
    }

    /// The same with neither rows nor weights rounded, where the weights are floats: a choice depends on it.
    pub(super) fn record_exact(&self, pass: &mut PassRecorder<'_>, x: &mut Operand, out: Target) {
        // Tiles of halves round.
        let tiles = Matmul::is_exact(pass.capabilities) && pass.run_of(x.count()) > INT16_ROWS;
        let epilogue = Epilogue { bias: self.bias.is_some(), weight_scale: self.weight.scale, ..Epilogue::STORE };
        for slab in &self.weight.slabs {
            let linear = Linear {
                layout: self.weight.layout,
                n_out: slab.rows,
                rows: x.count(),
                x_offset: x.rows.offset,
                x_stride: x.rows.stride,
                out_offset: out.offset + slab.first_row * out.step,
                out_stride: out.stride,
                out_step: out.step,
                first_out: slab.first_row,
                epilogue,
                experts: None,
            };
            if tiles {
                self.record_tiles(pass, slab, linear, x, out.buffer);
            } else {
                self.record_rows(pass, slab, linear, x, out.buffer);
            }
        }
    }

    /// Whether the product of the rows of the pass can combine pairs of outputs, `Epilogue::gated`.
    pub(super) fn fuses_gate(&self, pass: &PassRecorder<'_>) -> bool {
        let Pass { rows, run, .. } = pass.pass;
        let product = |slab: &Slab| Product::of(&self.weight.layout, slab.rows, rows, run, pass.capabilities);
        self.weight.slabs.iter().all(|slab| product(slab) != Product::Tiles)
    }

    /// A product of rows one by one.
    fn record_rows(&self, pass: &mut PassRecorder<'_>, slab: &Slab, linear: Linear, x: &mut Operand, out: BufferId) {
        let (rows, norm_weight) = x.record_unfused(pass);
        let linear = Linear { x_offset: rows.offset, x_stride: rows.stride, ..linear };
        let bindings = MatvecBindings { weights: slab.buffer, x: rows.buffer, out, norm_weight, bias: self.bias, chosen: None };
        pass.dispatch(Matvec { linear, norm: norm_weight.map(|_| pass.norm.eps) }, bindings);
    }

    /// A product of rows that share a read of the weights.
    fn record_int16(&self, pass: &mut PassRecorder<'_>, slab: &Slab, linear: Linear, x: &mut Operand, out: BufferId) {
        let (x, factors) = x.record_int16(pass, &linear.layout);
        pass.dispatch(MatmulInt16 { linear }, MatvecInt16Bindings { weights: slab.buffer, x, out, factors, bias: self.bias });
    }

    /// A product of many rows, with split-K where that fills the device.
    fn record_tiles(&self, pass: &mut PassRecorder<'_>, slab: &Slab, linear: Linear, x: &mut Operand, out: BufferId) {
        let (weights, bias) = (slab.buffer, self.bias);
        let int8 = MatmulInt8::suits(&linear.layout, pass.capabilities).then(|| x.record_int8(pass, &linear.layout));
        let rows = if int8.is_some() { None } else { Some(x.record_norm(pass)) };
        let linear = rows.as_ref().map_or(linear, |rows| Linear { x_offset: rows.offset, x_stride: rows.stride, ..linear });
        let run = Linear { rows: pass.run_of(linear.rows), ..linear };
        let splits = if int8.is_some() { MatmulInt8::splits(&run, pass.capabilities) } else { Matmul::splits(&run, pass.capabilities) };
        let combine = MatmulCombine { linear, splits };
        let workspace = (splits > 1).then(|| pass.workspace(combine.workspace_bytes()));
        let target = workspace.as_ref().map_or(out, |workspace| workspace.buffer);
        if let Some((x, activation_scales)) = int8 {
            pass.dispatch(
                MatmulInt8 { linear, splits },
                MatmulInt8Bindings { weights, x, out: target, activation_scales, bias, chosen: None },
            );
        } else if let Some(rows) = rows {
            pass.dispatch(Matmul { linear, splits }, MatmulBindings { weights, x: rows.buffer, out: target, bias, chosen: None });
        }
        if let Some(workspace) = workspace {
            pass.dispatch(combine, MatmulCombineBindings { workspace: workspace.buffer, out, bias });
        }
    }
}
