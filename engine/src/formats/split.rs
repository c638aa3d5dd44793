//! GGUF files in several parts, as `gguf-split` writes them: `name-00001-of-00003.gguf`, each a GGUF file of its own with the keys
//! `split.no` (from 0), `split.count` and `split.tensors.count` (of all parts together).

use super::{Checkpoint, FormatError, TensorInfo};
use crate::source::{FileSpan, PartName};

/// Metadata keys that say how a file was split.
pub(super) const KEYS: [&str; 3] = ["split.no", "split.count", "split.tensors.count"];

/// One checkpoint from the parts of a file, in any order; offsets of the result count from the start of the source.
///
/// # Errors
/// [`FormatError::MissingFile`] names the part that is not there; [`FormatError::Split`] says what else does not fit.
pub fn join(parts: Vec<(FileSpan, Checkpoint)>) -> Result<Checkpoint, FormatError> {
    let fail = |problem: String| Err(FormatError::Split { problem });
    let Some((first, checkpoint)) = parts.first() else {
        return fail("there is no file".to_owned());
    };
    let base_name = first.base_name().to_owned();
    let count = checkpoint.metadata.u32_opt("split.count")?.unwrap_or(1);
    if count <= 1 && parts.len() > 1 {
        return fail(format!("{} is a whole model; choose it alone", first.name));
    }
    let name = PartName::parse(&base_name).map(|name| PartName { count, ..name });
    let total = checkpoint.metadata.u64_opt("split.tensors.count")?;
    let mut ordered: Vec<Option<(FileSpan, Checkpoint)>> = Vec::new();
    ordered.resize_with(parts.len(), || None);
    for (file, part) in parts {
        let (number, its_count) = match count {
            0 | 1 => (0, count),
            _ => (part.metadata.u32("split.no")?, part.metadata.u32("split.count")?),
        };
        if its_count != count {
            return fail(format!("{} is one of {its_count} parts, others are of {count}", file.name));
        }
        if number >= count.max(1) {
            return fail(format!("{} says that it is part {} of {count}", file.name, u64::from(number) + 1));
        }
        match ordered.get_mut(number as usize) {
            Some(Some((other, _))) => return fail(format!("{} and {} are both part {}", other.name, file.name, number + 1)),
            Some(place) => *place = Some((file, part)),
            None => {} // an earlier part is missing: named below
        }
    }
    let missing = (0..).zip(&ordered).find(|(_, part)| part.is_none()).map(|(number, _)| number);
    if let Some(number) = missing.or((count > ordered.len() as u32).then_some(ordered.len() as u32)) {
        let file = name.map_or_else(|| format!("part {} of {count}", number + 1), |name| name.with_number(number + 1));
        return Err(FormatError::MissingFile { file });
    }
    let mut metadata = None;
    let mut tensors: Vec<TensorInfo> = Vec::new();
    for (file, part) in ordered.into_iter().flatten() {
        metadata.get_or_insert(part.metadata);
        for mut tensor in part.tensors {
            tensor.offset += file.start;
            tensors.push(tensor);
        }
    }
    if let Some(total) = total
        && count > 1
        && total != tensors.len() as u64
    {
        return fail(format!("the parts have {} tensors together instead of {total}", tensors.len()));
    }
    let mut metadata = metadata.unwrap_or_default();
    for key in KEYS {
        metadata.remove(key);
    }
    Checkpoint::new(metadata, tensors)
}
