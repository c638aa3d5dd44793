//! The Rust that `engine/src/shaders.rs` includes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::reflect::{Binding, Kind, Params};
use crate::variants::{Axis, camel_case};
use crate::{Kernel, Variant};

/// Writes `shaders.rs`. Returns the bytes of distinct WGSL.
pub(crate) fn write(kernels: &[Kernel<'_>], out: &Path) -> io::Result<usize> {
    let (mut rust, size) = shaders(kernels);
    module(&mut rust, "params", "The uniform of each kernel.", "use bytemuck::{Pod, Zeroable};", |rust| all_params(rust, kernels));
    let uses = "use super::Bindings;\nuse crate::buffer::BufferId;";
    module(&mut rust, "bindings", "The storage buffers of each kernel.", uses, |rust| {
        for kernel in kernels.iter().filter(|kernel| kernel.axes.bindings_of.is_none()) {
            bindings(rust, kernel);
        }
    });
    let uses = "use super::{SHADERS, Shader, Variant, bindings, params};\nuse crate::dtype::DType;";
    module(&mut rust, "variants", "The choices that each kernel's shader leaves.", uses, |rust| {
        let axes = kernels.iter().flat_map(|kernel| &kernel.axes.axes).map(|axis| (axis.ty.as_str(), axis));
        for axis in axes.collect::<BTreeMap<_, _>>().into_values() {
            axis_options(rust, axis);
        }
        let mut first = 0;
        for kernel in kernels {
            variant_key(rust, kernel, first);
            first += kernel.variants.len();
        }
    });
    fs::write(out.join("shaders.rs"), rust)?;
    Ok(size)
}

fn module(rust: &mut String, name: &str, doc: &str, uses: &str, write: impl FnOnce(&mut String)) {
    let _ = writeln!(rust, "\n/// {doc}\npub mod {name} {{\n{uses}\n");
    write(rust);
    rust.push_str("}\n");
}

/// The table of all variants, and its size.
fn shaders(kernels: &[Kernel<'_>]) -> (String, usize) {
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
    rust += "];\n";
    (rust, size)
}

fn shader(rust: &mut String, kernel: &Kernel<'_>, variant: &Variant, declarations: &[usize]) {
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

fn all_params(rust: &mut String, kernels: &[Kernel<'_>]) {
    let mut shared: HashMap<&str, &Params> = HashMap::new();
    for kernel in kernels {
        let Some(params) = &kernel.interface.params else { continue };
        let name = params_name(kernel, params);
        if params.name == "Params" {
            structure(rust, &name, kernel.name, params);
        } else if let Some(same) = shared.insert(&params.name, params) {
            assert!(same == params, "two structs are named {name}");
        } else {
            structure(rust, &name, kernel.name, params);
        }
    }
}

/// The uniform's struct in Rust: with the kernel's name, unless kernels share it.
fn params_name(kernel: &Kernel<'_>, params: &Params) -> String {
    if params.name == "Params" { camel_case(kernel.name) + "Params" } else { params.name.clone() }
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

/// A struct with a field for each storage binding that any variant has.
fn bindings(rust: &mut String, kernel: &Kernel<'_>) {
    let name = camel_case(kernel.name) + "Bindings";
    let storage: Vec<&Binding> = kernel.interface.bindings.iter().filter(|b| !matches!(b.kind, Kind::Uniform { .. })).collect();
    let each = |write: fn(&Binding) -> String| storage.iter().map(|b| write(b)).collect::<String>();
    let fields = each(|b| {
        let access = if b.kind == Kind::Read { "read" } else { "read and written" };
        let ty = if b.optional { "Option<B>" } else { "B" };
        format!("/// `{0}` of the shader: {access}.\npub {0}: {ty},\n", b.name)
    });
    let buffers = each(|b| {
        let value = if b.optional { format!("self.{}", b.name) } else { format!("Some(self.{})", b.name) };
        format!("{} => {value},\n", b.index)
    });
    let bound = each(|b| {
        let value = if b.optional { "from.{0}.as_ref().map(|b| bind(\"{0}\", b))" } else { "bind(\"{0}\", &from.{0})" };
        format!("{}: {},\n", b.name, value.replace("{0}", &b.name))
    });
    let _ = writeln!(
        rust,
        "/// The storage bindings of `shaders/{kernel}.wesl`; generated from it.\n\
         #[derive(Clone, Copy, Debug)]\npub struct {name}<B = BufferId> {{\n{fields}}}\n\
         impl Bindings for {name} {{\ntype Of<B> = {name}<B>;\n\
         fn buffer(&self, index: u32) -> Option<BufferId> {{\nmatch index {{\n{buffers}_ => None,\n}}\n}}\n\
         fn bind<'a, B: 'a>(from: &'a {name}<B>, bind: &mut dyn FnMut(&'static str, &'a B) -> BufferId) -> Self {{\n\
         Self {{\n{bound}}}\n}}\n}}\n",
        kernel = kernel.name,
    );
}

/// The text that `line` makes of each item.
fn lines<T>(items: impl IntoIterator<Item = T>, line: impl Fn(T) -> String) -> String {
    items.into_iter().map(line).collect()
}

/// The enum of an axis.
fn axis_options(rust: &mut String, axis: &Axis) {
    let options = lines(&axis.options, |o| format!("/// `{}`.\n{},\n", o.features.join("` and `"), o.name));
    let _ = writeln!(
        rust,
        "/// The options of `{0}` in `shaders/variants.toml`.\n#[derive(Clone, Copy, Debug, PartialEq, Eq)]\n\
         #[allow(non_camel_case_types, reason = \"the names are ggml's\")]\npub enum {1} {{\n{options}}}\n",
        axis.name, axis.ty
    );
    let dtypes = lines(axis.options.iter().filter(|o| o.dtype.is_some()), |o| format!("DType::{0} => Some(Self::{0}),\n", o.name));
    if !dtypes.is_empty() {
        let _ = writeln!(
            rust,
            "impl {} {{\n/// The option that is this type of tensors.\npub fn of(dtype: DType) -> Option<Self> {{\n\
             match dtype {{\n{dtypes}_ => None,\n}}\n}}\n}}\n",
            axis.ty
        );
    }
}

/// The key of a kernel's variants, the first of which is number `first` of all.
fn variant_key(rust: &mut String, kernel: &Kernel<'_>, first: usize) {
    let (axes, flags) = (&kernel.axes.axes, &kernel.axes.flags);
    let name = camel_case(kernel.name);
    let fields = axes.iter().map(|axis| format!("/// The option of this axis.\npub {}: {},\n", axis.name, axis.ty));
    let fields: String = fields.chain(flags.iter().map(|flag| format!("/// Whether it has the feature.\npub {flag}: bool,\n"))).collect();
    let body = if fields.is_empty() { ";".to_owned() } else { format!(" {{\n{fields}}}") };
    // The order of KernelAxes::expand.
    let choices = axes.iter().map(|axis| (axis.options.len(), format!("self.{} as usize", axis.name)));
    let choices = choices.chain(flags.iter().map(|flag| (2, format!("usize::from(self.{flag})"))));
    let index = choices.reduce(|(count, index), (options, choice)| (count * options, format!("({index}) * {options} + {choice}")));
    let index = match index {
        None => first.to_string(),
        Some((_, index)) if first == 0 => index,
        Some((_, index)) => format!("{first} + {index}"),
    };
    let owner = camel_case(kernel.axes.bindings_of.as_deref().unwrap_or(kernel.name));
    let params = kernel.interface.params.as_ref().map_or_else(|| "()".to_owned(), |p| format!("params::{}", params_name(kernel, p)));
    let _ = writeln!(
        rust,
        "/// A variant of `shaders/{kernel}.wesl`; generated from `shaders/variants.toml`.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub struct {name}Variant{body}\n\
         impl Variant for {name}Variant {{\ntype Params = {params};\ntype Bindings = bindings::{owner}Bindings;\n\
         fn shader(self) -> &'static Shader {{\n&SHADERS[{index}]\n}}\n}}\n",
        kernel = kernel.name,
    );
}
