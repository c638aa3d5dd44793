//! GGUF files in several parts, and several files as one source.

use doppler_engine::error::EngineError;
use doppler_engine::formats::gguf_write::{TensorData, write};
use doppler_engine::formats::{Checkpoint, DType, FormatError, Metadata, Value, read_rows};
use doppler_engine::model::read_checkpoint;
use doppler_engine::source::{Files, MemorySource, PartName, Source, open};
use futures::executor::block_on;

/// Part `number` (from 0) of `count` with a tensor of eight equal bytes; the first has the model's metadata.
fn part(number: u16, count: u16, tensors: i32) -> Vec<u8> {
    let mut metadata = Metadata::new();
    if number == 0 {
        metadata.insert("general.architecture", Value::String("llama".to_owned()));
    }
    metadata.insert("split.no", Value::U16(number));
    metadata.insert("split.count", Value::U16(count));
    metadata.insert("split.tensors.count", Value::I32(tensors));
    let name = format!("t{number}");
    write(&metadata, &[TensorData { name: &name, dtype: DType::I8, shape: &[4, 2], data: &[number as u8 + 1; 8] }])
}

fn name(number: u16, count: u16) -> String {
    format!("folder/model-{:05}-of-{count:05}.gguf", number + 1)
}

fn files(parts: Vec<(String, Vec<u8>)>) -> Files {
    let sources = parts.into_iter().map(|(name, bytes)| Box::new(MemorySource::new(name, bytes)) as Box<dyn Source>);
    Files::new("model", sources.collect())
}

fn read(parts: Vec<(String, Vec<u8>)>) -> Result<Checkpoint, EngineError> {
    block_on(read_checkpoint(&files(parts)))
}

#[test]
fn split_parts_in_any_order_join() {
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let source = files(order.iter().map(|&i| (name(i, 3), part(i, 3, 3))).collect());
        let checkpoint = block_on(read_checkpoint(&source)).unwrap();
        assert_eq!(checkpoint.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["t0", "t1", "t2"]);
        for (tensor, value) in checkpoint.tensors.iter().zip(1..) {
            assert_eq!(block_on(read_rows(&source, tensor, 0, 2)).unwrap(), [value; 8]);
            assert_eq!(block_on(read_rows(&source, tensor, 1, 1)).unwrap(), [value; 4]);
        }
        assert_eq!(checkpoint.metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["general.architecture"]);
    }
}

#[test]
fn split_mismatched_parts_are_refused_by_name() {
    let parts =
        |list: &[(u16, u16, i32)]| list.iter().map(|&(no, count, total)| (name(no, count), part(no, count, total))).collect::<Vec<_>>();
    let missing = |parts| match read(parts) {
        Err(EngineError::Format(FormatError::MissingFile { file })) => file,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(parts(&[(0, 3, 3), (2, 3, 3)])), "model-00002-of-00003.gguf");
    assert_eq!(missing(parts(&[(1, 3, 3), (2, 3, 3)])), "model-00001-of-00003.gguf");
    assert_eq!(missing(parts(&[(0, 3, 3)])), "model-00002-of-00003.gguf");
    assert_eq!(missing(vec![("renamed.gguf".to_owned(), part(0, 2, 2))]), "part 2 of 2");
    let fails = |parts| read(parts).unwrap_err().to_string();
    assert!(fails(parts(&[(0, 2, 2), (0, 2, 2)])).contains("are both part 1"));
    assert!(fails(parts(&[(0, 2, 2), (1, 3, 3)])).contains("one of 3 parts, others are of 2"));
    assert!(fails(parts(&[(0, 2, 2), (7, 2, 2)])).contains("says that it is part 8 of 2"));
    assert!(fails(parts(&[(0, 2, 5), (1, 2, 5)])).contains("2 tensors together instead of 5"));
    assert!(fails(parts(&[(0, 1, 1), (1, 2, 2)])).contains("is a whole model"));
    assert!(fails(Vec::new()).contains("no file"));
    // The same tensor in two parts.
    let mut second = part(1, 2, 2);
    let at = second.windows(2).position(|w| w == b"t1").unwrap();
    second[at + 1] = b'0';
    assert!(fails(vec![(name(0, 2), part(0, 2, 2)), (name(1, 2), second)]).contains("occurs twice"));
    // A part that is cut off, and one without the keys.
    let mut cut = part(1, 2, 2);
    cut.truncate(cut.len() - 1);
    assert!(fails(vec![(name(0, 2), part(0, 2, 2)), (name(1, 2), cut)]).contains("incomplete"));
    assert!(fails(vec![(name(0, 2), part(0, 2, 2)), (name(1, 2), write(&Metadata::new(), &[]))]).contains("split.no"));
}

#[test]
fn part_names_are_parsed() {
    let parts = PartName::parse("a-of-b-00002-of-00011.gguf").unwrap();
    assert_eq!((parts.prefix, parts.number, parts.count), ("a-of-b", 2, 11));
    for other in ["model.gguf", "m-1-of-2.gguf", "m-00001-of-00002.safetensors", "m-0000x-of-00002.gguf", "-of-.gguf"] {
        assert_eq!(PartName::parse(other), None, "{other}");
    }
}

#[test]
fn split_any_part_opens_all() {
    let folder = std::env::temp_dir().join(format!("doppler-split-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for i in 0..3 {
        std::fs::write(folder.join(name(i, 3).rsplit_once('/').unwrap().1), part(i, 3, 3)).unwrap();
    }
    std::fs::write(folder.join("other-00001-of-00003.gguf"), part(0, 3, 3)).unwrap();
    for i in 0..3 {
        let source = open(&folder.join(name(i, 3).rsplit_once('/').unwrap().1)).unwrap();
        assert_eq!(source.files().len(), 3);
        assert_eq!(block_on(read_checkpoint(&*source)).unwrap().tensors.len(), 3);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Every range of four files, one of them empty.
#[test]
fn files_reads_cross_boundaries() {
    let all: Vec<u8> = (0..10).collect();
    let pieces = [&all[..3], &[], &all[3..4], &all[4..]];
    let source = files(pieces.iter().map(|bytes| ("f".to_owned(), bytes.to_vec())).collect());
    assert_eq!(source.bytes(), 10);
    for start in 0..=10 {
        for end in start..=10 {
            assert_eq!(block_on(source.read(start as u64, end - start)).unwrap(), all[start..end], "{start}..{end}");
        }
    }
    assert!(block_on(source.read(9, 2)).is_err());
    assert!(block_on(source.read(u64::MAX, 2)).is_err());
}
