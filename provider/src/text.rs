//! Text as files hold it: UTF-8, in front of which some editors write a byte order mark.

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// It begins with the mark of UTF-16.
    #[error("it is UTF-16 text: save it as UTF-8")]
    Utf16,
    /// It is not UTF-8 from this byte on.
    #[error("it is not UTF-8 text (byte {0})")]
    NotUtf8(usize),
}

/// The text of a file, without a byte order mark.
///
/// # Errors
/// It is not UTF-8.
pub fn decode(bytes: Vec<u8>) -> Result<String, NotText> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(NotText::Utf16);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(unmarked(text)),
        Err(error) => Err(NotText::NotUtf8(error.utf8_error().valid_up_to())),
    }
}

/// Text without the byte order mark in front of it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The same for text that one owns. Nothing is copied where there is no mark.
pub fn unmarked(text: String) -> String {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Bytes without the byte order mark of UTF-8 in front of them.
pub fn bytes_without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        assert_eq!(decode(b"\xef\xbb\xbfconst".to_vec()).as_deref(), Ok("const"));
        assert_eq!(decode(b"const".to_vec()).as_deref(), Ok("const"));
        assert_eq!(without_mark("\u{feff}x"), "x");
        assert_eq!(unmarked("\u{feff}x".to_owned()), "x");
        assert_eq!(bytes_without_mark(b"\xef\xbb\xbfx"), b"x");
        // Only in front.
        assert_eq!(without_mark("x\u{feff}"), "x\u{feff}");
    }

    #[test]
    fn what_is_no_utf_8_is_said_in_words() {
        assert_eq!(decode(b"\xff\xfec\0".to_vec()), Err(NotText::Utf16));
        assert_eq!(
            decode(b"ab\xe9".to_vec()).expect_err("latin").to_string(),
            "it is not UTF-8 text (byte 2)"
        );
    }
}
