//! EXAONE 4: norms behind attention and feed-forward network, norms of queries and keys; in 32B windows in three of four layers, and no
//! rotation in the fourth.

use super::Family;
use super::dense::{Dense, all_but_each_fourth};
use super::qwen;
use crate::model::spec::NormPlacement;

const DENSE: Dense = Dense { norms: NormPlacement::POST, windowed: all_but_each_fourth, ..qwen::DENSE };

pub(super) const EXAONE_4: Family = Family::gguf("exaone4", |header| match header.integer("attention.sliding_window")? {
    None | Some(0) => DENSE.spec(header),
    Some(_) => Dense { rotates: |_, windowed| windowed, ..DENSE }.spec(header),
});
