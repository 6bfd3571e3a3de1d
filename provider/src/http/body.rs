//! Bodies of answers: read to a bound, unpacked, and turned into text.

use std::io::Read as _;

use reqwest::{
    Response,
    header::{self, HeaderMap},
};

/// A body that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// What it holds, unpacked; no more than was asked for.
    pub bytes: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The connection failed within it.
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    /// It is packed in a way that is not known here, or is damaged.
    #[error("{0}")]
    Packed(String),
}

/// Reads at most `max` bytes of a body, counted after it is unpacked: a small answer may hold a very long one.
///
/// # Errors
/// The connection failed, or the body cannot be unpacked.
pub async fn read(response: &mut Response, max: usize) -> Result<Body, Unreadable> {
    let mut body = Body::default();
    while let Some(chunk) = response.chunk().await? {
        let room = max - body.bytes.len();
        body.bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            body.truncated = true;
            break;
        }
    }
    unpack(response.headers(), body, max).map_err(Unreadable::Packed)
}

/// Undoes the `Content-Encoding`, the last one first.
fn unpack(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Body, String> {
    let names: Vec<String> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity")
        .collect();
    for name in names.iter().rev() {
        // An answer without a body, to `HEAD` or with 304, still says how it would be packed.
        if body.bytes.is_empty() {
            break;
        }
        body = match &**name {
            "gzip" | "x-gzip" => inflate(flate2::read::MultiGzDecoder::new(&*body.bytes), &body, max),
            // Meant is zlib (RFC 1950); some servers send the bare stream (RFC 1951).
            "deflate" if body.bytes[0] & 0x0f == 8 => {
                inflate(flate2::read::ZlibDecoder::new(&*body.bytes), &body, max)
            }
            "deflate" => inflate(flate2::read::DeflateDecoder::new(&*body.bytes), &body, max),
            other => {
                return Err(format!(
                    "the body is packed in a way that is not supported (content-encoding: {other})"
                ));
            }
        }
        .map_err(|_| format!("the body is damaged: it cannot be unpacked (content-encoding: {name})"))?;
    }
    Ok(body)
}

fn inflate(stream: impl std::io::Read, packed: &Body, max: usize) -> std::io::Result<Body> {
    let mut bytes = Vec::new();
    let read = stream.take(max as u64 + 1).read_to_end(&mut bytes);
    if let Err(error) = read
        && !packed.truncated
    {
        return Err(error);
    }
    let truncated = packed.truncated || bytes.len() > max;
    bytes.truncate(max);
    Ok(Body { bytes, truncated })
}

/// Text as UTF-8 without a byte order mark. It is in the character set of the mark or of the `Content-Type`; without either, and with
/// one that is not known here, it stays as it is.
pub fn into_utf8(headers: &HeaderMap, bytes: Vec<u8>) -> Vec<u8> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, _) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16_lossy(&units).into_bytes()
    };
    match &*bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => return rest.to_vec(),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        _ => {}
    }
    match &*charset(headers).unwrap_or_default() {
        "iso-8859-1" | "latin1" | "windows-1252" | "cp1252" => {
            bytes.iter().map(|byte| windows_1252(*byte)).collect::<String>().into_bytes()
        }
        "utf-16be" => utf16(&bytes, u16::from_be_bytes),
        "utf-16" | "utf-16le" => utf16(&bytes, u16::from_le_bytes),
        _ => bytes,
    }
}

/// Bytes as text, as [`into_utf8`]. What is not a character becomes `\u{fffd}`.
pub fn text(headers: &HeaderMap, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&into_utf8(headers, bytes.to_vec())).into_owned()
}

/// The `charset` of the `Content-Type`, in lower case.
fn charset(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let set = kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })?;
    Some(set.to_ascii_lowercase())
}

/// A character of windows-1252, as which browsers read ISO 8859-1 too (<https://encoding.spec.whatwg.org/#index-windows-1252>).
fn windows_1252(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write};
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a header"))])
    }

    fn unpacked(encoding: &str, bytes: &[u8], max: usize) -> Result<Body, String> {
        let body = Body { bytes: bytes[..bytes.len().min(max)].to_vec(), truncated: bytes.len() > max };
        unpack(&headers(header::CONTENT_ENCODING, encoding), body, max)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = write::GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes).expect("packed");
        packer.finish().expect("packed")
    }

    #[test]
    fn packed_bodies_are_unpacked_and_others_named() {
        let text = b"{\"status\":\"UP\"}";
        let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).expect("packed");
        let zlib = zlib.finish().expect("packed");
        let mut bare = write::DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(text).expect("packed");
        let bare = bare.finish().expect("packed");
        for (encoding, bytes) in [
            ("gzip", gzip(text)),
            ("X-GZIP", gzip(text)),
            ("deflate", zlib.clone()),
            ("deflate", bare),
            ("deflate, gzip", gzip(&zlib)),
            ("identity", text.to_vec()),
            ("gzip", [gzip(&text[..5]), gzip(&text[5..])].concat()),
        ] {
            assert_eq!(unpacked(encoding, &bytes, 1000).map(|b| b.bytes), Ok(text.to_vec()), "{encoding}");
        }
        assert_eq!(unpacked("gzip", b"", 1000), Ok(Body::default()));
        let error = unpacked("br", text, 1000).expect_err("not known");
        assert!(error.ends_with("(content-encoding: br)"), "{error}");
        let error = unpacked("gzip", text, 1000).expect_err("not packed");
        assert_eq!(error, "the body is damaged: it cannot be unpacked (content-encoding: gzip)");
    }

    #[test]
    fn no_more_is_unpacked_than_is_asked_for() {
        let bomb = gzip(&vec![b'x'; 10 << 20]);
        assert!(bomb.len() < 20_000);
        let body = unpacked("gzip", &bomb, 20_000).expect("unpacked");
        assert_eq!((body.bytes.len(), body.truncated), (20_000, true));
        // One of which only the beginning was read.
        let mut random = fastrand::Rng::with_seed(1);
        let long: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(50_000).collect();
        let body = unpacked("gzip", &gzip(&long), 20_000).expect("unpacked");
        assert!(body.truncated && long.starts_with(&body.bytes) && body.bytes.len() > 10_000);
    }

    #[test]
    fn text_is_read_in_its_character_set() {
        for (kind, bytes, want) in [
            ("text/plain", "é€".as_bytes(), "é€"),
            ("text/plain", b"\xef\xbb\xbf{}", "{}"),
            ("text/plain; charset=ISO-8859-1", b"\xe9 \x80", "é €"),
            ("text/plain; format=flowed; Charset=\"windows-1252\"", b"\x93x\x94", "“x”"),
            ("text/plain; charset=utf-16le", b"h\0i\0", "hi"),
            ("text/plain", b"\xfe\xff\0h\0i", "hi"),
            ("text/plain; charset=utf-8", b"\xff!", "\u{fffd}!"),
        ] {
            assert_eq!(text(&headers(header::CONTENT_TYPE, kind), bytes), want, "{kind}");
        }
        assert_eq!(text(&HeaderMap::new(), b"ok"), "ok");
    }
}
