//! The Rust that `engine/src/shaders.rs` includes.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::reflect::{Kind, Params};
use crate::{Kernel, Variant};

/// Writes `shaders.rs`. Returns the bytes of distinct WGSL.
pub(crate) fn write(kernels: &[Kernel], out: &Path) -> io::Result<usize> {
    // Variants differ in a few declarations: each is stored once, and a variant is a list of them.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut declarations = String::new();
    let mut size = 0;
    let mut rust = "static SHADERS: &[Shader] = &[\n".to_owned();
    for kernel in kernels {
        for variant in &kernel.variants {
            let parts = variant.wgsl.split("\n\n").map(|part| {
                let next = numbers.len();
                *numbers.entry(part).or_insert_with(|| {
                    size += part.len();
                    let _ = writeln!(declarations, "    {part:?},");
                    next
                })
            });
            let parts: Vec<usize> = parts.collect();
            shader(&mut rust, kernel, variant, &parts);
        }
    }
    rust += "];\n\nstatic DECLARATIONS: &[&str] = &[\n";
    rust += &declarations;
    rust += "];\n\n/// The uniform of each kernel.\npub mod params {\n    use bytemuck::{Pod, Zeroable};\n";
    let mut shared: HashMap<&str, &Params> = HashMap::new();
    for kernel in kernels {
        let Some(params) = &kernel.interface.params else { continue };
        if params.name == "Params" {
            let name: String = kernel.name.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
            structure(&mut rust, &format!("{name}Params"), &kernel.name, params);
        } else if let Some(same) = shared.insert(&params.name, params) {
            assert!(same == params, "two structs are named {}", params.name);
        } else {
            structure(&mut rust, &params.name, &kernel.name, params);
        }
    }
    rust += "}\n";
    fs::write(out.join("shaders.rs"), rust)?;
    Ok(size)
}

fn shader(rust: &mut String, kernel: &Kernel, variant: &Variant, declarations: &[usize]) {
    let reflection = &variant.reflection;
    let bindings: Vec<_> = reflection
        .bindings
        .iter()
        .map(|b| {
            let kind = match b.kind {
                Kind::Uniform { size } => format!("Uniform {{ size: {size} }}"),
                Kind::Read => "Read".to_owned(),
                Kind::ReadWrite => "ReadWrite".to_owned(),
            };
            format!("Binding {{ name: {:?}, index: {}, kind: BindingKind::{kind} }}", b.name, b.index)
        })
        .collect();
    let _ = writeln!(
        rust,
        "    Shader {{ kernel: {:?}, variant: {:?}, declarations: &{declarations:?}, entry: \"main\", \
         bindings: &[{}], overrides: &{:?}, needs_f16: {}, needs_subgroups: {} }},",
        kernel.name,
        variant.name,
        bindings.join(", "),
        reflection.overrides,
        reflection.needs_f16,
        reflection.needs_subgroups,
    );
}

fn structure(rust: &mut String, name: &str, kernel: &str, params: &Params) {
    let _ = writeln!(
        rust,
        "    /// `struct {}` of `shaders/{kernel}.wesl`; generated from it.\n    #[repr(C)]\n    \
         #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]\n    pub struct {name} {{",
        params.name
    );
    let mut end = 0;
    let pad = |rust: &mut String, end: u32, to: u32| {
        if to > end {
            let _ = writeln!(rust, "        /// Zero.\n        pub padding_{end}: [u32; {}],", (to - end) / 4);
        }
    };
    for field in &params.fields {
        pad(rust, end, field.offset);
        let _ = writeln!(rust, "        /// `{0}` of the shader.\n        pub {0}: {1},", field.name, field.ty);
        end = field.offset + field.size;
    }
    pad(rust, end, params.size);
    rust.push_str("    }\n");
}
