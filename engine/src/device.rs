//! Features and limits of a device, and the choices of kernels that depend on how it performs.

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

/// Matrices that a subgroup multiplies (tensor cores): elements, rows and columns. They accumulate in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubgroupMatrix {
    /// 16 x 16 in half precision: NVIDIA's and AMD's.
    F16x16,
    /// 8 x 8 in half precision.
    F16x8,
    /// 8 x 8 in single precision: Apple's.
    F32x8,
}

impl SubgroupMatrix {
    /// All, the fastest first.
    pub const ALL: [Self; 3] = [Self::F16x16, Self::F16x8, Self::F32x8];

    /// Rows, and as many columns.
    pub const fn side(self) -> u32 {
        if matches!(self, Self::F16x16) { 16 } else { 8 }
    }

    /// Whether elements are in half precision.
    pub const fn half(self) -> bool {
        !matches!(self, Self::F32x8)
    }
}

/// Features and limits of a device that decide a kernel's variant and geometry.
#[derive(Clone, Debug, PartialEq)]
pub struct Capabilities {
    /// `shader-f16`: arithmetic in half precision.
    pub shader_f16: bool,
    /// Invocations in the smallest subgroup, where the device has `subgroups`.
    pub subgroup_size: Option<u32>,
    /// Matrices that subgroups multiply, where all subgroups are of one size: 8, 16 or 32.
    pub matrices: Option<SubgroupMatrix>,
    /// Bytes of workgroup memory.
    pub workgroup_storage: u32,
    /// Largest storage buffer binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Whether it is a GPU with memory of its own.
    pub discrete: bool,
    /// How kernels are set up for it.
    pub tuning: Tuning,
}

/// Settings of the kernels that suit a device's performance. Results differ in rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Invocations in a workgroup of `Matvec`: 64 or, with subgroups, 256. A larger one re-reads the activations less often.
    pub matvec_workgroup: u32,
    /// Invocations in a workgroup of `AttentionDecode`: 64 or 256.
    pub decode_workgroup: u32,
    /// Workgroups of `AttentionDecode` from which each serves several query heads.
    pub decode_workgroups: u32,
    /// Workgroups of a `Matvec` that fill the device. With more outputs a workgroup iterates over several groups of them; with fewer,
    /// more invocations share an output.
    pub matvec_workgroups: u32,
    /// Workgroups of an `AttentionPrefill` that fill the device: with fewer, the cache is split among more.
    pub prefill_workgroups: u32,
    /// Most rows of a prefill step.
    pub prefill_rows: u32,
    /// Workgroups of a `Matmul` that fill the device: with fewer tiles the product is split along `n_in`, with more the tiles grow.
    pub matmul_tiles: u32,
    /// Whether a `Matmul` without subgroup matrices and int8 activations accumulates a tile in half precision where the device has it:
    /// less exact, and no faster on an NVIDIA H200.
    pub matmul_half: bool,
    /// Whether a `Matmul` multiplies with [`SubgroupMatrix`] where the device has them.
    pub matmul_matrices: bool,
    /// Whether products of many rows with quantized weights use int8 activations (`MatmulInt8`) where they do not use
    /// [`SubgroupMatrix`]. Less exact, and twice as fast where the device has dp4a instructions.
    #[serde(alias = "matmul_bytes")]
    pub matmul_int8: bool,
}

impl Tuning {
    /// For a device with subgroups of this size: those of discrete GPUs and Apple's have 32 invocations or more. Discrete GPUs have dp4a
    /// instructions and Apple's have none; other devices are not measured.
    pub const fn of(subgroup_size: Option<u32>, discrete: bool) -> Self {
        let large = matches!(subgroup_size, Some(32..));
        let (workgroup, workgroups, decode_workgroups) = if large { (256, 256, 64) } else { (64, 16, 1) };
        Self {
            matvec_workgroup: workgroup,
            matvec_workgroups: workgroups,
            decode_workgroup: workgroup,
            decode_workgroups,
            prefill_workgroups: if discrete { 1024 } else { 1 },
            prefill_rows: if discrete { 512 } else { 256 },
            matmul_tiles: workgroups,
            matmul_half: false,
            matmul_matrices: true,
            matmul_int8: discrete,
        }
    }
}

impl Capabilities {
    /// The least capable WebGPU device: the specification's default limits and no optional feature.
    pub const BASELINE: Self = Self {
        shader_f16: false,
        subgroup_size: None,
        matrices: None,
        workgroup_storage: 16 << 10,
        max_binding: 128 << 20,
        max_buffer: 256 << 20,
        discrete: false,
        tuning: Tuning::of(None, false),
    };

    /// The settings of such a device until it is tuned.
    pub fn default_tuning(&self) -> Tuning {
        Tuning::of(self.subgroup_size, self.discrete)
    }

    /// Whether kernels use subgroup operations.
    pub(crate) fn has_subgroups(&self) -> bool {
        self.subgroup_size.is_some()
    }

    /// The size that a buffer of at least `bytes` has on such a device.
    ///
    /// # Errors
    /// When it is larger than the device's limits.
    pub(crate) fn buffer_size(&self, label: &str, bytes: u64) -> Result<u64> {
        let size = bytes.next_multiple_of(16).max(16);
        let limit = self.max_binding.min(self.max_buffer);
        if size > limit {
            return Err(EngineError::TooLarge { what: label.to_owned(), needed: size, limit });
        }
        Ok(size)
    }
}
