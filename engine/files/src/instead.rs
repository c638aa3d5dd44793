//! What was saved under the name of a GGUF file instead of one.

/// Bytes at the start of a file, what they are the start of, and what to do.
const STARTS: &[(&[u8], &str)] = &[
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which only names the model: run `git lfs pull` in its folder, or download the file itself",
    ),
    (b"oid sha256:", "a Git LFS pointer, which only names the model: run `git lfs pull` in its folder, or download the file itself"),
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint: unpack it, or choose the GGUF file of the model"),
    (b"PK\x05\x06", "an empty zip archive: download the GGUF file of the model"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"\xfd7zXZ\0", "an xz archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (b"\x04\"M\x18", "an LZ4 archive: unpack it"),
    (b"\x80\x02", "a PyTorch checkpoint: choose the GGUF file of the model, or its folder with safetensors"),
    (b"\x80\x03", "a PyTorch checkpoint: choose the GGUF file of the model, or its folder with safetensors"),
    (b"\x80\x04", "a PyTorch checkpoint: choose the GGUF file of the model, or its folder with safetensors"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: choose the GGUF file of the model"),
    (b"\x93NUMPY", "a NumPy array: choose the GGUF file of the model"),
    (b"lmgg", "a model in the GGML format of before August 2023: download it as GGUF"),
    (b"fmgg", "a model in the GGML format of before August 2023: download it as GGUF"),
    (b"tjgg", "a model in the GGML format of before August 2023: download it as GGUF"),
    (b"algg", "a LoRA adapter in the GGML format of before August 2023: choose the model that it is for"),
    (b"%PDF", "a PDF document: download the GGUF file of the model"),
    (b"\x89PNG", "a picture: download the GGUF file of the model"),
    (b"\xff\xd8\xff", "a picture: download the GGUF file of the model"),
    (b"SQLite format 3\0", "a SQLite database: choose the GGUF file of the model"),
    (b"\x7fELF", "a program: download the GGUF file of the model"),
    (b"MZ", "a program: download the GGUF file of the model"),
];

/// What a file is that begins with `start` (some kilobytes are enough), where that is known, and what to do: `a web page: …`.
pub fn instead(start: &[u8]) -> Option<&'static str> {
    let known = STARTS.iter().find(|(bytes, _)| start.starts_with(bytes)).map(|(_, what)| *what);
    known.or_else(|| text(start)).or_else(|| structure(start))
}

/// The same of a file that should begin with `GGUF`: there is always something to say.
pub fn instead_of_gguf(start: &[u8]) -> String {
    instead(start).map_or_else(
        || format!("a file of another kind, which begins with {:02x?}: choose a GGUF file", &start[..start.len().min(4)]),
        str::to_owned,
    )
}

/// Formats that are told by more than their first bytes.
fn structure(start: &[u8]) -> Option<&'static str> {
    if start.is_empty() {
        Some("empty: download it again")
    } else if start.iter().all(|byte| *byte == 0) {
        Some("a file of zeros: its place was reserved and its download did not begin; download it again")
    } else if start.first_chunk().is_some_and(|length| u64::from_le_bytes(*length) < 1 << 28) && start.get(8) == Some(&b'{') {
        Some("a safetensors file: choose the folder of the model with its config.json and tokenizer.json")
    } else if start.get(257..262) == Some(b"ustar") {
        Some("a tar archive: unpack it")
    } else if start.get(4..8) == Some(b"TFL3") {
        Some("a TensorFlow Lite model: choose the GGUF file of the model")
    } else {
        None
    }
}

/// What text was saved.
fn text(start: &[u8]) -> Option<&'static str> {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let valid = match str::from_utf8(start) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let text = valid.trim_start();
    if text.is_empty() || text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let begins = |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    Some(if ["<!doctype html", "<html", "<head", "<body", "<!--"].iter().any(|tag| begins(tag)) {
        "a web page: the download led to a login or an error; open its address in a browser, log in if it asks, and download the file itself"
    } else if begins("<?xml") || begins("<error") {
        "a server's error message (XML): download it again from its page"
    } else if text.starts_with(['{', '[']) {
        "JSON, perhaps a server's error message: download it again from its page, or choose the folder of the model"
    } else {
        "text, perhaps a server's error message: open it in an editor to see why, then download it again"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_of_other_kinds_are_named() {
        let cut = "é".repeat(100);
        let cases: &[(&[u8], &str)] = &[
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS pointer"),
            (b"<!DOCTYPE html><html class=\"\">", "web page"),
            (b"\xef\xbb\xbf\n  <HTML>", "web page"),
            (b"<?xml version=\"1.0\"?><Error>", "error message (XML)"),
            (b"{\"error\":\"Repository not found\"}", "JSON"),
            (b"Invalid username or password.", "text"),
            (&cut.as_bytes()[..199], "text"),
            (&[0; 4096], "zeros"),
            (b"", "empty"),
            (b"PK\x03\x04\x14\0", "zip archive"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\x40\0\0\0\0\0\0\0{\"__metadata__\"", "safetensors"),
            (b"tjgg\x03\0\0\0", "GGML format"),
            (b"\x80\x02}q\0", "PyTorch"),
            (b"\xde\xad\xbe\xef\x01", "begins with [de, ad, be, ef]"),
            (b"\x01", "begins with [01]"),
        ];
        for (start, words) in cases {
            let what = instead_of_gguf(start);
            assert!(what.contains(words) && what.contains(": "), "{words}: {what}");
        }
    }
}
