//! A JSON object written straight into a byte buffer: no tree, no allocation.

/// One object. Members come in the order in which they are written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// `name` must need no escaping.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        let mut digits = itoa::Buffer::new();
        self.name(name).extend_from_slice(digits.format(value).as_bytes());
    }

    /// Microseconds as milliseconds with three decimals.
    pub(super) fn millis(&mut self, name: &str, micros: u64) {
        let mut digits = itoa::Buffer::new();
        let out = self.name(name);
        out.extend_from_slice(digits.format(micros / 1000).as_bytes());
        let rest = micros % 1000;
        let decimal = |n: u64| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', decimal(rest / 100), decimal(rest / 10), decimal(rest)]);
    }

    pub(super) fn text(&mut self, name: &str, value: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        escape(value, out);
        out.push(b'"');
    }

    /// A value's `Display`, whose output must need no escaping (an address, a number).
    pub(super) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write;
        let out = self.name(name);
        out.push(b'"');
        // Writing into a vector does not fail.
        let _ = write!(out, "{value}");
        out.push(b'"');
    }
}

/// Escapes as RFC 8259 section 7 asks. What is not UTF-8 becomes U+FFFD, so that a line is always valid JSON.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    if value
        .iter()
        .all(|b| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\')
    {
        out.extend_from_slice(value);
        return;
    }
    for part in value.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                c if c < ' ' || c == '\u{7f}' => {
                    let hex = |n: u32| b"0123456789abcdef"[(n & 15) as usize];
                    out.extend_from_slice(&[
                        b'\\',
                        b'u',
                        b'0',
                        b'0',
                        hex(u32::from(c) >> 4),
                        hex(u32::from(c)),
                    ]);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_become_valid_json_that_says_the_same(bytes: Vec<u8>, micros in 0u64..1 << 50) {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out);
            object.text("text", &bytes);
            object.millis("ms", micros);
            object.number("n", micros);
            object.end();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let invalid = bytes.utf8_chunks().map(|c| c.valid().to_owned() + if c.invalid().is_empty() { "" } else { "\u{fffd}" });
            prop_assert_eq!(value["text"].as_str().unwrap(), invalid.collect::<String>());
            prop_assert_eq!(value["n"].as_u64().unwrap(), micros);
            prop_assert!((value["ms"].as_f64().unwrap() - micros as f64 / 1000.0).abs() < 0.001 + micros as f64 * 1e-12);
        }
    }
}
