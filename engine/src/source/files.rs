//! Several files as one.

use super::{FileSpan, Reading, Source};
use crate::error::{EngineError, Result};

/// Files laid end to end in the order given: the parts of a split GGUF file, or a model folder. One offset addresses all of them.
#[derive(Debug)]
pub struct Files {
    name: String,
    parts: Vec<(FileSpan, Box<dyn Source>)>,
    bytes: u64,
}

impl Files {
    /// The files as one source; `name` is for messages.
    pub fn new(name: impl Into<String>, files: Vec<Box<dyn Source>>) -> Self {
        let mut bytes = 0;
        let mut parts = Vec::with_capacity(files.len());
        for file in files {
            let span = FileSpan { name: file.name().to_owned(), start: bytes, bytes: file.bytes() };
            bytes += span.bytes;
            parts.push((span, file));
        }
        Self { name: name.into(), parts, bytes }
    }

    /// The parts of a range in each file, all being read.
    fn read_each(&self, offset: u64, bytes: usize) -> Result<Vec<Reading<'_>>> {
        let end = offset.checked_add(bytes as u64).filter(|&end| end <= self.bytes).ok_or_else(|| EngineError::Source {
            name: self.name.clone(),
            offset,
            bytes: bytes as u64,
            reason: format!("the files have {} bytes together", self.bytes),
        })?;
        let first = self.parts.partition_point(|(span, _)| span.start + span.bytes <= offset);
        let touched = self.parts[first..].iter().take_while(|(span, _)| span.start < end);
        let pieces = touched.map(|(span, file)| {
            let from = offset.max(span.start);
            let to = end.min(span.start + span.bytes);
            file.read(from - span.start, (to - from) as usize)
        });
        Ok(pieces.collect())
    }
}

impl Source for Files {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn files(&self) -> Vec<FileSpan> {
        self.parts.iter().map(|(span, _)| span.clone()).collect()
    }

    fn ahead(&self) -> u64 {
        self.parts.iter().map(|(_, file)| file.ahead()).max().unwrap_or(0)
    }

    fn read_run(&self, offset: u64, lengths: &[usize]) -> Vec<Reading<'_>> {
        let end = offset + lengths.iter().sum::<usize>() as u64;
        let whole = self.parts.iter().find(|(span, _)| span.start <= offset && end <= span.start + span.bytes);
        if let Some((span, file)) = whole {
            return file.read_run(offset - span.start, lengths);
        }
        let starts = lengths.iter().scan(offset, |at, &bytes| Some(std::mem::replace(at, *at + bytes as u64)));
        starts.zip(lengths).map(|(at, &bytes)| self.read(at, bytes)).collect()
    }

    fn read(&self, offset: u64, bytes: usize) -> Reading<'_> {
        let pieces = self.read_each(offset, bytes);
        Box::pin(async move {
            let mut data = Vec::new();
            for piece in pieces? {
                let piece = piece.await?;
                // The usual case, one file, is not copied.
                if data.is_empty() { data = piece } else { data.extend(piece) }
            }
            Ok(data)
        })
    }
}
