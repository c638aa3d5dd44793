//! What the host must know of a shader, read from naga's module.

use std::collections::BTreeSet;

use naga::{AddressSpace, BuiltIn, Expression, Literal, Module, Scalar, ScalarKind, StorageAccess, TypeInner, VectorSize};

/// A resource in group 0.
#[derive(Clone, PartialEq)]
pub(crate) struct Binding {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) kind: Kind,
    /// May be absent.
    pub(crate) optional: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    Uniform { size: u32 },
    Read,
    ReadWrite,
}

/// A member of the uniform's struct.
#[derive(Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// In Rust.
    pub(crate) ty: String,
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// The uniform's struct.
#[derive(Clone, PartialEq)]
pub(crate) struct Params {
    /// `Params`, or `…Params` where kernels share it.
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) size: u32,
}

/// The interface of one variant.
pub(crate) struct Reflection {
    pub(crate) bindings: Vec<Binding>,
    pub(crate) params: Option<Params>,
    pub(crate) overrides: Vec<String>,
    pub(crate) needs_f16: bool,
    pub(crate) needs_subgroups: bool,
}

/// What all variants of a kernel have in common.
#[derive(Default)]
pub(crate) struct KernelInterface {
    /// By rising index.
    pub(crate) bindings: Vec<Binding>,
    pub(crate) params: Option<Params>,
}

impl Reflection {
    pub(crate) fn of(module: &Module) -> Result<Self, String> {
        match module.entry_points.as_slice() {
            [entry] if entry.name == "main" => {}
            _ => return Err("a kernel has one entry point, `main`".to_owned()),
        }
        let mut bindings = Vec::new();
        let mut params = None;
        for (_, variable) in module.global_variables.iter() {
            let Some(resource) = variable.binding else {
                continue;
            };
            let name = variable.name.clone().unwrap_or_default();
            if resource.group != 0 {
                return Err(format!("`{name}` is in group {}: everything is in group 0", resource.group));
            }
            let kind = match variable.space {
                AddressSpace::Uniform => {
                    let uniform = uniform(module, variable.ty)?;
                    let size = uniform.size;
                    if name != "params" || resource.binding != 0 || params.replace(uniform).is_some() {
                        return Err("the only uniform is `params`, binding 0".to_owned());
                    }
                    Kind::Uniform { size }
                }
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Kind::ReadWrite,
                AddressSpace::Storage { .. } => Kind::Read,
                space => return Err(format!("`{name}` is in address space {space:?}")),
            };
            bindings.push(Binding { name, index: resource.binding, kind, optional: false });
        }
        bindings.sort_by_key(|b| b.index);
        if let Some(pair) = bindings.windows(2).find(|pair| pair[0].index == pair[1].index) {
            return Err(format!("`{}` and `{}` share binding {}", pair[0].name, pair[1].name, pair[0].index));
        }
        let overrides = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
        Ok(Self { bindings, params, overrides, needs_f16: uses_f16(module), needs_subgroups: uses_subgroups(module) })
    }
}

impl KernelInterface {
    /// Adds a variant, which may lack bindings that others have but must not differ in one.
    pub(crate) fn merge(&mut self, variant: &Reflection) -> Result<(), String> {
        for binding in &variant.bindings {
            self.add(binding)?;
        }
        match (&self.params, &variant.params) {
            (_, None) => {}
            (None, Some(params)) => self.params = Some(params.clone()),
            (Some(before), Some(params)) if before == params => {}
            _ => return Err("the struct of `params` differs from another variant's".to_owned()),
        }
        Ok(())
    }

    /// Adds a binding, which may be there but must not differ from what is there.
    pub(crate) fn add(&mut self, binding: &Binding) -> Result<(), String> {
        match self.bindings.iter().find(|b| b.name == binding.name || b.index == binding.index) {
            None => {
                let place = self.bindings.partition_point(|b| b.index < binding.index);
                self.bindings.insert(place, binding.clone());
            }
            Some(same) if Binding { optional: same.optional, ..binding.clone() } == *same => {}
            Some(other) => {
                return Err(format!(
                    "binding {} `{}` ({:?}) is {} `{}` ({:?}) in another variant",
                    binding.index, binding.name, binding.kind, other.index, other.name, other.kind
                ));
            }
        }
        Ok(())
    }

    /// Marks the bindings that may be absent.
    pub(crate) fn set_optional(&mut self, names: &BTreeSet<String>) -> Result<(), String> {
        for name in names {
            match self.bindings.iter_mut().find(|binding| binding.name == *name) {
                Some(binding) if binding.kind == Kind::Read => binding.optional = true,
                Some(_) => return Err(format!("`{name}` is not only read: it cannot be optional")),
                None => return Err(format!("there is no binding `{name}` to be optional")),
            }
        }
        Ok(())
    }
}

fn uniform(module: &Module, ty: naga::Handle<naga::Type>) -> Result<Params, String> {
    let ty = &module.types[ty];
    let name = ty.name.clone().unwrap_or_default();
    let TypeInner::Struct { members, span } = &ty.inner else {
        return Err("`params` is a struct".to_owned());
    };
    if !name.ends_with("Params") {
        return Err(format!("`struct {name}` is not named `Params`, or `…Params` where kernels share it"));
    }
    let fields = members.iter().map(|member| {
        let name = member.name.clone().unwrap_or_default();
        let (scalar, count) = match module.types[member.ty].inner {
            TypeInner::Scalar(scalar) => (scalar, 1),
            TypeInner::Vector { size: VectorSize::Quad, scalar } => (scalar, 4),
            _ => return Err(format!("`params.{name}` is neither a scalar nor a vec4")),
        };
        let scalar = match scalar {
            Scalar::U32 => "u32",
            Scalar::I32 => "i32",
            Scalar::F32 => "f32",
            _ => return Err(format!("`params.{name}` is not of u32, i32 or f32")),
        };
        let ty = if count == 1 { scalar.to_owned() } else { format!("[{scalar}; {count}]") };
        Ok(Field { name, ty, offset: member.offset, size: 4 * count })
    });
    Ok(Params { name, fields: fields.collect::<Result<_, _>>()?, size: *span })
}

fn functions(module: &Module) -> impl Iterator<Item = &naga::Function> {
    module.functions.iter().map(|(_, f)| f).chain(module.entry_points.iter().map(|e| &e.function))
}

fn uses_f16(module: &Module) -> bool {
    let half = |scalar: &Scalar| scalar.kind == ScalarKind::Float && scalar.width == 2;
    module.types.iter().any(|(_, ty)| ty.inner.scalar().is_some_and(|s| half(&s)))
        || functions(module).any(|f| {
            f.expressions.iter().any(|(_, e)| match e {
                Expression::Literal(Literal::F16(_)) => true,
                Expression::As { kind: ScalarKind::Float, convert, .. } => *convert == Some(2),
                _ => false,
            })
        })
}

fn uses_subgroups(module: &Module) -> bool {
    let builtin = |argument: &naga::FunctionArgument| {
        matches!(
            argument.binding,
            Some(naga::Binding::BuiltIn(
                BuiltIn::SubgroupSize | BuiltIn::SubgroupInvocationId | BuiltIn::SubgroupId | BuiltIn::NumSubgroups
            ))
        )
    };
    functions(module).any(|f| {
        f.arguments.iter().any(builtin)
            || f.expressions.iter().any(|(_, e)| matches!(e, Expression::SubgroupBallotResult | Expression::SubgroupOperationResult { .. }))
    })
}
