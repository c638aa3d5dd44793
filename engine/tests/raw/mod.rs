//! GGUF files as bytes: what no sane writer would write.

use std::path::Path;

use doppler_engine::formats::Gguf;
use doppler_engine::formats::gguf_write::header;
use doppler_engine::formats::{Metadata, Value};

/// A metadata entry.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    /// Type id.
    pub(crate) kind: u32,
    /// Encoded.
    pub(crate) value: Vec<u8>,
}

/// A tensor.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: Vec<u8>,
    pub(crate) shape: Vec<u64>,
    pub(crate) dtype: u32,
    pub(crate) data: Vec<u8>,
}

/// A file.
pub(crate) struct Raw {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    /// The last tensor's data comes first.
    pub(crate) reversed: bool,
    /// Unused units of alignment before each tensor's data.
    pub(crate) hole: usize,
    pub(crate) entries: Vec<Entry>,
    pub(crate) tensors: Vec<Tensor>,
}

/// An encoded string.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

/// An encoded array of encoded items of a type.
pub(crate) fn array(kind: u32, length: u64, items: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), items].concat()
}

impl Raw {
    /// A model of `tests/fixtures/architectures`.
    pub(crate) fn fixture(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/architectures");
        let file = std::fs::read(folder.join(name).with_extension("gguf")).expect("a fixture");
        let checkpoint = Gguf::parse(&file, None).expect("a model");
        let entry = |(key, value): (&str, &Value)| {
            let mut alone = Metadata::new();
            alone.insert(key, value.clone());
            // Behind magic, version, two counts and the key: type and value.
            let bytes = header(&alone, &[]).split_off(24 + 8 + key.len());
            let (kind, value) = bytes.split_first_chunk().expect("a type");
            Entry { key: key.as_bytes().to_vec(), kind: u32::from_le_bytes(*kind), value: value.to_vec() }
        };
        let tensor = |t: &doppler_engine::formats::TensorInfo| Tensor {
            name: t.name.clone().into_bytes(),
            shape: t.shape.clone(),
            dtype: t.dtype.ggml_id(),
            data: file[t.offset as usize..][..t.bytes as usize].to_vec(),
        };
        Self {
            version: 3,
            alignment: 32,
            reversed: false,
            hole: 0,
            entries: checkpoint.metadata.iter().map(entry).collect(),
            tensors: checkpoint.tensors.iter().map(tensor).collect(),
        }
    }

    pub(crate) fn entry(&mut self, key: &str) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.key == key.as_bytes()).expect("an entry")
    }

    /// Sets an entry.
    pub(crate) fn put(&mut self, key: &str, kind: u32, value: &[u8]) {
        let new = Entry { key: key.as_bytes().to_vec(), kind, value: value.to_vec() };
        match self.entries.iter_mut().find(|entry| entry.key == new.key) {
            Some(entry) => *entry = new,
            None => self.entries.push(new),
        }
    }

    pub(crate) fn text(&mut self, key: &str, text: &[u8]) {
        self.put(key, 8, &string(text));
    }

    pub(crate) fn number(&mut self, key: &str, number: u32) {
        self.put(key, 4, &number.to_le_bytes());
    }

    pub(crate) fn drop(&mut self, key: &str) {
        self.entries.retain(|entry| entry.key != key.as_bytes());
    }

    /// The number of an entry as an array for both layers, of 32-bit integers of type `kind`.
    pub(crate) fn each_layer(&mut self, key: &str, kind: u32) {
        let value = self.entry(key).value.repeat(2);
        self.put(key, 9, &array(kind, 2, &value));
    }

    pub(crate) fn align(&mut self, kind: u32, alignment: usize) {
        let bytes = if kind == 10 { 8 } else { 4 };
        self.put("general.alignment", kind, &(alignment as u64).to_le_bytes()[..bytes]);
        self.alignment = alignment;
    }

    pub(crate) fn split(&mut self, parts: u8) {
        self.put("split.no", 2, &[0, 0]);
        self.put("split.count", 2, &[parts, 0]);
        self.put("split.tensors.count", 5, &(self.tensors.len() as u32).to_le_bytes());
    }

    /// Replaces the text of a token.
    pub(crate) fn token(&mut self, id: usize, text: &[u8]) {
        let value = &mut self.entry("tokenizer.ggml.tokens").value;
        let mut at = 12;
        for _ in 0..id {
            at += 8 + u64::from_le_bytes(*value[at..].first_chunk().expect("a length")) as usize;
        }
        let length = u64::from_le_bytes(*value[at..].first_chunk().expect("a length")) as usize;
        value.splice(at..at + 8 + length, string(text));
    }

    pub(crate) fn tensor(&mut self, name: &[u8], shape: &[u64], dtype: u32, data: Vec<u8>) {
        self.tensors.push(Tensor { name: name.to_vec(), shape: shape.to_vec(), dtype, data });
    }

    /// A vector of equal numbers.
    pub(crate) fn floats(&mut self, name: &[u8], count: u64, value: f32) {
        self.tensor(name, &[count], 0, value.to_le_bytes().repeat(count as usize));
    }

    /// One layer of width 256 in zeros, for types with large blocks.
    pub(crate) fn widen(&mut self) {
        for (key, value) in [("embedding_length", 256), ("feed_forward_length", 256), ("rope.dimension_count", 64), ("block_count", 1)] {
            self.number(&format!("llama.{key}"), value);
        }
        for key in ["llama.attention.head_count", "llama.attention.head_count_kv"] {
            self.number(key, 4);
        }
        self.tensors.retain(|tensor| !tensor.name.starts_with(b"blk.1."));
        for tensor in &mut self.tensors {
            let rows = if tensor.shape.get(1) == Some(&270) { 270 } else { 256 };
            tensor.shape = if tensor.shape.len() == 1 { vec![256] } else { vec![256, rows] };
            tensor.dtype = 0;
            tensor.data = vec![0; 4 * tensor.shape.iter().product::<u64>() as usize];
        }
    }

    /// The file.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        if self.reversed {
            order.reverse();
        }
        let (mut data, mut offsets) = (Vec::new(), vec![0; order.len()]);
        let alignment = self.alignment;
        for i in order {
            data.resize(data.len().next_multiple_of(alignment) + self.hole * alignment, 0);
            offsets[i] = data.len() as u64;
            data.extend(&self.tensors[i].data);
        }
        let counts = [(self.tensors.len() as u64).to_le_bytes(), (self.entries.len() as u64).to_le_bytes()].concat();
        let mut out = [&b"GGUF"[..], &self.version.to_le_bytes(), &counts].concat();
        for Entry { key, kind, value } in &self.entries {
            out.extend([&string(key)[..], &kind.to_le_bytes(), value].concat());
        }
        for (tensor, offset) in self.tensors.iter().zip(offsets) {
            out.extend(string(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|dimension| out.extend(dimension.to_le_bytes()));
            out.extend(tensor.dtype.to_le_bytes());
            out.extend(u64::to_le_bytes(offset));
        }
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend(data);
        out
    }
}
