//! One product with the kernel that suits the number of rows and the device.

use super::super::pass::{Act, PassRecorder};
use super::super::scratch::Lease;
use super::super::slab::{Slab, Weight};
use crate::exec::BufferId;
use crate::kernels::{
    Epilogue, Interleave, Linear, Matmul, MatmulBindings, MatmulCombine, MatmulCombineBindings, MatmulInt8, MatmulInt8Bindings, Matvec,
    MatvecBindings, QuantizeRows, QuantizeRowsBindings,
};

/// Rows up to which a product re-reads the activations for each output instead of tiling them.
pub(crate) const MATVEC_ROWS: u32 = 8;

/// A matrix with the bias of its products.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub(crate) weight: Weight,
    /// One element for each row of the matrix.
    pub(crate) bias: Option<BufferId>,
}

/// Rows to multiply.
#[derive(Debug)]
pub(crate) struct Operand {
    pub(super) rows: Act,
    /// Weights of the norm that the product applies; only up to [`MATVEC_ROWS`].
    norm: Option<BufferId>,
    /// The rows as int8, once a product needed them.
    bytes: Option<QuantizedRows>,
}

/// Rows as int8 with their scales.
#[derive(Debug)]
struct QuantizedRows {
    order: Interleave,
    bytes: Lease,
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
        Self { rows, norm: None, bytes: None }
    }

    /// Rows that the product normalizes with these weights.
    pub(super) fn normalized(rows: Act, norm: BufferId) -> Self {
        Self { norm: Some(norm), ..Self::plain(rows) }
    }

    /// Quantizes the rows to int8, unless they are already. Returns the int8 rows and their scales.
    fn record_quantize(&mut self, pass: &mut PassRecorder<'_>, linear: &Linear) -> (BufferId, BufferId) {
        let order = MatmulInt8::order(&linear.layout);
        let rows = if let Some(rows) = self.bytes.take().filter(|rows| rows.order == order) {
            rows
        } else {
            let kernel =
                QuantizeRows { rows: linear.rows, n_in: linear.layout.cols, x_offset: linear.x_offset, x_stride: linear.x_stride, order };
            let [bytes, scales] = QuantizeRows::sizes(kernel.rows, kernel.n_in).map(|bytes| pass.workspace(bytes));
            let bindings = QuantizeRowsBindings { x: self.rows.buffer, bytes: bytes.buffer, scales: scales.buffer };
            pass.dispatch(kernel, bindings);
            QuantizedRows { order, bytes, scales }
        };
        let buffers = (rows.bytes.buffer, rows.scales.buffer);
        self.bytes = Some(rows);
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
        let epilogue = Epilogue { bias: self.bias.is_some(), ..epilogue };
        for slab in &self.weight.slabs {
            // Pairs of rows become one output.
            let first_out = if epilogue.gated { slab.first_row / 2 } else { slab.first_row };
            let linear = Linear {
                layout: self.weight.layout,
                n_out: slab.rows,
                rows: x.rows.rows,
                x_offset: x.rows.offset,
                x_stride: x.rows.stride,
                out_offset: out.offset + first_out * out.step,
                out_stride: out.stride,
                out_step: out.step,
                first_out: slab.first_row,
                epilogue,
            };
            if linear.rows <= MATVEC_ROWS {
                let norm = x.norm.map(|_| pass.norm.eps);
                let bindings =
                    MatvecBindings { weights: slab.buffer, x: x.rows.buffer, out: out.buffer, norm_weight: x.norm, bias: self.bias };
                pass.dispatch(Matvec { linear, norm }, bindings);
            } else {
                self.record_tiles(pass, slab, linear, x, out.buffer);
            }
        }
    }

    /// A product of many rows, with split-K where that fills the device.
    fn record_tiles(&self, pass: &mut PassRecorder<'_>, slab: &Slab, linear: Linear, x: &mut Operand, out: BufferId) {
        let (weights, bias) = (slab.buffer, self.bias);
        let bytes = MatmulInt8::suits(&linear.layout, pass.capabilities).then(|| x.record_quantize(pass, &linear));
        let splits =
            if bytes.is_some() { MatmulInt8::splits(&linear, pass.capabilities) } else { Matmul::splits(&linear, pass.capabilities) };
        let combine = MatmulCombine { linear, splits };
        let workspace = (splits > 1).then(|| pass.workspace(combine.workspace_bytes()));
        let target = workspace.as_ref().map_or(out, |workspace| workspace.buffer);
        match bytes {
            Some((x, activation_scales)) => {
                pass.dispatch(MatmulInt8 { linear, splits }, MatmulInt8Bindings { weights, x, out: target, activation_scales, bias });
            }
            None => pass.dispatch(Matmul { linear, splits }, MatmulBindings { weights, x: x.rows.buffer, out: target, bias }),
        }
        if let Some(workspace) = workspace {
            pass.dispatch(combine, MatmulCombineBindings { workspace: workspace.buffer, out, bias });
        }
    }
}
