//! GGUF versions 2 and 3: header, metadata, tensor descriptions.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::{Array, Checkpoint, DType, FormatError, Metadata, TensorInfo, Value};

/// Most metadata entries accepted; real files have about 40.
const MAX_ENTRIES: u64 = 1 << 16;
/// Most tensors accepted; the largest real files have a few thousand.
const MAX_TENSORS: u64 = 1 << 18;
/// Longest string, in bytes; chat templates have up to some tens of kilobytes.
const MAX_STRING: u64 = 16 << 20;
/// Longest key or tensor name, in bytes (GGUF allows 65,535).
const MAX_NAME: u64 = 65_535;
/// Most elements of an array; vocabularies have up to some 300,000 tokens.
const MAX_ARRAY: u64 = 1 << 24;
/// Deepest nesting of arrays.
const MAX_DEPTH: u32 = 4;
/// Most dimensions of a tensor (ggml's limit).
const MAX_DIMENSIONS: u64 = 4;
/// The least prefix asked for: a small model's whole header.
const FIRST_READ: u64 = 256 << 10;
/// Alignment of tensor data when the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The GGUF reader.
#[derive(Debug)]
pub struct Gguf;

impl Gguf {
    /// Parses the header of a GGUF file from `prefix`, its first bytes; the payload need not be there.
    ///
    /// `file_len` is the length of the whole file where it is known; with it, an incomplete file is told by
    /// [`FormatError::Truncated`].
    ///
    /// # Errors
    /// [`FormatError::NeedMore`] when the header is longer than `prefix`: call again with a longer one. Otherwise what is wrong with
    /// the file.
    pub fn parse(prefix: &[u8], file_len: Option<u64>) -> Result<Checkpoint, FormatError> {
        let mut r = Reader { bytes: prefix, at: 0, file_len };
        let (n_tensors, n_entries) = r.preamble()?;
        let metadata = r.metadata(n_entries)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(_) => metadata.u32("general.alignment")?.into(),
        };
        if alignment < 8 || !alignment.is_power_of_two() {
            return Err(FormatError::Alignment { alignment });
        }
        let mut tensors = r.tensors(n_tensors)?;
        let data_start = (r.at as u64).next_multiple_of(alignment);
        place(&mut tensors, data_start, alignment, file_len)?;
        Checkpoint::new(metadata, tensors)
    }
}

/// Makes the offsets absolute and checks alignment, overlap and the end of the file.
fn place(tensors: &mut [TensorInfo], data_start: u64, alignment: u64, file_len: Option<u64>) -> Result<(), FormatError> {
    let mut spans = Vec::with_capacity(tensors.len());
    let mut needed = data_start * u64::from(!tensors.is_empty());
    for (i, t) in tensors.iter_mut().enumerate() {
        let fail = |problem| FormatError::Tensor { name: t.name.clone(), problem };
        if !t.offset.is_multiple_of(alignment) {
            return Err(fail("its offset is not aligned"));
        }
        let start = t.offset.checked_add(data_start).ok_or_else(|| fail("its offset is out of range"))?;
        let end = start.checked_add(t.bytes).ok_or_else(|| fail("its size is out of range"))?;
        needed = needed.max(end);
        t.offset = start;
        spans.push((start, end, i));
    }
    if let Some(len) = file_len
        && needed > len
    {
        return Err(FormatError::Truncated { needed, missing: needed - len, at_least: false });
    }
    spans.sort_unstable();
    match spans.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(FormatError::Tensor { name: tensors[pair[1].2].name.clone(), problem: "its data overlaps another tensor's" }),
        None => Ok(()),
    }
}

/// A cursor over the prefix.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: Option<u64>,
}

/// A scalar with a little-endian encoding.
trait Scalar: Sized {
    const BYTES: usize;
    /// `None` when the bytes are no value of the type.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! scalars {
    ($($type:ty),*) => {$(
        impl Scalar for $type {
            const BYTES: usize = size_of::<$type>();
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}
scalars!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

impl Scalar for bool {
    const BYTES: usize = 1;
    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl<'a> Reader<'a> {
    /// Checks that `n` more bytes are there; `n` may be a lower bound of what is needed.
    fn need(&self, n: u64) -> Result<(), FormatError> {
        let have = self.bytes.len() as u64;
        let needed = (self.at as u64).saturating_add(n);
        if needed <= have {
            return Ok(());
        }
        match self.file_len {
            Some(len) if needed > len => Err(FormatError::Truncated { needed, missing: needed - len, at_least: true }),
            len => {
                let at_least = needed.max(have.saturating_mul(2)).max(FIRST_READ);
                Err(FormatError::NeedMore { at_least: len.map_or(at_least, |len| at_least.min(len)) })
            }
        }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], FormatError> {
        self.need(n)?;
        let start = self.at;
        self.at += n as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn scalar<T: Scalar>(&mut self) -> Result<T, FormatError> {
        let offset = self.at as u64;
        T::read(self.take(T::BYTES as u64)?).ok_or(FormatError::Invalid { what: "a boolean", offset })
    }

    /// A count with its cap.
    fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, FormatError> {
        let count = self.scalar()?;
        if count > limit { Err(FormatError::TooLarge { what, count, limit }) } else { Ok(count) }
    }

    /// Text; what is no UTF-8 in it becomes U+FFFD, as with Latin-1 in descriptions and tokens of half a character.
    fn string(&mut self, what: &'static str, limit: u64) -> Result<String, FormatError> {
        let len = self.count(what, limit)?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    /// Text that some writers end with NULs, as C does.
    fn padded(&mut self, what: &'static str, limit: u64) -> Result<String, FormatError> {
        let mut text = self.string(what, limit)?;
        text.truncate(text.trim_end_matches('\0').len());
        Ok(text)
    }

    /// Magic and version; gives (number of tensors, number of metadata entries).
    fn preamble(&mut self) -> Result<(u64, u64), FormatError> {
        let begins = self.bytes.iter().zip(b"GGUF").all(|(byte, magic)| byte == magic);
        if !begins || self.file_len == Some(0) {
            return Err(FormatError::NotGguf { found: doppler_files::instead_of_gguf(self.bytes) });
        }
        self.take(4)?;
        match self.scalar::<u32>()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 1..=3) => return Err(FormatError::BigEndian),
            version => return Err(FormatError::Version { version }),
        }
        Ok((self.count("the number of tensors", MAX_TENSORS)?, self.count("the number of metadata entries", MAX_ENTRIES)?))
    }

    fn metadata(&mut self, n: u64) -> Result<Metadata, FormatError> {
        self.need(n * 13)?; // the least entry: length of the key, type, one byte
        let mut metadata = Metadata::new();
        for _ in 0..n {
            let key = self.padded("the length of a metadata key", MAX_NAME)?;
            let id = self.scalar()?;
            let value = self.value(&key, id)?;
            if key.is_empty() || metadata.contains(&key) {
                return Err(FormatError::BadName { what: "metadata key", name: key });
            }
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    fn value(&mut self, key: &str, id: u32) -> Result<Value, FormatError> {
        Ok(match id {
            0 => Value::U8(self.scalar()?),
            1 => Value::I8(self.scalar()?),
            2 => Value::U16(self.scalar()?),
            3 => Value::I16(self.scalar()?),
            4 => Value::U32(self.scalar()?),
            5 => Value::I32(self.scalar()?),
            6 => Value::F32(self.scalar()?),
            7 => Value::Bool(self.scalar()?),
            8 => Value::String(self.padded("the length of a metadata string", MAX_STRING)?),
            9 => Value::Array(self.array(key, 1)?),
            10 => Value::U64(self.scalar()?),
            11 => Value::I64(self.scalar()?),
            12 => Value::F64(self.scalar()?),
            id => {
                return Err(FormatError::ValueType { key: key.to_owned(), id });
            }
        })
    }

    fn array(&mut self, key: &str, depth: u32) -> Result<Array, FormatError> {
        if depth > MAX_DEPTH {
            return Err(FormatError::TooLarge { what: "the nesting of arrays", count: depth.into(), limit: MAX_DEPTH.into() });
        }
        let id = self.scalar()?;
        let n = self.count("the length of an array", MAX_ARRAY)?;
        Ok(match id {
            0 => Array::U8(self.scalars(n)?),
            1 => Array::I8(self.scalars(n)?),
            2 => Array::U16(self.scalars(n)?),
            3 => Array::I16(self.scalars(n)?),
            4 => Array::U32(self.scalars(n)?),
            5 => Array::I32(self.scalars(n)?),
            6 => Array::F32(self.scalars(n)?),
            7 => Array::Bool(self.scalars(n)?),
            8 => Array::String(self.items(n, 8, |r| r.string("the length of a string in an array", MAX_STRING))?),
            9 => Array::Array(self.items(n, 12, |r| r.array(key, depth + 1))?),
            10 => Array::U64(self.scalars(n)?),
            11 => Array::I64(self.scalars(n)?),
            12 => Array::F64(self.scalars(n)?),
            id => {
                return Err(FormatError::ValueType { key: key.to_owned(), id });
            }
        })
    }

    fn scalars<T: Scalar>(&mut self, n: u64) -> Result<Vec<T>, FormatError> {
        let offset = self.at as u64;
        let bytes = self.take(n * T::BYTES as u64)?;
        bytes.chunks_exact(T::BYTES).map(|b| T::read(b).ok_or(FormatError::Invalid { what: "a boolean", offset })).collect()
    }

    /// `n` items of at least `min_bytes` each; nothing is allocated before that many bytes are there.
    fn items<T>(
        &mut self,
        n: u64,
        min_bytes: u64,
        mut item: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        self.need(n * min_bytes)?;
        let mut items = Vec::with_capacity(n as usize);
        for _ in 0..n {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn tensors(&mut self, n: u64) -> Result<Vec<TensorInfo>, FormatError> {
        self.items(n, 24, Self::tensor) // name length, dimension count, type, offset
    }

    /// One tensor description; `offset` still counts from the start of the data section.
    fn tensor(&mut self) -> Result<TensorInfo, FormatError> {
        let name = self.padded("the length of a tensor name", MAX_NAME)?;
        let n_dimensions = u64::from(self.scalar::<u32>()?);
        if n_dimensions > MAX_DIMENSIONS {
            return Err(FormatError::TooLarge { what: "the number of dimensions", count: n_dimensions, limit: MAX_DIMENSIONS });
        }
        let shape: Vec<u64> = self.scalars(n_dimensions)?;
        let dtype = DType::from_ggml(self.scalar()?);
        let offset = self.scalar()?;
        let fail = |problem| FormatError::Tensor { name: name.clone(), problem };
        let elements = shape.iter().try_fold(1_u64, |n, &d| n.checked_mul(d)).ok_or_else(|| fail("it has too many elements"))?;
        if elements == 0 {
            return Err(fail("it has no elements"));
        }
        let (size, bytes) = dtype.layout().unwrap_or((1, 0));
        if !shape.first().unwrap_or(&1).is_multiple_of(size) {
            return Err(fail("its row length is no multiple of its block size"));
        }
        let bytes = (elements / size).checked_mul(bytes).ok_or_else(|| fail("it has too many bytes"))?;
        Ok(TensorInfo { name, dtype, shape, offset, bytes, transform: None })
    }
}
