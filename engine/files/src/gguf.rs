//! GGUF files that are no models by themselves.

/// What a GGUF file says of its purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purpose {
    /// `general.type`.
    pub kind: Option<String>,
    /// `general.architecture`.
    pub architecture: Option<String>,
}

/// What a file of this purpose is and what it is for, where it is no model by itself.
pub fn no_model(kind: Option<&str>, architecture: Option<&str>) -> Option<&'static str> {
    match (kind, architecture) {
        (Some("adapter"), _) => {
            Some("a LoRA adapter, which changes the answers of the model that it was trained on: choose a model instead")
        }
        (Some("mmproj"), _) | (_, Some("clip")) => {
            Some("a multimodal projector (mmproj), by which a model sees pictures or hears: choose the model that it belongs to")
        }
        (Some("imatrix"), _) | (_, Some("imatrix")) => {
            Some("an importance matrix (imatrix), which is for quantizing a model: choose a model instead")
        }
        (Some("controlvector"), _) | (_, Some("controlvector")) => {
            Some("a control vector, which steers the answers of a model: choose a model instead")
        }
        (Some("dataset"), _) => Some("a dataset: choose a model instead"),
        (Some("vocab"), _) => Some("a vocabulary without weights: choose a model instead"),
        _ => None,
    }
}

impl Purpose {
    /// Reads what the start of a GGUF file (version 2 or 3, little-endian) says. What comes behind the start, or behind something that
    /// is not understood, is not known.
    pub fn read(start: &[u8]) -> Self {
        let mut purpose = Self::default();
        // The end of the start is the end of what is known.
        let _ = Cursor(start).purpose(&mut purpose);
        purpose
    }

    /// What the file is and what it is for, where it is no model by itself.
    pub fn no_model(&self) -> Option<&'static str> {
        no_model(self.kind.as_deref(), self.architecture.as_deref())
    }
}

/// What is left of the start.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.take(8)?.first_chunk()?))
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u64()?;
        Some(String::from_utf8_lossy(self.take(length)?).trim_end_matches('\0').to_owned())
    }

    fn purpose(&mut self, purpose: &mut Purpose) -> Option<()> {
        let (magic, version, _tensors, entries) = (self.take(4)?, self.u32()?, self.u64()?, self.u64()?);
        if magic != b"GGUF" || !matches!(version, 2 | 3) {
            return None;
        }
        for _ in 0..entries {
            let (key, kind) = (self.string()?, self.u32()?);
            match (key.as_str(), kind) {
                ("general.type", 8) => purpose.kind = Some(self.string()?),
                ("general.architecture", 8) => purpose.architecture = Some(self.string()?),
                _ => self.skip(kind)?,
            }
        }
        Some(())
    }

    /// Passes a value of a type by.
    fn skip(&mut self, kind: u32) -> Option<()> {
        match kind {
            8 => drop(self.string()?),
            9 => {
                let (kind, length) = (self.u32()?, self.u64()?);
                match size(kind) {
                    Some(size) => drop(self.take(length.checked_mul(size)?)?),
                    // An array of arrays is in no file of these purposes.
                    None if kind == 8 => (0..length).try_for_each(|_| self.string().map(drop))?,
                    None => return None,
                }
            }
            kind => drop(self.take(size(kind)?)?),
        }
        Some(())
    }
}

/// Bytes of a scalar type.
fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn file(entries: &[Vec<u8>]) -> Vec<u8> {
        let counts = [0_u64.to_le_bytes(), (entries.len() as u64).to_le_bytes()].concat();
        [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &counts, &entries.concat()].concat()
    }

    fn text(key: &str, value: &str) -> Vec<u8> {
        [string(key), 8_u32.to_le_bytes().to_vec(), string(value)].concat()
    }

    #[test]
    fn purpose_behind_other_keys_is_found() {
        let scalar = [string("a.b"), 12_u32.to_le_bytes().to_vec(), vec![0; 8]].concat();
        let array =
            [string("a.c"), [9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat(), 2_u64.to_le_bytes().to_vec(), string("x"), string("")];
        let numbers = [string("a.d"), [9_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat(), 3_u64.to_le_bytes().to_vec(), vec![1; 12]];
        let entries = [scalar, array.concat(), numbers.concat(), text("general.architecture", "clip\0\0"), text("general.type", "mmproj")];
        let file = file(&entries);
        let purpose = Purpose::read(&file);
        assert_eq!((purpose.kind.as_deref(), purpose.architecture.as_deref()), (Some("mmproj"), Some("clip")));
        assert!(purpose.no_model().is_some_and(|what| what.contains("mmproj")));
        for length in 0..file.len() {
            let known = Purpose::read(&file[..length]);
            assert!(known.kind.is_none(), "{length}");
        }
    }

    #[test]
    fn purpose_of_models_is_accepted() {
        for (kind, architecture) in [(None, None), (None, Some("llama")), (Some("model"), Some("qwen2")), (Some("merge"), Some("gemma3"))] {
            assert_eq!(no_model(kind, architecture), None);
        }
        // Nothing of this is a count that could be believed.
        assert_eq!(Purpose::read(&file(&[[string("k"), 9_u32.to_le_bytes().to_vec(), vec![0xff; 12]].concat()])), Purpose::default());
    }
}
