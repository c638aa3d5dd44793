//! Every compiled shader variant, made by `engine/build` from `shaders/*.wesl` and `shaders/variants.toml`.

use std::fmt::Debug;

use bytemuck::Pod;

use crate::buffer::BufferId;

/// A compiled variant of a kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Shader {
    /// The kernel: `shaders/<kernel>.wesl`.
    pub kernel: &'static str,
    /// Its features joined by `+` in the order of the table's axes; empty for none.
    pub variant: &'static str,
    /// Numbers of the declarations that it consists of: see [`Shader::wgsl`].
    declarations: &'static [u16],
    /// Name of the entry point.
    pub entry: &'static str,
    /// What is bound in group 0, by rising index.
    pub bindings: &'static [Binding],
    /// Names of the `override` constants.
    pub overrides: &'static [&'static str],
    /// Uses half-precision arithmetic: the device needs `shader-f16`.
    pub needs_f16: bool,
    /// Uses subgroup operations: the device needs `subgroups`.
    pub needs_subgroups: bool,
}

impl Shader {
    /// The text for this target: with `enable subgroups;` in a browser, without it for naga.
    pub fn wgsl(&self) -> String {
        let parts: Vec<&str> = self.declarations.iter().map(|i| DECLARATIONS[usize::from(*i)]).collect();
        parts.join("\n\n")
    }
}

/// A buffer that a shader uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name of the variable in the shader.
    pub name: &'static str,
    /// `@binding`.
    pub index: u32,
    /// How it is used.
    pub kind: BindingKind,
}

/// How a shader uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// `var<uniform>`: the kernel's parameters.
    Uniform {
        /// Bytes.
        size: u32,
    },
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Every variant of every kernel; those of a kernel stand together.
pub fn all() -> &'static [Shader] {
    SHADERS
}

/// A choice of one option of each axis of a kernel.
pub trait Variant {
    /// The uniform.
    type Params: Pod;
    /// The storage buffers.
    type Bindings: Bindings;

    /// The shader that was compiled for it.
    fn shader(self) -> &'static Shader;
}

/// The storage buffers of a kernel, by name.
pub trait Bindings: Copy + Debug + 'static {
    /// The same names for something else than buffers, such as what they are to hold.
    type Of<B>;

    /// The buffer of a binding; `None` where an optional one is absent.
    fn buffer(&self, index: u32) -> Option<BufferId>;

    /// Makes a buffer of each, in the order of the bindings. `bind` is told the names.
    fn bind<'a, B: 'a>(from: &'a Self::Of<B>, bind: &mut dyn FnMut(&'static str, &'a B) -> BufferId) -> Self;
}

/// The build's own tests: cargo runs none of a build script.
#[cfg(test)]
#[path = "../build/repeat.rs"]
mod repeat;

#[cfg(test)]
mod tests {
    use super::*;

    use variants::{
        AttentionDecodeGroup, AttentionDecodeVariant, Cache, MatmulSubgroupTile, MatmulSubgroupVariant, MatvecInt16Rows,
        MatvecInt16Variant, MatvecVariant, NormVariant, Quants, SampleVariant, Weights,
    };

    #[test]
    fn variant_key_gives_the_shader_with_its_features() {
        let name = |shader: &Shader| (shader.kernel, shader.variant);
        for (weights, subgroups, variant) in
            [(Weights::F32, false, "w_f32"), (Weights::Q4_K, true, "w_q4_k+subgroups"), (Weights::MXFP4, false, "w_mxfp4")]
        {
            assert_eq!(name(MatvecVariant { weights, subgroups }.shader()), ("matvec", variant));
        }
        let int16 = MatvecInt16Variant { quants: Quants::Q6_K, rows: MatvecInt16Rows::Rows4 };
        assert_eq!(name(int16.shader()), ("matvec_int16", "w_q6_k+rows_4"));
        let decode = AttentionDecodeVariant { group: AttentionDecodeGroup::Group4, cache: Cache::KvQ8, subgroups: true };
        assert_eq!(name(decode.shader()), ("attention_decode", "group_4+kv_q8+writes+subgroups"));
        let matmul = MatmulSubgroupVariant { weights: Weights::Q8_0, tile: MatmulSubgroupTile::Tile128x128F16_16x16 };
        assert_eq!(name(matmul.shader()), ("matmul_subgroup", "w_q8_0+tile_128x128+f16_16x16"));
        assert_eq!(name(SampleVariant.shader()), ("sample", ""));
    }

    #[test]
    fn bindings_are_sorted_and_begin_with_params() {
        for Shader { kernel, bindings, .. } in all() {
            assert!(bindings.is_sorted_by(|a, b| a.index < b.index), "{kernel}");
            for binding in *bindings {
                assert_eq!(matches!(binding.kind, BindingKind::Uniform { .. }), binding.name == "params", "{kernel}");
            }
        }
    }

    #[test]
    fn params_have_size_of_uniform() {
        let size = NormVariant { subgroups: false }.shader().bindings[0].kind;
        assert_eq!(size, BindingKind::Uniform { size: size_of::<params::NormParams>() as u32 });
    }

    #[test]
    fn requirements_follow_the_features() {
        for shader in all() {
            let has = |feature| shader.variant.split('+').any(|f| f == feature);
            assert!(!shader.needs_subgroups || has("subgroups"), "{} {}", shader.kernel, shader.variant);
            assert!(!shader.needs_f16 || has("half") || shader.variant.contains("+f16_"), "{} {}", shader.kernel, shader.variant);
            assert_eq!(shader.wgsl().contains("enable f16;"), shader.needs_f16);
        }
    }
}
