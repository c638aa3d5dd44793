//! The table of variants, `shaders/variants.toml`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The file.
#[derive(Deserialize)]
struct File {
    /// Axes that kernels name instead of listing their options.
    #[serde(default)]
    shared: BTreeMap<String, Vec<String>>,
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

/// Kernels by name.
pub(crate) struct Table(BTreeMap<String, Axes>);

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
        let File { shared, kernels } = toml::from_str(text).map_err(|e| e.to_string())?;
        let options = |axis| match axis {
            Axis::Options(options) => Ok(options),
            Axis::Shared(name) => shared.get(&name).cloned().ok_or_else(|| format!("there is no shared axis {name:?}")),
        };
        let resolve = |(name, Entry { axes, exclude })| {
            let axes = axes.into_iter().map(options).collect::<Result<_, String>>()?;
            Ok((name, Axes { axes, exclude }))
        };
        Ok(Self(kernels.into_iter().map(resolve).collect::<Result<_, String>>()?))
    }

    /// Kernels in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Axes)> {
        self.0.iter().map(|(name, axes)| (name.as_str(), axes))
    }

    /// Every feature of any kernel.
    pub(crate) fn features(&self) -> BTreeSet<&str> {
        self.0.values().flat_map(|k| k.axes.iter().flatten()).map(String::as_str).filter(|f| !f.is_empty()).collect()
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
