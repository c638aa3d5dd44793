//! Frames of native messaging: a length of four bytes in the machine's order, then that many bytes of UTF-8 JSON.
//! See <https://developer.chrome.com/docs/extensions/develop/concepts/native-messaging>.

use std::io::{self, ErrorKind, Read, Write};

use serde_json::Value;

/// The longest message in bytes that is read: the extension's are much shorter.
pub const MAX_INPUT: u32 = 1 << 20;
/// The longest frame in bytes that browsers send.
pub const MAX_FRAME: u32 = 64 << 20;
/// The longest in bytes that they take; a longer one ends the connection.
pub const MAX_OUTPUT: usize = 1 << 20;

/// What came from the browser.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The bytes of one message.
    Message(Vec<u8>),
    /// The length of a message longer than [`MAX_INPUT`], which was passed over.
    Skipped(u32),
    /// A length that no browser sends: what follows cannot be told apart.
    TooLong(u32),
    /// The browser has closed the pipe, also in the middle of a frame.
    Closed,
}

/// Reads the next frame; memory grows with what arrives, not with what the length announces.
///
/// # Errors
/// When reading fails.
pub fn read(input: &mut impl Read) -> io::Result<Frame> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Frame::Closed),
        other => other?,
    }
    let length = u32::from_ne_bytes(length);
    if length > MAX_FRAME {
        return Ok(Frame::TooLong(length));
    }
    if length > MAX_INPUT {
        let skipped = io::copy(&mut input.take(length.into()), &mut io::sink())?;
        return Ok(if skipped == u64::from(length) { Frame::Skipped(length) } else { Frame::Closed });
    }
    let mut message = Vec::new();
    input.take(length.into()).read_to_end(&mut message)?;
    Ok(if message.len() == length as usize { Frame::Message(message) } else { Frame::Closed })
}

/// Writes `message`, at most [`MAX_OUTPUT`] bytes of JSON, as one frame.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is longer, and when writing fails.
pub fn write(output: &mut impl Write, message: &Value) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_OUTPUT {
        return Err(io::Error::new(ErrorKind::InvalidInput, "longer than browsers take"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_ne_bytes());
    output.write_all(&frame)?;
    output.flush()
}
