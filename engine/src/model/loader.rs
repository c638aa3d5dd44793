//! From a checkpoint's header to buffers for its weights, and to the pieces that fill them: no weight is read here.

use std::collections::HashSet;
use std::rc::Rc;

use super::layers::{ExpertMatrices, NormWeights, Projection};
use super::padding::padded_row;
use super::pieces::{FloatPiece, MatrixPiece, Piece, Pieces, Rows, row_bytes};
use super::slab::Weight;
use super::spec::ModelSpec;
use crate::error::{EngineError, Result};
use crate::exec::{BufferId, Executor, Scope};
use crate::formats::convert::{Recipe, loaded_dtypes};
use crate::formats::{Checkpoint, DType, FormatError, TensorInfo};
use crate::kernels::{Repack, WeightLayout};

/// Bytes of a file that are in memory at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// Rows of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) first_row: u32,
    pub(super) rows: u32,
}

/// Floats on the host that a load computes; [`Loader::buffer`] says where they go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floats {
    /// Index of their piece.
    piece: usize,
}

/// Allocates weights, lists what fills them, and keeps count of the tensors that are used.
pub(super) struct Loader<'a> {
    executor: &'a Executor,
    scope: &'a mut Scope,
    checkpoint: &'a Checkpoint,
    /// The format that a tensor's weights get.
    loaded_dtype: Box<dyn Fn(&TensorInfo) -> DType>,
    staging: BufferId,
    /// Bytes of `staging`.
    piece: u64,
    pieces: Vec<Piece>,
    used: HashSet<&'a str>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(executor: &'a Executor, scope: &'a mut Scope, checkpoint: &'a Checkpoint, quantize: Option<Recipe>) -> Result<Self> {
        let loaded_dtype = Box::new(loaded_dtypes(checkpoint, quantize)?);
        let widest = checkpoint.tensors.iter().map(|t| row_bytes(t, t.dtype).max(row_bytes(t, loaded_dtype(t)))).max().unwrap_or(0);
        let piece = PIECE_BYTES.min(executor.capabilities().max_binding).max(widest);
        let staging = scope.create_buffer(executor, "staging", piece)?;
        Ok(Self { executor, scope, checkpoint, loaded_dtype, staging, piece, pieces: Vec::new(), used: HashSet::new() })
    }

    /// What fills all that was asked for, in the order in which it was.
    ///
    /// # Errors
    /// When the file holds tensors that the model has no use for: it is not what it claims to be.
    pub(super) fn finish(self) -> Result<Pieces> {
        // Older converters stored the constant rotary frequencies of each layer; the short or the long ones of two are used. Scales of
        // activations are for engines that quantize them by these.
        const OPTIONAL: [&str; 4] = ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight", ".input_scale"];
        let optional = |name: &str| OPTIONAL.iter().any(|optional| name.ends_with(optional)) || self.checkpoint.is_scale(name);
        let unused = |t: &&TensorInfo| !self.used.contains(t.name.as_str()) && !optional(&t.name);
        if let Some(tensor) = self.checkpoint.tensors.iter().find(unused) {
            let supported = "the tensors that models of this architecture have".to_owned();
            return Err(EngineError::Unsupported { what: "tensor", value: tensor.name.clone(), supported });
        }
        let total = self.checkpoint.tensors.iter().map(|t| t.bytes).sum::<u64>().max(1);
        Ok(Pieces { list: self.pieces, staging: self.staging, total })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.checkpoint.find(name).is_some()
    }

    fn tensor(&mut self, name: &str) -> Result<&'a TensorInfo> {
        let tensor = self.checkpoint.tensor(name)?;
        self.used.insert(&tensor.name);
        Ok(tensor)
    }

    /// Number of values of a tensor.
    pub(super) fn elements(&self, name: &str) -> Result<u64> {
        Ok(self.checkpoint.tensor(name)?.elements())
    }

    /// `count` floats that `compute` makes of small tensors, given with their lengths.
    pub(super) fn computed(
        &mut self,
        tensors: &[(&str, u32)],
        count: u32,
        compute: impl FnOnce(&[Vec<f32>]) -> Vec<f32> + 'static,
    ) -> Result<Floats> {
        let mut reads = Vec::with_capacity(tensors.len());
        for &(name, elements) in tensors {
            let tensor = self.tensor(name)?;
            if tensor.elements() != u64::from(elements) {
                return Err(wrong_shape(tensor, &[u64::from(elements)]));
            }
            if !tensor.dtype.is_supported() {
                return Err(FormatError::UnsupportedTensor { name: name.to_owned(), dtype: tensor.dtype }.into());
            }
            reads.push(Rows::new(&Rc::new(tensor.clone()), 0, tensor.rows())?);
        }
        self.pieces.push(Piece::Floats(FloatPiece { tensors: reads, count, compute: Box::new(compute), targets: Vec::new() }));
        Ok(Floats { piece: self.pieces.len() - 1 })
    }

    /// A small tensor as floats.
    pub(super) fn floats(&mut self, name: &str, count: u32) -> Result<Floats> {
        self.computed(&[(name, count)], count, <[Vec<f32>]>::concat)
    }

    /// A buffer of floats, one part behind the other. A part may be in several buffers.
    pub(super) fn buffer(&mut self, label: &str, parts: &[Floats]) -> Result<BufferId> {
        let counts = parts.iter().map(|part| u64::from(self.float_piece(*part).count)).sum::<u64>();
        let buffer = self.scope.create_buffer(self.executor, label, 4 * counts)?;
        let mut first = 0;
        for part in parts {
            let piece = self.float_piece(*part);
            piece.targets.push((buffer, first));
            first += piece.count;
        }
        Ok(buffer)
    }

    fn float_piece(&mut self, floats: Floats) -> &mut FloatPiece {
        match &mut self.pieces[floats.piece] {
            Piece::Floats(piece) => piece,
            Piece::Matrix(_) => unreachable!("computed() made it"),
        }
    }

    /// `<name>.weight` and, where there is one, `<name>.bias` of a norm of the residual stream; ones where norms have no weights.
    pub(super) fn norm(&mut self, name: &str, spec: &ModelSpec) -> Result<NormWeights> {
        let (dim, row, factor) = (spec.dim, spec.row(), spec.norm_factor());
        if !spec.norm.weighted {
            let ones = self.computed(&[], row, move |_| padded_row(&vec![1.0; dim as usize], factor, row))?;
            return Ok(NormWeights { weight: self.buffer(name, &[ones])?, bias: None });
        }
        let weight = self.residual_row(&self.norm_weight(name), spec, factor)?;
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { Some(self.residual_row(&bias, spec, 1.0)?) } else { None };
        Ok(NormWeights { weight, bias })
    }

    /// The name of a norm's weight: some converters leave out its last part.
    fn norm_weight(&self, name: &str) -> String {
        let weight = format!("{name}.weight");
        if self.has(&weight) || !self.has(name) { weight } else { name.to_owned() }
    }

    /// `<name>.weight` of a norm of rows of `width` elements, where a layer has it.
    pub(super) fn sub_norm(&mut self, name: &str, width: u32, wanted: bool) -> Result<Option<NormWeights>> {
        if !wanted {
            return Ok(None);
        }
        let values = self.floats(&format!("{name}.weight"), width)?;
        Ok(Some(NormWeights { weight: self.buffer(name, &[values])?, bias: None }))
    }

    /// A small tensor times `factor` as a row of the residual stream in a buffer.
    fn residual_row(&mut self, name: &str, spec: &ModelSpec, factor: f64) -> Result<BufferId> {
        let row = spec.row();
        let values = self.computed(&[(name, spec.dim)], row, move |tensors| padded_row(&tensors.concat(), factor, row))?;
        self.buffer(name, &[values])
    }

    /// `<name>.weight` and, where there is one, `<name>.bias`.
    pub(super) fn projection(&mut self, name: &str, rows: u32, cols: u32) -> Result<Projection> {
        self.stacked_projection(&[(name, rows)], cols)
    }

    /// One projection from several of the same type and row length, one below the other. Missing biases are zero.
    pub(super) fn stacked_projection(&mut self, parts: &[(impl AsRef<str>, u32)], cols: u32) -> Result<Projection> {
        let names: Vec<String> = parts.iter().map(|(name, _)| format!("{}.weight", name.as_ref())).collect();
        let matrices: Vec<Part<'_>> = names.iter().zip(parts).map(|(name, (_, rows))| Part { name, first_row: 0, rows: *rows }).collect();
        let weight = self.stacked(&matrices, cols)?;
        let biases: Vec<(String, u32)> = parts.iter().map(|(name, rows)| (format!("{}.bias", name.as_ref()), *rows)).collect();
        if !biases.iter().any(|(name, _)| self.has(name)) {
            return Ok(Projection { weight, bias: None });
        }
        let mut values = Vec::with_capacity(biases.len());
        for (name, rows) in &biases {
            let rows = *rows;
            values.push(if self.has(name) {
                self.floats(name, rows)?
            } else {
                self.computed(&[], rows, move |_| vec![0.0; rows as usize])?
            });
        }
        Ok(Projection { weight, bias: Some(self.buffer("bias", &values)?) })
    }

    /// The product with a single row, which may be stored without its number of rows.
    pub(super) fn row_projection(&mut self, name: &str, cols: u32) -> Result<Projection> {
        let dtype = self.dtype(name)?;
        let tensor = self.tensor(name)?;
        if tensor.elements() != u64::from(cols) || tensor.shape.first() != Some(&u64::from(cols)) {
            return Err(wrong_shape(tensor, &[u64::from(cols)]));
        }
        let layout = WeightLayout::new(name, dtype, u64::from(cols))?;
        let weight = Weight::allocate(self.executor, self.scope, name, layout, 1, 1)?;
        self.fill(&weight, &Part { name, first_row: 0, rows: 1 }, 0, 1)?;
        Ok(Projection { weight: Weight { scale: self.checkpoint.scale(name), ..weight }, bias: None })
    }

    /// A small tensor of twice `half` floats, those of its halves alternating.
    pub(super) fn interleaved_halves(&mut self, name: &str, half: u32) -> Result<BufferId> {
        let values = self.computed(&[(name, 2 * half)], 2 * half, move |tensors| {
            let (first, second) = tensors[0].split_at(half as usize);
            first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).collect()
        })?;
        self.buffer(name, &[values])
    }

    /// The type that a tensor's weights have on the device.
    pub(super) fn dtype(&mut self, name: &str) -> Result<DType> {
        let tensor = self.tensor(name)?;
        Ok((self.loaded_dtype)(tensor))
    }

    /// Whether two tensors can be parts of one matrix: of one type and scale.
    pub(super) fn are_alike(&mut self, a: &str, b: &str) -> Result<bool> {
        Ok(self.dtype(a)? == self.dtype(b)? && self.checkpoint.scale(a).to_bits() == self.checkpoint.scale(b).to_bits())
    }

    /// One matrix from tensors of the same type, scale and row length, one below the other.
    pub(super) fn stacked(&mut self, parts: &[Part<'_>], cols: u32) -> Result<Weight> {
        let weight = self.allocate(parts, cols)?;
        let mut first_row = 0;
        for part in parts {
            self.fill(&weight, part, first_row, 1)?;
            first_row += part.rows;
        }
        Ok(weight)
    }

    /// One matrix from two parts whose rows alternate.
    pub(super) fn interleaved(&mut self, parts: [Part<'_>; 2], cols: u32) -> Result<Weight> {
        let weight = self.allocate(&parts, cols)?;
        self.fill(&weight, &parts[0], 0, 2)?;
        self.fill(&weight, &parts[1], 1, 2)?;
        Ok(weight)
    }

    fn allocate(&mut self, parts: &[Part<'_>], cols: u32) -> Result<Weight> {
        let first = parts[0].name;
        let dtype = self.dtype(first)?;
        for part in parts {
            let tensor = self.tensor(part.name)?;
            let rows: u32 = parts.iter().filter(|p| p.name == part.name).map(|p| p.rows).sum();
            let shape = [u64::from(cols), u64::from(rows)];
            if tensor.shape != shape {
                return Err(wrong_shape(tensor, &shape));
            }
            let other = (self.loaded_dtype)(tensor);
            if !self.are_alike(first, part.name)? {
                return Err(EngineError::Unsupported {
                    what: "mixed types or scales",
                    value: format!("{first} is {dtype}, {} is {other}", part.name),
                    supported: "one type and one scale for both".to_owned(),
                });
            }
        }
        let layout = WeightLayout::new(first, dtype, u64::from(cols))?;
        // Interleaved pairs of rows stay together.
        let rows = parts.iter().map(|part| part.rows).sum();
        let weight = Weight::allocate(self.executor, self.scope, first, layout, rows, 2)?;
        Ok(Weight { scale: self.checkpoint.scale(first), ..weight })
    }

    /// The matrices of experts, one below the other, each of `rows` rows: tensors `{cols, rows, experts}`, of two of them the rows alternating,
    /// with biases where there are any.
    pub(super) fn experts(&mut self, names: &[&str], experts: u32, rows: u32, cols: u32) -> Result<ExpertMatrices> {
        let weights: Vec<String> = names.iter().map(|name| format!("{name}.weight")).collect();
        let dtype = self.dtype(&weights[0])?;
        for name in &weights {
            let tensor = self.tensor(name)?;
            let shape = [cols, rows, experts].map(u64::from);
            if tensor.shape != shape {
                return Err(wrong_shape(tensor, &shape));
            }
            if !self.are_alike(&weights[0], name)? {
                return Err(EngineError::Unsupported {
                    what: "mixed types or scales",
                    value: format!("{} is {dtype}, and {name} is not", weights[0]),
                    supported: "one type and one scale for both".to_owned(),
                });
            }
        }
        let layout = WeightLayout::new(&weights[0], dtype, u64::from(cols))?;
        let step = names.len() as u32;
        let (all, of_one) = (experts * rows, step * rows);
        let weight = Weight::allocate(self.executor, self.scope, &weights[0], layout, step * all, of_one)?;
        for (first, name) in weights.iter().enumerate() {
            self.fill(&weight, &Part { name, first_row: 0, rows: all }, first as u32, step)?;
        }
        let weight = Weight { scale: self.checkpoint.scale(&weights[0]), ..weight };
        Ok(ExpertMatrices { weight, bias: self.expert_biases(names, all)?, rows: of_one })
    }

    /// The same of one tensor that has the rows of two in each expert, those of the first before those of the second.
    pub(super) fn expert_halves(&mut self, name: &str, experts: u32, half: u32, cols: u32) -> Result<ExpertMatrices> {
        let weight_name = format!("{name}.weight");
        let dtype = self.dtype(&weight_name)?;
        let tensor = self.tensor(&weight_name)?;
        let shape = [cols, 2 * half, experts].map(u64::from);
        if tensor.shape != shape {
            return Err(wrong_shape(tensor, &shape));
        }
        let layout = WeightLayout::new(&weight_name, dtype, u64::from(cols))?;
        let weight = Weight::allocate(self.executor, self.scope, &weight_name, layout, 2 * half * experts, 2 * half)?;
        for expert in 0..experts {
            for second in [0, 1] {
                let part = Part { name: &weight_name, first_row: (2 * expert + second) * half, rows: half };
                self.fill(&weight, &part, 2 * half * expert + second, 2)?;
            }
        }
        if self.has(&format!("{name}.bias")) {
            let supported = "no bias of gate and up in one tensor".to_owned();
            return Err(EngineError::Unsupported { what: "tensor", value: format!("{name}.bias"), supported });
        }
        Ok(ExpertMatrices { weight: Weight { scale: self.checkpoint.scale(&weight_name), ..weight }, bias: None, rows: 2 * half })
    }

    /// The biases of experts, of several tensors alternating; missing ones are zero.
    fn expert_biases(&mut self, names: &[&str], count: u32) -> Result<Option<BufferId>> {
        let names: Vec<String> = names.iter().map(|name| format!("{name}.bias")).collect();
        let stored: Vec<(&str, u32)> = names.iter().filter(|name| self.has(name)).map(|name| (name.as_str(), count)).collect();
        if stored.is_empty() {
            return Ok(None);
        }
        if stored.len() < names.len() {
            let value = format!("{} alone", stored[0].0);
            return Err(EngineError::Unsupported {
                what: "biases of experts",
                value,
                supported: format!("both of {}", names.join(" and ")),
            });
        }
        let all = count * stored.len() as u32;
        let values = self.computed(&stored, all, move |tensors| {
            (0..count as usize).flat_map(|i| tensors.iter().map(move |tensor| tensor[i])).collect()
        })?;
        Ok(Some(self.buffer("biases of experts", &[values])?))
    }

    /// Lists the pieces that pack rows of a tensor, in the matrix's type, to rows `first_row + i * step` of the matrix.
    fn fill(&mut self, weight: &Weight, part: &Part<'_>, first_row: u32, step: u32) -> Result<()> {
        let tensor = Rc::new(self.tensor(part.name)?.clone());
        let longer = row_bytes(&tensor, tensor.dtype).max(weight.layout.file_row_bytes.into());
        let piece_rows = (self.piece / longer).max(1) as u32;
        let mut row = 0;
        while row < part.rows {
            let target = first_row + row * step;
            let slab = weight.slab_of(target);
            let left_in_slab = (slab.first_row + slab.rows - target).div_ceil(step);
            let count = piece_rows.min(part.rows - row).min(left_in_slab);
            let rows = Rows::new(&tensor, (part.first_row + row).into(), count.into())?;
            let repack = Repack { layout: weight.layout, rows: count, first_row: target - slab.first_row, row_step: step };
            self.pieces.push(Piece::Matrix(MatrixPiece { rows, repack, slab: slab.buffer }));
            row += count;
        }
        Ok(())
    }
}

fn wrong_shape(tensor: &TensorInfo, expected: &[u64]) -> EngineError {
    EngineError::Tensor { name: tensor.name.clone(), problem: format!("has shape {:?} instead of {expected:?}", tensor.shape) }
}
