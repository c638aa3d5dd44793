//! The table of variants, `shaders/variants.toml`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

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
    axes: Vec<Axis>,
    #[serde(default)]
    exclude: Vec<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Axis {
    Shared(String),
    Options(Vec<String>),
}

/// Kernels by name, and features that others imply.
pub(crate) struct Table {
    kernels: BTreeMap<String, Axes>,
    implied: BTreeMap<String, Vec<String>>,
}

/// How a kernel varies: a variant takes one option of each axis.
pub(crate) struct Axes {
    /// An option is a feature that `@if` asks for, or empty for none.
    axes: Vec<Vec<String>>,
    /// Sets of features that no variant may have together.
    exclude: Vec<Vec<String>>,
}

impl Table {
    /// Reads the text of the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let File { shared, implied, kernels } = toml::from_str(text).map_err(|e| e.to_string())?;
        let options = |axis| match axis {
            Axis::Options(options) => Ok(options),
            Axis::Shared(name) => shared.get(&name).cloned().ok_or_else(|| format!("there is no shared axis {name:?}")),
        };
        let resolve = |(name, Entry { axes, exclude })| {
            let axes = axes.into_iter().map(options).collect::<Result<_, String>>()?;
            Ok((name, Axes { axes, exclude }))
        };
        let table = Self { kernels: kernels.into_iter().map(resolve).collect::<Result<_, String>>()?, implied };
        let known = table.features();
        match table.implied.values().flatten().find(|f| !known.contains(f.as_str())) {
            Some(unknown) => Err(format!("{unknown:?} implies a feature, but is on no kernel's axes")),
            None => Ok(table),
        }
    }

    /// Kernels in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Axes)> {
        self.kernels.iter().map(|(name, axes)| (name.as_str(), axes))
    }

    /// Every feature of any kernel.
    pub(crate) fn features(&self) -> BTreeSet<&str> {
        let options = self.kernels.values().flat_map(|k| k.axes.iter().flatten()).filter(|f| !f.is_empty());
        options.chain(self.implied.keys()).map(String::as_str).collect()
    }

    /// The features that a variant with these has beside them.
    pub(crate) fn implied_by(&self, features: &[&str]) -> impl Iterator<Item = &str> {
        self.implied.iter().filter(|(_, by)| by.iter().any(|f| features.contains(&f.as_str()))).map(|(name, _)| name.as_str())
    }
}

impl Axes {
    /// The features of every variant, each in the order of the axes.
    pub(crate) fn expand(&self, kernel: &str) -> Result<Vec<Vec<&str>>, String> {
        let known = |feature: &String| self.axes.iter().any(|axis| axis.contains(feature));
        if let Some(unknown) = self.exclude.iter().flatten().find(|f| !known(f)) {
            return Err(format!("shaders/variants.toml: {kernel} excludes {unknown:?}, which is on none of its axes"));
        }
        let mut variants = vec![Vec::new()];
        for axis in &self.axes {
            let extend = |variant: &Vec<_>| {
                let variant = variant.clone();
                axis.iter().map(move |option| {
                    let mut variant = variant.clone();
                    variant.extend((!option.is_empty()).then_some(option.as_str()));
                    variant
                })
            };
            variants = variants.iter().flat_map(extend).collect();
        }
        variants.retain(|v| !self.exclude.iter().any(|set| set.iter().all(|f| v.contains(&f.as_str()))));
        Ok(variants)
    }
}
