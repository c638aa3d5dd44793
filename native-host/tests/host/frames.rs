//! Frames and ranges, for any input.

use std::io::{self, ErrorKind, Read};

use doppler_host::frame::{self, Frame, MAX_FRAME, MAX_INPUT, MAX_OUTPUT};
use doppler_host::range;
use serde_json::{Value, json};

use crate::process::Random;

/// A pipe that gives a few bytes at a time.
struct Dribble<'a>(&'a [u8], Random);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1 + self.1.below(7) as usize);
        self.0.read(&mut buffer[..most])
    }
}

fn message(random: &mut Random) -> Value {
    let text: String = (0..random.below(40)).map(|_| char::from_u32(random.below(0xd800) as u32).expect("no surrogate")).collect();
    json!({ "id": random.below(1 << 31), "text": text, "list": vec![Value::Null; random.below(5) as usize] })
}

/// What is written is read again, however the pipe cuts it; a cut pipe gives whole messages and then its end.
#[test]
fn frames_split_anywhere_are_read() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let messages: Vec<Value> = (0..random.below(6)).map(|_| message(&mut random)).collect();
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for message in &messages {
            frame::write(&mut bytes, message).expect("short enough");
            ends.push(bytes.len());
        }
        let cut = random.below(bytes.len() as u64 + 1) as usize;
        for length in [bytes.len(), cut] {
            let mut pipe = Dribble(&bytes[..length], Random(seed));
            let whole = ends.iter().filter(|&&end| end <= length).count() - 1;
            for message in &messages[..whole] {
                let Frame::Message(bytes) = frame::read(&mut pipe).expect("a frame") else { panic!("too few frames") };
                assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("JSON"), *message);
            }
            assert_eq!(frame::read(&mut pipe).expect("no failure"), Frame::Closed);
        }
    }
}

#[test]
fn frame_length_is_bounded() {
    for (length, expected) in [
        (0, Frame::Message(Vec::new())),
        (MAX_INPUT, Frame::Closed),
        (MAX_FRAME, Frame::Closed),
        (MAX_FRAME + 1, Frame::TooLong(MAX_FRAME + 1)),
    ] {
        assert_eq!(frame::read(&mut &length.to_ne_bytes()[..]).expect("no failure"), expected);
    }
    // Longer than any message and no longer than a frame: passed over, and the next one is read.
    let long = vec![b'x'; MAX_INPUT as usize + 1];
    let mut pipe =
        (MAX_INPUT + 1).to_ne_bytes().into_iter().chain(long).chain([1, 0, 0, 0, b'3']).collect::<std::collections::VecDeque<u8>>();
    assert_eq!(frame::read(&mut pipe).expect("no failure"), Frame::Skipped(MAX_INPUT + 1));
    assert_eq!(frame::read(&mut pipe).expect("no failure"), Frame::Message(b"3".to_vec()));
    // Two quotes around it.
    for (length, fits) in [(MAX_OUTPUT - 2, true), (MAX_OUTPUT - 1, false)] {
        let mut output = Vec::new();
        let written = frame::write(&mut output, &Value::String("x".repeat(length)));
        assert_eq!(
            (written.map_err(|error| error.kind()), output.is_empty()),
            (if fits { Ok(()) } else { Err(ErrorKind::InvalidInput) }, !fits)
        );
    }
}

#[test]
fn range_header_accepts_one_range() {
    for (value, expected) in [
        ("bytes=0-0", Some(0..1)),
        ("bytes=0-99", Some(0..100)),
        ("bytes=10-1000", Some(10..100)),
        ("bytes=99-", Some(99..100)),
        ("bytes=-1", Some(99..100)),
        ("bytes=-1000", Some(0..100)),
        ("bytes=0-18446744073709551615", Some(0..100)),
        ("bytes=100-", None),
        ("bytes=100-200", None),
        ("bytes=5-4", None),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0-1, 3-4", None),
        ("bytes=+0-1", None),
        ("bytes=0-+1", None),
        ("bytes=0x0-1", None),
        ("bytes=0--1", None),
        ("bytes= 0-1", None),
        ("bytes 0-1", None),
        ("Bytes=0-1", None),
        ("items=0-1", None),
        ("bytes=18446744073709551616-", None),
        ("", None),
    ] {
        assert_eq!(range::parse(value, 100), expected, "{value}");
        assert_eq!(range::parse(value, 0), None, "{value} of an empty file");
    }
    let mut random = Random(1);
    for _ in 0..10_000 {
        let (first, last, length) = (random.below(50), random.below(50), random.below(50));
        let expected = (first <= last && first < length).then(|| first..length.min(last + 1));
        assert_eq!(range::parse(&format!("bytes={first}-{last}"), length), expected);
    }
}
