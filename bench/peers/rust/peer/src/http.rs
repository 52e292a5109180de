//! The requests and answers of the peers without an HTTP library: strict where it costs nothing, and no more.

use std::borrow::Cow;
use std::io::Write;

use crate::kafka::Outcome;

/// Bytes to have room for before each read: a usual request comes whole.
pub const READ_BYTES: usize = 8192;
pub const HEAD_BYTES: usize = 16 * 1024;
/// librdkafka's own limit for a record, `message.max.bytes`.
pub const CONTENT_BYTES: usize = 1_000_000;

pub const QUEUED: &[u8] = br#"{"promise":"queued"}"#;
pub const FULL: &[u8] = br#"{"message":"no room for the record in time"}"#;
pub const FAILED: &[u8] = br#"{"message":"Kafka did not report the record as written"}"#;

/// Where a whole request is in the bytes that were read.
pub struct Request {
    content: usize,
    /// Where the next request begins.
    pub end: usize,
    pub keep_alive: bool,
}

impl Request {
    pub fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.content..self.end]
    }
}

/// The first request in `bytes`, `None` until all of it is there, or the status to refuse it with.
pub fn read(bytes: &[u8]) -> Result<Option<Request>, u16> {
    let mut at = 0;
    let Some(first) = line(bytes, &mut at)? else {
        return Ok(None);
    };
    let (method, mut keep_alive) = request_line(first)?;
    let mut length = None;
    loop {
        let Some(line) = line(bytes, &mut at)? else {
            return Ok(None);
        };
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|&byte| byte == b':').ok_or(400_u16)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|byte| !byte.is_ascii_graphic()) {
            return Err(400);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(400);
            }
            length = Some(number(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(if value.eq_ignore_ascii_case(b"chunked") { 411 } else { 501 });
        } else if name.eq_ignore_ascii_case(b"connection") {
            let mut options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            keep_alive &= !options.any(|option| option.eq_ignore_ascii_case(b"close"));
        }
    }
    if method != b"POST" {
        return Err(405);
    }
    let length = length.unwrap_or(0);
    if length > CONTENT_BYTES {
        return Err(413);
    }
    let end = at + length;
    Ok((bytes.len() >= end).then_some(Request { content: at, end, keep_alive }))
}

/// The line of the head that begins `at`, without its end, and then `at` behind it; `None` until it is whole.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, u16> {
    let head = &bytes[*at..bytes.len().min(HEAD_BYTES)];
    match head.iter().position(|&byte| byte == b'\n') {
        Some(length) => {
            *at += length + 1;
            head[..length].strip_suffix(b"\r").map(Some).ok_or(400)
        }
        None if bytes.len() < HEAD_BYTES => Ok(None),
        None => Err(431),
    }
}

/// The method, and whether the connection stays open where no field says otherwise.
fn request_line(line: &[u8]) -> Result<(&[u8], bool), u16> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(400);
    };
    if method.is_empty() || target.is_empty() {
        return Err(400);
    }
    match version {
        b"HTTP/1.1" => Ok((method, true)),
        b"HTTP/1.0" => Ok((method, false)),
        _ => Err(505),
    }
}

fn number(digits: &[u8]) -> Result<usize, u16> {
    if digits.is_empty() || digits.len() > 12 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(400);
    }
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

impl Outcome {
    pub fn status(&self) -> u16 {
        match self {
            Self::Queued => 202,
            Self::Delivered { .. } => 200,
            Self::Full => 503,
            Self::Failed => 504,
        }
    }

    pub fn content(&self, topic: &str) -> Cow<'static, [u8]> {
        match self {
            Self::Queued => Cow::Borrowed(QUEUED),
            Self::Full => Cow::Borrowed(FULL),
            Self::Failed => Cow::Borrowed(FAILED),
            Self::Delivered { partition, offset } => Cow::Owned(
                format!(r#"{{"topic":"{topic}","partition":{partition},"offset":{offset}}}"#).into_bytes(),
            ),
        }
    }
}

/// Put an answer in the place of what `answer` had.
pub fn write(answer: &mut Vec<u8>, status: u16, content: &[u8], keep_alive: bool) {
    answer.clear();
    answer.extend_from_slice(b"HTTP/1.1 ");
    answer.extend_from_slice(reason(status).as_bytes());
    let length = content.len();
    write!(answer, "\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n")
        .expect("a vector takes what it gets");
    if !keep_alive {
        answer.extend_from_slice(b"Connection: close\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(content);
}

/// A request was refused with this status: the connection ends with it.
pub fn refuse(answer: &mut Vec<u8>, status: u16) {
    write(answer, status, &refusal(status), false);
}

pub fn refusal(status: u16) -> Vec<u8> {
    let reason = reason(status).lines().next().unwrap_or_default();
    format!(r#"{{"message":"{reason}"}}"#).into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        202 => "202 Accepted",
        405 => "405 Method Not Allowed\r\nAllow: POST",
        411 => "411 Length Required",
        413 => "413 Content Too Large",
        431 => "431 Request Header Fields Too Large",
        501 => "501 Not Implemented",
        503 => "503 Service Unavailable",
        504 => "504 Gateway Timeout",
        505 => "505 HTTP Version Not Supported",
        _ => "400 Bad Request",
    }
}
