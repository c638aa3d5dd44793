//! The table of variants, `shaders/variants.toml`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::dtype::DType;
use crate::formats;

/// The file.
#[derive(Deserialize)]
struct File {
    /// Axes that kernels name instead of listing their options.
    #[serde(default)]
    shared: BTreeMap<String, Vec<String>>,
    /// Features that any of those listed brings along.
    #[serde(default)]
    implied: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    kernels: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    axes: Vec<AxisEntry>,
    #[serde(default)]
    always: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    optional: BTreeSet<String>,
    bindings_of: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AxisEntry {
    Shared(String),
    Own(BTreeMap<String, Vec<String>>),
}

/// Kernels by name, and features that others imply.
pub(crate) struct Table {
    kernels: BTreeMap<String, KernelAxes>,
    implied: BTreeMap<String, Vec<String>>,
}

/// How a kernel varies: a variant takes one option of each axis, and each flag or not.
pub(crate) struct KernelAxes {
    pub(crate) axes: Vec<Axis>,
    always: Vec<String>,
    pub(crate) flags: Vec<String>,
    /// Bindings that may be absent.
    pub(crate) optional: BTreeSet<String>,
    /// The kernel whose bindings it shares.
    pub(crate) bindings_of: Option<String>,
}

/// One of several options.
#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) name: String,
    /// Name of the enum that the options are in Rust.
    pub(crate) ty: String,
    pub(crate) options: Vec<AxisOption>,
}

/// Features that `@if` asks for, of which a variant has all.
#[derive(Clone)]
pub(crate) struct AxisOption {
    pub(crate) features: Vec<String>,
    /// Name in Rust.
    pub(crate) name: String,
    /// The weight format that it stands for.
    pub(crate) dtype: Option<DType>,
}

impl Table {
    /// Reads the text of the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let File { mut shared, mut implied, kernels } = toml::from_str(text).map_err(|e| e.to_string())?;
        shared.extend(formats::axes());
        implied.extend(formats::implied());
        let resolve = |(kernel, entry): (String, Entry)| {
            let axes = entry.axes.iter().map(|axis| Axis::resolve(&kernel, axis, &shared)).collect::<Result<_, String>>()?;
            let Entry { always, flags, optional, bindings_of, .. } = entry;
            if bindings_of.is_some() && !optional.is_empty() {
                return Err(format!("{kernel} shares bindings: which are optional is said where they are"));
            }
            Ok((kernel, KernelAxes { axes, always, flags, optional, bindings_of }))
        };
        let table = Self { kernels: kernels.into_iter().map(resolve).collect::<Result<_, String>>()?, implied };
        let known = table.features();
        if let Some(unknown) = table.implied.values().flatten().find(|f| !known.contains(f.as_str())) {
            return Err(format!("{unknown:?} implies a feature, but is on no kernel's axes"));
        }
        match table.kernels.iter().find(|(_, k)| k.bindings_of.as_ref().is_some_and(|owner| !table.kernels.contains_key(owner))) {
            Some((kernel, _)) => Err(format!("{kernel} shares the bindings of a kernel that is not in the table")),
            None => Ok(table),
        }
    }

    /// Kernels in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &KernelAxes)> {
        self.kernels.iter().map(|(name, axes)| (name.as_str(), axes))
    }

    /// Every feature of any kernel.
    pub(crate) fn features(&self) -> BTreeSet<&str> {
        self.kernels.values().flat_map(KernelAxes::features).chain(self.implied.keys()).map(String::as_str).collect()
    }

    /// The features that a variant with these has beside them.
    pub(crate) fn implied_by(&self, features: &[&str]) -> impl Iterator<Item = &str> {
        self.implied.iter().filter(|(_, by)| by.iter().any(|f| features.contains(&f.as_str()))).map(|(name, _)| name.as_str())
    }
}

impl KernelAxes {
    fn features(&self) -> impl Iterator<Item = &String> {
        let options = self.axes.iter().flat_map(|axis| axis.options.iter().flat_map(|option| &option.features));
        options.chain(&self.always).chain(&self.flags)
    }

    /// The features of every variant: the last flag varies fastest, the first axis slowest.
    pub(crate) fn expand(&self) -> Vec<Vec<&str>> {
        let axes = self.axes.iter().map(|axis| axis.options.iter().map(|o| o.features.iter().map(String::as_str).collect()).collect());
        let always = std::iter::once(vec![self.always.iter().map(String::as_str).collect()]);
        let flags = self.flags.iter().map(|flag| vec![vec![], vec![flag.as_str()]]);
        axes.chain(always).chain(flags).fold(vec![Vec::new()], |variants: Vec<Vec<&str>>, options: Vec<Vec<&str>>| {
            variants.iter().flat_map(|variant| options.iter().map(|option| [variant.as_slice(), option].concat())).collect()
        })
    }
}

impl Axis {
    fn resolve(kernel: &str, entry: &AxisEntry, shared: &BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let (name, options, ty) = match entry {
            AxisEntry::Shared(name) => {
                (name, shared.get(name).ok_or_else(|| format!("there is no shared axis {name:?}"))?, camel_case(name))
            }
            AxisEntry::Own(axis) => match axis.first_key_value() {
                Some((name, options)) if axis.len() == 1 => (name, options, camel_case(kernel) + &camel_case(name)),
                _ => return Err(format!("an axis of {kernel} is one name with its options")),
            },
        };
        let options = options.iter().map(|option| {
            let dtype = formats::of_feature(option);
            let name = dtype.map_or_else(|| option.split('+').map(camel_case).collect(), |dtype| format!("{dtype:?}"));
            AxisOption { features: option.split('+').map(str::to_owned).collect(), name, dtype }
        });
        Ok(Self { name: name.clone(), ty, options: options.collect() })
    }
}

/// `tile_64x64` as `Tile64x64`, `f32_8x8` as `F32_8x8`.
pub(crate) fn camel_case(name: &str) -> String {
    name.split('_').fold(String::new(), |mut camel, part| {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        if digit(camel.chars().next_back()) && digit(part.chars().next()) {
            camel.push('_');
        }
        camel + &part[..1].to_uppercase() + &part[1..]
    })
}
