//! The shader features of weight formats, from the engine's own table of them.

use std::collections::BTreeMap;

use crate::dtype::DType;
use crate::dtype::block::{BlockLayout, FORMATS, Quants};

/// The feature of a format: `w_q8_0`.
pub(crate) fn feature(dtype: DType) -> String {
    format!("w_{}", dtype.name().to_lowercase())
}

/// The format that a feature stands for.
pub(crate) fn of_feature(name: &str) -> Option<DType> {
    DType::supported().find(|dtype| feature(*dtype) == name)
}

/// The axes `weights` and `quants`.
pub(crate) fn axes() -> BTreeMap<String, Vec<String>> {
    let quants = |layout: &BlockLayout| layout.quants != Quants::Floats;
    BTreeMap::from([("weights".to_owned(), features(|_| true)), ("quants".to_owned(), features(quants))])
}

/// Features that group formats.
pub(crate) fn implied() -> BTreeMap<String, Vec<String>> {
    let groups = [
        ("floats", features(|layout| layout.quants == Quants::Floats)),
        ("int8_quants", features(BlockLayout::has_int8_quants)),
        ("byte_quants", features(|layout| layout.quants == Quants::Int8)),
        ("packed_quants", features(|layout| layout.quants == Quants::Packed)),
        ("codebook_quants", features(|layout| layout.quants == Quants::Codebook)),
        ("offsets", features(|layout| layout.offsets)),
        ("per16_scales", features(|layout| layout.per16_scales)),
    ];
    groups.into_iter().map(|(name, features)| (name.to_owned(), features)).collect()
}

fn features(belongs: impl Fn(&BlockLayout) -> bool) -> Vec<String> {
    FORMATS.iter().filter(|(_, layout)| belongs(layout)).map(|(dtype, _)| feature(*dtype)).collect()
}
