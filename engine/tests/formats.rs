//! The GGUF reader against crafted and damaged files, and dequantization against the `gguf` Python package.

use std::path::PathBuf;

use doppler_engine::formats::gguf_write::{TensorData, write};
use doppler_engine::formats::{Array, DType, FormatError, Gguf, Metadata, Value, dequantize};

/// Every value type, nested arrays, tensors of several formats.
fn sample() -> Metadata {
    let mut m = Metadata::new();
    m.insert("general.architecture", Value::String("llama".to_owned()));
    m.insert("general.alignment", Value::U32(64));
    m.insert("a.u8", Value::U8(200));
    m.insert("a.i8", Value::I8(-3));
    m.insert("a.u16", Value::U16(60_000));
    m.insert("a.i16", Value::I16(-300));
    m.insert("a.i32", Value::I32(-70_000));
    m.insert("a.f32", Value::F32(1e-5));
    m.insert("a.bool", Value::Bool(true));
    m.insert("a.u64", Value::U64(1 << 40));
    m.insert("a.i64", Value::I64(-1));
    m.insert("a.f64", Value::F64(0.1));
    m.insert("a.strings", Value::Array(Array::String(["", "é", "🚀"].map(str::to_owned).into())));
    m.insert("a.ints", Value::Array(Array::I32(vec![1, 2, 3])));
    m.insert("a.floats", Value::Array(Array::F32(vec![0.5, -0.5])));
    m.insert("a.bools", Value::Array(Array::Bool(vec![true, false])));
    m.insert("a.nested", Value::Array(Array::Array(vec![Array::U8(vec![1]), Array::String(vec!["x".to_owned()])])));
    m
}

fn sample_file() -> Vec<u8> {
    let tensors = [
        TensorData { name: "token_embd.weight", dtype: DType::Q8_0, shape: &[64, 3], data: &[1; 204] },
        TensorData { name: "norm.weight", dtype: DType::F32, shape: &[5], data: &[2; 20] },
        TensorData { name: "odd.weight", dtype: DType::Unknown(77), shape: &[8], data: &[] },
    ];
    write(&sample(), &tensors)
}

fn whole(bytes: &[u8]) -> Result<doppler_engine::formats::Checkpoint, FormatError> {
    Gguf::parse(bytes, Some(bytes.len() as u64))
}

/// `GGUF`, version, counts, then `rest`.
fn header(version: u32, tensors: u64, entries: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(tensors.to_le_bytes());
    out.extend(entries.to_le_bytes());
    for part in rest {
        out.extend_from_slice(part);
    }
    out
}

/// A GGUF string.
fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A tensor description.
fn tensor(name: &str, shape: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let dimensions: Vec<u8> = shape.iter().flat_map(|d| d.to_le_bytes()).collect();
    [&string(name)[..], &(shape.len() as u32).to_le_bytes(), &dimensions, &dtype.to_le_bytes(), &offset.to_le_bytes()].concat()
}

#[test]
fn gguf_written_file_reads_back() {
    let file = sample_file();
    let checkpoint = whole(&file).unwrap();
    assert_eq!(checkpoint.metadata, sample());
    let embedding = checkpoint.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.dtype, embedding.elements(), embedding.bytes), (DType::Q8_0, 192, 204));
    assert_eq!(embedding.offset % 64, 0);
    assert_eq!(file[embedding.offset as usize..][..204], [1; 204]);
    let norm = checkpoint.tensor("norm.weight").unwrap();
    assert_eq!(file[norm.offset as usize..][..20], [2; 20]);
    assert_eq!(checkpoint.tensor("odd.weight").unwrap().dtype, DType::Unknown(77));
    assert_eq!(checkpoint.tensor("x"), Err(FormatError::MissingTensor { name: "x".to_owned() }));
    // Version 2 has the same layout.
    let mut old = file;
    old[4] = 2;
    assert!(whole(&old).is_ok());
}

#[test]
fn metadata_typed_access_checks_types() {
    let m = sample();
    assert_eq!((m.u32("a.u8"), m.u32("a.u16"), m.u64("a.u64")), (Ok(200), Ok(60_000), Ok(1 << 40)));
    assert_eq!((m.f32("a.f32"), m.f32("a.f64"), m.f32("a.u8")), (Ok(1e-5), Ok(0.1), Ok(200.0)));
    assert_eq!((m.bool("a.bool"), m.str("general.architecture")), (Ok(true), Ok("llama")));
    assert_eq!((m.u32_array("a.ints"), m.string_array("a.strings").map(<[String]>::len)), (Ok(vec![1, 2, 3]), Ok(3)));
    assert_eq!((m.u32_opt("none"), m.str_opt("none"), m.string_array_opt("none")), (Ok(None), Ok(None), Ok(None)));
    for key in ["a.i8", "a.u64", "a.bool", "a.strings"] {
        assert!(matches!(m.u32(key), Err(FormatError::WrongType { key: k, .. }) if k == key), "{key}");
    }
    assert_eq!(m.u32("none"), Err(FormatError::MissingKey { key: "none".to_owned() }));
}

/// Whatever part of the file is given, the header is read, more is asked for, or the missing bytes are counted.
#[test]
fn gguf_cut_at_any_length_is_truncated() {
    let file = sample_file();
    let header = whole(&file).unwrap().tensors[0].offset as usize;
    assert!(matches!(whole(&[]), Err(FormatError::NotGguf { .. })));
    for n in 1..file.len() {
        match whole(&file[..n]) {
            Err(FormatError::Truncated { needed, missing, at_least }) => {
                assert_eq!(needed, n as u64 + missing, "{n}");
                // Of a cut header nobody knows how long it would be.
                assert!(at_least || n > header - 64, "{n}");
                assert!(!at_least || n < header, "{n}");
            }
            other => panic!("{n}: {other:?}"),
        }
        match Gguf::parse(&file[..n], Some(file.len() as u64)) {
            Err(FormatError::NeedMore { at_least }) => {
                assert!(at_least > n as u64 && at_least <= file.len() as u64, "{n}");
            }
            Ok(_) => assert!(n > header - 64, "{n}"),
            Err(error) => panic!("{n}: {error}"),
        }
        assert!(!matches!(Gguf::parse(&file[..n], None), Err(FormatError::Truncated { .. })), "{n}");
    }
    assert_eq!(
        whole(&file[..file.len() - 1]).unwrap_err(),
        FormatError::Truncated { needed: file.len() as u64, missing: 1, at_least: false }
    );
}

#[test]
fn gguf_malformed_fields_are_refused_by_name() {
    let fails = |bytes: &[u8]| whole(bytes).unwrap_err().to_string();
    let big = 1_u64 << 60;
    let entry = |key: &str, id: u32, value: &[u8]| header(3, 0, 1, &[&string(key), &id.to_le_bytes(), value]);
    let array = |id: u32, n: u64| [&id.to_le_bytes()[..], &n.to_le_bytes()].concat();
    assert!(fails(b"PK\x03\x04........").contains("not a GGUF file"));
    assert!(fails(b"GGUF\0\0\0\x03........").contains("big-endian"));
    assert!(fails(&header(1, 0, 0, &[])).contains("version 1"));
    assert!(fails(&header(3, big, 0, &[])).contains("number of tensors"));
    assert!(fails(&header(3, 0, big, &[])).contains("number of metadata entries"));
    assert!(fails(&header(3, 0, 60_000, &[])).contains("incomplete"));
    assert!(fails(&header(3, 200_000, 0, &[])).contains("incomplete"));
    assert!(fails(&header(3, 0, 1, &[&big.to_le_bytes(), &[0; 16]])).contains("metadata key"));
    assert!(fails(&entry("k", 8, &big.to_le_bytes())).contains("metadata string"));
    assert!(fails(&entry("k", 8, &9_u64.to_le_bytes())).contains("incomplete"));
    assert!(fails(&entry("k", 9, &array(8, big))).contains("length of an array"));
    assert!(fails(&entry("k", 9, &array(8, 1 << 23))).contains("incomplete"));
    assert!(fails(&entry("k", 9, &array(12, 1 << 23))).contains("incomplete"));
    assert!(fails(&entry("k", 9, &array(9, 1).repeat(9))).contains("nesting"));
    assert!(fails(&entry("k", 13, &[0; 8])).contains("unknown value type 13"));
    assert!(fails(&entry("k", 9, &array(13, 0))).contains("unknown value type 13"));
    assert!(fails(&entry("k", 7, &[2])).contains("boolean"));
    assert!(fails(&entry("", 0, &[0])).contains("empty or occurs twice"));
    assert!(fails(&entry("general.alignment", 4, &48_u32.to_le_bytes())).contains("alignment"));
    let twice = [&string("k")[..], &0_u32.to_le_bytes(), &[0]].concat();
    assert!(fails(&header(3, 0, 2, &[&twice, &twice])).contains("occurs twice"));

    let tensors = |infos: &[Vec<u8>]| {
        let parts: Vec<&[u8]> = infos.iter().map(Vec::as_slice).collect();
        let mut file = header(3, infos.len() as u64, 0, &parts);
        file.resize(file.len() + 256, 0);
        fails(&file)
    };
    assert!(tensors(&[tensor("t", &[8], 0, 0), tensor("t", &[8], 0, 32)]).contains("occurs twice"));
    assert!(tensors(&[tensor("t", &[8], 0, 4)]).contains("not aligned"));
    assert!(tensors(&[tensor("t", &[8], 0, u64::MAX - 31)]).contains("out of range"));
    assert!(tensors(&[tensor("t", &[8], 0, 1 << 40)]).contains("incomplete"));
    assert!(tensors(&[tensor("t", &[u64::MAX, 2], 0, 0)]).contains("too many elements"));
    assert!(tensors(&[tensor("t", &[1 << 63], 0, 0)]).contains("too many bytes"));
    assert!(tensors(&[tensor("t", &[0], 0, 0)]).contains("no elements"));
    assert!(tensors(&[tensor("t", &[33], 8, 0)]).contains("block size"));
    assert!(tensors(&[tensor("t", &[1; 5], 0, 0)]).contains("dimensions"));
    assert!(tensors(&[tensor("t", &[16], 0, 0), tensor("u", &[8], 0, 32)]).contains("overlaps"));
}

/// Deterministic mutations of a small file: an error or a checkpoint, never a panic.
#[test]
fn gguf_mutated_bytes_never_panic() {
    let file = sample_file();
    let header = whole(&file).unwrap().tensors[0].offset as usize;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let mut refused = 0;
    for _ in 0..4000 {
        let mut bytes = file.clone();
        for _ in 0..=random(3) {
            let at = random(header);
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                2 => bytes[at..(at + 8).min(header)].fill(0xff),
                _ => drop(bytes.remove(at)),
            }
        }
        let len = bytes.len() as u64;
        refused += usize::from(Gguf::parse(&bytes, Some(len)).is_err());
        let _ = Gguf::parse(&bytes[..random(bytes.len())], None);
    }
    assert!(refused > 2000, "only {refused} refused");
}

#[test]
fn dequantize_equals_gguf_package() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/quants/quants.json");
    let fixture: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let hex = |value: &serde_json::Value| -> Vec<u8> {
        value.as_str().unwrap().as_bytes().chunks(2).map(|h| u8::from_str_radix(str::from_utf8(h).unwrap(), 16).unwrap()).collect()
    };
    assert_eq!(fixture.as_object().unwrap().len(), DType::supported().count());
    for dtype in DType::supported() {
        let case = &fixture[dtype.name()];
        let want: Vec<u32> = hex(&case["values"]).chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut values = Vec::new();
        let blocks = hex(&case["blocks"]);
        dequantize(dtype, &blocks, &mut values).unwrap();
        assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), want, "{dtype}");
        assert!(matches!(dequantize(dtype, &blocks[1..], &mut values), Err(FormatError::PartialBlock { .. })));
        assert!(dtype.is_supported());
    }
    let error = dequantize(DType::IQ2_XXS, &[], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("IQ2_XXS is not supported; use one of F32, F16"), "{error}");
    for id in 0..64 {
        assert_eq!(DType::from_ggml(id).ggml_id(), id);
    }
}
