//! Every compiled shader variant, made by `engine/build` from `shaders/*.wesl` and `shaders/variants.toml`.

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

/// The variant of `kernel` with exactly these features, in any order; empty ones do not count.
///
/// # Panics
/// If `shaders/variants.toml` lists no such variant.
pub fn find(kernel: &str, features: &[&str]) -> &'static Shader {
    let wanted = || features.iter().filter(|f| !f.is_empty());
    SHADERS
        .iter()
        .filter(|shader| shader.kernel == kernel)
        .find(|shader| {
            let has = || shader.variant.split('+').filter(|f| !f.is_empty());
            has().count() == wanted().count() && wanted().all(|f| has().any(|h| h == *f))
        })
        .unwrap_or_else(|| panic!("shaders/variants.toml has no {kernel} with features {features:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_found_by_its_features() {
        for shader in all() {
            let mut features: Vec<_> = shader.variant.split('+').collect();
            features.reverse();
            features.push("");
            assert!(std::ptr::eq(find(shader.kernel, &features), shader), "{} {}", shader.kernel, shader.variant);
        }
    }

    #[test]
    #[should_panic(expected = "no norm with features [\"unheard_of\"]")]
    fn a_missing_variant_is_named() {
        find("norm", &["unheard_of"]);
    }

    #[test]
    fn bindings_rise_and_begin_with_params() {
        for Shader { kernel, bindings, .. } in all() {
            assert!(bindings.is_sorted_by(|a, b| a.index < b.index), "{kernel}");
            for binding in *bindings {
                assert_eq!(matches!(binding.kind, BindingKind::Uniform { .. }), binding.name == "params", "{kernel}");
            }
        }
    }

    #[test]
    fn params_have_the_size_of_the_uniform() {
        let size = find("norm", &[]).bindings[0].kind;
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
